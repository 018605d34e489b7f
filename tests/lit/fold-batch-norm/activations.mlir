// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// s * max(f, c) = max(s * f, s * c) where s is positive: the weights' numbers decide.

// ReLU: the bias is scaled before it, the shift added after it.
// CHECK-LABEL: @relu(
// CHECK: stablehlo.convolution
// CHECK: stablehlo.add
// CHECK: stablehlo.maximum
// CHECK: stablehlo.add
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN: {{.*}}fold-batch-norm: {{.*}}: folded: conv
func.func @relu(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[0.5, 0.75, 1.0, 1.25, 1.5, 1.75]> : tensor<6xf32>
  %offset = stablehlo.constant dense<[0.3, 0.2, 0.1, -0.0, -0.1, -0.2]> : tensor<6xf32>
  %mean = stablehlo.constant dense<[-0.2, 0.0, 0.2, 0.4, 0.6, 0.8]> : tensor<6xf32>
  %variance = stablehlo.constant dense<[0.6, 0.9, 1.2, 1.5, 1.8, 2.1]> : tensor<6xf32>
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<2x3x3x6xf32>
  %s = stablehlo.maximum %a, %zero : tensor<2x3x3x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x3x3x6xf32>
  return %y : tensor<2x3x3x6xf32>
}

// A scale of both signs.
// CHECK-LABEL: @relu_of_both_signs(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: {{.*}}fold-batch-norm: {{.*}}: declined: an activation or a maximum before it lets only a positive scale pass, and it has negative ones
func.func @relu_of_both_signs(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[-0.5, 0.75, 1.0, 1.25, 1.5, 1.75]> : tensor<6xf32>
  %offset = stablehlo.constant dense<[0.3, 0.2, 0.1, -0.0, -0.1, -0.2]> : tensor<6xf32>
  %mean = stablehlo.constant dense<[-0.2, 0.0, 0.2, 0.4, 0.6, 0.8]> : tensor<6xf32>
  %variance = stablehlo.constant dense<[0.6, 0.9, 1.2, 1.5, 1.8, 2.1]> : tensor<6xf32>
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<2x3x3x6xf32>
  %s = stablehlo.maximum %a, %zero : tensor<2x3x3x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x3x3x6xf32>
  return %y : tensor<2x3x3x6xf32>
}

// ReLU6: its bounds are scaled.
// CHECK-LABEL: @clamp(
// CHECK: stablehlo.clamp %{{.*}}, %{{.*}}, %{{.*}} : tensor<2x3x3x6xf32>
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: {{.*}}fold-batch-norm: {{.*}}: folded: conv
func.func @clamp(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[0.5, 0.75, 1.0, 1.25, 1.5, 1.75]> : tensor<6xf32>
  %offset = stablehlo.constant dense<[0.3, 0.2, 0.1, -0.0, -0.1, -0.2]> : tensor<6xf32>
  %mean = stablehlo.constant dense<[-0.2, 0.0, 0.2, 0.4, 0.6, 0.8]> : tensor<6xf32>
  %variance = stablehlo.constant dense<[0.6, 0.9, 1.2, 1.5, 1.8, 2.1]> : tensor<6xf32>
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %low = stablehlo.constant dense<0.0> : tensor<f32>
  %high = stablehlo.constant dense<6.0> : tensor<f32>
  %s = stablehlo.clamp %low, %a, %high : (tensor<f32>, tensor<2x3x3x6xf32>, tensor<f32>) -> tensor<2x3x3x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x3x3x6xf32>
  return %y : tensor<2x3x3x6xf32>
}

// Bounds and a scale of both signs.
// CHECK-LABEL: @clamp_of_both_signs(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: {{.*}}fold-batch-norm: {{.*}}: declined: an activation or a maximum before it lets only a positive scale pass, and it has negative ones
func.func @clamp_of_both_signs(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[-0.5, 0.75, 1.0, 1.25, 1.5, 1.75]> : tensor<6xf32>
  %offset = stablehlo.constant dense<[0.3, 0.2, 0.1, -0.0, -0.1, -0.2]> : tensor<6xf32>
  %mean = stablehlo.constant dense<[-0.2, 0.0, 0.2, 0.4, 0.6, 0.8]> : tensor<6xf32>
  %variance = stablehlo.constant dense<[0.6, 0.9, 1.2, 1.5, 1.8, 2.1]> : tensor<6xf32>
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %low = stablehlo.constant dense<0.0> : tensor<f32>
  %high = stablehlo.constant dense<6.0> : tensor<f32>
  %s = stablehlo.clamp %low, %a, %high : (tensor<f32>, tensor<2x3x3x6xf32>, tensor<f32>) -> tensor<2x3x3x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x3x3x6xf32>
  return %y : tensor<2x3x3x6xf32>
}

// Maxima over windows.
// CHECK-LABEL: @max_pool(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: {{.*}}fold-batch-norm: {{.*}}: folded: conv
func.func @max_pool(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"}) -> tensor<2x2x2x6xf32> {
  %scale = stablehlo.constant dense<[0.5, 0.75, 1.0, 1.25, 1.5, 1.75]> : tensor<6xf32>
  %offset = stablehlo.constant dense<[0.3, 0.2, 0.1, -0.0, -0.1, -0.2]> : tensor<6xf32>
  %mean = stablehlo.constant dense<[-0.2, 0.0, 0.2, 0.4, 0.6, 0.8]> : tensor<6xf32>
  %variance = stablehlo.constant dense<[0.6, 0.9, 1.2, 1.5, 1.8, 2.1]> : tensor<6xf32>
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %init = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %s = "stablehlo.reduce_window"(%a, %init) <{window_dimensions = array<i64: 1, 2, 2, 1>}> ({
  ^bb0(%l: tensor<f32>, %r: tensor<f32>):
    %o = stablehlo.maximum %l, %r : tensor<f32>
    stablehlo.return %o : tensor<f32>
  }) : (tensor<2x3x3x6xf32>, tensor<f32>) -> tensor<2x2x2x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x2x2x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x2x2x6xf32>
  return %y : tensor<2x2x2x6xf32>
}

// Maxima and a scale of both signs.
// CHECK-LABEL: @max_pool_of_both_signs(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: {{.*}}fold-batch-norm: conv: folded: stablehlo.batch_norm_inference (elementwise operations less per call: 1)
// EXPLAIN-NEXT: {{.*}}fold-batch-norm: {{.*}}: declined: an activation or a maximum before it lets only a positive scale pass, and it has negative ones
func.func @max_pool_of_both_signs(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"}) -> tensor<2x2x2x6xf32> {
  %scale = stablehlo.constant dense<[-0.5, 0.75, 1.0, 1.25, 1.5, 1.75]> : tensor<6xf32>
  %offset = stablehlo.constant dense<[0.3, 0.2, 0.1, -0.0, -0.1, -0.2]> : tensor<6xf32>
  %mean = stablehlo.constant dense<[-0.2, 0.0, 0.2, 0.4, 0.6, 0.8]> : tensor<6xf32>
  %variance = stablehlo.constant dense<[0.6, 0.9, 1.2, 1.5, 1.8, 2.1]> : tensor<6xf32>
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %init = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %s = "stablehlo.reduce_window"(%a, %init) <{window_dimensions = array<i64: 1, 2, 2, 1>}> ({
  ^bb0(%l: tensor<f32>, %r: tensor<f32>):
    %o = stablehlo.maximum %l, %r : tensor<f32>
    stablehlo.return %o : tensor<f32>
  }) : (tensor<2x3x3x6xf32>, tensor<f32>) -> tensor<2x2x2x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x2x2x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x2x2x6xf32>
  return %y : tensor<2x2x2x6xf32>
}

// Maxima that do not begin at -inf.
// CHECK-LABEL: @max_pool_from_zero(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: {{.*}}fold-batch-norm: {{.*}}: declined: a maximum before it that does not begin at -inf
func.func @max_pool_from_zero(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"}) -> tensor<2x2x2x6xf32> {
  %scale = stablehlo.constant dense<[0.5, 0.75, 1.0, 1.25, 1.5, 1.75]> : tensor<6xf32>
  %offset = stablehlo.constant dense<[0.3, 0.2, 0.1, -0.0, -0.1, -0.2]> : tensor<6xf32>
  %mean = stablehlo.constant dense<[-0.2, 0.0, 0.2, 0.4, 0.6, 0.8]> : tensor<6xf32>
  %variance = stablehlo.constant dense<[0.6, 0.9, 1.2, 1.5, 1.8, 2.1]> : tensor<6xf32>
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %init = stablehlo.constant dense<0.0> : tensor<f32>
  %s = "stablehlo.reduce_window"(%a, %init) <{window_dimensions = array<i64: 1, 2, 2, 1>}> ({
  ^bb0(%l: tensor<f32>, %r: tensor<f32>):
    %o = stablehlo.maximum %l, %r : tensor<f32>
    stablehlo.return %o : tensor<f32>
  }) : (tensor<2x3x3x6xf32>, tensor<f32>) -> tensor<2x2x2x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x2x2x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x2x2x6xf32>
  return %y : tensor<2x2x2x6xf32>
}

// A leaky ReLU, written as a maximum of two multiples.
// CHECK-LABEL: @leaky_relu(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: {{.*}}fold-batch-norm: {{.*}}: folded: conv
func.func @leaky_relu(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[0.5, 0.75, 1.0, 1.25, 1.5, 1.75]> : tensor<6xf32>
  %offset = stablehlo.constant dense<[0.3, 0.2, 0.1, -0.0, -0.1, -0.2]> : tensor<6xf32>
  %mean = stablehlo.constant dense<[-0.2, 0.0, 0.2, 0.4, 0.6, 0.8]> : tensor<6xf32>
  %variance = stablehlo.constant dense<[0.6, 0.9, 1.2, 1.5, 1.8, 2.1]> : tensor<6xf32>
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %slope = stablehlo.constant dense<0.25> : tensor<2x3x3x6xf32>
  %l = stablehlo.multiply %a, %slope : tensor<2x3x3x6xf32>
  %s = stablehlo.maximum %a, %l : tensor<2x3x3x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x3x3x6xf32>
  return %y : tensor<2x3x3x6xf32>
}

// A leaky ReLU and a scale of both signs.
// CHECK-LABEL: @leaky_relu_of_both_signs(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: {{.*}}fold-batch-norm: {{.*}}: declined: an activation or a maximum before it lets only a positive scale pass, and it has negative ones
func.func @leaky_relu_of_both_signs(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<6xf32> {stablenorm.weight = "conv/bias"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[-0.5, 0.75, 1.0, 1.25, 1.5, 1.75]> : tensor<6xf32>
  %offset = stablehlo.constant dense<[0.3, 0.2, 0.1, -0.0, -0.1, -0.2]> : tensor<6xf32>
  %mean = stablehlo.constant dense<[-0.2, 0.0, 0.2, 0.4, 0.6, 0.8]> : tensor<6xf32>
  %variance = stablehlo.constant dense<[0.6, 0.9, 1.2, 1.5, 1.8, 2.1]> : tensor<6xf32>
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<6xf32>) -> tensor<2x3x3x6xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x6xf32>
  %slope = stablehlo.constant dense<0.25> : tensor<2x3x3x6xf32>
  %l = stablehlo.multiply %a, %slope : tensor<2x3x3x6xf32>
  %s = stablehlo.maximum %a, %l : tensor<2x3x3x6xf32>
  %y = "stablehlo.batch_norm_inference"(%s, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x3x3x6xf32>
  return %y : tensor<2x3x3x6xf32>
}
