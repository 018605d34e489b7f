// RUN: stablenorm-opt %s --passes=fold-batch-norm{training=true} | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm{training=true} --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN
// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s --check-prefix=DEFAULT

// The way back through a frozen batch norm: its scale multiplies a gradient, which two convolutions read.

// The gradient of x takes it in the kernel, that of the kernel behind the sum.
// CHECK-LABEL: @two_gradients(
// CHECK: %[[w:.*]] = stablehlo.multiply %{{.*}}, %{{.*}} : tensor<3x3x3x4xf32>
// CHECK: stablehlo.convolution(%{{.*}}, %[[w]]){{.*}} -> tensor<2x8x8x3xf32>
// CHECK: %[[gw:.*]] = stablehlo.convolution(%{{.*}}, %arg1){{.*}} -> tensor<3x3x3x4xf32>
// CHECK: %[[s:.*]] = stablehlo.broadcast_in_dim {{.*}} -> tensor<3x3x3x4xf32>
// CHECK: stablehlo.multiply %[[gw]], %[[s]] : tensor<3x3x3x4xf32>
// CHECK-NOT: stablehlo.multiply
// EXPLAIN: fold-batch-norm: two_gradients: folded: stablehlo.convolution, conv
// DEFAULT-LABEL: @two_gradients(
// DEFAULT: stablehlo.multiply %{{.*}}, %{{.*}} : tensor<2x8x8x4xf32>
func.func @two_gradients(
    %x: tensor<2x8x8x3xf32>,
    %g: tensor<2x8x8x4xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "two_gradients/scale"}) -> (tensor<2x8x8x3xf32>, tensor<3x3x3x4xf32>) {
  %s = stablehlo.broadcast_in_dim %scale, dims = [3] : (tensor<4xf32>) -> tensor<2x8x8x4xf32>
  %sg = stablehlo.multiply %g, %s : tensor<2x8x8x4xf32>
  %gx = stablehlo.convolution(%sg, %w) dim_numbers = [b, 0, 1, f]x[0, 1, o, i]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x8x8x4xf32>, tensor<3x3x3x4xf32>) -> tensor<2x8x8x3xf32>
  %gw = stablehlo.convolution(%x, %sg) dim_numbers = [f, 0, 1, b]x[i, 0, 1, o]->[0, 1, b, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x8x8x3xf32>, tensor<2x8x8x4xf32>) -> tensor<3x3x3x4xf32>
  return %gx, %gw : tensor<2x8x8x3xf32>, tensor<3x3x3x4xf32>
}

// The gradients of a dense layer and of its bias.
// CHECK-LABEL: @dense_and_bias(
// CHECK: %[[gw:.*]] = stablehlo.dot_general %arg0, %arg1
// CHECK: stablehlo.multiply %[[gw]], %{{.*}} : tensor<3x4xf32>
// CHECK: %[[gb:.*]] = stablehlo.reduce(%arg1
// CHECK: stablehlo.multiply %[[gb]], %{{.*}} : tensor<4xf32>
// EXPLAIN-NEXT: fold-batch-norm: dense_and_bias: folded:
// DEFAULT-LABEL: @dense_and_bias(
// DEFAULT: stablehlo.multiply %{{.*}}, %{{.*}} : tensor<16x4xf32>
func.func @dense_and_bias(
    %x: tensor<16x3xf32>,
    %g: tensor<16x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "dense_and_bias/scale"}) -> (tensor<3x4xf32>, tensor<4xf32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %s = stablehlo.broadcast_in_dim %scale, dims = [1] : (tensor<4xf32>) -> tensor<16x4xf32>
  %sg = stablehlo.multiply %g, %s : tensor<16x4xf32>
  %gw = stablehlo.dot_general %x, %sg, contracting_dims = [0] x [0] : (tensor<16x3xf32>, tensor<16x4xf32>) -> tensor<3x4xf32>
  %gb = stablehlo.reduce(%sg init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<16x4xf32>, tensor<f32>) -> tensor<4xf32>
  return %gw, %gb : tensor<3x4xf32>, tensor<4xf32>
}

// As the left operand, and scaled along two dimensions, which the result has in another order.
// CHECK-LABEL: @left_of_a_product(
// CHECK: %[[d:.*]] = stablehlo.dot_general %arg0, %arg1
// CHECK: %[[s:.*]] = stablehlo.broadcast_in_dim {{.*}} -> tensor<2x4x3xf32>
// CHECK: stablehlo.multiply %[[d]], %[[s]] : tensor<2x4x3xf32>
// EXPLAIN-NEXT: fold-batch-norm: left_of_a_product: folded:
func.func @left_of_a_product(
    %g: tensor<4x16x2xf32>,
    %x: tensor<2x16x3xf32>,
    %scale: tensor<4x2xf32> {stablenorm.weight = "left_of_a_product/scale"}) -> tensor<2x4x3xf32> {
  %s = stablehlo.broadcast_in_dim %scale, dims = [0, 2] : (tensor<4x2xf32>) -> tensor<4x16x2xf32>
  %sg = stablehlo.multiply %g, %s : tensor<4x16x2xf32>
  %d = stablehlo.dot_general %sg, %x, batching_dims = [2] x [0], contracting_dims = [1] x [1]
    : (tensor<4x16x2xf32>, tensor<2x16x3xf32>) -> tensor<2x4x3xf32>
  return %d : tensor<2x4x3xf32>
}
