// RUN: stablenorm-opt %s --passes=raise-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=raise-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// Training as frameworks write it (their own output, cleaned up): one operation, and the moving averages read it.

// Keras 3 on JAX: a select around jnp.var's quotient, the negated mean times inv.
// CHECK-LABEL: @keras_3(
// CHECK: %[[Y:.*]], %[[MEAN:.*]], %[[VARIANCE:.*]] = "stablehlo.batch_norm_training"(%arg4, %arg0, %arg1) <{epsilon = 1.000000e-03 : f32, feature_index = 1 : i64}>
// CHECK-NOT: rsqrt
// CHECK: stablehlo.multiply %[[MEAN]]
// CHECK: stablehlo.multiply %[[VARIANCE]]
// CHECK: return %[[Y]]
// EXPLAIN: raise-batch-norm: stablehlo.add: raised: training, feature_index = 1
func.func @keras_3(%scale: tensor<3xf32>, %offset: tensor<3xf32>, %moving_mean: tensor<3xf32>, %moving_variance: tensor<3xf32>, %x: tensor<4x3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %cst = stablehlo.constant dense<1.000000e-03> : tensor<f32>
  %cst_0 = stablehlo.constant dense<0.00999999977> : tensor<f32>
  %cst_1 = stablehlo.constant dense<9.900000e-01> : tensor<f32>
  %cst_2 = stablehlo.constant dense<0x7FC00000> : tensor<f32>
  %c = stablehlo.constant dense<0> : tensor<i32>
  %cst_3 = stablehlo.constant dense<4.000000e+00> : tensor<f32>
  %cst_4 = stablehlo.constant dense<0.000000e+00> : tensor<f32>
  %0 = stablehlo.reduce(%x init: %cst_4) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %1 = stablehlo.broadcast_in_dim %0, dims = [1] : (tensor<3xf32>) -> tensor<1x3xf32>
  %2 = stablehlo.broadcast_in_dim %cst_3, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %3 = stablehlo.divide %1, %2 : tensor<1x3xf32>
  %4 = stablehlo.broadcast_in_dim %3, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %5 = stablehlo.subtract %x, %4 : tensor<4x3xf32>
  %6 = stablehlo.multiply %5, %5 : tensor<4x3xf32>
  %7 = stablehlo.convert %c : (tensor<i32>) -> tensor<f32>
  %8 = stablehlo.subtract %cst_3, %7 : tensor<f32>
  %9 = stablehlo.reduce(%6 init: %cst_4) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %10 = stablehlo.broadcast_in_dim %9, dims = [1] : (tensor<3xf32>) -> tensor<1x3xf32>
  %11 = stablehlo.broadcast_in_dim %8, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %12 = stablehlo.divide %10, %11 : tensor<1x3xf32>
  %13 = stablehlo.compare GT, %8, %cst_4, FLOAT : (tensor<f32>, tensor<f32>) -> tensor<i1>
  %14 = stablehlo.convert %cst_2 : tensor<f32>
  %15 = stablehlo.broadcast_in_dim %14, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %16 = stablehlo.select %13, %12, %15 : tensor<i1>, tensor<1x3xf32>
  %17 = stablehlo.reshape %3 : (tensor<1x3xf32>) -> tensor<3xf32>
  %18 = stablehlo.reshape %16 : (tensor<1x3xf32>) -> tensor<3xf32>
  %19 = stablehlo.broadcast_in_dim %cst_1, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %20 = stablehlo.multiply %moving_mean, %19 : tensor<3xf32>
  %21 = stablehlo.broadcast_in_dim %cst_0, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %22 = stablehlo.multiply %17, %21 : tensor<3xf32>
  %23 = stablehlo.add %20, %22 : tensor<3xf32>
  %24 = stablehlo.multiply %moving_variance, %19 : tensor<3xf32>
  %25 = stablehlo.multiply %18, %21 : tensor<3xf32>
  %26 = stablehlo.add %24, %25 : tensor<3xf32>
  %27 = stablehlo.reshape %17 : (tensor<3xf32>) -> tensor<1x3xf32>
  %28 = stablehlo.reshape %18 : (tensor<3xf32>) -> tensor<1x3xf32>
  %29 = stablehlo.broadcast_in_dim %cst, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %30 = stablehlo.add %28, %29 : tensor<1x3xf32>
  %31 = stablehlo.rsqrt %30 : tensor<1x3xf32>
  %32 = stablehlo.reshape %scale : (tensor<3xf32>) -> tensor<1x3xf32>
  %33 = stablehlo.multiply %31, %32 : tensor<1x3xf32>
  %34 = stablehlo.negate %27 : tensor<1x3xf32>
  %35 = stablehlo.multiply %34, %33 : tensor<1x3xf32>
  %36 = stablehlo.reshape %offset : (tensor<3xf32>) -> tensor<1x3xf32>
  %37 = stablehlo.add %35, %36 : tensor<1x3xf32>
  %38 = stablehlo.broadcast_in_dim %33, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %39 = stablehlo.multiply %x, %38 : tensor<4x3xf32>
  %40 = stablehlo.broadcast_in_dim %37, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %41 = stablehlo.add %39, %40 : tensor<4x3xf32>
  return %41, %23, %26 : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// Flax: mean(x * x) - mean(x) * mean(x), clamped; epsilon 1e-5.
// CHECK-LABEL: @flax(
// CHECK: %[[Y:.*]], %[[MEAN:.*]], %[[VARIANCE:.*]] = "stablehlo.batch_norm_training"(%arg4, %arg2, %arg0) <{epsilon = 9.99999974E-6 : f32, feature_index = 1 : i64}>
// CHECK-NOT: rsqrt
// CHECK: stablehlo.multiply %{{.*}}, %[[MEAN]]
// CHECK: stablehlo.multiply %{{.*}}, %[[VARIANCE]]
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: raise-batch-norm: stablehlo.add: raised: training, feature_index = 1
func.func @flax(%offset: tensor<3xf32>, %moving_mean: tensor<3xf32>, %scale: tensor<3xf32>, %moving_variance: tensor<3xf32>, %x: tensor<4x3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %cst = stablehlo.constant dense<9.99999974E-6> : tensor<f32>
  %cst_0 = stablehlo.constant dense<0.00999999977> : tensor<f32>
  %cst_1 = stablehlo.constant dense<9.900000e-01> : tensor<f32>
  %cst_2 = stablehlo.constant dense<4.000000e+00> : tensor<f32>
  %cst_3 = stablehlo.constant dense<0.000000e+00> : tensor<f32>
  %0 = stablehlo.multiply %x, %x : tensor<4x3xf32>
  %1 = stablehlo.reduce(%x init: %cst_3) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %2 = stablehlo.broadcast_in_dim %cst_2, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %3 = stablehlo.divide %1, %2 : tensor<3xf32>
  %4 = stablehlo.reduce(%0 init: %cst_3) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %5 = stablehlo.divide %4, %2 : tensor<3xf32>
  %6 = stablehlo.multiply %3, %3 : tensor<3xf32>
  %7 = stablehlo.subtract %5, %6 : tensor<3xf32>
  %8 = stablehlo.broadcast_in_dim %cst_3, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %9 = stablehlo.maximum %8, %7 : tensor<3xf32>
  %10 = stablehlo.broadcast_in_dim %cst_1, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %11 = stablehlo.multiply %10, %moving_mean : tensor<3xf32>
  %12 = stablehlo.broadcast_in_dim %cst_0, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %13 = stablehlo.multiply %12, %3 : tensor<3xf32>
  %14 = stablehlo.add %11, %13 : tensor<3xf32>
  %15 = stablehlo.multiply %10, %moving_variance : tensor<3xf32>
  %16 = stablehlo.multiply %12, %9 : tensor<3xf32>
  %17 = stablehlo.add %15, %16 : tensor<3xf32>
  %18 = stablehlo.reshape %3 : (tensor<3xf32>) -> tensor<1x3xf32>
  %19 = stablehlo.reshape %9 : (tensor<3xf32>) -> tensor<1x3xf32>
  %20 = stablehlo.broadcast_in_dim %18, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %21 = stablehlo.subtract %x, %20 : tensor<4x3xf32>
  %22 = stablehlo.broadcast_in_dim %cst, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %23 = stablehlo.add %19, %22 : tensor<1x3xf32>
  %24 = stablehlo.rsqrt %23 : tensor<1x3xf32>
  %25 = stablehlo.reshape %scale : (tensor<3xf32>) -> tensor<1x3xf32>
  %26 = stablehlo.multiply %24, %25 : tensor<1x3xf32>
  %27 = stablehlo.broadcast_in_dim %26, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %28 = stablehlo.multiply %21, %27 : tensor<4x3xf32>
  %29 = stablehlo.reshape %offset : (tensor<3xf32>) -> tensor<1x3xf32>
  %30 = stablehlo.broadcast_in_dim %29, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %31 = stablehlo.add %28, %30 : tensor<4x3xf32>
  return %31, %offset, %14, %scale, %17 : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>
}

// Flax with use_fast_variance=False: two passes.
// CHECK-LABEL: @flax_in_two_passes(
// CHECK: %[[Y:.*]], %[[MEAN:.*]], %[[VARIANCE:.*]] = "stablehlo.batch_norm_training"(%arg4, %arg2, %arg0) <{epsilon = 9.99999974E-6 : f32, feature_index = 1 : i64}>
// CHECK-NOT: rsqrt
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: raise-batch-norm: stablehlo.add: raised: training, feature_index = 1
func.func @flax_in_two_passes(%offset: tensor<3xf32>, %moving_mean: tensor<3xf32>, %scale: tensor<3xf32>, %moving_variance: tensor<3xf32>, %x: tensor<4x3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %cst = stablehlo.constant dense<9.99999974E-6> : tensor<f32>
  %cst_0 = stablehlo.constant dense<0.00999999977> : tensor<f32>
  %cst_1 = stablehlo.constant dense<9.900000e-01> : tensor<f32>
  %cst_2 = stablehlo.constant dense<4.000000e+00> : tensor<f32>
  %cst_3 = stablehlo.constant dense<0.000000e+00> : tensor<f32>
  %0 = stablehlo.reduce(%x init: %cst_3) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %1 = stablehlo.broadcast_in_dim %cst_2, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %2 = stablehlo.divide %0, %1 : tensor<3xf32>
  %3 = stablehlo.broadcast_in_dim %2, dims = [1] : (tensor<3xf32>) -> tensor<1x3xf32>
  %4 = stablehlo.broadcast_in_dim %3, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %5 = stablehlo.subtract %x, %4 : tensor<4x3xf32>
  %6 = stablehlo.multiply %5, %5 : tensor<4x3xf32>
  %7 = stablehlo.reduce(%6 init: %cst_3) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %8 = stablehlo.divide %7, %1 : tensor<3xf32>
  %9 = stablehlo.broadcast_in_dim %cst_1, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %10 = stablehlo.multiply %9, %moving_mean : tensor<3xf32>
  %11 = stablehlo.broadcast_in_dim %cst_0, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %12 = stablehlo.multiply %11, %2 : tensor<3xf32>
  %13 = stablehlo.add %10, %12 : tensor<3xf32>
  %14 = stablehlo.multiply %9, %moving_variance : tensor<3xf32>
  %15 = stablehlo.multiply %11, %8 : tensor<3xf32>
  %16 = stablehlo.add %14, %15 : tensor<3xf32>
  %17 = stablehlo.reshape %2 : (tensor<3xf32>) -> tensor<1x3xf32>
  %18 = stablehlo.reshape %8 : (tensor<3xf32>) -> tensor<1x3xf32>
  %19 = stablehlo.broadcast_in_dim %17, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %20 = stablehlo.subtract %x, %19 : tensor<4x3xf32>
  %21 = stablehlo.broadcast_in_dim %cst, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %22 = stablehlo.add %18, %21 : tensor<1x3xf32>
  %23 = stablehlo.rsqrt %22 : tensor<1x3xf32>
  %24 = stablehlo.reshape %scale : (tensor<3xf32>) -> tensor<1x3xf32>
  %25 = stablehlo.multiply %23, %24 : tensor<1x3xf32>
  %26 = stablehlo.broadcast_in_dim %25, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %27 = stablehlo.multiply %20, %26 : tensor<4x3xf32>
  %28 = stablehlo.reshape %offset : (tensor<3xf32>) -> tensor<1x3xf32>
  %29 = stablehlo.broadcast_in_dim %28, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %30 = stablehlo.add %27, %29 : tensor<4x3xf32>
  return %30, %offset, %13, %scale, %16 : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>
}

// TensorFlow's moments, without fusion: the count is an integer, converted.
// CHECK-LABEL: @tensorflow(
// CHECK: %[[Y:.*]], %[[MEAN:.*]], %[[VARIANCE:.*]] = "stablehlo.batch_norm_training"(%arg0, %arg3, %arg4) <{epsilon = 1.000000e-03 : f32, feature_index = 1 : i64}>
// CHECK-NOT: rsqrt
// CHECK: stablehlo.subtract %arg1, %{{.*}}
// CHECK: return %[[Y]]
// EXPLAIN-NEXT: raise-batch-norm: stablehlo.add: raised: training, feature_index = 1
func.func @tensorflow(%x: tensor<4x3xf32>, %moving_mean: tensor<3xf32>, %moving_variance: tensor<3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %cst = stablehlo.constant dense<0.00999999977> : tensor<f32>
  %cst_0 = stablehlo.constant dense<1.000000e-03> : tensor<f32>
  %c = stablehlo.constant dense<4> : tensor<i32>
  %cst_1 = stablehlo.constant dense<0.000000e+00> : tensor<f32>
  %0 = stablehlo.convert %x : tensor<4x3xf32>
  %1 = stablehlo.convert %cst_1 : tensor<f32>
  %2 = stablehlo.reduce(%0 init: %1) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %3 = stablehlo.convert %c : (tensor<i32>) -> tensor<f32>
  %4 = stablehlo.broadcast_in_dim %3, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %5 = stablehlo.divide %2, %4 : tensor<3xf32>
  %6 = stablehlo.convert %5 : tensor<3xf32>
  %7 = stablehlo.reshape %6 : (tensor<3xf32>) -> tensor<1x3xf32>
  %8 = stablehlo.reshape %7 : (tensor<1x3xf32>) -> tensor<3xf32>
  %9 = stablehlo.broadcast_in_dim %8, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %10 = stablehlo.subtract %x, %9 : tensor<4x3xf32>
  %11 = stablehlo.multiply %10, %10 : tensor<4x3xf32>
  %12 = stablehlo.convert %11 : tensor<4x3xf32>
  %13 = stablehlo.reduce(%12 init: %1) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %14 = stablehlo.divide %13, %4 : tensor<3xf32>
  %15 = stablehlo.convert %14 : tensor<3xf32>
  %16 = stablehlo.reshape %15 : (tensor<3xf32>) -> tensor<1x3xf32>
  %17 = stablehlo.reshape %16 : (tensor<1x3xf32>) -> tensor<3xf32>
  %18 = stablehlo.broadcast_in_dim %cst_0, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %19 = stablehlo.add %17, %18 : tensor<3xf32>
  %20 = stablehlo.rsqrt %19 : tensor<3xf32>
  %21 = stablehlo.multiply %20, %scale : tensor<3xf32>
  %22 = stablehlo.broadcast_in_dim %21, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %23 = stablehlo.multiply %x, %22 : tensor<4x3xf32>
  %24 = stablehlo.multiply %8, %21 : tensor<3xf32>
  %25 = stablehlo.subtract %offset, %24 : tensor<3xf32>
  %26 = stablehlo.broadcast_in_dim %25, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %27 = stablehlo.add %23, %26 : tensor<4x3xf32>
  %28 = stablehlo.subtract %moving_mean, %8 : tensor<3xf32>
  %29 = stablehlo.broadcast_in_dim %cst, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %30 = stablehlo.multiply %28, %29 : tensor<3xf32>
  %31 = stablehlo.subtract %moving_mean, %30 : tensor<3xf32>
  %32 = stablehlo.subtract %moving_variance, %17 : tensor<3xf32>
  %33 = stablehlo.multiply %32, %29 : tensor<3xf32>
  %34 = stablehlo.subtract %moving_variance, %33 : tensor<3xf32>
  return %27, %31, %34 : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// A half-precision tensor: the operation is in float32, its result is rounded.
// CHECK-LABEL: @half(
// CHECK: %[[X:.*]] = stablehlo.convert %arg4 : (tensor<4x3xf16>) -> tensor<4x3xf32>
// CHECK: %[[Y:.*]], %[[MEAN:.*]], %[[VARIANCE:.*]] = "stablehlo.batch_norm_training"(%{{.*}}, %arg0, %arg1) <{epsilon = 1.000000e-03 : f32, feature_index = 1 : i64}>
// CHECK-NOT: rsqrt
// CHECK: %[[ROUNDED:.*]] = stablehlo.convert %[[Y]] : (tensor<4x3xf32>) -> tensor<4x3xf16>
// CHECK: return %[[ROUNDED]]
// EXPLAIN-NEXT: raise-batch-norm: stablehlo.add: raised: training, feature_index = 1
func.func @half(%scale: tensor<3xf32>, %offset: tensor<3xf32>, %moving_mean: tensor<3xf32>, %moving_variance: tensor<3xf32>, %x: tensor<4x3xf16>) -> (tensor<4x3xf16>, tensor<3xf32>, tensor<3xf32>) {
  %cst = stablehlo.constant dense<1.000000e-03> : tensor<f32>
  %cst_0 = stablehlo.constant dense<0.00999999977> : tensor<f32>
  %cst_1 = stablehlo.constant dense<9.900000e-01> : tensor<f32>
  %cst_2 = stablehlo.constant dense<0x7FC00000> : tensor<f32>
  %c = stablehlo.constant dense<0> : tensor<i32>
  %cst_3 = stablehlo.constant dense<4.000000e+00> : tensor<f32>
  %cst_4 = stablehlo.constant dense<0.000000e+00> : tensor<f32>
  %0 = stablehlo.convert %x : (tensor<4x3xf16>) -> tensor<4x3xf32>
  %1 = stablehlo.reduce(%0 init: %cst_4) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %2 = stablehlo.broadcast_in_dim %1, dims = [1] : (tensor<3xf32>) -> tensor<1x3xf32>
  %3 = stablehlo.broadcast_in_dim %cst_3, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %4 = stablehlo.divide %2, %3 : tensor<1x3xf32>
  %5 = stablehlo.broadcast_in_dim %4, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %6 = stablehlo.subtract %0, %5 : tensor<4x3xf32>
  %7 = stablehlo.multiply %6, %6 : tensor<4x3xf32>
  %8 = stablehlo.convert %c : (tensor<i32>) -> tensor<f32>
  %9 = stablehlo.subtract %cst_3, %8 : tensor<f32>
  %10 = stablehlo.reduce(%7 init: %cst_4) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %11 = stablehlo.broadcast_in_dim %10, dims = [1] : (tensor<3xf32>) -> tensor<1x3xf32>
  %12 = stablehlo.broadcast_in_dim %9, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %13 = stablehlo.divide %11, %12 : tensor<1x3xf32>
  %14 = stablehlo.compare GT, %9, %cst_4, FLOAT : (tensor<f32>, tensor<f32>) -> tensor<i1>
  %15 = stablehlo.convert %cst_2 : tensor<f32>
  %16 = stablehlo.broadcast_in_dim %15, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %17 = stablehlo.select %14, %13, %16 : tensor<i1>, tensor<1x3xf32>
  %18 = stablehlo.reshape %4 : (tensor<1x3xf32>) -> tensor<3xf32>
  %19 = stablehlo.reshape %17 : (tensor<1x3xf32>) -> tensor<3xf32>
  %20 = stablehlo.broadcast_in_dim %cst_1, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %21 = stablehlo.multiply %moving_mean, %20 : tensor<3xf32>
  %22 = stablehlo.broadcast_in_dim %cst_0, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %23 = stablehlo.multiply %18, %22 : tensor<3xf32>
  %24 = stablehlo.add %21, %23 : tensor<3xf32>
  %25 = stablehlo.multiply %moving_variance, %20 : tensor<3xf32>
  %26 = stablehlo.multiply %19, %22 : tensor<3xf32>
  %27 = stablehlo.add %25, %26 : tensor<3xf32>
  %28 = stablehlo.reshape %18 : (tensor<3xf32>) -> tensor<1x3xf32>
  %29 = stablehlo.reshape %19 : (tensor<3xf32>) -> tensor<1x3xf32>
  %30 = stablehlo.broadcast_in_dim %cst, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %31 = stablehlo.add %29, %30 : tensor<1x3xf32>
  %32 = stablehlo.rsqrt %31 : tensor<1x3xf32>
  %33 = stablehlo.reshape %scale : (tensor<3xf32>) -> tensor<1x3xf32>
  %34 = stablehlo.multiply %32, %33 : tensor<1x3xf32>
  %35 = stablehlo.negate %28 : tensor<1x3xf32>
  %36 = stablehlo.multiply %35, %34 : tensor<1x3xf32>
  %37 = stablehlo.reshape %offset : (tensor<3xf32>) -> tensor<1x3xf32>
  %38 = stablehlo.add %36, %37 : tensor<1x3xf32>
  %39 = stablehlo.broadcast_in_dim %34, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %40 = stablehlo.multiply %0, %39 : tensor<4x3xf32>
  %41 = stablehlo.broadcast_in_dim %38, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %42 = stablehlo.add %40, %41 : tensor<4x3xf32>
  %43 = stablehlo.convert %42 : (tensor<4x3xf32>) -> tensor<4x3xf16>
  return %43, %24, %27 : tensor<4x3xf16>, tensor<3xf32>, tensor<3xf32>
}

// Features along two dimensions: StableHLO has no operation for that, so it is a composite.
// CHECK-LABEL: @two_axes(
// CHECK: %[[SCALE:.*]] = stablehlo.reshape %arg3 : (tensor<1x4x3xf32>) -> tensor<4x3xf32>
// CHECK: stablehlo.composite "stablenorm.batch_norm_training" %arg0, %[[SCALE]], %{{.*}} {composite_attributes = {epsilon = 0.0010000000474974513 : f64, feature_indices = array<i64: 1, 2>, operands = ["operand", "scale", "offset"]}
// CHECK-NOT: rsqrt
// CHECK: return
// EXPLAIN-NEXT: raise-batch-norm: stablehlo.add: raised: training, feature_index = 1, 2
func.func @two_axes(%x: tensor<2x4x3xf32>, %moving_mean: tensor<1x4x3xf32>, %moving_variance: tensor<1x4x3xf32>, %scale: tensor<1x4x3xf32>, %offset: tensor<1x4x3xf32>) -> (tensor<2x4x3xf32>, tensor<1x4x3xf32>, tensor<1x4x3xf32>) {
  %cst = stablehlo.constant dense<0.00999999977> : tensor<f32>
  %cst_0 = stablehlo.constant dense<1.000000e-03> : tensor<f32>
  %c = stablehlo.constant dense<2> : tensor<i32>
  %cst_1 = stablehlo.constant dense<0.000000e+00> : tensor<f32>
  %0 = stablehlo.convert %x : tensor<2x4x3xf32>
  %1 = stablehlo.convert %cst_1 : tensor<f32>
  %2 = stablehlo.reduce(%0 init: %1) applies stablehlo.add across dimensions = [0] : (tensor<2x4x3xf32>, tensor<f32>) -> tensor<4x3xf32>
  %3 = stablehlo.convert %c : (tensor<i32>) -> tensor<f32>
  %4 = stablehlo.broadcast_in_dim %3, dims = [] : (tensor<f32>) -> tensor<4x3xf32>
  %5 = stablehlo.divide %2, %4 : tensor<4x3xf32>
  %6 = stablehlo.convert %5 : tensor<4x3xf32>
  %7 = stablehlo.reshape %6 : (tensor<4x3xf32>) -> tensor<1x4x3xf32>
  %8 = stablehlo.reshape %7 : (tensor<1x4x3xf32>) -> tensor<4x3xf32>
  %9 = stablehlo.broadcast_in_dim %8, dims = [1, 2] : (tensor<4x3xf32>) -> tensor<2x4x3xf32>
  %10 = stablehlo.subtract %x, %9 : tensor<2x4x3xf32>
  %11 = stablehlo.multiply %10, %10 : tensor<2x4x3xf32>
  %12 = stablehlo.convert %11 : tensor<2x4x3xf32>
  %13 = stablehlo.reduce(%12 init: %1) applies stablehlo.add across dimensions = [0] : (tensor<2x4x3xf32>, tensor<f32>) -> tensor<4x3xf32>
  %14 = stablehlo.divide %13, %4 : tensor<4x3xf32>
  %15 = stablehlo.convert %14 : tensor<4x3xf32>
  %16 = stablehlo.reshape %15 : (tensor<4x3xf32>) -> tensor<1x4x3xf32>
  %17 = stablehlo.broadcast_in_dim %cst_0, dims = [] : (tensor<f32>) -> tensor<1x4x3xf32>
  %18 = stablehlo.add %16, %17 : tensor<1x4x3xf32>
  %19 = stablehlo.rsqrt %18 : tensor<1x4x3xf32>
  %20 = stablehlo.multiply %19, %scale : tensor<1x4x3xf32>
  %21 = stablehlo.reshape %20 : (tensor<1x4x3xf32>) -> tensor<4x3xf32>
  %22 = stablehlo.broadcast_in_dim %21, dims = [1, 2] : (tensor<4x3xf32>) -> tensor<2x4x3xf32>
  %23 = stablehlo.multiply %x, %22 : tensor<2x4x3xf32>
  %24 = stablehlo.multiply %7, %20 : tensor<1x4x3xf32>
  %25 = stablehlo.subtract %offset, %24 : tensor<1x4x3xf32>
  %26 = stablehlo.reshape %25 : (tensor<1x4x3xf32>) -> tensor<4x3xf32>
  %27 = stablehlo.broadcast_in_dim %26, dims = [1, 2] : (tensor<4x3xf32>) -> tensor<2x4x3xf32>
  %28 = stablehlo.add %23, %27 : tensor<2x4x3xf32>
  %29 = stablehlo.subtract %moving_mean, %7 : tensor<1x4x3xf32>
  %30 = stablehlo.broadcast_in_dim %cst, dims = [] : (tensor<f32>) -> tensor<1x4x3xf32>
  %31 = stablehlo.multiply %29, %30 : tensor<1x4x3xf32>
  %32 = stablehlo.subtract %moving_mean, %31 : tensor<1x4x3xf32>
  %33 = stablehlo.subtract %moving_variance, %16 : tensor<1x4x3xf32>
  %34 = stablehlo.multiply %33, %30 : tensor<1x4x3xf32>
  %35 = stablehlo.subtract %moving_variance, %34 : tensor<1x4x3xf32>
  return %28, %32, %35 : tensor<2x4x3xf32>, tensor<1x4x3xf32>, tensor<1x4x3xf32>
}

// An epsilon that is no float32.
// CHECK-LABEL: @float64(
// CHECK: stablehlo.composite "stablenorm.batch_norm_training" %arg0, %arg3, %arg4 {composite_attributes = {epsilon = 1.000000e-03 : f64
// CHECK-NOT: rsqrt
// CHECK: return
// EXPLAIN-NEXT: raise-batch-norm: stablehlo.add: raised: training, feature_index = 1
func.func @float64(%x: tensor<4x3xf64>, %moving_mean: tensor<3xf64>, %moving_variance: tensor<3xf64>, %scale: tensor<3xf64>, %offset: tensor<3xf64>) -> (tensor<4x3xf64>, tensor<3xf64>, tensor<3xf64>) {
  %cst = stablehlo.constant dense<0.0099999997764825821> : tensor<f64>
  %cst_0 = stablehlo.constant dense<1.000000e-03> : tensor<f64>
  %c = stablehlo.constant dense<4> : tensor<i32>
  %cst_1 = stablehlo.constant dense<0.000000e+00> : tensor<f64>
  %0 = stablehlo.convert %x : tensor<4x3xf64>
  %1 = stablehlo.convert %cst_1 : tensor<f64>
  %2 = stablehlo.reduce(%0 init: %1) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf64>, tensor<f64>) -> tensor<3xf64>
  %3 = stablehlo.convert %c : (tensor<i32>) -> tensor<f64>
  %4 = stablehlo.broadcast_in_dim %3, dims = [] : (tensor<f64>) -> tensor<3xf64>
  %5 = stablehlo.divide %2, %4 : tensor<3xf64>
  %6 = stablehlo.convert %5 : tensor<3xf64>
  %7 = stablehlo.reshape %6 : (tensor<3xf64>) -> tensor<1x3xf64>
  %8 = stablehlo.reshape %7 : (tensor<1x3xf64>) -> tensor<3xf64>
  %9 = stablehlo.broadcast_in_dim %8, dims = [1] : (tensor<3xf64>) -> tensor<4x3xf64>
  %10 = stablehlo.subtract %x, %9 : tensor<4x3xf64>
  %11 = stablehlo.multiply %10, %10 : tensor<4x3xf64>
  %12 = stablehlo.convert %11 : tensor<4x3xf64>
  %13 = stablehlo.reduce(%12 init: %1) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf64>, tensor<f64>) -> tensor<3xf64>
  %14 = stablehlo.divide %13, %4 : tensor<3xf64>
  %15 = stablehlo.convert %14 : tensor<3xf64>
  %16 = stablehlo.reshape %15 : (tensor<3xf64>) -> tensor<1x3xf64>
  %17 = stablehlo.reshape %16 : (tensor<1x3xf64>) -> tensor<3xf64>
  %18 = stablehlo.broadcast_in_dim %cst_0, dims = [] : (tensor<f64>) -> tensor<3xf64>
  %19 = stablehlo.add %17, %18 : tensor<3xf64>
  %20 = stablehlo.rsqrt %19 : tensor<3xf64>
  %21 = stablehlo.multiply %20, %scale : tensor<3xf64>
  %22 = stablehlo.broadcast_in_dim %21, dims = [1] : (tensor<3xf64>) -> tensor<4x3xf64>
  %23 = stablehlo.multiply %x, %22 : tensor<4x3xf64>
  %24 = stablehlo.multiply %8, %21 : tensor<3xf64>
  %25 = stablehlo.subtract %offset, %24 : tensor<3xf64>
  %26 = stablehlo.broadcast_in_dim %25, dims = [1] : (tensor<3xf64>) -> tensor<4x3xf64>
  %27 = stablehlo.add %23, %26 : tensor<4x3xf64>
  %28 = stablehlo.subtract %moving_mean, %8 : tensor<3xf64>
  %29 = stablehlo.broadcast_in_dim %cst, dims = [] : (tensor<f64>) -> tensor<3xf64>
  %30 = stablehlo.multiply %28, %29 : tensor<3xf64>
  %31 = stablehlo.subtract %moving_mean, %30 : tensor<3xf64>
  %32 = stablehlo.subtract %moving_variance, %17 : tensor<3xf64>
  %33 = stablehlo.multiply %32, %29 : tensor<3xf64>
  %34 = stablehlo.subtract %moving_variance, %33 : tensor<3xf64>
  return %27, %31, %34 : tensor<4x3xf64>, tensor<3xf64>, tensor<3xf64>
}

// What reads the mean before scale and offset are known is moved behind the operation.
// CHECK-LABEL: @early_reader(
// CHECK: %[[SCALE:.*]] = stablehlo.exponential %arg1
// CHECK: %[[Y:.*]], %[[MEAN:.*]], %{{.*}} = "stablehlo.batch_norm_training"(%arg0, %[[SCALE]], %arg2)
// CHECK: %[[READER:.*]] = stablehlo.sine %[[MEAN]]
// CHECK: return %[[Y]], %[[READER]]
// EXPLAIN-NEXT: raise-batch-norm: stablehlo.add: raised: training, feature_index = 1
func.func @early_reader(%x: tensor<4x3xf32>, %log_scale: tensor<3xf32>, %offset: tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %quarter = stablehlo.constant dense<0.25> : tensor<3xf32>
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<3xf32>
  %total = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %mean = stablehlo.multiply %total, %quarter : tensor<3xf32>
  %reader = stablehlo.sine %mean : tensor<3xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %d = stablehlo.subtract %x, %M : tensor<4x3xf32>
  %q = stablehlo.multiply %d, %d : tensor<4x3xf32>
  %squares = stablehlo.reduce(%q init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %variance = stablehlo.multiply %squares, %quarter : tensor<3xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<3xf32>
  %root = stablehlo.sqrt %radicand : tensor<3xf32>
  %scale = stablehlo.exponential %log_scale : tensor<3xf32>
  %factor = stablehlo.divide %scale, %root : tensor<3xf32>
  %F = stablehlo.broadcast_in_dim %factor, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %B = stablehlo.broadcast_in_dim %offset, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %e = stablehlo.multiply %d, %F : tensor<4x3xf32>
  %y = stablehlo.add %e, %B : tensor<4x3xf32>
  return %y, %reader : tensor<4x3xf32>, tensor<3xf32>
}
