// RUN: stablenorm-opt %s --passes='lower-batch-norm{platform=cuda}' | filecheck %s

// Features last: one loop over windows of rows has the three sums, of x and of both parts of its square. Nothing is read
// of x before.
// CHECK-LABEL: @features_last(
// CHECK-NOT: stablehlo.slice %arg0
// CHECK: %[[ROWS:.*]] = stablehlo.reshape %arg0 : (tensor<4x8x8x3xf32>) -> tensor<256x3xf32>
// CHECK: %[[X:.*]] = stablehlo.convert %[[ROWS]] : (tensor<256x3xf32>) -> tensor<256x3xf64>
// CHECK: %[[S:.*]] = stablehlo.multiply %[[X]], %[[X]]
// CHECK: %[[P:.*]] = stablehlo.reduce_precision %[[S]], format = e11m23
// CHECK: %[[E:.*]] = stablehlo.subtract %[[S]], %[[P]]
// CHECK: "stablehlo.reduce_window"(%[[X]], %[[P]], %[[E]],
// CHECK-SAME: window_dimensions = array<i64: 16, 1>, window_strides = array<i64: 16, 1>
// CHECK: -> (tensor<16x3xf64>, tensor<16x3xf64>, tensor<16x3xf64>)
// CHECK-COUNT-3: stablehlo.reduce(
// CHECK: return
func.func @features_last(%x: tensor<4x8x8x3xf32>, %scale: tensor<3xf32>) -> tensor<4x8x8x3xf32> {
  %y, %mean, %variance = "stablehlo.batch_norm_training"(%x, %scale, %scale)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<4x8x8x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x8x8x3xf32>, tensor<3xf32>, tensor<3xf32>)
  return %y : tensor<4x8x8x3xf32>
}

// Features first, many places: sums as they are, which XLA joins. The square of a half number is exact.
// CHECK-LABEL: @features_first(
// CHECK-NOT: reduce_precision %{{.*}}tensor<4x3x16x16xf64>
// CHECK-COUNT-2: stablehlo.reduce({{.*}}across dimensions = [0, 2, 3]
// CHECK: return
func.func @features_first(%x: tensor<4x3x16x16xbf16>, %scale: tensor<3xbf16>) -> tensor<4x3x16x16xbf16> {
  %y, %mean, %variance = "stablehlo.batch_norm_training"(%x, %scale, %scale)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3x16x16xbf16>, tensor<3xbf16>, tensor<3xbf16>)
    -> (tensor<4x3x16x16xbf16>, tensor<3xbf16>, tensor<3xbf16>)
  return %y : tensor<4x3x16x16xbf16>
}
