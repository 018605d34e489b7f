// RUN: stablenorm-opt %s --passes=lower-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=lower-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// y = (x - mean) * (scale * rsqrt(variance + epsilon)) + offset: the mean goes first, so that nothing cancels.
// CHECK-LABEL: @arithmetic(
// CHECK: %[[E:.*]] = stablehlo.constant dense<1.000000e-03> : tensor<3xf32>
// CHECK: %[[V:.*]] = stablehlo.add %arg4, %[[E]]
// CHECK: %[[R:.*]] = stablehlo.rsqrt %[[V]]
// CHECK: %[[S:.*]] = stablehlo.multiply %arg1, %[[R]] : tensor<3xf32>
// CHECK: %[[M:.*]] = stablehlo.broadcast_in_dim %arg3, dims = [1] : (tensor<3xf32>) -> tensor<2x3xf32>
// CHECK: %[[D:.*]] = stablehlo.subtract %arg0, %[[M]]
// CHECK: %[[SB:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [1]
// CHECK: %[[P:.*]] = stablehlo.multiply %[[D]], %[[SB]]
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %arg2, dims = [1]
// CHECK: %[[Y:.*]] = stablehlo.add %[[P]], %[[B]]
// CHECK: return %[[Y]]
// EXPLAIN: lower-batch-norm: bn: lowered: no pass folded it
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

// Training: distances from the first element, summed in float64; one rounding at the end.
// CHECK-LABEL: @training(
// CHECK: %[[FIRST:.*]] = stablehlo.slice %arg0 [0:1, 0:3]
// CHECK: %[[NARROW:.*]] = stablehlo.reshape %[[FIRST]] : (tensor<1x3xf32>) -> tensor<3xf32>
// CHECK: %[[K:.*]] = stablehlo.convert %[[NARROW]] : (tensor<3xf32>) -> tensor<3xf64>
// CHECK: %[[X:.*]] = stablehlo.convert %arg0 : (tensor<4x3xf32>) -> tensor<4x3xf64>
// CHECK: %[[KB:.*]] = stablehlo.broadcast_in_dim %[[K]], dims = [1]
// CHECK: %[[D:.*]] = stablehlo.subtract %[[X]], %[[KB]]
// CHECK: %[[DD:.*]] = stablehlo.multiply %[[D]], %[[D]]
// CHECK: stablehlo.reduce(%[[D]] init: %{{.*}}) applies stablehlo.add across dimensions = [0]
// CHECK: stablehlo.reduce(%[[DD]] init: %{{.*}}) applies stablehlo.add across dimensions = [0]
// CHECK: %[[Y:.*]] = stablehlo.convert %{{.*}} : (tensor<4x3xf64>) -> tensor<4x3xf32>
// CHECK: %[[M:.*]] = stablehlo.convert %{{.*}} : (tensor<3xf64>) -> tensor<3xf32>
// CHECK: %[[V:.*]] = stablehlo.convert %{{.*}} : (tensor<3xf64>) -> tensor<3xf32>
// CHECK: return %[[Y]], %[[M]], %[[V]]
// EXPLAIN: lower-batch-norm: training: lowered: it normalizes with the statistics of its batch
func.func @training(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "training/scale"},
    %offset: tensor<3xf32> {stablenorm.weight = "training/offset"}) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %mean, %variance = "stablehlo.batch_norm_training"(%x, %scale, %offset)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  return %y, %mean, %variance : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// Many rows: one reduction has both sums of blocks of rows; others have their sums. 2053 rows are 64 blocks of 32 and 5;
// a block's rows are four stretches, which are added first.
// CHECK-LABEL: @blocks(
// CHECK: %[[KEPT:.*]] = stablehlo.slice %arg0 [0:2048, 0:8] : (tensor<2053x8xf32>) -> tensor<2048x8xf32>
// CHECK: %[[BLOCKS:.*]] = stablehlo.reshape %[[KEPT]] : (tensor<2048x8xf32>) -> tensor<64x32x8xf32>
// CHECK: %[[A:.*]] = stablehlo.slice %[[BLOCKS]] [0:64, 0:8, 0:8]
// CHECK: stablehlo.slice %[[BLOCKS]] [0:64, 8:16, 0:8]
// CHECK: stablehlo.slice %[[BLOCKS]] [0:64, 16:24, 0:8]
// CHECK: stablehlo.slice %[[BLOCKS]] [0:64, 24:32, 0:8]
// CHECK: stablehlo.convert %[[A]] : (tensor<64x8x8xf32>) -> tensor<64x8x8xf64>
// CHECK: stablehlo.reduce(%{{.*}} init: %{{.*}}), (%{{.*}} init: %{{.*}}) across dimensions = [1] :
// CHECK-SAME: (tensor<64x8x8xf64>, tensor<64x8x8xf64>, tensor<f64>, tensor<f64>) -> (tensor<64x8xf64>, tensor<64x8xf64>)
// CHECK: stablehlo.slice %arg0 [2048:2053, 0:8]
// CHECK: return
func.func @blocks(%x: tensor<2053x8xf32>, %scale: tensor<8xf32>) -> tensor<2053x8xf32> {
  %y, %mean, %variance = "stablehlo.batch_norm_training"(%x, %scale, %scale)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2053x8xf32>, tensor<8xf32>, tensor<8xf32>) -> (tensor<2053x8xf32>, tensor<8xf32>, tensor<8xf32>)
  return %y : tensor<2053x8xf32>
}

// Wider rows are 146 blocks of 14, each reduced at once; their sums, float64 and many still, 10 blocks and 6.
// CHECK-LABEL: @wide_rows(
// CHECK: %[[KEPT:.*]] = stablehlo.slice %arg0 [0:2044, 0:513] : (tensor<2053x513xf32>) -> tensor<2044x513xf32>
// CHECK: %[[BLOCKS:.*]] = stablehlo.reshape %[[KEPT]] : (tensor<2044x513xf32>) -> tensor<146x14x513xf32>
// CHECK: stablehlo.convert %[[BLOCKS]] : (tensor<146x14x513xf32>) -> tensor<146x14x513xf64>
// CHECK: %[[D:.*]] = stablehlo.subtract
// CHECK: %[[DD:.*]] = stablehlo.multiply %[[D]], %[[D]]
// CHECK: %[[EACH:.*]]:2 = stablehlo.reduce(%[[D]] init: %{{.*}}), (%[[DD]] init: %{{.*}}) across dimensions = [1] :
// CHECK-SAME: (tensor<146x14x513xf64>, tensor<146x14x513xf64>, tensor<f64>, tensor<f64>) -> (tensor<146x513xf64>, tensor<146x513xf64>)
// CHECK: stablehlo.slice %[[EACH]]#0 [0:140, 0:513]
// CHECK: stablehlo.slice %[[EACH]]#1 [0:140, 0:513]
// CHECK: (tensor<10x14x513xf64>, tensor<10x14x513xf64>, tensor<f64>, tensor<f64>) -> (tensor<10x513xf64>, tensor<10x513xf64>)
// CHECK: stablehlo.slice %arg0 [2044:2053, 0:513]
// CHECK: return
func.func @wide_rows(%x: tensor<2053x513xf32>, %scale: tensor<513xf32>) -> tensor<2053x513xf32> {
  %y, %mean, %variance = "stablehlo.batch_norm_training"(%x, %scale, %scale)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2053x513xf32>, tensor<513xf32>, tensor<513xf32>) -> (tensor<2053x513xf32>, tensor<513xf32>, tensor<513xf32>)
  return %y : tensor<2053x513xf32>
}

// Blocks of 28 rows would straddle images of 49: they have 14, without stretches.
// CHECK-LABEL: @small_images(
// CHECK: %[[BLOCKS:.*]] = stablehlo.reshape %{{.*}} : (tensor<784x32xf32>) -> tensor<56x14x32xf32>
// CHECK: stablehlo.convert %[[BLOCKS]] : (tensor<56x14x32xf32>) -> tensor<56x14x32xf64>
// CHECK: return
func.func @small_images(%x: tensor<16x7x7x32xf32>, %scale: tensor<32xf32>) -> tensor<16x7x7x32xf32> {
  %y, %mean, %variance = "stablehlo.batch_norm_training"(%x, %scale, %scale)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<16x7x7x32xf32>, tensor<32xf32>, tensor<32xf32>)
    -> (tensor<16x7x7x32xf32>, tensor<32xf32>, tensor<32xf32>)
  return %y : tensor<16x7x7x32xf32>
}

// Blocks of 14 would end within a row of 21: they have 7.
// CHECK-LABEL: @rows_of_images(
// CHECK: stablehlo.reshape %{{.*}} : (tensor<3360x8xf32>) -> tensor<480x7x8xf32>
// CHECK: return
func.func @rows_of_images(%x: tensor<8x20x21x8xf32>, %scale: tensor<8xf32>) -> tensor<8x20x21x8xf32> {
  %y, %mean, %variance = "stablehlo.batch_norm_training"(%x, %scale, %scale)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<8x20x21x8xf32>, tensor<8xf32>, tensor<8xf32>)
    -> (tensor<8x20x21x8xf32>, tensor<8xf32>, tensor<8xf32>)
  return %y : tensor<8x20x21x8xf32>
}

// In volumes, 14 rows that straddle are as bad: 7 are a row of an image.
// CHECK-LABEL: @small_volumes(
// CHECK: stablehlo.reshape %{{.*}} : (tensor<784x32xf32>) -> tensor<112x7x32xf32>
// CHECK: return
func.func @small_volumes(%x: tensor<4x4x7x7x32xf32>, %scale: tensor<32xf32>) -> tensor<4x4x7x7x32xf32> {
  %y, %mean, %variance = "stablehlo.batch_norm_training"(%x, %scale, %scale)
    <{epsilon = 1.0e-3 : f32, feature_index = 4 : i64}>
    : (tensor<4x4x7x7x32xf32>, tensor<32xf32>, tensor<32xf32>)
    -> (tensor<4x4x7x7x32xf32>, tensor<32xf32>, tensor<32xf32>)
  return %y : tensor<4x4x7x7x32xf32>
}

// Features first: a block's rows are stretches of the minor dimension.
// CHECK-LABEL: @features_first(
// CHECK: %[[FLAT:.*]] = stablehlo.reshape %arg0 : (tensor<2x32x16x16xf32>) -> tensor<2x32x256xf32>
// CHECK: stablehlo.reshape %[[FLAT]] : (tensor<2x32x256xf32>) -> tensor<2x32x8x32xf32>
// CHECK: stablehlo.reduce(%{{.*}} init: %{{.*}}), (%{{.*}} init: %{{.*}}) across dimensions = [2] :
// CHECK: return
func.func @features_first(%x: tensor<2x32x16x16xf32>, %scale: tensor<32xf32>) -> tensor<2x32x16x16xf32> {
  %y, %mean, %variance = "stablehlo.batch_norm_training"(%x, %scale, %scale)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x32x16x16xf32>, tensor<32xf32>, tensor<32xf32>)
    -> (tensor<2x32x16x16xf32>, tensor<32xf32>, tensor<32xf32>)
  return %y : tensor<2x32x16x16xf32>
}

// Small images: a block has images of several samples, each one dimension.
// CHECK-LABEL: @small_features_first(
// CHECK: %[[FLAT:.*]] = stablehlo.reshape %arg0 : (tensor<16x64x7x7xf32>) -> tensor<16x64x49xf32>
// CHECK: stablehlo.reshape %[[FLAT]] : (tensor<16x64x49xf32>) -> tensor<2x8x64x49xf32>
// CHECK: stablehlo.reduce(%{{.*}} init: %{{.*}}), (%{{.*}} init: %{{.*}}) across dimensions = [1] :
// CHECK: return
func.func @small_features_first(%x: tensor<16x64x7x7xf32>, %scale: tensor<64xf32>) -> tensor<16x64x7x7xf32> {
  %y, %mean, %variance = "stablehlo.batch_norm_training"(%x, %scale, %scale)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<16x64x7x7xf32>, tensor<64xf32>, tensor<64xf32>)
    -> (tensor<16x64x7x7xf32>, tensor<64xf32>, tensor<64xf32>)
  return %y : tensor<16x64x7x7xf32>
}

// A gradient reads the statistics of its training operation before they were rounded: of narrow vectors,
// only the scale is widened.
// CHECK-LABEL: @gradient(
// CHECK: stablehlo.convert %arg1 : (tensor<3xf32>) -> tensor<3xf64>
// CHECK-NOT: (tensor<3xf32>) -> tensor<3xf64>
// CHECK: return
func.func @gradient(
    %x: tensor<4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>,
    %grad: tensor<4x3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %mean, %variance = "stablehlo.batch_norm_training"(%x, %scale, %offset)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %dx, %ds, %do = "stablehlo.batch_norm_grad"(%x, %scale, %mean, %variance, %grad)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<4x3xf32>)
    -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  return %dx, %ds, %do : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}
