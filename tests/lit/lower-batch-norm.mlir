// RUN: stablenorm-opt %s --passes=lower-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=lower-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// y = (x - mean) * (scale * rsqrt(variance + epsilon)) + offset: the mean goes first, so that nothing cancels.
// CHECK-LABEL: @arithmetic(
// CHECK: %[[M:.*]] = stablehlo.broadcast_in_dim %arg3, dims = [1] : (tensor<3xf32>) -> tensor<2x3xf32>
// CHECK: %[[D:.*]] = stablehlo.subtract %arg0, %[[M]]
// CHECK: %[[E:.*]] = stablehlo.constant dense<1.000000e-03> : tensor<3xf32>
// CHECK: %[[V:.*]] = stablehlo.add %arg4, %[[E]]
// CHECK: %[[R:.*]] = stablehlo.rsqrt %[[V]]
// CHECK: %[[S:.*]] = stablehlo.multiply %arg1, %[[R]] : tensor<3xf32>
// CHECK: %[[SB:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [1]
// CHECK: %[[P:.*]] = stablehlo.multiply %[[D]], %[[SB]]
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %arg2, dims = [1]
// CHECK: %[[Y:.*]] = stablehlo.add %[[P]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN: lower-batch-norm: bn: lowered: elementwise arithmetic
func.func @arithmetic(
    %x: tensor<2x3xf32>,
    %scale: tensor<3xf32>,
    %offset: tensor<3xf32>,
    %mean: tensor<3xf32> {stablenorm.weight = "bn/mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "bn/variance"}) -> tensor<2x3xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  return %y : tensor<2x3xf32>
}

// The arithmetic is done in float32 at least, and rounded once.
// CHECK-LABEL: @float16(
// CHECK: stablehlo.convert %arg0 : (tensor<3x2x4xf16>) -> tensor<3x2x4xf32>
// CHECK: stablehlo.rsqrt %{{.*}} : tensor<3xf32>
// CHECK: %[[Y:.*]] = stablehlo.add %{{.*}}, %{{.*}} : tensor<3x2x4xf32>
// CHECK: %[[ROUNDED:.*]] = stablehlo.convert %[[Y]] : (tensor<3x2x4xf32>) -> tensor<3x2x4xf16>
// CHECK: return %[[ROUNDED]]
func.func @float16(%x: tensor<3x2x4xf16>, %s: tensor<3xf16>, %variance: tensor<3xf16> {stablenorm.weight = "bn/variance"})
    -> tensor<3x2x4xf16> {
  %y = "stablehlo.batch_norm_inference"(%x, %s, %s, %s, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 0 : i64}>
    : (tensor<3x2x4xf16>, tensor<3xf16>, tensor<3xf16>, tensor<3xf16>, tensor<3xf16>) -> tensor<3x2x4xf16>
  return %y : tensor<3x2x4xf16>
}

// float64 stays float64, with the epsilon that the attribute, a float32, holds.
// CHECK-LABEL: @float64(
// CHECK-NOT: stablehlo.convert
// CHECK: stablehlo.constant dense<0.001{{[0-9]+}}> : tensor<3xf64>
// CHECK-NOT: stablehlo.convert
// CHECK: return
func.func @float64(%x: tensor<2x3xf64>, %s: tensor<3xf64>, %variance: tensor<3xf64> {stablenorm.weight = "bn/variance"})
    -> tensor<2x3xf64> {
  %y = "stablehlo.batch_norm_inference"(%x, %s, %s, %s, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x3xf64>, tensor<3xf64>, tensor<3xf64>, tensor<3xf64>, tensor<3xf64>) -> tensor<2x3xf64>
  return %y : tensor<2x3xf64>
}

// A dynamic size is read when the program runs.
// CHECK-LABEL: @dynamic(
// CHECK: stablehlo.get_dimension_size %arg0, dim = 0
// CHECK: stablehlo.dynamic_broadcast_in_dim
// CHECK-NOT: batch_norm_inference
// CHECK: return
func.func @dynamic(%x: tensor<?x3xf32>, %s: tensor<3xf32>) -> tensor<?x3xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %s, %s, %s, %s) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<?x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<?x3xf32>
  return %y : tensor<?x3xf32>
}
