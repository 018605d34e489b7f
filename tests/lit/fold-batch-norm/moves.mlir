// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// A scale passes whatever moves its channels as a whole; the shift is added behind it.

// Keras's Conv1D: a 2-D convolution of height 1, squeezed.
// CHECK-LABEL: @reshape(
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %{{.*}})
// CHECK: %[[M:.*]] = stablehlo.reshape %[[C]]
// CHECK: stablehlo.add %[[M]], %{{.*}} : tensor<2x4x4xf32>
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN: fold-batch-norm: reshape: folded: conv
func.func @reshape(
    %x: tensor<2x1x6x3xf32>,
    %w: tensor<1x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "reshape/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "reshape/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "reshape/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "reshape/variance"}) -> tensor<2x4x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x1x6x3xf32>, tensor<1x3x3x4xf32>) -> tensor<2x1x4x4xf32>
  %m = stablehlo.reshape %c : (tensor<2x1x4x4xf32>) -> tensor<2x4x4xf32>
  %y = "stablehlo.batch_norm_inference"(%m, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 2 : i64}>
    : (tensor<2x4x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4x4xf32>
  return %y : tensor<2x4x4xf32>
}

// To channels first: the scale is still the kernel's last dimension.
// CHECK-LABEL: @transpose(
// CHECK: stablehlo.broadcast_in_dim %{{.*}}, dims = [3] : (tensor<4xf32>) -> tensor<3x3x3x4xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %{{.*}})
// CHECK: %[[M:.*]] = stablehlo.transpose %[[C]]
// CHECK: stablehlo.broadcast_in_dim %{{.*}}, dims = [1] : (tensor<4xf32>) -> tensor<1x4x3x3xf32>
// CHECK: stablehlo.add %[[M]]
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: transpose: folded: conv
func.func @transpose(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "transpose/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "transpose/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "transpose/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "transpose/variance"}) -> tensor<1x4x3x3xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %m = stablehlo.transpose %c, dims = [0, 3, 1, 2] : (tensor<1x3x3x4xf32>) -> tensor<1x4x3x3xf32>
  %y = "stablehlo.batch_norm_inference"(%m, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<1x4x3x3xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x4x3x3xf32>
  return %y : tensor<1x4x3x3xf32>
}

// A slice of rows and columns.
// CHECK-LABEL: @slice(
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %{{.*}})
// CHECK: %[[M:.*]] = stablehlo.slice %[[C]]
// CHECK: stablehlo.add %[[M]]
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: slice: folded: conv
func.func @slice(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "slice/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "slice/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "slice/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "slice/variance"}) -> tensor<1x2x2x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %m = stablehlo.slice %c [0:1, 0:2, 1:3, 0:4] : (tensor<1x3x3x4xf32>) -> tensor<1x2x2x4xf32>
  %y = "stablehlo.batch_norm_inference"(%m, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x2x2x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x2x2x4xf32>
  return %y : tensor<1x2x2x4xf32>
}

// bfloat16 to float32. The weight is multiplied in float32 and rounded once.
// CHECK-LABEL: @convert(
// CHECK: %[[WIDE:.*]] = stablehlo.convert %arg1 : (tensor<3x3x3x4xbf16>) -> tensor<3x3x3x4xf32>
// CHECK: %[[S:.*]] = stablehlo.broadcast_in_dim
// CHECK: %[[W:.*]] = stablehlo.multiply %[[WIDE]], %[[S]]
// CHECK: %[[ROUNDED:.*]] = stablehlo.convert %[[W]] : (tensor<3x3x3x4xf32>) -> tensor<3x3x3x4xbf16>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[ROUNDED]])
// CHECK: %[[M:.*]] = stablehlo.convert %[[C]]
// CHECK: stablehlo.add %[[M]]
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: convert: folded: conv
func.func @convert(
    %x: tensor<1x5x5x3xbf16>,
    %w: tensor<3x3x3x4xbf16> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "convert/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "convert/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "convert/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "convert/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xbf16>, tensor<3x3x3x4xbf16>) -> tensor<1x3x3x4xbf16>
  %m = stablehlo.convert %c : (tensor<1x3x3x4xbf16>) -> tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%m, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// A float32 weight that is used in bfloat16: the scale goes in before it is rounded.
// CHECK-LABEL: @mixed_precision(
// CHECK: stablehlo.multiply %arg1, %{{.*}} : tensor<3x3x3x4xf32>
// CHECK: stablehlo.convert %{{.*}} : (tensor<3x3x3x4xf32>) -> tensor<3x3x3x4xbf16>
// CHECK-NEXT: stablehlo.convolution
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: mixed_precision: folded: conv
func.func @mixed_precision(
    %x: tensor<1x5x5x3xbf16>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "mixed_precision/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "mixed_precision/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "mixed_precision/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "mixed_precision/variance"}) -> tensor<1x3x3x4xf32> {
  %narrow = stablehlo.convert %w : (tensor<3x3x3x4xf32>) -> tensor<3x3x3x4xbf16>
  %c = stablehlo.convolution(%x, %narrow) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xbf16>, tensor<3x3x3x4xbf16>) -> tensor<1x3x3x4xbf16>
  %m = stablehlo.convert %c : (tensor<1x3x3x4xbf16>) -> tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%m, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// A slice of the channels: the others are scaled by one.
// CHECK-LABEL: @slice_of_channels(
// CHECK: stablehlo.pad %{{.*}}, low = [1], high = [1], interior = [0] : (tensor<2xf32>, tensor<f32>) -> tensor<4xf32>
// CHECK: stablehlo.convolution
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: slice_of_channels: folded: conv
func.func @slice_of_channels(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<2xf32> {stablenorm.weight = "slice_of_channels/scale"},
    %offset: tensor<2xf32> {stablenorm.weight = "slice_of_channels/offset"},
    %mean: tensor<2xf32> {stablenorm.weight = "slice_of_channels/mean"},
    %variance: tensor<2xf32> {stablenorm.weight = "slice_of_channels/variance"}) -> tensor<1x3x3x2xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %m = stablehlo.slice %c [0:1, 0:3, 0:3, 1:3] : (tensor<1x3x3x4xf32>) -> tensor<1x3x3x2xf32>
  %y = "stablehlo.batch_norm_inference"(%m, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x3x3x2xf32>
  return %y : tensor<1x3x3x2xf32>
}

// Every other channel.
// CHECK-LABEL: @every_other_channel(
// CHECK: stablehlo.pad %{{.*}}, low = [1], high = [0], interior = [1] : (tensor<2xf32>, tensor<f32>) -> tensor<4xf32>
// CHECK: stablehlo.convolution
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: every_other_channel: folded: conv
func.func @every_other_channel(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<2xf32> {stablenorm.weight = "every_other_channel/scale"},
    %offset: tensor<2xf32> {stablenorm.weight = "every_other_channel/offset"},
    %mean: tensor<2xf32> {stablenorm.weight = "every_other_channel/mean"},
    %variance: tensor<2xf32> {stablenorm.weight = "every_other_channel/variance"}) -> tensor<1x3x3x2xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %m = stablehlo.slice %c [0:1, 0:3, 0:3, 1:4:2] : (tensor<1x3x3x4xf32>) -> tensor<1x3x3x2xf32>
  %y = "stablehlo.batch_norm_inference"(%m, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x3x3x2xf32>
  return %y : tensor<1x3x3x2xf32>
}
