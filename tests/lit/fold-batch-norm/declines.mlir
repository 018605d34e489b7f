// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// Where a batch norm stays, and why: a reason for each guard.

// Nothing comes before it.
// CHECK-LABEL: @input_is_an_argument(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN: fold-batch-norm: input_is_an_argument: declined: its input is an argument of the function: no linear operation comes before it
func.func @input_is_an_argument(
    %x: tensor<2x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "input_is_an_argument/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "input_is_an_argument/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "input_is_an_argument/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "input_is_an_argument/variance"}) -> tensor<2x4xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// Another operation reads the convolution.
// CHECK-LABEL: @shared_result(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: shared_result: declined: the result of stablehlo.convolution has another consumer
func.func @shared_result(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "shared_result/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "shared_result/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "shared_result/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "shared_result/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  %z = stablehlo.add %y, %c : tensor<1x3x3x4xf32>
  return %z : tensor<1x3x3x4xf32>
}

// One operation reads it twice.
// CHECK-LABEL: @used_twice(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: used_twice: declined: its input is a sum, a branch of which cannot take the scale: the result of stablehlo.convolution has another consumer
func.func @used_twice(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "used_twice/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "used_twice/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "used_twice/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "used_twice/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %a = stablehlo.add %c, %c : tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%a, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// A residual connection.
// CHECK-LABEL: @residual(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: residual: declined: its input is a sum, a branch of which cannot take the scale: its input is an argument of the function: no linear operation comes before it
func.func @residual(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %r: tensor<1x3x3x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "residual/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "residual/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "residual/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "residual/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %a = stablehlo.add %c, %r : tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%a, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// The kernel is an input.
// CHECK-LABEL: @kernel_of_the_input(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: kernel_of_the_input: declined: the convolution's kernel depends on the model's inputs
func.func @kernel_of_the_input(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "kernel_of_the_input/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "kernel_of_the_input/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "kernel_of_the_input/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "kernel_of_the_input/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// A product of two inputs, as in attention.
// CHECK-LABEL: @dot_of_inputs(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: dot_of_inputs: declined: neither operand of the dot_general is a weight
func.func @dot_of_inputs(
    %x: tensor<2x3xf32>,
    %w: tensor<3x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "dot_of_inputs/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "dot_of_inputs/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "dot_of_inputs/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "dot_of_inputs/variance"}) -> tensor<2x4xf32> {
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// The scale is computed from the input.
// CHECK-LABEL: @scale_of_the_input(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: scale_of_the_input: declined: its scale depends on the model's inputs
func.func @scale_of_the_input(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %v: tensor<4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "scale_of_the_input/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "scale_of_the_input/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "scale_of_the_input/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "scale_of_the_input/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %v, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// The offset is computed from the input.
// CHECK-LABEL: @offset_of_the_input(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: offset_of_the_input: declined: its offset depends on the model's inputs
func.func @offset_of_the_input(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %v: tensor<4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "offset_of_the_input/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "offset_of_the_input/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "offset_of_the_input/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "offset_of_the_input/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %v, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// The mean is computed from the input.
// CHECK-LABEL: @mean_of_the_input(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: mean_of_the_input: declined: its mean depends on the model's inputs
func.func @mean_of_the_input(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %v: tensor<4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "mean_of_the_input/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "mean_of_the_input/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "mean_of_the_input/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "mean_of_the_input/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %v, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// The variance is computed from the input.
// CHECK-LABEL: @variance_of_the_input(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: variance_of_the_input: declined: its variance depends on the model's inputs
func.func @variance_of_the_input(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %v: tensor<4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "variance_of_the_input/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "variance_of_the_input/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "variance_of_the_input/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "variance_of_the_input/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %v)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}
