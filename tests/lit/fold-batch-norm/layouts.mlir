// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// Where the dimensions lie: the scale goes along whatever dimension of the kernel is the output features.

// 1-D.
// CHECK-LABEL: @one_dimension(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [2] : (tensor<4xf32>) -> tensor<3x3x4xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<3x3x4xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [2] : (tensor<4xf32>) -> tensor<2x4x4xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN: fold-batch-norm: one_dimension: folded: conv
func.func @one_dimension(
    %x: tensor<2x6x3xf32>,
    %w: tensor<3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "one_dimension/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "one_dimension/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "one_dimension/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "one_dimension/variance"}) -> tensor<2x4x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x6x3xf32>, tensor<3x3x4xf32>) -> tensor<2x4x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 2 : i64}>
    : (tensor<2x4x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4x4xf32>
  return %y : tensor<2x4x4xf32>
}

// 3-D.
// CHECK-LABEL: @three_dimensions(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<3xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [4] : (tensor<3xf32>) -> tensor<2x2x2x2x3xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<2x2x2x2x3xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<3xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [4] : (tensor<3xf32>) -> tensor<1x2x3x4x3xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: three_dimensions: folded: conv
func.func @three_dimensions(
    %x: tensor<1x3x4x5x2xf32>,
    %w: tensor<2x2x2x2x3xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<3xf32> {stablenorm.weight = "three_dimensions/scale"},
    %offset: tensor<3xf32> {stablenorm.weight = "three_dimensions/offset"},
    %mean: tensor<3xf32> {stablenorm.weight = "three_dimensions/mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "three_dimensions/variance"}) -> tensor<1x2x3x4x3xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, 2, f]x[0, 1, 2, i, o]->[b, 0, 1, 2, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x3x4x5x2xf32>, tensor<2x2x2x2x3xf32>) -> tensor<1x2x3x4x3xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 4 : i64}>
    : (tensor<1x2x3x4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<1x2x3x4x3xf32>
  return %y : tensor<1x2x3x4x3xf32>
}

// No spatial dimension at all.
// CHECK-LABEL: @no_window(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [1] : (tensor<4xf32>) -> tensor<3x4xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<3x4xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: no_window: folded: conv
func.func @no_window(
    %x: tensor<2x3xf32>,
    %w: tensor<3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "no_window/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "no_window/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "no_window/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "no_window/variance"}) -> tensor<2x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, f]x[i, o]->[b, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// Channels first, kernel in TensorFlow's order.
// CHECK-LABEL: @channels_first(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [3] : (tensor<4xf32>) -> tensor<3x3x3x4xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<3x3x3x4xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [1] : (tensor<4xf32>) -> tensor<1x4x3x3xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: channels_first: folded: conv
func.func @channels_first(
    %x: tensor<1x3x5x5xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "channels_first/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "channels_first/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "channels_first/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "channels_first/variance"}) -> tensor<1x4x3x3xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, f, 0, 1]x[0, 1, i, o]->[b, f, 0, 1],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x3x5x5xf32>, tensor<3x3x3x4xf32>) -> tensor<1x4x3x3xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<1x4x3x3xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x4x3x3xf32>
  return %y : tensor<1x4x3x3xf32>
}

// Channels first, kernel in PyTorch's order.
// CHECK-LABEL: @channels_and_kernel_first(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [0] : (tensor<4xf32>) -> tensor<4x3x3x3xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<4x3x3x3xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [1] : (tensor<4xf32>) -> tensor<1x4x3x3xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: channels_and_kernel_first: folded: conv
func.func @channels_and_kernel_first(
    %x: tensor<1x3x5x5xf32>,
    %w: tensor<4x3x3x3xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "channels_and_kernel_first/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "channels_and_kernel_first/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "channels_and_kernel_first/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "channels_and_kernel_first/variance"}) -> tensor<1x4x3x3xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, f, 0, 1]x[o, i, 0, 1]->[b, f, 0, 1],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x3x5x5xf32>, tensor<4x3x3x3xf32>) -> tensor<1x4x3x3xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<1x4x3x3xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x4x3x3xf32>
  return %y : tensor<1x4x3x3xf32>
}

// Features in the middle, and in another place in each tensor.
// CHECK-LABEL: @middle(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [1] : (tensor<4xf32>) -> tensor<3x4x3x3xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<3x4x3x3xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [2] : (tensor<4xf32>) -> tensor<3x3x4x1xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: middle: folded: conv
func.func @middle(
    %x: tensor<5x3x1x5xf32>,
    %w: tensor<3x4x3x3xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "middle/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "middle/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "middle/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "middle/variance"}) -> tensor<3x3x4x1xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [0, f, b, 1]x[0, o, i, 1]->[0, 1, f, b],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<5x3x1x5xf32>, tensor<3x4x3x3xf32>) -> tensor<3x3x4x1xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 2 : i64}>
    : (tensor<3x3x4x1xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<3x3x4x1xf32>
  return %y : tensor<3x3x4x1xf32>
}

// Features first, batch last.
// CHECK-LABEL: @features_lead(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [3] : (tensor<4xf32>) -> tensor<3x3x3x4xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]] : tensor<3x3x3x4xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[T:.*]] = stablehlo.subtract %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [0] : (tensor<4xf32>) -> tensor<4x3x3x1xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[C]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: features_lead: folded: conv
func.func @features_lead(
    %x: tensor<3x5x5x1xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "features_lead/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "features_lead/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "features_lead/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "features_lead/variance"}) -> tensor<4x3x3x1xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [f, 0, 1, b]x[i, 0, 1, o]->[f, 0, 1, b],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<3x5x5x1xf32>, tensor<3x3x3x4xf32>) -> tensor<4x3x3x1xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 0 : i64}>
    : (tensor<4x3x3x1xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<4x3x3x1xf32>
  return %y : tensor<4x3x3x1xf32>
}
