// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// s * dot(x, W) = dot(x, W * s), s along a free or a batching dimension of W, on either side.

// A dense layer.
// CHECK-LABEL: @weight_right(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [1] : (tensor<4xf32>) -> tensor<3x4xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]]
// CHECK: %[[D:.*]] = stablehlo.dot_general %arg0, %[[W]]
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %{{.*}}, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[D]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN: fold-batch-norm: weight_right: folded: dense
func.func @weight_right(
    %x: tensor<2x3xf32>,
    %w: tensor<3x4xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "weight_right/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "weight_right/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "weight_right/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "weight_right/variance"}) -> tensor<2x4xf32> {
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// The weight stored transposed.
// CHECK-LABEL: @weight_right_transposed(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [0] : (tensor<4xf32>) -> tensor<4x3xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]]
// CHECK: %[[D:.*]] = stablehlo.dot_general %arg0, %[[W]]
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %{{.*}}, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[D]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: weight_right_transposed: folded: dense
func.func @weight_right_transposed(
    %x: tensor<2x3xf32>,
    %w: tensor<4x3xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "weight_right_transposed/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "weight_right_transposed/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "weight_right_transposed/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "weight_right_transposed/variance"}) -> tensor<2x4xf32> {
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [1] : (tensor<2x3xf32>, tensor<4x3xf32>) -> tensor<2x4xf32>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// The weight on the left: its free dimensions come first.
// CHECK-LABEL: @weight_left(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [0] : (tensor<4xf32>) -> tensor<4x3xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]]
// CHECK: %[[D:.*]] = stablehlo.dot_general %[[W]], %arg0
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %{{.*}}, dims = [0] : (tensor<4xf32>) -> tensor<4x5x2xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[D]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: weight_left: folded: dense
func.func @weight_left(
    %x: tensor<5x3x2xf32>,
    %w: tensor<4x3xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "weight_left/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "weight_left/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "weight_left/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "weight_left/variance"}) -> tensor<4x5x2xf32> {
  %d = stablehlo.dot_general %w, %x, contracting_dims = [1] x [1] : (tensor<4x3xf32>, tensor<5x3x2xf32>) -> tensor<4x5x2xf32>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 0 : i64}>
    : (tensor<4x5x2xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<4x5x2xf32>
  return %y : tensor<4x5x2xf32>
}

// Two free dimensions: the scale goes along the one that is normalized.
// CHECK-LABEL: @two_free_dimensions(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [2] : (tensor<4xf32>) -> tensor<5x3x4xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]]
// CHECK: %[[D:.*]] = stablehlo.dot_general %arg0, %[[W]]
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %{{.*}}, dims = [2] : (tensor<4xf32>) -> tensor<2x5x4xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[D]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: two_free_dimensions: folded: dense
func.func @two_free_dimensions(
    %x: tensor<2x3xf32>,
    %w: tensor<5x3x4xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "two_free_dimensions/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "two_free_dimensions/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "two_free_dimensions/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "two_free_dimensions/variance"}) -> tensor<2x5x4xf32> {
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [1] : (tensor<2x3xf32>, tensor<5x3x4xf32>) -> tensor<2x5x4xf32>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 2 : i64}>
    : (tensor<2x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x4xf32>
  return %y : tensor<2x5x4xf32>
}

// ... whichever it is.
// CHECK-LABEL: @first_free_dimension(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<5xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [0] : (tensor<5xf32>) -> tensor<5x3x4xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]]
// CHECK: %[[D:.*]] = stablehlo.dot_general %arg0, %[[W]]
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %{{.*}}, dims = [1] : (tensor<5xf32>) -> tensor<2x5x4xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[D]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: first_free_dimension: folded: dense
func.func @first_free_dimension(
    %x: tensor<2x3xf32>,
    %w: tensor<5x3x4xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<5xf32> {stablenorm.weight = "first_free_dimension/scale"},
    %offset: tensor<5xf32> {stablenorm.weight = "first_free_dimension/offset"},
    %mean: tensor<5xf32> {stablenorm.weight = "first_free_dimension/mean"},
    %variance: tensor<5xf32> {stablenorm.weight = "first_free_dimension/variance"}) -> tensor<2x5x4xf32> {
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [1] : (tensor<2x3xf32>, tensor<5x3x4xf32>) -> tensor<2x5x4xf32>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x5x4xf32>, tensor<5xf32>, tensor<5xf32>, tensor<5xf32>, tensor<5xf32>) -> tensor<2x5x4xf32>
  return %y : tensor<2x5x4xf32>
}

// A free dimension behind a batching one.
// CHECK-LABEL: @batching_then_free(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [2] : (tensor<4xf32>) -> tensor<6x3x4xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]]
// CHECK: %[[D:.*]] = stablehlo.dot_general %arg0, %[[W]]
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %{{.*}}, dims = [2] : (tensor<4xf32>) -> tensor<6x2x4xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[D]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: batching_then_free: folded: dense
func.func @batching_then_free(
    %x: tensor<6x2x3xf32>,
    %w: tensor<6x3x4xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "batching_then_free/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "batching_then_free/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "batching_then_free/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "batching_then_free/variance"}) -> tensor<6x2x4xf32> {
  %d = stablehlo.dot_general %x, %w, batching_dims = [0] x [0], contracting_dims = [2] x [1] : (tensor<6x2x3xf32>, tensor<6x3x4xf32>) -> tensor<6x2x4xf32>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 2 : i64}>
    : (tensor<6x2x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<6x2x4xf32>
  return %y : tensor<6x2x4xf32>
}

// A batching dimension belongs to the weight as well.
// CHECK-LABEL: @batching_dimension(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<6xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [1] : (tensor<6xf32>) -> tensor<3x6x4xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]]
// CHECK: %[[D:.*]] = stablehlo.dot_general %arg0, %[[W]]
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %{{.*}}, dims = [0] : (tensor<6xf32>) -> tensor<6x2x4xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[D]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: batching_dimension: folded: dense
func.func @batching_dimension(
    %x: tensor<6x2x3xf32>,
    %w: tensor<3x6x4xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<6xf32> {stablenorm.weight = "batching_dimension/scale"},
    %offset: tensor<6xf32> {stablenorm.weight = "batching_dimension/offset"},
    %mean: tensor<6xf32> {stablenorm.weight = "batching_dimension/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "batching_dimension/variance"}) -> tensor<6x2x4xf32> {
  %d = stablehlo.dot_general %x, %w, batching_dims = [0] x [1], contracting_dims = [2] x [0] : (tensor<6x2x3xf32>, tensor<3x6x4xf32>) -> tensor<6x2x4xf32>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 0 : i64}>
    : (tensor<6x2x4xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<6x2x4xf32>
  return %y : tensor<6x2x4xf32>
}

// Batching, with the weight on the left.
// CHECK-LABEL: @batching_weight_left(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg2, %{{.*}} : tensor<4xf32>
// CHECK: %[[ALONG:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [1] : (tensor<4xf32>) -> tensor<6x4x3xf32>
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1, %[[ALONG]]
// CHECK: %[[D:.*]] = stablehlo.dot_general %[[W]], %arg0
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %{{.*}}, dims = [1] : (tensor<4xf32>) -> tensor<6x4x2xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %[[D]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: fold-batch-norm: batching_weight_left: folded: dense
func.func @batching_weight_left(
    %x: tensor<6x3x2xf32>,
    %w: tensor<6x4x3xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "batching_weight_left/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "batching_weight_left/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "batching_weight_left/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "batching_weight_left/variance"}) -> tensor<6x4x2xf32> {
  %d = stablehlo.dot_general %w, %x, batching_dims = [0] x [0], contracting_dims = [2] x [1] : (tensor<6x4x3xf32>, tensor<6x3x2xf32>) -> tensor<6x4x2xf32>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<6x4x2xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<6x4x2xf32>
  return %y : tensor<6x4x2xf32>
}
