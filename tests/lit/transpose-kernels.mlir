// RUN: stablenorm-opt %s --passes=transpose-kernels | filecheck %s

// Features last, one or two spatial dimensions: cuDNN reads output features first and input features last.
// CHECK-LABEL: @plain(
// CHECK-NEXT: %[[V:.*]] = stablehlo.transpose %arg1, dims = [3, 0, 1, 2] : (tensor<3x2x3x6xf32>) -> tensor<6x3x2x3xf32>
// CHECK-NEXT: %[[Y:.*]] = stablehlo.convolution(%arg0, %[[V]])
// CHECK-SAME: dim_numbers = [b, 0, 1, f]x[o, 0, 1, i]->[b, 0, 1, f]
// CHECK-SAME: stride = [2, 1], pad = {{\[\[}}1, 1], [0, 0]], rhs_dilate = [1, 2]
// CHECK-SAME: precision_config = [#stablehlo<precision HIGHEST>, #stablehlo<precision HIGHEST>]
// CHECK-NEXT: return %[[Y]]
func.func @plain(%x: tensor<2x4x5x3xf32>, %w: tensor<3x2x3x6xf32> {stablenorm.weight = "w"}) -> tensor<2x2x3x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {stride = [2, 1], pad = [[1, 1], [0, 0]], rhs_dilate = [1, 2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64,
     precision_config = [#stablehlo<precision HIGHEST>, #stablehlo<precision HIGHEST>]}
    : (tensor<2x4x5x3xf32>, tensor<3x2x3x6xf32>) -> tensor<2x2x3x6xf32>
  return %y : tensor<2x2x3x6xf32>
}

// Features first: XLA turns the activations, and the kernel is read in the same order.
// CHECK-LABEL: @features_first(
// CHECK: stablehlo.transpose %arg1, dims = [0, 2, 3, 1] : (tensor<6x3x3x2xf16>) -> tensor<6x3x2x3xf16>
// CHECK: dim_numbers = [b, f, 0, 1]x[o, 0, 1, i]->[b, f, 0, 1]
// CHECK: return
func.func @features_first(%x: tensor<2x3x4x5xf16>, %w: tensor<6x3x3x2xf16> {stablenorm.weight = "w"})
    -> tensor<2x6x2x4xf16> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, f, 0, 1]x[o, i, 0, 1]->[b, f, 0, 1], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x3x4x5xf16>, tensor<6x3x3x2xf16>) -> tensor<2x6x2x4xf16>
  return %y : tensor<2x6x2x4xf16>
}

// One spatial dimension, and groups: input features are those of one group.
// CHECK-LABEL: @groups(
// CHECK: stablehlo.transpose %arg1, dims = [2, 0, 1] : (tensor<3x2x6xf32>) -> tensor<6x3x2xf32>
// CHECK: dim_numbers = [b, 0, f]x[o, 0, i]->[b, 0, f]
// CHECK: return
func.func @groups(%x: tensor<2x4x4xf32>, %w: tensor<3x2x6xf32> {stablenorm.weight = "w"}) -> tensor<2x2x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 2 : i64}
    : (tensor<2x4x4xf32>, tensor<3x2x6xf32>) -> tensor<2x2x6xf32>
  return %y : tensor<2x2x6xf32>
}

// Three spatial dimensions: both kinds of features first.
// CHECK-LABEL: @three_dimensions(
// CHECK: stablehlo.transpose %arg1, dims = [4, 3, 0, 1, 2]
// CHECK: dim_numbers = [b, 0, 1, 2, f]x[o, i, 0, 1, 2]->[b, 0, 1, 2, f]
// CHECK: return
func.func @three_dimensions(%x: tensor<2x4x4x4x3xf32>, %w: tensor<2x3x4x3x6xf32> {stablenorm.weight = "w"})
    -> tensor<2x3x2x1x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, 2, f]x[0, 1, 2, i, o]->[b, 0, 1, 2, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x4x4x3xf32>, tensor<2x3x4x3x6xf32>) -> tensor<2x3x2x1x6xf32>
  return %y : tensor<2x3x2x1x6xf32>
}

// What is computed from weights alone is one: that arithmetic stays before the transpose.
// CHECK-LABEL: @computed(
// CHECK: %[[W:.*]] = stablehlo.multiply
// CHECK: stablehlo.transpose %[[W]], dims = [2, 0, 1]
// CHECK: return
func.func @computed(%x: tensor<2x4x3xf32>, %w: tensor<2x3x6xf32> {stablenorm.weight = "w"}) -> tensor<2x3x6xf32> {
  %v = stablehlo.multiply %w, %w : tensor<2x3x6xf32>
  %y = stablehlo.convolution(%x, %v) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x3xf32>, tensor<2x3x6xf32>) -> tensor<2x3x6xf32>
  return %y : tensor<2x3x6xf32>
}

// Declined: it lies so already.
// CHECK-LABEL: @there_already(
// CHECK-NOT: transpose
// CHECK: return
func.func @there_already(%x: tensor<2x4x3xf32>, %w: tensor<6x2x3xf32> {stablenorm.weight = "w"})
    -> tensor<2x3x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[o, 0, i]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x3xf32>, tensor<6x2x3xf32>) -> tensor<2x3x6xf32>
  return %y : tensor<2x3x6xf32>
}

// Declined: no weight, so it would be turned at every call.
// CHECK-LABEL: @no_weight(
// CHECK-NOT: transpose
// CHECK: return
func.func @no_weight(%x: tensor<2x4x3xf32>, %w: tensor<2x3x6xf32>) -> tensor<2x3x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x3xf32>, tensor<2x3x6xf32>) -> tensor<2x3x6xf32>
  return %y : tensor<2x3x6xf32>
}

// Declined: a transposed convolution.
// CHECK-LABEL: @input_dilated(
// CHECK-NOT: transpose
// CHECK: return
func.func @input_dilated(%x: tensor<2x4x3xf32>, %w: tensor<2x3x6xf32> {stablenorm.weight = "w"})
    -> tensor<2x6x6xf32> {
  %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {lhs_dilate = [2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x3xf32>, tensor<2x3x6xf32>) -> tensor<2x6x6xf32>
  return %y : tensor<2x6x6xf32>
}
