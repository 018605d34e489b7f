// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// Where a batch norm stays because of what reads it.

// One reader cannot take it, so none does.
// CHECK-LABEL: @one_of_two(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN: fold-batch-norm: one_of_two: declined: {{.*}}; behind it, stablehlo.tanh reads it, which a per-channel map cannot pass
func.func @one_of_two(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "one_of_two/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "one_of_two/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "one_of_two/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "one_of_two/variance"}) -> (tensor<2x3x3x6xf32>, tensor<2x5x5x4xf32>) {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%y, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %t = stablehlo.tanh %y : tensor<2x5x5x4xf32>
  return %c, %t : tensor<2x3x3x6xf32>, tensor<2x5x5x4xf32>
}

// Two shifts to add, for one scale and one shift that would go.
// CHECK-LABEL: @no_less_work(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: no_less_work: declined: {{.*}}; behind it, it would leave as much elementwise work as there is
func.func @no_less_work(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %v: tensor<3x3x4x6xf32> {stablenorm.weight = "other/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "no_less_work/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "no_less_work/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "no_less_work/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "no_less_work/variance"}) -> tensor<2x3x3x6xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%y, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %e = stablehlo.convolution(%y, %v) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  %m = stablehlo.multiply %c, %e : tensor<2x3x3x6xf32>
  return %m : tensor<2x3x3x6xf32>
}

// An activation in between.
// CHECK-LABEL: @activation(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: activation: declined: {{.*}}; behind it, stablehlo.maximum lets only a scale pass that is known to be positive, and not near zero
func.func @activation(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "activation/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "activation/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "activation/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "activation/variance"}) -> tensor<2x3x3x6xf32> {
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

// The sum with another tensor.
// CHECK-LABEL: @sum(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: sum: declined: {{.*}}; behind it, a sum with a tensor that does not have that scale
func.func @sum(
    %x: tensor<2x5x5x4xf32>,
    %z: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "sum/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "sum/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "sum/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "sum/variance"}) -> tensor<2x3x3x6xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %r = stablehlo.add %y, %z : tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%r, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// Along the rows, not the input features.
// CHECK-LABEL: @rows(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: rows: declined: {{.*}}; behind it, it scales along a dimension of the convolution that is not its input features
func.func @rows(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<5xf32> {stablenorm.weight = "rows/scale"},
    %offset: tensor<5xf32> {stablenorm.weight = "rows/offset"},
    %mean: tensor<5xf32> {stablenorm.weight = "rows/mean"},
    %variance: tensor<5xf32> {stablenorm.weight = "rows/variance"}) -> tensor<2x3x3x6xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<5xf32>, tensor<5xf32>, tensor<5xf32>, tensor<5xf32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%y, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// A kernel that depends on the inputs.
// CHECK-LABEL: @kernel(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: kernel: declined: {{.*}}; behind it, the convolution's kernel depends on the model's inputs
func.func @kernel(
    %x: tensor<2x5x5x4xf32>,
    %k: tensor<3x3x4x6xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "kernel/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "kernel/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "kernel/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "kernel/variance"}) -> tensor<2x3x3x6xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%y, %k) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x6xf32>) -> tensor<2x3x3x6xf32>
  return %c : tensor<2x3x3x6xf32>
}

// Branches that meet again, one of which it cannot pass.
// CHECK-LABEL: @one_branch_does_not_pass(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: one_branch_does_not_pass: declined: {{.*}}; behind it, stablehlo.tanh reads it, which a per-channel map cannot pass
func.func @one_branch_does_not_pass(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x12x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "one_branch_does_not_pass/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "one_branch_does_not_pass/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "one_branch_does_not_pass/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "one_branch_does_not_pass/variance"}) -> tensor<2x5x5x6xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %low = stablehlo.constant dense<0.0> : tensor<f32>
  %p = "stablehlo.reduce_window"(%y, %low) <{window_dimensions = array<i64: 1, 3, 3, 1>, padding = dense<[[0, 0], [1, 1], [1, 1], [0, 0]]> : tensor<4x2xi64>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %o = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %o : tensor<f32>
  }) : (tensor<2x5x5x4xf32>, tensor<f32>) -> tensor<2x5x5x4xf32>
  %r = stablehlo.tanh %y : tensor<2x5x5x4xf32>
  %j = stablehlo.concatenate %y, %p, %r, dim = 3 : (tensor<2x5x5x4xf32>, tensor<2x5x5x4xf32>, tensor<2x5x5x4xf32>) -> tensor<2x5x5x12xf32>
  %c = stablehlo.convolution(%j, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x12xf32>, tensor<3x3x12x6xf32>) -> tensor<2x5x5x6xf32>
  return %c : tensor<2x5x5x6xf32>
}
