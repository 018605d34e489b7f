// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// Through sums, concatenations, pads and pools, into every branch.

// A residual sum: into both branches.
// CHECK-LABEL: @residual(
// CHECK: stablehlo.multiply %arg1
// CHECK: stablehlo.multiply %arg2
// CHECK: stablehlo.add
// CHECK: stablehlo.add
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN: fold-batch-norm: residual: folded: conv, other (elementwise operations less per call: 2)
func.func @residual(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %v: tensor<3x3x4x6xf32> {stablenorm.weight = "other/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<6xf32> {stablenorm.weight = "residual/scale"},
    %offset: tensor<6xf32> {stablenorm.weight = "residual/offset"},
    %mean: tensor<6xf32> {stablenorm.weight = "residual/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "residual/variance"}) -> tensor<2x3x3x6xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %e = stablehlo.convolution(%x, %v) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %s = stablehlo.add %a, %e : tensor<2x3x3x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x3x3x6xf32>
  return %y : tensor<2x3x3x6xf32>
}

// A difference.
// CHECK-LABEL: @difference(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: difference: folded: other, conv
func.func @difference(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %v: tensor<3x3x4x6xf32> {stablenorm.weight = "other/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<6xf32> {stablenorm.weight = "difference/scale"},
    %offset: tensor<6xf32> {stablenorm.weight = "difference/offset"},
    %mean: tensor<6xf32> {stablenorm.weight = "difference/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "difference/variance"}) -> tensor<2x3x3x6xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %e = stablehlo.convolution(%x, %v) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %s = stablehlo.subtract %e, %a : tensor<2x3x3x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x3x3x6xf32>
  return %y : tensor<2x3x3x6xf32>
}

// A concatenation: each branch takes its slice.
// CHECK-LABEL: @concatenate(
// CHECK: stablehlo.slice
// CHECK: stablehlo.slice
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: concatenate: folded: other, conv
func.func @concatenate(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %v: tensor<3x3x4x6xf32> {stablenorm.weight = "other/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<12xf32> {stablenorm.weight = "concatenate/scale"},
    %offset: tensor<12xf32> {stablenorm.weight = "concatenate/offset"},
    %mean: tensor<12xf32> {stablenorm.weight = "concatenate/mean"},
    %variance: tensor<12xf32> {stablenorm.weight = "concatenate/variance"}) -> tensor<2x3x3x12xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %e = stablehlo.convolution(%x, %v) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %s = stablehlo.concatenate %e, %a, dim = 3 : (tensor<2x3x3x6xf32>, tensor<2x3x3x6xf32>) -> tensor<2x3x3x12xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x12xf32>, tensor<12xf32>, tensor<12xf32>, tensor<12xf32>, tensor<12xf32>) -> tensor<2x3x3x12xf32>
  return %y : tensor<2x3x3x12xf32>
}

// A concatenation along the rows: each branch takes all of it; their biases are added once, behind it.
// CHECK-LABEL: @stacked(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stacked: folded: other, conv
func.func @stacked(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %v: tensor<3x3x4x6xf32> {stablenorm.weight = "other/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<6xf32> {stablenorm.weight = "stacked/scale"},
    %offset: tensor<6xf32> {stablenorm.weight = "stacked/offset"},
    %mean: tensor<6xf32> {stablenorm.weight = "stacked/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "stacked/variance"}) -> tensor<2x6x3x6xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %e = stablehlo.convolution(%x, %v) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %s = stablehlo.concatenate %e, %a, dim = 1 : (tensor<2x3x3x6xf32>, tensor<2x3x3x6xf32>) -> tensor<2x6x3x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x6x3x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x6x3x6xf32>
  return %y : tensor<2x6x3x6xf32>
}

// Zeros around it stay zeros.
// CHECK-LABEL: @padded(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: padded: folded: conv
func.func @padded(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<6xf32> {stablenorm.weight = "padded/scale"},
    %offset: tensor<6xf32> {stablenorm.weight = "padded/offset"},
    %mean: tensor<6xf32> {stablenorm.weight = "padded/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "padded/variance"}) -> tensor<2x5x5x6xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %fill = stablehlo.constant dense<0.0> : tensor<f32>
  %s = stablehlo.pad %a, %fill, low = [0, 1, 1, 0], high = [0, 1, 1, 0], interior = [0, 0, 0, 0] : (tensor<2x3x3x6xf32>, tensor<f32>) -> tensor<2x5x5x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x5x5x6xf32>
  return %y : tensor<2x5x5x6xf32>
}

// Rows reversed.
// CHECK-LABEL: @reversed(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: reversed: folded: conv
func.func @reversed(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<6xf32> {stablenorm.weight = "reversed/scale"},
    %offset: tensor<6xf32> {stablenorm.weight = "reversed/offset"},
    %mean: tensor<6xf32> {stablenorm.weight = "reversed/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "reversed/variance"}) -> tensor<2x3x3x6xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %s = stablehlo.reverse %a, dims = [1] : tensor<2x3x3x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x3x3x6xf32>
  return %y : tensor<2x3x3x6xf32>
}

// Sums over windows.
// CHECK-LABEL: @average_pool(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: average_pool: folded: conv
func.func @average_pool(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<6xf32> {stablenorm.weight = "average_pool/scale"},
    %offset: tensor<6xf32> {stablenorm.weight = "average_pool/offset"},
    %mean: tensor<6xf32> {stablenorm.weight = "average_pool/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "average_pool/variance"}) -> tensor<2x2x2x6xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %init = stablehlo.constant dense<0.0> : tensor<f32>
  %s = "stablehlo.reduce_window"(%a, %init) <{window_dimensions = array<i64: 1, 2, 2, 1>}> ({
  ^bb0(%l: tensor<f32>, %r: tensor<f32>):
    %o = stablehlo.add %l, %r : tensor<f32>
    stablehlo.return %o : tensor<f32>
  }) : (tensor<2x3x3x6xf32>, tensor<f32>) -> tensor<2x2x2x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x2x2x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x2x2x6xf32>
  return %y : tensor<2x2x2x6xf32>
}

// A batch norm of a scale: one scale.
// CHECK-LABEL: @scaled(
// CHECK-NOT: stablehlo.multiply %{{.*}} : tensor<2x3x3x6xf32>
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: conv: folded: conv (elementwise operations less per call: 1)
// EXPLAIN-NEXT: fold-batch-norm: scaled: folded: conv
func.func @scaled(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<6xf32> {stablenorm.weight = "scaled/scale"},
    %offset: tensor<6xf32> {stablenorm.weight = "scaled/offset"},
    %mean: tensor<6xf32> {stablenorm.weight = "scaled/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "scaled/variance"}) -> tensor<2x3x3x6xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %s = stablehlo.multiply %c, %wide : tensor<2x3x3x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x3x3x6xf32>
  return %y : tensor<2x3x3x6xf32>
}

// Filled with a number that the batch norm scales: together with the bias, a map of the border, added once.
// CHECK-LABEL: @filled(
// CHECK: %[[C:.*]] = stablehlo.convolution
// CHECK: stablehlo.pad %[[C]], %{{.*}}, low = [0, 1, 1, 0]
// CHECK: stablehlo.add %{{.*}} : tensor<2x5x5x6xf32>
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: filled: folded: conv
func.func @filled(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<6xf32> {stablenorm.weight = "filled/scale"},
    %offset: tensor<6xf32> {stablenorm.weight = "filled/offset"},
    %mean: tensor<6xf32> {stablenorm.weight = "filled/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "filled/variance"}) -> tensor<2x5x5x6xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %fill = stablehlo.constant dense<1.5> : tensor<f32>
  %s = stablehlo.pad %a, %fill, low = [0, 1, 1, 0], high = [0, 1, 1, 0], interior = [0, 0, 0, 0] : (tensor<2x3x3x6xf32>, tensor<f32>) -> tensor<2x5x5x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x5x5x6xf32>
  return %y : tensor<2x5x5x6xf32>
}

// Without a bias, too.
// CHECK-LABEL: @filled_without_a_bias(
// CHECK: stablehlo.add %{{.*}} : tensor<2x5x5x6xf32>
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: filled_without_a_bias: folded: conv
func.func @filled_without_a_bias(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<6xf32> {stablenorm.weight = "filled_without_a_bias/scale"},
    %offset: tensor<6xf32> {stablenorm.weight = "filled_without_a_bias/offset"},
    %mean: tensor<6xf32> {stablenorm.weight = "filled_without_a_bias/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "filled_without_a_bias/variance"}) -> tensor<2x5x5x6xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %fill = stablehlo.constant dense<1.5> : tensor<f32>
  %s = stablehlo.pad %c, %fill, low = [0, 1, 1, 0], high = [0, 1, 1, 0], interior = [0, 0, 0, 0] : (tensor<2x3x3x6xf32>, tensor<f32>) -> tensor<2x5x5x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x5x5x6xf32>
  return %y : tensor<2x5x5x6xf32>
}

// Infinities around it stay.
// CHECK-LABEL: @filled_with_infinity(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: filled_with_infinity: declined: a pad before it fills with a number that is not finite, or not known
func.func @filled_with_infinity(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<6xf32> {stablenorm.weight = "filled_with_infinity/scale"},
    %offset: tensor<6xf32> {stablenorm.weight = "filled_with_infinity/offset"},
    %mean: tensor<6xf32> {stablenorm.weight = "filled_with_infinity/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "filled_with_infinity/variance"}) -> tensor<2x5x5x6xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %fill = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %s = stablehlo.pad %a, %fill, low = [0, 1, 1, 0], high = [0, 1, 1, 0], interior = [0, 0, 0, 0] : (tensor<2x3x3x6xf32>, tensor<f32>) -> tensor<2x5x5x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x5x5x6xf32>
  return %y : tensor<2x5x5x6xf32>
}

// A pool whose windows see the border: what they add of the bias varies there.
// CHECK-LABEL: @padded_pool(
// CHECK: %[[C:.*]] = stablehlo.convolution
// CHECK: "stablehlo.reduce_window"(%[[C]]
// CHECK: stablehlo.add %{{.*}} : tensor<2x4x4x6xf32>
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: padded_pool: folded: conv
func.func @padded_pool(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<6xf32> {stablenorm.weight = "padded_pool/scale"},
    %offset: tensor<6xf32> {stablenorm.weight = "padded_pool/offset"},
    %mean: tensor<6xf32> {stablenorm.weight = "padded_pool/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "padded_pool/variance"}) -> tensor<2x4x4x6xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %init = stablehlo.constant dense<0.0> : tensor<f32>
  %s = "stablehlo.reduce_window"(%a, %init) <{window_dimensions = array<i64: 1, 2, 2, 1>, padding = dense<[[0, 0], [1, 1], [1, 1], [0, 0]]> : tensor<4x2xi64>}> ({
  ^bb0(%l: tensor<f32>, %r: tensor<f32>):
    %o = stablehlo.add %l, %r : tensor<f32>
    stablehlo.return %o : tensor<f32>
  }) : (tensor<2x3x3x6xf32>, tensor<f32>) -> tensor<2x4x4x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x4x4x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x4x4x6xf32>
  return %y : tensor<2x4x4x6xf32>
}
