// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// conv(pad(s*x + t), W) = conv(pad(x), s*W) + conv(pad(t), W): into what reads the batch norm.

// No padding: the shift is a bias.
// CHECK-LABEL: @valid(
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %[[W]])
// CHECK: %[[M:.*]] = stablehlo.convolution(%{{.*}}, %arg1){{.*}} -> tensor<1x1x1x6xf32>
// CHECK: stablehlo.add %[[C]]
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN: fold-batch-norm: valid: folded: conv (elementwise operations less per call: 1)
func.func @valid(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "valid/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "valid/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "valid/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "valid/variance"}) -> tensor<2x3x3x6xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%y, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// Padding: the shift is a border map of one image.
// CHECK-LABEL: @same(
// CHECK: stablehlo.convolution(%arg0
// CHECK: stablehlo.convolution(%{{.*}}, %arg1){{.*}} -> tensor<1x5x5x6xf32>
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: same: folded: conv
func.func @same(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "same/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "same/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "same/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "same/variance"}) -> tensor<2x5x5x6xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%y, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x5x5x6xf32>
  return %c : tensor<2x5x5x6xf32>
}

// Strides, dilation and uneven padding.
// CHECK-LABEL: @strided(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: strided: folded: conv
func.func @strided(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<2x2x4x3xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "strided/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "strided/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "strided/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "strided/variance"}) -> tensor<2x3x2x3xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%y, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {stride = [2, 2], pad = [[0, 2], [1, 0]], rhs_dilate = [2, 2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<2x2x4x3xf32>) -> tensor<2x3x2x3xf32>
  return %c : tensor<2x3x2x3xf32>
}

// Transposed.
// CHECK-LABEL: @transposed(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: transposed: folded: conv
func.func @transposed(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x3xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "transposed/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "transposed/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "transposed/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "transposed/variance"}) -> tensor<2x11x11x3xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%y, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[2, 2], [2, 2]], lhs_dilate = [2, 2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x3xf32>) -> tensor<2x11x11x3xf32>
  return %c : tensor<2x11x11x3xf32>
}

// Two groups: each has its own slice of the input features.
// CHECK-LABEL: @grouped(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: grouped: folded: conv
func.func @grouped(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x2x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "grouped/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "grouped/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "grouped/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "grouped/variance"}) -> tensor<2x3x3x6xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%y, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 2 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x2x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// Depthwise, two outputs each.
// CHECK-LABEL: @depthwise(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: depthwise: folded: conv
func.func @depthwise(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x1x8xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "depthwise/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "depthwise/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "depthwise/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "depthwise/variance"}) -> tensor<2x5x5x8xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%y, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 4 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x1x8xf32>) -> tensor<2x5x5x8xf32>
  return %c : tensor<2x5x5x8xf32>
}

// Flattened: the scale becomes one of each pixel's features.
// CHECK-LABEL: @flatten(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: flatten: folded: dense
func.func @flatten(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<100x3xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "flatten/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "flatten/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "flatten/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "flatten/variance"}) -> tensor<2x3xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %r = stablehlo.reshape %y : (tensor<2x5x5x4xf32>) -> tensor<2x100xf32>
  %d = stablehlo.dot_general %r, %w, contracting_dims = [1] x [0] : (tensor<2x100xf32>, tensor<100x3xf32>) -> tensor<2x3xf32>
  return %d : tensor<2x3xf32>
}

// A global average between them.
// CHECK-LABEL: @global_average(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: global_average: folded: dense (elementwise operations less per call: 2)
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.divide: folded: dense{{$}}
func.func @global_average(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<4x3xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "global_average/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "global_average/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "global_average/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "global_average/variance"}) -> tensor<2x3xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %sum = stablehlo.reduce(%y init: %zero) applies stablehlo.add across dimensions = [1, 2] : (tensor<2x5x5x4xf32>, tensor<f32>) -> tensor<2x4xf32>
  %n = stablehlo.constant dense<25.0> : tensor<2x4xf32>
  %r = stablehlo.divide %sum, %n : tensor<2x4xf32>
  %d = stablehlo.dot_general %r, %w, contracting_dims = [1] x [0] : (tensor<2x4xf32>, tensor<4x3xf32>) -> tensor<2x3xf32>
  return %d : tensor<2x3xf32>
}

// Two readers: both take it; one has a bias to hold the shift.
// CHECK-LABEL: @two_consumers(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: two_consumers: folded: 
func.func @two_consumers(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %v: tensor<3x3x4x6xf32> {stablenorm.weight = "other/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<4xf32> {stablenorm.weight = "two_consumers/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "two_consumers/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "two_consumers/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "two_consumers/variance"}) -> tensor<2x3x3x6xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%y, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %e = stablehlo.convolution(%y, %v) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %m = stablehlo.multiply %a, %e : tensor<2x3x3x6xf32>
  return %m : tensor<2x3x3x6xf32>
}

// A pad with a number of its own.
// CHECK-LABEL: @padded(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: padded: folded: conv
func.func @padded(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "padded/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "padded/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "padded/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "padded/variance"}) -> tensor<2x5x8x6xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %fill = stablehlo.constant dense<1.5> : tensor<f32>
  %p = stablehlo.pad %y, %fill, low = [0, 1, 0, 0], high = [0, 1, 1, 0], interior = [0, 0, 1, 0] : (tensor<2x5x5x4xf32>, tensor<f32>) -> tensor<2x7x10x4xf32>
  %c = stablehlo.convolution(%p, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x7x10x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x5x8x6xf32>
  return %c : tensor<2x5x8x6xf32>
}

// Branches that meet again in a concatenation, which waits for all: a pool that sees the border, and a reversal.
// CHECK-LABEL: @branches_that_meet_again(
// CHECK: stablehlo.concatenate %arg0
// CHECK: stablehlo.multiply %arg1
// CHECK: stablehlo.convolution
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: branches_that_meet_again: folded: conv (elementwise operations less per call: 1)
func.func @branches_that_meet_again(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x12x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "branches_that_meet_again/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "branches_that_meet_again/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "branches_that_meet_again/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "branches_that_meet_again/variance"}) -> tensor<2x5x5x6xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %low = stablehlo.constant dense<0.0> : tensor<f32>
  %p = "stablehlo.reduce_window"(%y, %low) <{window_dimensions = array<i64: 1, 3, 3, 1>, padding = dense<[[0, 0], [1, 1], [1, 1], [0, 0]]> : tensor<4x2xi64>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %o = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %o : tensor<f32>
  }) : (tensor<2x5x5x4xf32>, tensor<f32>) -> tensor<2x5x5x4xf32>
  %r = stablehlo.reverse %y, dims = [1] : tensor<2x5x5x4xf32>
  %j = stablehlo.concatenate %y, %p, %r, dim = 3 : (tensor<2x5x5x4xf32>, tensor<2x5x5x4xf32>, tensor<2x5x5x4xf32>) -> tensor<2x5x5x12xf32>
  %c = stablehlo.convolution(%j, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x12xf32>, tensor<3x3x12x6xf32>) -> tensor<2x5x5x6xf32>
  return %c : tensor<2x5x5x6xf32>
}
