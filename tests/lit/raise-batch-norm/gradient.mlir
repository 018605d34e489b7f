// RUN: stablenorm-opt %s --passes=raise-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=raise-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// Forward and backward of one step, as automatic differentiation writes them (cleaned up): the two operations are left.

// Keras 3 on JAX.
// CHECK-LABEL: @keras_3(
// CHECK-DAG: %[[Y:.*]], %[[MEAN:.*]], %[[VARIANCE:.*]] = "stablehlo.batch_norm_training"(%arg4, %arg0, %arg1) <{epsilon = 1.000000e-03 : f32, feature_index = 1 : i64}>
// CHECK-DAG: %[[DX:.*]], %[[DSCALE:.*]], %[[DOFFSET:.*]] = "stablehlo.batch_norm_grad"(%arg4, %arg0, %[[MEAN]], %[[VARIANCE]], %arg5) <{epsilon = 1.000000e-03 : f32, feature_index = 1 : i64}>
// CHECK-NOT: rsqrt
// CHECK: return %[[Y]], %{{.*}}, %{{.*}}, %[[DSCALE]], %[[DOFFSET]], %[[DX]]
// EXPLAIN: raise-batch-norm: stablehlo.add: raised: training, feature_index = 1
// EXPLAIN-NEXT: raise-batch-norm: stablehlo.add: raised: gradient, feature_index = 1
func.func @keras_3(%scale: tensor<3xf32>, %offset: tensor<3xf32>, %moving_mean: tensor<3xf32>, %moving_variance: tensor<3xf32>, %x: tensor<4x3xf32>, %grad_output: tensor<4x3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<4x3xf32>) {
  %cst = stablehlo.constant dense<-5.000000e-01> : tensor<f32>
  %cst_0 = stablehlo.constant dense<1.000000e-03> : tensor<f32>
  %cst_1 = stablehlo.constant dense<0.00999999977> : tensor<f32>
  %cst_2 = stablehlo.constant dense<9.900000e-01> : tensor<f32>
  %cst_3 = stablehlo.constant dense<0x7FC00000> : tensor<f32>
  %cst_4 = stablehlo.constant dense<2.000000e+00> : tensor<f32>
  %c = stablehlo.constant dense<0> : tensor<i32>
  %cst_5 = stablehlo.constant dense<4.000000e+00> : tensor<f32>
  %cst_6 = stablehlo.constant dense<0.000000e+00> : tensor<f32>
  %0 = stablehlo.reduce(%x init: %cst_6) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %1 = stablehlo.broadcast_in_dim %0, dims = [1] : (tensor<3xf32>) -> tensor<1x3xf32>
  %2 = stablehlo.broadcast_in_dim %cst_5, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %3 = stablehlo.divide %1, %2 : tensor<1x3xf32>
  %4 = stablehlo.broadcast_in_dim %3, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %5 = stablehlo.subtract %x, %4 : tensor<4x3xf32>
  %6 = stablehlo.multiply %5, %5 : tensor<4x3xf32>
  %7 = stablehlo.broadcast_in_dim %cst_4, dims = [] : (tensor<f32>) -> tensor<4x3xf32>
  %8 = stablehlo.multiply %7, %5 : tensor<4x3xf32>
  %9 = stablehlo.convert %c : (tensor<i32>) -> tensor<f32>
  %10 = stablehlo.subtract %cst_5, %9 : tensor<f32>
  %11 = stablehlo.reduce(%6 init: %cst_6) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %12 = stablehlo.broadcast_in_dim %11, dims = [1] : (tensor<3xf32>) -> tensor<1x3xf32>
  %13 = stablehlo.broadcast_in_dim %10, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %14 = stablehlo.divide %12, %13 : tensor<1x3xf32>
  %15 = stablehlo.compare GT, %10, %cst_6, FLOAT : (tensor<f32>, tensor<f32>) -> tensor<i1>
  %16 = stablehlo.convert %cst_3 : tensor<f32>
  %17 = stablehlo.broadcast_in_dim %16, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %18 = stablehlo.select %15, %14, %17 : tensor<i1>, tensor<1x3xf32>
  %19 = stablehlo.reshape %3 : (tensor<1x3xf32>) -> tensor<3xf32>
  %20 = stablehlo.reshape %18 : (tensor<1x3xf32>) -> tensor<3xf32>
  %21 = stablehlo.broadcast_in_dim %cst_2, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %22 = stablehlo.multiply %moving_mean, %21 : tensor<3xf32>
  %23 = stablehlo.broadcast_in_dim %cst_1, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %24 = stablehlo.multiply %19, %23 : tensor<3xf32>
  %25 = stablehlo.add %22, %24 : tensor<3xf32>
  %26 = stablehlo.multiply %moving_variance, %21 : tensor<3xf32>
  %27 = stablehlo.multiply %20, %23 : tensor<3xf32>
  %28 = stablehlo.add %26, %27 : tensor<3xf32>
  %29 = stablehlo.reshape %19 : (tensor<3xf32>) -> tensor<1x3xf32>
  %30 = stablehlo.reshape %20 : (tensor<3xf32>) -> tensor<1x3xf32>
  %31 = stablehlo.broadcast_in_dim %cst_0, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %32 = stablehlo.add %30, %31 : tensor<1x3xf32>
  %33 = stablehlo.rsqrt %32 : tensor<1x3xf32>
  %34 = stablehlo.divide %33, %32 : tensor<1x3xf32>
  %35 = stablehlo.broadcast_in_dim %cst, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %36 = stablehlo.multiply %35, %34 : tensor<1x3xf32>
  %37 = stablehlo.reshape %scale : (tensor<3xf32>) -> tensor<1x3xf32>
  %38 = stablehlo.multiply %33, %37 : tensor<1x3xf32>
  %39 = stablehlo.negate %29 : tensor<1x3xf32>
  %40 = stablehlo.multiply %39, %38 : tensor<1x3xf32>
  %41 = stablehlo.reshape %offset : (tensor<3xf32>) -> tensor<1x3xf32>
  %42 = stablehlo.add %40, %41 : tensor<1x3xf32>
  %43 = stablehlo.broadcast_in_dim %38, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %44 = stablehlo.multiply %x, %43 : tensor<4x3xf32>
  %45 = stablehlo.broadcast_in_dim %42, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %46 = stablehlo.add %44, %45 : tensor<4x3xf32>
  %47 = stablehlo.reduce(%grad_output init: %cst_6) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %48 = stablehlo.reshape %47 : (tensor<3xf32>) -> tensor<1x3xf32>
  %49 = stablehlo.multiply %x, %grad_output : tensor<4x3xf32>
  %50 = stablehlo.reduce(%49 init: %cst_6) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %51 = stablehlo.reshape %50 : (tensor<3xf32>) -> tensor<1x3xf32>
  %52 = stablehlo.multiply %grad_output, %43 : tensor<4x3xf32>
  %53 = stablehlo.reshape %48 : (tensor<1x3xf32>) -> tensor<3xf32>
  %54 = stablehlo.multiply %39, %48 : tensor<1x3xf32>
  %55 = stablehlo.add %51, %54 : tensor<1x3xf32>
  %56 = stablehlo.multiply %48, %38 : tensor<1x3xf32>
  %57 = stablehlo.negate %56 : tensor<1x3xf32>
  %58 = stablehlo.multiply %33, %55 : tensor<1x3xf32>
  %59 = stablehlo.multiply %55, %37 : tensor<1x3xf32>
  %60 = stablehlo.reshape %58 : (tensor<1x3xf32>) -> tensor<3xf32>
  %61 = stablehlo.multiply %59, %36 : tensor<1x3xf32>
  %62 = stablehlo.reshape %61 : (tensor<1x3xf32>) -> tensor<3xf32>
  %63 = stablehlo.reshape %57 : (tensor<1x3xf32>) -> tensor<3xf32>
  %64 = stablehlo.broadcast_in_dim %62, dims = [1] : (tensor<3xf32>) -> tensor<1x3xf32>
  %65 = stablehlo.broadcast_in_dim %63, dims = [1] : (tensor<3xf32>) -> tensor<1x3xf32>
  %66 = stablehlo.broadcast_in_dim %cst_6, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %67 = stablehlo.select %15, %64, %66 : tensor<i1>, tensor<1x3xf32>
  %68 = stablehlo.divide %67, %13 : tensor<1x3xf32>
  %69 = stablehlo.reduce(%68 init: %cst_6) applies stablehlo.add across dimensions = [0] : (tensor<1x3xf32>, tensor<f32>) -> tensor<3xf32>
  %70 = stablehlo.broadcast_in_dim %69, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %71 = stablehlo.multiply %70, %8 : tensor<4x3xf32>
  %72 = stablehlo.negate %71 : tensor<4x3xf32>
  %73 = stablehlo.reduce(%72 init: %cst_6) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %74 = stablehlo.reshape %73 : (tensor<3xf32>) -> tensor<1x3xf32>
  %75 = stablehlo.divide %74, %2 : tensor<1x3xf32>
  %76 = stablehlo.reduce(%75 init: %cst_6) applies stablehlo.add across dimensions = [0] : (tensor<1x3xf32>, tensor<f32>) -> tensor<3xf32>
  %77 = stablehlo.broadcast_in_dim %76, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %78 = stablehlo.add %71, %77 : tensor<4x3xf32>
  %79 = stablehlo.add %52, %78 : tensor<4x3xf32>
  %80 = stablehlo.divide %65, %2 : tensor<1x3xf32>
  %81 = stablehlo.reduce(%80 init: %cst_6) applies stablehlo.add across dimensions = [0] : (tensor<1x3xf32>, tensor<f32>) -> tensor<3xf32>
  %82 = stablehlo.broadcast_in_dim %81, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %83 = stablehlo.add %79, %82 : tensor<4x3xf32>
  return %46, %25, %28, %60, %53, %83 : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<4x3xf32>
}

// Flax: the derivative of the clamp is one where it matters.
// CHECK-LABEL: @flax(
// CHECK-DAG: %[[Y:.*]], %[[MEAN:.*]], %[[VARIANCE:.*]] = "stablehlo.batch_norm_training"(%arg4, %arg2, %arg0) <{epsilon = 9.99999974E-6 : f32, feature_index = 1 : i64}>
// CHECK-DAG: %[[DX:.*]], %[[DSCALE:.*]], %[[DOFFSET:.*]] = "stablehlo.batch_norm_grad"(%arg4, %arg2, %[[MEAN]], %[[VARIANCE]], %arg5) <{epsilon = 9.99999974E-6 : f32, feature_index = 1 : i64}>
// CHECK-NOT: rsqrt
// CHECK: return %[[Y]], %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}, %[[DOFFSET]], %{{.*}}, %[[DSCALE]], %{{.*}}, %[[DX]]
// EXPLAIN-NEXT: raise-batch-norm: stablehlo.add: raised: training, feature_index = 1
// EXPLAIN-NEXT: raise-batch-norm: stablehlo.add: raised: gradient, feature_index = 1
func.func @flax(%offset: tensor<3xf32>, %moving_mean: tensor<3xf32>, %scale: tensor<3xf32>, %moving_variance: tensor<3xf32>, %x: tensor<4x3xf32>, %grad_output: tensor<4x3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<4x3xf32>) {
  %cst = stablehlo.constant dense<-5.000000e-01> : tensor<f32>
  %cst_0 = stablehlo.constant dense<9.99999974E-6> : tensor<f32>
  %cst_1 = stablehlo.constant dense<0.00999999977> : tensor<f32>
  %cst_2 = stablehlo.constant dense<9.900000e-01> : tensor<f32>
  %cst_3 = stablehlo.constant dense<1.000000e+00> : tensor<f32>
  %cst_4 = stablehlo.constant dense<4.000000e+00> : tensor<f32>
  %cst_5 = stablehlo.constant dense<0.000000e+00> : tensor<f32>
  %cst_6 = stablehlo.constant dense<2.000000e+00> : tensor<f32>
  %0 = stablehlo.multiply %x, %x : tensor<4x3xf32>
  %1 = stablehlo.broadcast_in_dim %cst_6, dims = [] : (tensor<f32>) -> tensor<4x3xf32>
  %2 = stablehlo.multiply %1, %x : tensor<4x3xf32>
  %3 = stablehlo.reduce(%x init: %cst_5) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %4 = stablehlo.broadcast_in_dim %cst_4, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %5 = stablehlo.divide %3, %4 : tensor<3xf32>
  %6 = stablehlo.reduce(%0 init: %cst_5) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %7 = stablehlo.divide %6, %4 : tensor<3xf32>
  %8 = stablehlo.multiply %5, %5 : tensor<3xf32>
  %9 = stablehlo.broadcast_in_dim %cst_6, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %10 = stablehlo.multiply %9, %5 : tensor<3xf32>
  %11 = stablehlo.subtract %7, %8 : tensor<3xf32>
  %12 = stablehlo.broadcast_in_dim %cst_5, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %13 = stablehlo.maximum %12, %11 : tensor<3xf32>
  %14 = stablehlo.compare EQ, %11, %13, FLOAT : (tensor<3xf32>, tensor<3xf32>) -> tensor<3xi1>
  %15 = stablehlo.broadcast_in_dim %cst_3, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %16 = stablehlo.select %14, %15, %12 : tensor<3xi1>, tensor<3xf32>
  %17 = stablehlo.compare EQ, %12, %13, FLOAT : (tensor<3xf32>, tensor<3xf32>) -> tensor<3xi1>
  %18 = stablehlo.select %17, %9, %15 : tensor<3xi1>, tensor<3xf32>
  %19 = stablehlo.divide %16, %18 : tensor<3xf32>
  %20 = stablehlo.broadcast_in_dim %cst_2, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %21 = stablehlo.multiply %20, %moving_mean : tensor<3xf32>
  %22 = stablehlo.broadcast_in_dim %cst_1, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %23 = stablehlo.multiply %22, %5 : tensor<3xf32>
  %24 = stablehlo.add %21, %23 : tensor<3xf32>
  %25 = stablehlo.multiply %20, %moving_variance : tensor<3xf32>
  %26 = stablehlo.multiply %22, %13 : tensor<3xf32>
  %27 = stablehlo.add %25, %26 : tensor<3xf32>
  %28 = stablehlo.reshape %5 : (tensor<3xf32>) -> tensor<1x3xf32>
  %29 = stablehlo.reshape %13 : (tensor<3xf32>) -> tensor<1x3xf32>
  %30 = stablehlo.broadcast_in_dim %28, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %31 = stablehlo.subtract %x, %30 : tensor<4x3xf32>
  %32 = stablehlo.broadcast_in_dim %cst_0, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %33 = stablehlo.add %29, %32 : tensor<1x3xf32>
  %34 = stablehlo.rsqrt %33 : tensor<1x3xf32>
  %35 = stablehlo.divide %34, %33 : tensor<1x3xf32>
  %36 = stablehlo.broadcast_in_dim %cst, dims = [] : (tensor<f32>) -> tensor<1x3xf32>
  %37 = stablehlo.multiply %36, %35 : tensor<1x3xf32>
  %38 = stablehlo.reshape %scale : (tensor<3xf32>) -> tensor<1x3xf32>
  %39 = stablehlo.multiply %34, %38 : tensor<1x3xf32>
  %40 = stablehlo.broadcast_in_dim %39, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %41 = stablehlo.multiply %31, %40 : tensor<4x3xf32>
  %42 = stablehlo.reshape %offset : (tensor<3xf32>) -> tensor<1x3xf32>
  %43 = stablehlo.broadcast_in_dim %42, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %44 = stablehlo.add %41, %43 : tensor<4x3xf32>
  %45 = stablehlo.reduce(%grad_output init: %cst_5) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %46 = stablehlo.reshape %45 : (tensor<3xf32>) -> tensor<1x3xf32>
  %47 = stablehlo.reshape %46 : (tensor<1x3xf32>) -> tensor<3xf32>
  %48 = stablehlo.multiply %31, %grad_output : tensor<4x3xf32>
  %49 = stablehlo.reduce(%48 init: %cst_5) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %50 = stablehlo.reshape %49 : (tensor<3xf32>) -> tensor<1x3xf32>
  %51 = stablehlo.multiply %grad_output, %40 : tensor<4x3xf32>
  %52 = stablehlo.multiply %34, %50 : tensor<1x3xf32>
  %53 = stablehlo.multiply %50, %38 : tensor<1x3xf32>
  %54 = stablehlo.reshape %52 : (tensor<1x3xf32>) -> tensor<3xf32>
  %55 = stablehlo.multiply %53, %37 : tensor<1x3xf32>
  %56 = stablehlo.negate %51 : tensor<4x3xf32>
  %57 = stablehlo.reduce(%56 init: %cst_5) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %58 = stablehlo.reshape %57 : (tensor<3xf32>) -> tensor<1x3xf32>
  %59 = stablehlo.reshape %55 : (tensor<1x3xf32>) -> tensor<3xf32>
  %60 = stablehlo.reshape %58 : (tensor<1x3xf32>) -> tensor<3xf32>
  %61 = stablehlo.multiply %59, %19 : tensor<3xf32>
  %62 = stablehlo.negate %61 : tensor<3xf32>
  %63 = stablehlo.multiply %62, %10 : tensor<3xf32>
  %64 = stablehlo.add %60, %63 : tensor<3xf32>
  %65 = stablehlo.divide %61, %4 : tensor<3xf32>
  %66 = stablehlo.broadcast_in_dim %65, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %67 = stablehlo.divide %64, %4 : tensor<3xf32>
  %68 = stablehlo.broadcast_in_dim %67, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %69 = stablehlo.add %51, %68 : tensor<4x3xf32>
  %70 = stablehlo.multiply %66, %2 : tensor<4x3xf32>
  %71 = stablehlo.add %69, %70 : tensor<4x3xf32>
  return %44, %offset, %24, %scale, %27, %47, %12, %54, %12, %71 : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<4x3xf32>
}

// TensorFlow.
// CHECK-LABEL: @tensorflow(
// CHECK-DAG: %[[Y:.*]], %[[MEAN:.*]], %[[VARIANCE:.*]] = "stablehlo.batch_norm_training"(%arg0, %arg4, %arg5) <{epsilon = 1.000000e-03 : f32, feature_index = 1 : i64}>
// CHECK-DAG: %[[DX:.*]], %[[DSCALE:.*]], %[[DOFFSET:.*]] = "stablehlo.batch_norm_grad"(%arg0, %arg4, %[[MEAN]], %[[VARIANCE]], %arg1) <{epsilon = 1.000000e-03 : f32, feature_index = 1 : i64}>
// CHECK-NOT: rsqrt
// CHECK: return %[[Y]], %[[DX]], %[[DSCALE]], %[[DOFFSET]]
// EXPLAIN-NEXT: raise-batch-norm: stablehlo.add: raised: training, feature_index = 1
// EXPLAIN-NEXT: raise-batch-norm: stablehlo.multiply: raised: gradient, feature_index = 1
func.func @tensorflow(%x: tensor<4x3xf32>, %grad_output: tensor<4x3xf32>, %moving_mean: tensor<3xf32>, %moving_variance: tensor<3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>) -> (tensor<4x3xf32>, tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %cst = stablehlo.constant dense<0.00999999977> : tensor<f32>
  %cst_0 = stablehlo.constant dense<-2.000000e+00> : tensor<f32>
  %cst_1 = stablehlo.constant dense<2.000000e+00> : tensor<f32>
  %cst_2 = stablehlo.constant dense<4.000000e+00> : tensor<f32>
  %cst_3 = stablehlo.constant dense<1.000000e-03> : tensor<f32>
  %c = stablehlo.constant dense<4> : tensor<i32>
  %cst_4 = stablehlo.constant dense<0.000000e+00> : tensor<f32>
  %0 = stablehlo.convert %x : tensor<4x3xf32>
  %1 = stablehlo.convert %cst_4 : tensor<f32>
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
  %18 = stablehlo.broadcast_in_dim %cst_3, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %19 = stablehlo.add %17, %18 : tensor<3xf32>
  %20 = stablehlo.rsqrt %19 : tensor<3xf32>
  %21 = stablehlo.multiply %20, %scale : tensor<3xf32>
  %22 = stablehlo.broadcast_in_dim %21, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %23 = stablehlo.multiply %x, %22 : tensor<4x3xf32>
  %24 = stablehlo.multiply %8, %21 : tensor<3xf32>
  %25 = stablehlo.subtract %offset, %24 : tensor<3xf32>
  %26 = stablehlo.broadcast_in_dim %25, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %27 = stablehlo.add %23, %26 : tensor<4x3xf32>
  %28 = stablehlo.multiply %grad_output, %22 : tensor<4x3xf32>
  %29 = stablehlo.convert %grad_output : tensor<4x3xf32>
  %30 = stablehlo.reduce(%29 init: %1) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %31 = stablehlo.convert %30 : tensor<3xf32>
  %32 = stablehlo.reshape %31 : (tensor<3xf32>) -> tensor<1x3xf32>
  %33 = stablehlo.reshape %32 : (tensor<1x3xf32>) -> tensor<3xf32>
  %34 = stablehlo.negate %33 : tensor<3xf32>
  %35 = stablehlo.multiply %34, %21 : tensor<3xf32>
  %36 = stablehlo.reshape %35 : (tensor<3xf32>) -> tensor<1x3xf32>
  %37 = stablehlo.broadcast_in_dim %36, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<1x3xf32>
  %38 = stablehlo.reshape %37 : (tensor<1x3xf32>) -> tensor<3xf32>
  %39 = stablehlo.broadcast_in_dim %38, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %40 = stablehlo.broadcast_in_dim %cst_2, dims = [] : (tensor<f32>) -> tensor<4x3xf32>
  %41 = stablehlo.divide %39, %40 : tensor<4x3xf32>
  %42 = stablehlo.add %28, %41 : tensor<4x3xf32>
  %43 = stablehlo.broadcast_in_dim %cst_1, dims = [] : (tensor<f32>) -> tensor<4x3xf32>
  %44 = stablehlo.multiply %20, %20 : tensor<3xf32>
  %45 = stablehlo.multiply %44, %20 : tensor<3xf32>
  %46 = stablehlo.multiply %x, %grad_output : tensor<4x3xf32>
  %47 = stablehlo.convert %46 : tensor<4x3xf32>
  %48 = stablehlo.reduce(%47 init: %1) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %49 = stablehlo.convert %48 : tensor<3xf32>
  %50 = stablehlo.reshape %49 : (tensor<3xf32>) -> tensor<1x3xf32>
  %51 = stablehlo.reshape %50 : (tensor<1x3xf32>) -> tensor<3xf32>
  %52 = stablehlo.multiply %34, %8 : tensor<3xf32>
  %53 = stablehlo.add %51, %52 : tensor<3xf32>
  %54 = stablehlo.multiply %53, %scale : tensor<3xf32>
  %55 = stablehlo.broadcast_in_dim %cst_0, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %56 = stablehlo.divide %54, %55 : tensor<3xf32>
  %57 = stablehlo.multiply %45, %56 : tensor<3xf32>
  %58 = stablehlo.reshape %57 : (tensor<3xf32>) -> tensor<1x3xf32>
  %59 = stablehlo.broadcast_in_dim %58, dims = [0, 1] : (tensor<1x3xf32>) -> tensor<1x3xf32>
  %60 = stablehlo.reshape %59 : (tensor<1x3xf32>) -> tensor<3xf32>
  %61 = stablehlo.broadcast_in_dim %60, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %62 = stablehlo.divide %61, %40 : tensor<4x3xf32>
  %63 = stablehlo.multiply %43, %62 : tensor<4x3xf32>
  %64 = stablehlo.multiply %63, %10 : tensor<4x3xf32>
  %65 = stablehlo.add %42, %64 : tensor<4x3xf32>
  %66 = stablehlo.multiply %53, %20 : tensor<3xf32>
  %67 = stablehlo.subtract %moving_mean, %8 : tensor<3xf32>
  %68 = stablehlo.broadcast_in_dim %cst, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %69 = stablehlo.multiply %67, %68 : tensor<3xf32>
  %70 = stablehlo.subtract %moving_mean, %69 : tensor<3xf32>
  %71 = stablehlo.subtract %moving_variance, %17 : tensor<3xf32>
  %72 = stablehlo.multiply %71, %68 : tensor<3xf32>
  %73 = stablehlo.subtract %moving_variance, %72 : tensor<3xf32>
  return %27, %65, %66, %33, %70, %73 : tensor<4x3xf32>, tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>
}
