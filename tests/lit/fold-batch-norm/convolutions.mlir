// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// Kinds of convolutions. All follow one law, on the kernel's output-feature dimension.

// s * conv(x, W) = conv(x, W * s): s along the kernel's output features, the rest of the batch norm is a shift.
// CHECK-LABEL: @plain(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [3] : (tensor<4xf32>) -> tensor<3x3x3x4xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<3x3x3x4xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [3] : (tensor<4xf32>) -> tensor<1x5x5x4xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN: fold-batch-norm: plain: folded: conv
func.func @plain(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "plain/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "plain/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "plain/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "plain/variance"}) -> tensor<1x5x5x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x5x5x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x5x5x4xf32>
  return %y : tensor<1x5x5x4xf32>
}

// Groups: StableHLO orders the kernel's output features as the result's, group by group.
// CHECK-LABEL: @grouped(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<6xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [3] : (tensor<6xf32>) -> tensor<3x3x2x6xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<3x3x2x6xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<6xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [3] : (tensor<6xf32>) -> tensor<1x3x3x6xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: grouped: folded: conv
func.func @grouped(
    %x: tensor<1x5x5x4xf32>,
    %w: tensor<3x3x2x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<6xf32> {stablenorm.weight = "grouped/scale"},
    %offset: tensor<6xf32> {stablenorm.weight = "grouped/offset"},
    %mean: tensor<6xf32> {stablenorm.weight = "grouped/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "grouped/variance"}) -> tensor<1x3x3x6xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 2 : i64}
    : (tensor<1x5x5x4xf32>, tensor<3x3x2x6xf32>) -> tensor<1x3x3x6xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<1x3x3x6xf32>
  return %y : tensor<1x3x3x6xf32>
}

// Depthwise: as many groups as input features.
// CHECK-LABEL: @depthwise(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<3xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [3] : (tensor<3xf32>) -> tensor<3x3x1x3xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<3x3x1x3xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<3xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [3] : (tensor<3xf32>) -> tensor<1x3x3x3xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: depthwise: folded: conv
func.func @depthwise(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x1x3xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<3xf32> {stablenorm.weight = "depthwise/scale"},
    %offset: tensor<3xf32> {stablenorm.weight = "depthwise/offset"},
    %mean: tensor<3xf32> {stablenorm.weight = "depthwise/mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "depthwise/variance"}) -> tensor<1x3x3x3xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 3 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x1x3xf32>) -> tensor<1x3x3x3xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<1x3x3x3xf32>
  return %y : tensor<1x3x3x3xf32>
}

// Depthwise with a depth multiplier of 2, and strides.
// CHECK-LABEL: @depthwise_with_multiplier(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<6xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [3] : (tensor<6xf32>) -> tensor<3x3x1x6xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<3x3x1x6xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<6xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [3] : (tensor<6xf32>) -> tensor<1x2x2x6xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: depthwise_with_multiplier: folded: conv
func.func @depthwise_with_multiplier(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x1x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<6xf32> {stablenorm.weight = "depthwise_with_multiplier/scale"},
    %offset: tensor<6xf32> {stablenorm.weight = "depthwise_with_multiplier/offset"},
    %mean: tensor<6xf32> {stablenorm.weight = "depthwise_with_multiplier/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "depthwise_with_multiplier/variance"}) -> tensor<1x2x2x6xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {stride = [2, 2]}
    {batch_group_count = 1 : i64, feature_group_count = 3 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x1x6xf32>) -> tensor<1x2x2x6xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x2x2x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<1x2x2x6xf32>
  return %y : tensor<1x2x2x6xf32>
}

// Transposed: a convolution of the input with zeros between its elements.
// CHECK-LABEL: @transposed(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [3] : (tensor<4xf32>) -> tensor<3x3x2x4xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<3x3x2x4xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [3] : (tensor<4xf32>) -> tensor<1x7x7x4xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: transposed: folded: conv
func.func @transposed(
    %x: tensor<1x3x3x2xf32>,
    %w: tensor<3x3x2x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "transposed/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "transposed/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "transposed/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "transposed/variance"}) -> tensor<1x7x7x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[2, 2], [2, 2]], lhs_dilate = [2, 2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x3x3x2xf32>, tensor<3x3x2x4xf32>) -> tensor<1x7x7x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x7x7x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x7x7x4xf32>
  return %y : tensor<1x7x7x4xf32>
}

// Transposed, in groups.
// CHECK-LABEL: @grouped_transposed(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<6xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [3] : (tensor<6xf32>) -> tensor<3x3x2x6xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<3x3x2x6xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<6xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [3] : (tensor<6xf32>) -> tensor<1x7x7x6xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: grouped_transposed: folded: conv
func.func @grouped_transposed(
    %x: tensor<1x3x3x4xf32>,
    %w: tensor<3x3x2x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<6xf32> {stablenorm.weight = "grouped_transposed/scale"},
    %offset: tensor<6xf32> {stablenorm.weight = "grouped_transposed/offset"},
    %mean: tensor<6xf32> {stablenorm.weight = "grouped_transposed/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "grouped_transposed/variance"}) -> tensor<1x7x7x6xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[2, 2], [2, 2]], lhs_dilate = [2, 2]}
    {batch_group_count = 1 : i64, feature_group_count = 2 : i64}
    : (tensor<1x3x3x4xf32>, tensor<3x3x2x6xf32>) -> tensor<1x7x7x6xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x7x7x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<1x7x7x6xf32>
  return %y : tensor<1x7x7x6xf32>
}

// Dilated: a kernel with zeros between its elements.
// CHECK-LABEL: @dilated(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [3] : (tensor<4xf32>) -> tensor<3x3x2x4xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<3x3x2x4xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [3] : (tensor<4xf32>) -> tensor<1x3x3x4xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: dilated: folded: conv
func.func @dilated(
    %x: tensor<1x7x7x2xf32>,
    %w: tensor<3x3x2x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "dilated/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "dilated/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "dilated/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "dilated/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {rhs_dilate = [2, 2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x7x7x2xf32>, tensor<3x3x2x4xf32>) -> tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// A window that is read backwards.
// CHECK-LABEL: @reversed(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [3] : (tensor<4xf32>) -> tensor<3x3x2x4xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<3x3x2x4xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [3] : (tensor<4xf32>) -> tensor<1x3x3x4xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: reversed: folded: conv
func.func @reversed(
    %x: tensor<1x5x5x2xf32>,
    %w: tensor<3x3x2x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "reversed/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "reversed/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "reversed/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "reversed/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {reverse = [true, false]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x2xf32>, tensor<3x3x2x4xf32>) -> tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// Groups of the batch: each group of it meets a group of the output features.
// CHECK-LABEL: @batch_groups(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [3] : (tensor<4xf32>) -> tensor<3x3x3x4xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<3x3x3x4xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [3] : (tensor<4xf32>) -> tensor<2x3x3x4xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: batch_groups: folded: conv
func.func @batch_groups(
    %x: tensor<4x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "batch_groups/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "batch_groups/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "batch_groups/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "batch_groups/variance"}) -> tensor<2x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 2 : i64, feature_group_count = 1 : i64}
    : (tensor<4x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<2x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x3x3x4xf32>
  return %y : tensor<2x3x3x4xf32>
}
