// RUN: stablenorm-opt %s --passes=skip-places,canonicalize,cse | filecheck %s

// The stride goes up over the ReLU and the bias. An odd size keeps its last place; the padding stays.
// CHECK-LABEL: @plain(
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %arg1)
// CHECK-SAME: window = {stride = [2, 6], pad = {{\[\[}}1, 1], [1, 0]], rhs_dilate = [1, 2]}
// CHECK-SAME: -> tensor<2x4x1x6xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %arg2, dims = [3] : (tensor<6xf32>) -> tensor<2x4x1x6xf32>
// CHECK: %[[S:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: %[[R:.*]] = stablehlo.maximum %[[S]], %{{.*}} : tensor<2x4x1x6xf32>
// CHECK: stablehlo.convolution(%[[R]], %arg3)
// CHECK-SAME: window = {stride = [1, 1]}
// CHECK-NEXT: return
func.func @plain(%x: tensor<2x7x5x3xf32>, %w: tensor<3x3x3x6xf32>, %bias: tensor<6xf32>, %v: tensor<1x1x6x4xf32>)
    -> tensor<2x4x1x4xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<2x7x1x6xf32>
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {stride = [1, 2], pad = [[1, 1], [1, 0]], rhs_dilate = [1, 2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x7x5x3xf32>, tensor<3x3x3x6xf32>) -> tensor<2x7x1x6xf32>
  %1 = stablehlo.broadcast_in_dim %bias, dims = [3] : (tensor<6xf32>) -> tensor<2x7x1x6xf32>
  %2 = stablehlo.add %0, %1 : tensor<2x7x1x6xf32>
  %3 = stablehlo.maximum %2, %zero : tensor<2x7x1x6xf32>
  %y = stablehlo.convolution(%3, %v) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {stride = [2, 3]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x7x1x6xf32>, tensor<1x1x6x4xf32>) -> tensor<2x4x1x4xf32>
  return %y : tensor<2x4x1x4xf32>
}

// The end of a stage of ResNet, and the two convolutions that read it: on by way of a convolution of one place to one of
// three; the residual input, which others read whole, is sliced.
// CHECK-LABEL: @stage(
// CHECK: stablehlo.convolution(%arg0, %arg1)
// CHECK-SAME: stride = [2], pad = {{\[\[}}1, 1]]
// CHECK: %[[C:.*]] = stablehlo.convolution(%{{.*}}, %arg2)
// CHECK-SAME: stride = [1]
// CHECK-SAME: -> tensor<2x3x4xf32>
// CHECK: %[[X:.*]] = stablehlo.slice %arg0 [0:2, 0:6:2, 0:4]
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[X]] : tensor<2x3x4xf32>
// CHECK-COUNT-2: stablehlo.convolution(%[[Y]], %{{.*}}stride = [1]
// CHECK: return
func.func @stage(%x: tensor<2x6x4xf32>, %a: tensor<3x4x5xf32>, %b: tensor<1x5x4xf32>, %c: tensor<1x4x2xf32>,
    %d: tensor<1x4x3xf32>) -> (tensor<2x3x2xf32>, tensor<2x3x3xf32>, tensor<2x6x4xf32>) {
  %0 = stablehlo.convolution(%x, %a) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {pad = [[1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x6x4xf32>, tensor<3x4x5xf32>) -> tensor<2x6x5xf32>
  %1 = stablehlo.convolution(%0, %b) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x6x5xf32>, tensor<1x5x4xf32>) -> tensor<2x6x4xf32>
  %2 = stablehlo.add %1, %x : tensor<2x6x4xf32>
  %3 = stablehlo.convolution(%2, %c) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {stride = [2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x6x4xf32>, tensor<1x4x2xf32>) -> tensor<2x3x2xf32>
  %4 = stablehlo.convolution(%2, %d) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {stride = [2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x6x4xf32>, tensor<1x4x3xf32>) -> tensor<2x3x3xf32>
  return %3, %4, %x : tensor<2x3x2xf32>, tensor<2x3x3xf32>, tensor<2x6x4xf32>
}

// Groups, features first, a clamp with scalar bounds, and a border map that is the same for the whole batch.
// CHECK-LABEL: @clamped(
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %arg1)
// CHECK-SAME: stride = [2]
// CHECK: %[[M:.*]] = stablehlo.slice %arg2 [0:1, 0:4, 0:6:2]
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[M]], dims = [0, 1, 2] : (tensor<1x4x3xf32>) -> tensor<2x4x3xf32>
// CHECK: %[[S:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: stablehlo.clamp %{{.*}}, %[[S]], %{{.*}} : (tensor<f32>, tensor<2x4x3xf32>, tensor<f32>) -> tensor<2x4x3xf32>
// CHECK: return
func.func @clamped(%x: tensor<2x4x6xf32>, %w: tensor<4x2x1xf32>, %map: tensor<1x4x6xf32>, %v: tensor<5x4x1xf32>)
    -> tensor<2x5x3xf32> {
  %low = stablehlo.constant dense<0.0> : tensor<f32>
  %high = stablehlo.constant dense<6.0> : tensor<f32>
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, f, 0]x[o, i, 0]->[b, f, 0], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 2 : i64}
    : (tensor<2x4x6xf32>, tensor<4x2x1xf32>) -> tensor<2x4x6xf32>
  %1 = stablehlo.broadcast_in_dim %map, dims = [0, 1, 2] : (tensor<1x4x6xf32>) -> tensor<2x4x6xf32>
  %2 = stablehlo.add %0, %1 : tensor<2x4x6xf32>
  %3 = stablehlo.clamp %low, %2, %high : (tensor<f32>, tensor<2x4x6xf32>, tensor<f32>) -> tensor<2x4x6xf32>
  %y = stablehlo.convolution(%3, %v) dim_numbers = [b, f, 0]x[o, i, 0]->[b, f, 0], window = {stride = [2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x6xf32>, tensor<5x4x1xf32>) -> tensor<2x5x3xf32>
  return %y : tensor<2x5x3xf32>
}

// Declined: another operation reads every place.
// CHECK-LABEL: @another_reader(
// CHECK: stablehlo.convolution(%arg0, %arg1)
// CHECK-SAME: window = {}
// CHECK: return
func.func @another_reader(%x: tensor<2x6x4xf32>, %w: tensor<2x4x5xf32>, %v: tensor<1x5x2xf32>)
    -> (tensor<2x3x2xf32>, tensor<2x5x5xf32>) {
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x6x4xf32>, tensor<2x4x5xf32>) -> tensor<2x5x5xf32>
  %y = stablehlo.convolution(%0, %v) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {stride = [2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5xf32>, tensor<1x5x2xf32>) -> tensor<2x3x2xf32>
  return %y, %0 : tensor<2x3x2xf32>, tensor<2x5x5xf32>
}

// Declined: the other reader takes the value for its kernel.
// CHECK-LABEL: @kernel_of_another(
// CHECK: stablehlo.convolution(%arg0, %arg1)
// CHECK-SAME: window = {pad = {{\[}}[1, 1]]}
// CHECK: stablehlo.convolution(%arg3, %0)
// CHECK: return
func.func @kernel_of_another(%x: tensor<1x8x5xf32>, %w: tensor<3x8x8xf32>, %v: tensor<1x8x2xf32>,
    %other: tensor<1x8x5xf32>) -> (tensor<1x2x3xf32>, tensor<1x5x3xf32>) {
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, f, 0]x[0, i, o]->[b, f, 0], window = {pad = [[1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x8x5xf32>, tensor<3x8x8xf32>) -> tensor<1x8x5xf32>
  %y = stablehlo.convolution(%0, %v) dim_numbers = [b, f, 0]x[0, i, o]->[b, f, 0], window = {stride = [2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x8x5xf32>, tensor<1x8x2xf32>) -> tensor<1x2x3xf32>
  %z = stablehlo.convolution(%other, %0) dim_numbers = [b, f, 0]x[0, i, o]->[b, f, 0], window = {stride = [2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x8x5xf32>, tensor<1x8x5xf32>) -> tensor<1x5x3xf32>
  return %y, %z : tensor<1x2x3xf32>, tensor<1x5x3xf32>
}

// Declined: readers at different strides.
// CHECK-LABEL: @different_strides(
// CHECK: stablehlo.convolution(%arg0, %arg1)
// CHECK-SAME: window = {}
// CHECK: return
func.func @different_strides(%x: tensor<2x6x4xf32>, %w: tensor<2x4x5xf32>, %v: tensor<1x5x2xf32>)
    -> (tensor<2x3x2xf32>, tensor<2x2x2xf32>) {
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x6x4xf32>, tensor<2x4x5xf32>) -> tensor<2x5x5xf32>
  %y = stablehlo.convolution(%0, %v) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {stride = [2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5xf32>, tensor<1x5x2xf32>) -> tensor<2x3x2xf32>
  %z = stablehlo.convolution(%0, %v) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {stride = [3]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5xf32>, tensor<1x5x2xf32>) -> tensor<2x2x2xf32>
  return %y, %z : tensor<2x3x2xf32>, tensor<2x2x2xf32>
}

// Declined: the reader has a border, so it skips other places.
// CHECK-LABEL: @border(
// CHECK: stablehlo.convolution(%arg0, %arg1)
// CHECK-SAME: window = {}
// CHECK: return
func.func @border(%x: tensor<2x6x4xf32>, %w: tensor<2x4x5xf32>, %v: tensor<1x5x2xf32>) -> tensor<2x3x2xf32> {
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x6x4xf32>, tensor<2x4x5xf32>) -> tensor<2x5x5xf32>
  %y = stablehlo.convolution(%0, %v) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f],
    window = {stride = [2], pad = [[1, 0]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5xf32>, tensor<1x5x2xf32>) -> tensor<2x3x2xf32>
  return %y : tensor<2x3x2xf32>
}

// Declined: the product is no convolution's, so that nothing is computed less but slices.
// CHECK-LABEL: @no_convolution(
// CHECK-NOT: stablehlo.slice
// CHECK: return
func.func @no_convolution(%x: tensor<2x6x4xf32>, %w: tensor<1x4x2xf32>) -> tensor<2x3x2xf32> {
  %0 = stablehlo.multiply %x, %x : tensor<2x6x4xf32>
  %1 = stablehlo.add %0, %x : tensor<2x6x4xf32>
  %y = stablehlo.convolution(%1, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {stride = [2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x6x4xf32>, tensor<1x4x2xf32>) -> tensor<2x3x2xf32>
  return %y : tensor<2x3x2xf32>
}
