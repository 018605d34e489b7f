// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// max(s*x + t, c) = s * max(x + t/s, c/s), s positive: the scale goes on into the weight, one addition stays.

// A ReLU.
// CHECK-LABEL: @relu(
// CHECK: %[[A:.*]] = stablehlo.add %arg0, %{{.*}} : tensor<2x5x5x4xf32>
// CHECK: %[[M:.*]] = stablehlo.maximum %[[A]], %{{.*}}
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1
// CHECK: stablehlo.convolution(%{{.*}}, %[[W]])
// CHECK-NOT: batch_norm_inference
// CHECK-NOT: stablehlo.multiply %{{.*}} : tensor<2x5x5x4xf32>
// CHECK: return
// EXPLAIN: fold-batch-norm: stablehlo.batch_norm_inference: folded: conv
func.func @relu(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<2x5x5x4xf32>
  %r = stablehlo.maximum %y, %zero : tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%r, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// A mean far from zero: it is subtracted before any sum, as by the batch norm itself.
// CHECK-LABEL: @relu_of_a_far_mean(
// CHECK: %[[A:.*]] = stablehlo.add %arg0, %{{.*}} : tensor<2x5x5x4xf32>
// CHECK: %[[M:.*]] = stablehlo.maximum %[[A]], %{{.*}}
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1
// CHECK: stablehlo.convolution(%{{.*}}, %[[W]])
// CHECK-NOT: batch_norm_inference
// CHECK-NOT: stablehlo.multiply %{{.*}} : tensor<2x5x5x4xf32>
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: folded: conv
func.func @relu_of_a_far_mean(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[-1.0e5, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<2x5x5x4xf32>
  %r = stablehlo.maximum %y, %zero : tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%r, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// A minimum: its bound is divided.
// CHECK-LABEL: @minimum(
// CHECK: %[[A:.*]] = stablehlo.add %arg0, %{{.*}} : tensor<2x5x5x4xf32>
// CHECK: stablehlo.divide %{{.*}}, %{{.*}} : tensor<1x1x1x4xf32>
// CHECK: %[[M:.*]] = stablehlo.minimum %{{.*}}, %[[A]]
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1
// CHECK: stablehlo.convolution(%{{.*}}, %[[W]])
// CHECK-NOT: batch_norm_inference
// CHECK-NOT: stablehlo.multiply %{{.*}} : tensor<2x5x5x4xf32>
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: folded: conv
func.func @minimum(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %six = stablehlo.constant dense<6.0> : tensor<2x5x5x4xf32>
  %r = stablehlo.minimum %six, %y : tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%r, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// ReLU6.
// CHECK-LABEL: @relu6(
// CHECK: %[[A:.*]] = stablehlo.add %arg0, %{{.*}} : tensor<2x5x5x4xf32>
// CHECK: %[[M:.*]] = stablehlo.clamp %{{.*}}, %[[A]], %{{.*}} : (tensor<f32>, tensor<2x5x5x4xf32>, tensor<2x5x5x4xf32>)
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1
// CHECK: stablehlo.convolution(%{{.*}}, %[[W]])
// CHECK-NOT: batch_norm_inference
// CHECK-NOT: stablehlo.multiply %{{.*}} : tensor<2x5x5x4xf32>
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: folded: conv
func.func @relu6(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %six = stablehlo.constant dense<6.0> : tensor<f32>
  %r = stablehlo.clamp %zero, %y, %six : (tensor<f32>, tensor<2x5x5x4xf32>, tensor<f32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%r, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// A maximum over windows lets the shift pass, too: it ends in a bias.
// CHECK-LABEL: @max_pool(
// CHECK: "stablehlo.reduce_window"(%arg0
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1
// CHECK: %[[C:.*]] = stablehlo.convolution(%{{.*}}, %[[W]])
// CHECK: stablehlo.add %[[C]]
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: folded: conv
func.func @max_pool(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %low = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %r = "stablehlo.reduce_window"(%y, %low) <{window_dimensions = array<i64: 1, 2, 2, 1>, padding = dense<[[0, 0], [1, 0], [0, 1], [0, 0]]> : tensor<4x2xi64>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %o = stablehlo.maximum %a, %b : tensor<f32>
    stablehlo.return %o : tensor<f32>
  }) : (tensor<2x5x5x4xf32>, tensor<f32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%r, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// A maximum that begins at zero.
// CHECK-LABEL: @max_pool_from_zero(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: declined: {{.*}}; behind it, a maximum over windows that does not begin at -inf
func.func @max_pool_from_zero(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %low = stablehlo.constant dense<0.0> : tensor<f32>
  %r = "stablehlo.reduce_window"(%y, %low) <{window_dimensions = array<i64: 1, 2, 2, 1>, padding = dense<[[0, 0], [1, 0], [0, 1], [0, 0]]> : tensor<4x2xi64>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %o = stablehlo.maximum %a, %b : tensor<f32>
    stablehlo.return %o : tensor<f32>
  }) : (tensor<2x5x5x4xf32>, tensor<f32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%r, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// A maximum of a negative multiple is a minimum.
// CHECK-LABEL: @max_pool_of_both_signs(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: declined: {{.*}}; behind it, a maximum over windows lets only a scale pass that is known to be positive, and not near zero
func.func @max_pool_of_both_signs(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[1.0, -2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %low = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %r = "stablehlo.reduce_window"(%y, %low) <{window_dimensions = array<i64: 1, 2, 2, 1>, padding = dense<[[0, 0], [1, 0], [0, 1], [0, 0]]> : tensor<4x2xi64>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %o = stablehlo.maximum %a, %b : tensor<f32>
    stablehlo.return %o : tensor<f32>
  }) : (tensor<2x5x5x4xf32>, tensor<f32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%r, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// A negative scale.
// CHECK-LABEL: @relu_of_both_signs(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: declined: {{.*}}; behind it, stablehlo.maximum lets only a scale pass that is known to be positive, and not near zero
func.func @relu_of_both_signs(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[1.0, -2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<2x5x5x4xf32>
  %r = stablehlo.maximum %y, %zero : tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%r, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// A scale of zero.
// CHECK-LABEL: @relu_of_zero(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: declined: {{.*}}; behind it, stablehlo.maximum lets only a scale pass that is known to be positive, and not near zero
func.func @relu_of_zero(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[1.0, 0.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<2x5x5x4xf32>
  %r = stablehlo.maximum %y, %zero : tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%r, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// A shift that is too large, divided by its scale.
// CHECK-LABEL: @relu_far_away(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: declined: {{.*}}; behind it, stablehlo.maximum lets only a scale pass that is known to be positive, and not near zero
func.func @relu_far_away(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, 1.0e13, 0.5, 3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<2x5x5x4xf32>
  %r = stablehlo.maximum %y, %zero : tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%r, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// A bound whose quotient might overflow.
// CHECK-LABEL: @large_bound(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: declined: {{.*}}; behind it, stablehlo.minimum with what is not a small number
func.func @large_bound(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %most = stablehlo.constant dense<65.0> : tensor<2x5x5x4xf32>
  %r = stablehlo.minimum %y, %most : tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%r, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// A maximum of two tensors.
// CHECK-LABEL: @maximum_of_two(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: declined: {{.*}}; behind it, stablehlo.maximum with what is not a small number
func.func @maximum_of_two(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %r = stablehlo.maximum %y, %x : tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%r, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// It is the bound of a clamp.
// CHECK-LABEL: @clamped_by_it(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: declined: {{.*}}; behind it, it is the bound of a clamp
func.func @clamped_by_it(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x3x3x6xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %r = stablehlo.clamp %zero, %x, %y : (tensor<f32>, tensor<2x5x5x4xf32>, tensor<2x5x5x4xf32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%r, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// In float16 the quotients must stay smaller.
// CHECK-LABEL: @half(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: declined: {{.*}}; behind it, stablehlo.maximum lets only a scale pass that is known to be positive, and not near zero
func.func @half(
    %x: tensor<2x5x5x4xf16>,
    %w: tensor<3x3x4x6xf16> {stablenorm.weight = "conv/kernel"}) -> tensor<2x3x3x6xf16> {
  %scale = stablehlo.constant dense<[1.0, 0.003, 0.5, 3.0]> : tensor<4xf16>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf16>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf16>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf16>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf16>, tensor<4xf16>, tensor<4xf16>, tensor<4xf16>, tensor<4xf16>) -> tensor<2x5x5x4xf16>
  %zero = stablehlo.constant dense<0.0> : tensor<2x5x5x4xf16>
  %r = stablehlo.maximum %y, %zero : tensor<2x5x5x4xf16>
  %c = stablehlo.convolution(%r, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf16>, tensor<3x3x4x6xf16>) -> tensor<2x3x3x6xf16>
  return %c : tensor<2x3x3x6xf16>
}
