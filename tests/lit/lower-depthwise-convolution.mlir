// RUN: stablenorm-opt %s --passes=lower-depthwise-convolution | filecheck %s
// RUN: stablenorm-opt %s --passes='lower-depthwise-convolution{most_places=1}' | filecheck %s --check-prefix=FEWER

// One slice of the padded input, times one weight for each feature, for each place of the kernel.
// FEWER-LABEL: @two_places(
// FEWER-NEXT: stablehlo.convolution
// CHECK-LABEL: @two_places(
// CHECK: %[[Z:.*]] = stablehlo.constant dense<0.000000e+00> : tensor<f32>
// CHECK: %[[P:.*]] = stablehlo.pad %arg0, %[[Z]], low = [0, 0, 1, 0], high = [0, 0, 0, 0], interior = [0, 0, 0, 0]
// CHECK: %[[X0:.*]] = stablehlo.slice %[[P]] [0:2, 0:4, 0:5, 0:3]
// CHECK: %[[K0:.*]] = stablehlo.slice %arg1 [0:1, 0:1, 0:1, 0:3]
// CHECK: %[[W0:.*]] = stablehlo.reshape %[[K0]] : (tensor<1x1x1x3xf32>) -> tensor<3xf32>
// CHECK: %[[B0:.*]] = stablehlo.broadcast_in_dim %[[W0]], dims = [3]
// CHECK: %[[Y0:.*]] = stablehlo.multiply %[[X0]], %[[B0]]
// CHECK: %[[X1:.*]] = stablehlo.slice %[[P]] [0:2, 0:4, 1:6, 0:3]
// CHECK: %[[K1:.*]] = stablehlo.slice %arg1 [0:1, 1:2, 0:1, 0:3]
// CHECK: %[[Y1:.*]] = stablehlo.multiply %[[X1]], %{{.*}}
// CHECK: %[[Y:.*]] = stablehlo.add %[[Y0]], %[[Y1]]
// CHECK: return %[[Y]]
func.func @two_places(%x: tensor<2x4x5x3xf32>, %w: tensor<1x2x1x3xf32>) -> tensor<2x4x5x3xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[0, 0], [1, 0]]} {batch_group_count = 1 : i64, feature_group_count = 3 : i64}
    : (tensor<2x4x5x3xf32>, tensor<1x2x1x3xf32>) -> tensor<2x4x5x3xf32>
  return %y : tensor<2x4x5x3xf32>
}

// Strides are the slices', dilations are between their starts; padding that is not the same on both sides.
// CHECK-LABEL: @strides_and_dilations(
// CHECK: stablehlo.pad %{{.*}}, low = [0, 2, 0, 0], high = [0, 1, 3, 0]
// CHECK: stablehlo.slice %{{.*}} [0:1, 0:10:3, 0:9:2, 0:4]
// CHECK: stablehlo.slice %{{.*}} [0:1, 0:10:3, 3:12:2, 0:4]
// CHECK: stablehlo.slice %{{.*}} [0:1, 2:12:3, 0:9:2, 0:4]
// CHECK: stablehlo.slice %{{.*}} [0:1, 2:12:3, 3:12:2, 0:4]
// CHECK-NOT: stablehlo.convolution
// CHECK: return
func.func @strides_and_dilations(%x: tensor<1x9x9x4xf32>, %w: tensor<2x2x1x4xf32>) -> tensor<1x4x5x4xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {stride = [3, 2], pad = [[2, 1], [0, 3]], rhs_dilate = [2, 3]}
    {batch_group_count = 1 : i64, feature_group_count = 4 : i64}
    : (tensor<1x9x9x4xf32>, tensor<2x2x1x4xf32>) -> tensor<1x4x5x4xf32>
  return %y : tensor<1x4x5x4xf32>
}

// Several outputs of each feature lie beside one another, as the groups do.
// CHECK-LABEL: @multiplier(
// CHECK: %[[W:.*]] = stablehlo.reshape %{{.*}} : (tensor<6xf32>) -> tensor<3x2xf32>
// CHECK: stablehlo.broadcast_in_dim %{{.*}}, dims = [0, 1, 2, 3] : (tensor<1x3x3x3xf32>) -> tensor<1x3x3x3x2xf32>
// CHECK: stablehlo.broadcast_in_dim %[[W]], dims = [3, 4] : (tensor<3x2xf32>) -> tensor<1x3x3x3x2xf32>
// CHECK: stablehlo.reshape %{{.*}} : (tensor<1x3x3x3x2xf32>) -> tensor<1x3x3x6xf32>
// CHECK-NOT: stablehlo.convolution
// CHECK: return
func.func @multiplier(%x: tensor<1x4x4x3xf32>, %w: tensor<2x2x1x6xf32>) -> tensor<1x3x3x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 3 : i64}
    : (tensor<1x4x4x3xf32>, tensor<2x2x1x6xf32>) -> tensor<1x3x3x6xf32>
  return %y : tensor<1x3x3x6xf32>
}

// Any order of dimensions that the result shares, and any order of the kernel's; negative padding cuts.
// CHECK-LABEL: @features_first(
// CHECK: stablehlo.pad %{{.*}}, low = [0, 0, -1, 0], high = [0, 0, 0, 1]
// CHECK: stablehlo.slice %{{.*}} [0:2, 0:3, 0:4, 0:6]
// CHECK: stablehlo.slice %arg1 [0:6, 0:1, 1:2, 0:1]
// CHECK-NOT: stablehlo.convolution
// CHECK: return
func.func @features_first(%x: tensor<2x3x5x6xf32>, %w: tensor<6x1x2x1xf32>) -> tensor<2x6x4x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, f, 0, 1]x[o, 0, 1, i]->[b, f, 0, 1],
    window = {pad = [[-1, 0], [0, 1]]} {batch_group_count = 1 : i64, feature_group_count = 3 : i64}
    : (tensor<2x3x5x6xf32>, tensor<6x1x2x1xf32>) -> tensor<2x6x4x6xf32>
  return %y : tensor<2x6x4x6xf32>
}

// One spatial dimension, and three.
// CHECK-LABEL: @one_dimension(
// CHECK-COUNT-3: stablehlo.multiply
// CHECK: return
func.func @one_dimension(%x: tensor<2x7x3xf32>, %w: tensor<3x1x3xf32>) -> tensor<2x5x3xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 3 : i64}
    : (tensor<2x7x3xf32>, tensor<3x1x3xf32>) -> tensor<2x5x3xf32>
  return %y : tensor<2x5x3xf32>
}

// CHECK-LABEL: @three_dimensions(
// CHECK-COUNT-8: stablehlo.multiply
// CHECK: return
func.func @three_dimensions(%x: tensor<1x3x4x5x2xf64>, %w: tensor<2x2x2x1x2xf64>) -> tensor<1x2x3x4x2xf64> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, 2, f]x[0, 1, 2, i, o]->[b, 0, 1, 2, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 2 : i64}
    : (tensor<1x3x4x5x2xf64>, tensor<2x2x2x1x2xf64>) -> tensor<1x2x3x4x2xf64>
  return %y : tensor<1x2x3x4x2xf64>
}

// Half types: summed in float32, rounded once.
// CHECK-LABEL: @float16(
// CHECK: stablehlo.convert %{{.*}} : (tensor<1x4x4x3xf16>) -> tensor<1x4x4x3xf32>
// CHECK: stablehlo.convert %{{.*}} : (tensor<2x2x1x3xf16>) -> tensor<2x2x1x3xf32>
// CHECK-COUNT-3: stablehlo.add %{{.*}}, %{{.*}} : tensor<1x3x3x3xf32>
// CHECK-NEXT: %[[Y:.*]] = stablehlo.convert %{{.*}} : (tensor<1x3x3x3xf32>) -> tensor<1x3x3x3xf16>
// CHECK: return %[[Y]]
func.func @float16(%x: tensor<1x4x4x3xf16>, %w: tensor<2x2x1x3xf16>) -> tensor<1x3x3x3xf16> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 3 : i64}
    : (tensor<1x4x4x3xf16>, tensor<2x2x1x3xf16>) -> tensor<1x3x3x3xf16>
  return %y : tensor<1x3x3x3xf16>
}

// CHECK-LABEL: @bfloat16(
// CHECK: stablehlo.convert %{{.*}} -> tensor<1x3x3x3xbf16>
// CHECK: return
func.func @bfloat16(%x: tensor<1x4x4x3xbf16>, %w: tensor<2x2x1x3xbf16>) -> tensor<1x3x3x3xbf16> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 3 : i64}
    : (tensor<1x4x4x3xbf16>, tensor<2x2x1x3xbf16>) -> tensor<1x3x3x3xbf16>
  return %y : tensor<1x3x3x3xbf16>
}

// Declined: groups of two features, which are summed.
// CHECK-LABEL: @grouped(
// CHECK: stablehlo.convolution
func.func @grouped(%x: tensor<1x4x4x4xf32>, %w: tensor<2x2x2x4xf32>) -> tensor<1x3x3x4xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 2 : i64}
    : (tensor<1x4x4x4xf32>, tensor<2x2x2x4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// Declined: a single feature is an image, and a matrix product over the kernel's places serves it better.
// CHECK-LABEL: @one_feature(
// CHECK: stablehlo.convolution
func.func @one_feature(%x: tensor<1x4x4x1xf32>, %w: tensor<2x2x1x8xf32>) -> tensor<1x3x3x8xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x4x4x1xf32>, tensor<2x2x1x8xf32>) -> tensor<1x3x3x8xf32>
  return %y : tensor<1x3x3x8xf32>
}

// Declined: a dilated input, as in a transposed convolution.
// CHECK-LABEL: @transposed(
// CHECK: stablehlo.convolution
func.func @transposed(%x: tensor<1x3x3x2xf32>, %w: tensor<2x2x1x2xf32>) -> tensor<1x6x6x2xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]], lhs_dilate = [2, 2]}
    {batch_group_count = 1 : i64, feature_group_count = 2 : i64}
    : (tensor<1x3x3x2xf32>, tensor<2x2x1x2xf32>) -> tensor<1x6x6x2xf32>
  return %y : tensor<1x6x6x2xf32>
}

// Declined: groups of the batch, as in the gradient of a depthwise kernel.
// CHECK-LABEL: @batch_groups(
// CHECK: stablehlo.convolution
func.func @batch_groups(%x: tensor<2x4x4x1xf32>, %w: tensor<2x2x1x2xf32>) -> tensor<1x3x3x2xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
    {batch_group_count = 2 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x4x1xf32>, tensor<2x2x1x2xf32>) -> tensor<1x3x3x2xf32>
  return %y : tensor<1x3x3x2xf32>
}

// Declined: a reversed kernel.
// CHECK-LABEL: @reversed(
// CHECK: stablehlo.convolution
func.func @reversed(%x: tensor<1x4x4x2xf32>, %w: tensor<2x2x1x2xf32>) -> tensor<1x3x3x2xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {reverse = [true, true]} {batch_group_count = 1 : i64, feature_group_count = 2 : i64}
    : (tensor<1x4x4x2xf32>, tensor<2x2x1x2xf32>) -> tensor<1x3x3x2xf32>
  return %y : tensor<1x3x3x2xf32>
}

// Declined: the result's dimensions lie in another order.
// CHECK-LABEL: @another_order(
// CHECK: stablehlo.convolution
func.func @another_order(%x: tensor<1x4x4x2xf32>, %w: tensor<2x2x1x2xf32>) -> tensor<1x2x3x3xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, f, 0, 1], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 2 : i64}
    : (tensor<1x4x4x2xf32>, tensor<2x2x1x2xf32>) -> tensor<1x2x3x3xf32>
  return %y : tensor<1x2x3x3xf32>
}

// Declined: sizes that are known only when the program runs.
// CHECK-LABEL: @dynamic(
// CHECK: stablehlo.convolution
func.func @dynamic(%x: tensor<?x4x4x2xf32>, %w: tensor<2x2x1x2xf32>) -> tensor<?x3x3x2xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 2 : i64}
    : (tensor<?x4x4x2xf32>, tensor<2x2x1x2xf32>) -> tensor<?x3x3x2xf32>
  return %y : tensor<?x3x3x2xf32>
}

// Declined: no elements.
// CHECK-LABEL: @empty(
// CHECK: stablehlo.convolution
func.func @empty(%x: tensor<0x4x4x2xf32>, %w: tensor<2x2x1x2xf32>) -> tensor<0x3x3x2xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 2 : i64}
    : (tensor<0x4x4x2xf32>, tensor<2x2x1x2xf32>) -> tensor<0x3x3x2xf32>
  return %y : tensor<0x3x3x2xf32>
}

// Declined: integers.
// CHECK-LABEL: @integers(
// CHECK: stablehlo.convolution
func.func @integers(%x: tensor<1x4x4x2xi32>, %w: tensor<2x2x1x2xi32>) -> tensor<1x3x3x2xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 2 : i64}
    : (tensor<1x4x4x2xi32>, tensor<2x2x1x2xi32>) -> tensor<1x3x3x2xi32>
  %z = stablehlo.convert %y : (tensor<1x3x3x2xi32>) -> tensor<1x3x3x2xf32>
  return %z : tensor<1x3x3x2xf32>
}

// Declined: 81 places, more code than it saves time.
// CHECK-LABEL: @many_places(
// CHECK: stablehlo.convolution
func.func @many_places(%x: tensor<1x9x9x2xf32>, %w: tensor<9x9x1x2xf32>) -> tensor<1x1x1x2xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 2 : i64}
    : (tensor<1x9x9x2xf32>, tensor<9x9x1x2xf32>) -> tensor<1x1x1x2xf32>
  return %y : tensor<1x1x1x2xf32>
}
