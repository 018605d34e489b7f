// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// What counts as a weight, and what becomes of one.

// Constants count as weights.
// CHECK-LABEL: @constants(
// CHECK: stablehlo.dot_general
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN: fold-batch-norm: stablehlo.batch_norm_inference: folded: stablehlo.dot_general
func.func @constants(
    %x: tensor<2x3xf32>) -> tensor<2x2xf32> {
  %w = stablehlo.constant dense<[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]> : tensor<3x2xf32>
  %scale = stablehlo.constant dense<[2.0, 4.0]> : tensor<2xf32>
  %offset = stablehlo.constant dense<[0.5, -1.0]> : tensor<2xf32>
  %mean = stablehlo.constant dense<[-1.0, 3.0]> : tensor<2xf32>
  %variance = stablehlo.constant dense<[4.0, 0.25]> : tensor<2xf32>
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<2x3xf32>, tensor<3x2xf32>) -> tensor<2x2xf32>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<2x2xf32>
  return %y : tensor<2x2xf32>
}

// So does all that is computed from weights alone.
// CHECK-LABEL: @computed(
// CHECK: %[[V:.*]] = stablehlo.transpose %arg1
// CHECK: %[[W:.*]] = stablehlo.multiply %[[V]], %{{.*}}
// CHECK: stablehlo.convolution(%arg0, %[[W]])
// EXPLAIN-NEXT: fold-batch-norm: computed: folded: conv
func.func @computed(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<4x3x3x3xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "computed/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "computed/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "computed/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "computed/variance"}) -> tensor<1x3x3x4xf32> {
  %v = stablehlo.transpose %w, dims = [1, 2, 3, 0] : (tensor<4x3x3x3xf32>) -> tensor<3x3x3x4xf32>
  %c = stablehlo.convolution(%x, %v) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// One weight before two batch norms becomes two weights.
// CHECK-LABEL: @shared(
// CHECK: %[[W1:.*]] = stablehlo.multiply %arg1, %{{.*}} : tensor<3x4xf32>
// CHECK: stablehlo.dot_general %arg0, %[[W1]]
// CHECK: %[[W2:.*]] = stablehlo.multiply %arg1, %{{.*}} : tensor<3x4xf32>
// CHECK: stablehlo.dot_general %arg0, %[[W2]]
// EXPLAIN-NEXT: fold-batch-norm: first: folded: dense
// EXPLAIN-NEXT: fold-batch-norm: second: folded: dense
func.func @shared(
    %x: tensor<2x3xf32>,
    %w: tensor<3x4xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "first/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "first/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "first/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "first/variance"},
    %scale2: tensor<4xf32> {stablenorm.weight = "second/scale"},
    %mean2: tensor<4xf32> {stablenorm.weight = "second/mean"}) -> tensor<2x4xf32> {
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %e = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
  %z = "stablehlo.batch_norm_inference"(%e, %scale2, %offset, %mean2, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  %sum = stablehlo.add %y, %z : tensor<2x4xf32>
  return %sum : tensor<2x4xf32>
}
