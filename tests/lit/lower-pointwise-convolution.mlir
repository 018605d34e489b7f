// RUN: stablenorm-opt %s --passes=lower-pointwise-convolution | filecheck %s

// A matrix product over the features; nothing is transposed.
// CHECK-LABEL: @plain(
// CHECK-NEXT: %[[W:.*]] = stablehlo.reshape %arg1 : (tensor<1x1x3x6xf32>) -> tensor<3x6xf32>
// CHECK-NEXT: %[[Y:.*]] = stablehlo.dot_general %arg0, %[[W]], contracting_dims = [3] x [0]
// CHECK-NEXT: return %[[Y]]
func.func @plain(%x: tensor<2x4x5x3xf32>, %w: tensor<1x1x3x6xf32>) -> tensor<2x4x5x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x5x3xf32>, tensor<1x1x3x6xf32>) -> tensor<2x4x5x6xf32>
  return %y : tensor<2x4x5x6xf32>
}

// Strides first thin the input. The precision goes along.
// CHECK-LABEL: @strided(
// CHECK-NEXT: %[[X:.*]] = stablehlo.slice %arg0 [0:2, 0:4:3, 0:5:2, 0:3]
// CHECK: stablehlo.dot_general %[[X]], %{{.*}}, contracting_dims = [3] x [0], precision = [HIGHEST, HIGHEST]
// CHECK-SAME: -> tensor<2x2x3x6xf32>
// CHECK: return
func.func @strided(%x: tensor<2x4x6x3xf32>, %w: tensor<1x1x3x6xf32>) -> tensor<2x2x3x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {stride = [3, 2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64,
     precision_config = [#stablehlo<precision HIGHEST>, #stablehlo<precision HIGHEST>]}
    : (tensor<2x4x6x3xf32>, tensor<1x1x3x6xf32>) -> tensor<2x2x3x6xf32>
  return %y : tensor<2x2x3x6xf32>
}

// The kernel's dimensions may lie in any order: its matrix is read as it lies.
// CHECK-LABEL: @kernel_turned(
// CHECK: stablehlo.reshape %arg1 : (tensor<6x1x3xf32>) -> tensor<6x3xf32>
// CHECK: stablehlo.dot_general %arg0, %{{.*}}, contracting_dims = [2] x [1]
// CHECK: return
func.func @kernel_turned(%x: tensor<2x4x3xf32>, %w: tensor<6x1x3xf32>) -> tensor<2x4x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[o, 0, i]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x3xf32>, tensor<6x1x3xf32>) -> tensor<2x4x6xf32>
  return %y : tensor<2x4x6xf32>
}

// Half types: summed in float32, rounded once.
// CHECK-LABEL: @float16(
// CHECK: %[[Y:.*]] = stablehlo.dot_general %arg0, %{{.*}} -> tensor<2x4x6xf32>
// CHECK: stablehlo.convert %[[Y]] : (tensor<2x4x6xf32>) -> tensor<2x4x6xf16>
// CHECK: return
func.func @float16(%x: tensor<2x4x3xf16>, %w: tensor<1x3x6xf16>) -> tensor<2x4x6xf16> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x3xf16>, tensor<1x3x6xf16>) -> tensor<2x4x6xf16>
  return %y : tensor<2x4x6xf16>
}

// CHECK-LABEL: @bfloat16(
// CHECK: stablehlo.dot_general %arg0, %{{.*}} -> tensor<2x4x6xf32>
// CHECK: return
func.func @bfloat16(%x: tensor<2x4x3xbf16>, %w: tensor<1x3x6xbf16>) -> tensor<2x4x6xbf16> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x3xbf16>, tensor<1x3x6xbf16>) -> tensor<2x4x6xbf16>
  return %y : tensor<2x4x6xbf16>
}

// Declined: several places.
// CHECK-LABEL: @several_places(
// CHECK: stablehlo.convolution
func.func @several_places(%x: tensor<2x4x3xf32>, %w: tensor<2x3x6xf32>) -> tensor<2x3x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x3xf32>, tensor<2x3x6xf32>) -> tensor<2x3x6xf32>
  return %y : tensor<2x3x6xf32>
}

// Declined: a border, which no matrix product has.
// CHECK-LABEL: @padded(
// CHECK: stablehlo.convolution
func.func @padded(%x: tensor<2x4x3xf32>, %w: tensor<1x3x6xf32>) -> tensor<2x6x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {pad = [[1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x3xf32>, tensor<1x3x6xf32>) -> tensor<2x6x6xf32>
  return %y : tensor<2x6x6xf32>
}

// Declined: groups.
// CHECK-LABEL: @grouped(
// CHECK: stablehlo.convolution
func.func @grouped(%x: tensor<2x4x4xf32>, %w: tensor<1x2x6xf32>) -> tensor<2x4x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 2 : i64}
    : (tensor<2x4x4xf32>, tensor<1x2x6xf32>) -> tensor<2x4x6xf32>
  return %y : tensor<2x4x6xf32>
}

// Declined: features first, which would have to be transposed twice.
// CHECK-LABEL: @features_first(
// CHECK: stablehlo.convolution
func.func @features_first(%x: tensor<2x3x4xf32>, %w: tensor<1x3x6xf32>) -> tensor<2x6x4xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, f, 0]x[0, i, o]->[b, f, 0], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x3x4xf32>, tensor<1x3x6xf32>) -> tensor<2x6x4xf32>
  return %y : tensor<2x6x4xf32>
}

// Declined: another order on the way out.
// CHECK-LABEL: @another_order(
// CHECK: stablehlo.convolution
func.func @another_order(%x: tensor<2x4x3xf32>, %w: tensor<1x3x6xf32>) -> tensor<2x6x4xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, f, 0], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x3xf32>, tensor<1x3x6xf32>) -> tensor<2x6x4xf32>
  return %y : tensor<2x6x4xf32>
}

// Declined: a dilated input; sizes that are known only when the program runs.
// CHECK-LABEL: @dilated(
// CHECK: stablehlo.convolution
func.func @dilated(%x: tensor<2x4x3xf32>, %w: tensor<1x3x6xf32>) -> tensor<2x7x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {lhs_dilate = [2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x3xf32>, tensor<1x3x6xf32>) -> tensor<2x7x6xf32>
  return %y : tensor<2x7x6xf32>
}

// CHECK-LABEL: @dynamic(
// CHECK: stablehlo.convolution
func.func @dynamic(%x: tensor<?x4x3xf32>, %w: tensor<1x3x6xf32>) -> tensor<?x4x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<?x4x3xf32>, tensor<1x3x6xf32>) -> tensor<?x4x6xf32>
  return %y : tensor<?x4x6xf32>
}
