// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// dot(s*x + t, W) = dot(x, s*W) + dot(t, W), s along a contracting or a batching dimension of W, on either side.

// The weight stands left: its second dimension is contracted.
// CHECK-LABEL: @weight_left(
// CHECK: %[[S:.*]] = stablehlo.broadcast_in_dim {{.*}}, dims = [1] : (tensor<4xf32>) -> tensor<3x4xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[S]]
// CHECK: stablehlo.dot_general %[[W]], %arg0
// CHECK: stablehlo.dot_general %arg1, {{.*}} -> tensor<3x1xf32>
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN: fold-batch-norm: bn: folded: dense
func.func @weight_left(
    %x: tensor<4x5xf32>,
    %w: tensor<3x4xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "bn/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "bn/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "bn/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "bn/variance"}) -> tensor<3x5xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 0 : i64}>
    : (tensor<4x5xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<4x5xf32>
  %d = stablehlo.dot_general %w, %y, contracting_dims = [1] x [0] : (tensor<3x4xf32>, tensor<4x5xf32>) -> tensor<3x5xf32>
  return %d : tensor<3x5xf32>
}

// Along a batching dimension: one scale for each matrix.
// CHECK-LABEL: @batching(
// CHECK: stablehlo.broadcast_in_dim {{.*}}, dims = [0] : (tensor<2xf32>) -> tensor<2x4x3xf32>
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: bn: folded: dense
func.func @batching(
    %x: tensor<2x5x4xf32>,
    %w: tensor<2x4x3xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<2xf32> {stablenorm.weight = "bn/scale"},
    %offset: tensor<2xf32> {stablenorm.weight = "bn/offset"},
    %mean: tensor<2xf32> {stablenorm.weight = "bn/mean"},
    %variance: tensor<2xf32> {stablenorm.weight = "bn/variance"}) -> tensor<2x5x3xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 0 : i64}>
    : (tensor<2x5x4xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<2x5x4xf32>
  %d = stablehlo.dot_general %y, %w, batching_dims = [0] x [0], contracting_dims = [2] x [1]
    : (tensor<2x5x4xf32>, tensor<2x4x3xf32>) -> tensor<2x5x3xf32>
  return %d : tensor<2x5x3xf32>
}

// The shift is computed in full, whatever algorithm the dot_general names for its own type.
// CHECK-LABEL: @algorithm(
// CHECK: stablehlo.dot_general %arg0, {{.*}} algorithm = <lhs_precision_type = tf32
// CHECK: stablehlo.dot_general {{.*}}, %arg1, {{.*}} precision = [HIGHEST, HIGHEST] : (tensor<1x4xf32>, tensor<4x3xf32>) -> tensor<1x3xf32>
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: bn: folded: dense
func.func @algorithm(
    %x: tensor<5x4xf32>,
    %w: tensor<4x3xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "bn/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "bn/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "bn/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "bn/variance"}) -> tensor<5x3xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<5x4xf32>
  %d = stablehlo.dot_general %y, %w, contracting_dims = [1] x [0], algorithm = <lhs_precision_type = tf32,
    rhs_precision_type = tf32, accumulation_type = f32, lhs_component_count = 1, rhs_component_count = 1,
    num_primitive_operations = 1, allow_imprecise_accumulation = false>
    : (tensor<5x4xf32>, tensor<4x3xf32>) -> tensor<5x3xf32>
  return %d : tensor<5x3xf32>
}

// Along the rows, which the weight does not have.
// CHECK-LABEL: @rows(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: bn: declined: {{.*}}; behind it, it is an output
func.func @rows(
    %x: tensor<5x4xf32>,
    %w: tensor<4x3xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<5xf32> {stablenorm.weight = "bn/scale"},
    %offset: tensor<5xf32> {stablenorm.weight = "bn/offset"},
    %mean: tensor<5xf32> {stablenorm.weight = "bn/mean"},
    %variance: tensor<5xf32> {stablenorm.weight = "bn/variance"}) -> tensor<5x3xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 0 : i64}>
    : (tensor<5x4xf32>, tensor<5xf32>, tensor<5xf32>, tensor<5xf32>, tensor<5xf32>) -> tensor<5x4xf32>
  %d = stablehlo.dot_general %y, %w, contracting_dims = [1] x [0] : (tensor<5x4xf32>, tensor<4x3xf32>) -> tensor<5x3xf32>
  return %d : tensor<5x3xf32>
}

// The other operand depends on the inputs, or is eight bits wide.
// CHECK-LABEL: @no_weight(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: bn: declined: {{.*}}; behind it, the other operand of the dot_general depends on the model's inputs
func.func @no_weight(
    %x: tensor<5x4xf32>,
    %z: tensor<4x3xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "bn/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "bn/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "bn/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "bn/variance"}) -> tensor<5x3xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<5x4xf32>
  %d = stablehlo.dot_general %y, %z, contracting_dims = [1] x [0] : (tensor<5x4xf32>, tensor<4x3xf32>) -> tensor<5x3xf32>
  return %d : tensor<5x3xf32>
}

// CHECK-LABEL: @eight_bits(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: bn: declined: {{.*}}; behind it, the weight of the dot_general is of a type that is too coarse to be scaled: tensor<4x3xf8E4M3FN>
func.func @eight_bits(
    %x: tensor<5x4xf32>,
    %w: tensor<4x3xf8E4M3FN> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "bn/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "bn/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "bn/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "bn/variance"}) -> tensor<5x3xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<5x4xf32>
  %d = stablehlo.dot_general %y, %w, contracting_dims = [1] x [0] : (tensor<5x4xf32>, tensor<4x3xf8E4M3FN>) -> tensor<5x3xf32>
  return %d : tensor<5x3xf32>
}
