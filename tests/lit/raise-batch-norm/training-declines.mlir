// RUN: stablenorm-opt %s --passes=raise-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=raise-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// Normalizations with statistics of their batch that are no batch norm: with a reason where they nearly are.

// The variance that statisticians call unbiased.
// CHECK-LABEL: @unbiased(
// CHECK-NOT: batch_norm
// CHECK: return
// EXPLAIN: raise-batch-norm: stablehlo.add: declined: its variance is divided by n - 1, not by n
func.func @unbiased(%x: tensor<4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>) -> tensor<4x3xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %n = stablehlo.constant dense<4.0> : tensor<3xf32>
  %m = stablehlo.constant dense<3.0> : tensor<3xf32>
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<3xf32>
  %total = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %mean = stablehlo.divide %total, %n : tensor<3xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %c = stablehlo.subtract %x, %M : tensor<4x3xf32>
  %q = stablehlo.multiply %c, %c : tensor<4x3xf32>
  %squares = stablehlo.reduce(%q init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %variance = stablehlo.divide %squares, %m : tensor<3xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<3xf32>
  %r = stablehlo.rsqrt %radicand : tensor<3xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %S = stablehlo.broadcast_in_dim %scale, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %B = stablehlo.broadcast_in_dim %offset, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %d = stablehlo.subtract %x, %M : tensor<4x3xf32>
  %h = stablehlo.multiply %d, %R : tensor<4x3xf32>
  %s = stablehlo.multiply %h, %S : tensor<4x3xf32>
  %y = stablehlo.add %s, %B : tensor<4x3xf32>
  return %y : tensor<4x3xf32>
}

// Statistics of another tensor.
// CHECK-LABEL: @another_tensor(
// CHECK-NOT: batch_norm
// CHECK: return
// EXPLAIN-NEXT: raise-batch-norm: stablehlo.add: declined: its mean is not that of what it normalizes: it is another tensor's, or weighted by a mask
func.func @another_tensor(%x: tensor<4x3xf32>, %z: tensor<4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>) -> tensor<4x3xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %n = stablehlo.constant dense<4.0> : tensor<3xf32>
  %m = stablehlo.constant dense<4.0> : tensor<3xf32>
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<3xf32>
  %total = stablehlo.reduce(%z init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %mean = stablehlo.divide %total, %n : tensor<3xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %c = stablehlo.subtract %z, %M : tensor<4x3xf32>
  %q = stablehlo.multiply %c, %c : tensor<4x3xf32>
  %squares = stablehlo.reduce(%q init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %variance = stablehlo.divide %squares, %m : tensor<3xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<3xf32>
  %r = stablehlo.rsqrt %radicand : tensor<3xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %S = stablehlo.broadcast_in_dim %scale, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %B = stablehlo.broadcast_in_dim %offset, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %d = stablehlo.subtract %x, %M : tensor<4x3xf32>
  %h = stablehlo.multiply %d, %R : tensor<4x3xf32>
  %s = stablehlo.multiply %h, %S : tensor<4x3xf32>
  %y = stablehlo.add %s, %B : tensor<4x3xf32>
  return %y : tensor<4x3xf32>
}

// TensorFlow with a mask: weighted moments.
// CHECK-LABEL: @masked(
// CHECK-NOT: batch_norm
// CHECK: return
// EXPLAIN-NEXT: raise-batch-norm: stablehlo.add: declined: its mean is not that of what it normalizes: it is another tensor's, or weighted by a mask
func.func @masked(%x: tensor<2x4x3xf32>, %mask: tensor<2x4xi1>, %moving_mean: tensor<3xf32>, %moving_variance: tensor<3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>) -> (tensor<2x4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %cst = stablehlo.constant dense<0.00999999977> : tensor<f32>
  %cst_0 = stablehlo.constant dense<1.000000e-03> : tensor<f32>
  %cst_1 = stablehlo.constant dense<0.000000e+00> : tensor<f32>
  %0 = stablehlo.convert %mask : (tensor<2x4xi1>) -> tensor<2x4xf32>
  %1 = stablehlo.reshape %0 : (tensor<2x4xf32>) -> tensor<2x4x1xf32>
  %2 = stablehlo.reshape %1 : (tensor<2x4x1xf32>) -> tensor<2x4xf32>
  %3 = stablehlo.broadcast_in_dim %2, dims = [0, 1] : (tensor<2x4xf32>) -> tensor<2x4x3xf32>
  %4 = stablehlo.broadcast_in_dim %cst_1, dims = [] : (tensor<f32>) -> tensor<2x4x3xf32>
  %5 = stablehlo.add %3, %4 : tensor<2x4x3xf32>
  %6 = stablehlo.convert %5 : tensor<2x4x3xf32>
  %7 = stablehlo.convert %cst_1 : tensor<f32>
  %8 = stablehlo.reduce(%6 init: %7) applies stablehlo.add across dimensions = [0, 1] : (tensor<2x4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %9 = stablehlo.convert %8 : tensor<3xf32>
  %10 = stablehlo.reshape %9 : (tensor<3xf32>) -> tensor<1x1x3xf32>
  %11 = stablehlo.broadcast_in_dim %cst_1, dims = [] : (tensor<f32>) -> tensor<1x1x3xf32>
  %12 = stablehlo.compare EQ, %10, %11 : (tensor<1x1x3xf32>, tensor<1x1x3xf32>) -> tensor<1x1x3xi1>
  %13 = stablehlo.multiply %3, %x : tensor<2x4x3xf32>
  %14 = stablehlo.convert %13 : tensor<2x4x3xf32>
  %15 = stablehlo.reduce(%14 init: %7) applies stablehlo.add across dimensions = [0, 1] : (tensor<2x4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %16 = stablehlo.convert %15 : tensor<3xf32>
  %17 = stablehlo.reshape %16 : (tensor<3xf32>) -> tensor<1x1x3xf32>
  %18 = stablehlo.divide %17, %10 : tensor<1x1x3xf32>
  %19 = stablehlo.select %12, %11, %18 : tensor<1x1x3xi1>, tensor<1x1x3xf32>
  %20 = stablehlo.reshape %19 : (tensor<1x1x3xf32>) -> tensor<3xf32>
  %21 = stablehlo.broadcast_in_dim %20, dims = [2] : (tensor<3xf32>) -> tensor<2x4x3xf32>
  %22 = stablehlo.subtract %x, %21 : tensor<2x4x3xf32>
  %23 = stablehlo.multiply %22, %22 : tensor<2x4x3xf32>
  %24 = stablehlo.multiply %3, %23 : tensor<2x4x3xf32>
  %25 = stablehlo.convert %24 : tensor<2x4x3xf32>
  %26 = stablehlo.reduce(%25 init: %7) applies stablehlo.add across dimensions = [0, 1] : (tensor<2x4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %27 = stablehlo.convert %26 : tensor<3xf32>
  %28 = stablehlo.reshape %27 : (tensor<3xf32>) -> tensor<1x1x3xf32>
  %29 = stablehlo.divide %28, %10 : tensor<1x1x3xf32>
  %30 = stablehlo.select %12, %11, %29 : tensor<1x1x3xi1>, tensor<1x1x3xf32>
  %31 = stablehlo.reshape %30 : (tensor<1x1x3xf32>) -> tensor<3xf32>
  %32 = stablehlo.broadcast_in_dim %cst_0, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %33 = stablehlo.add %31, %32 : tensor<3xf32>
  %34 = stablehlo.rsqrt %33 : tensor<3xf32>
  %35 = stablehlo.multiply %34, %scale : tensor<3xf32>
  %36 = stablehlo.broadcast_in_dim %35, dims = [2] : (tensor<3xf32>) -> tensor<2x4x3xf32>
  %37 = stablehlo.multiply %x, %36 : tensor<2x4x3xf32>
  %38 = stablehlo.multiply %20, %35 : tensor<3xf32>
  %39 = stablehlo.subtract %offset, %38 : tensor<3xf32>
  %40 = stablehlo.broadcast_in_dim %39, dims = [2] : (tensor<3xf32>) -> tensor<2x4x3xf32>
  %41 = stablehlo.add %37, %40 : tensor<2x4x3xf32>
  %42 = stablehlo.subtract %moving_mean, %20 : tensor<3xf32>
  %43 = stablehlo.broadcast_in_dim %cst, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %44 = stablehlo.multiply %42, %43 : tensor<3xf32>
  %45 = stablehlo.subtract %moving_mean, %44 : tensor<3xf32>
  %46 = stablehlo.subtract %moving_variance, %31 : tensor<3xf32>
  %47 = stablehlo.multiply %46, %43 : tensor<3xf32>
  %48 = stablehlo.subtract %moving_variance, %47 : tensor<3xf32>
  return %41, %45, %48 : tensor<2x4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// Layer normalization: statistics of each row, parameters along it.
// CHECK-LABEL: @layer_norm(
// CHECK-NOT: batch_norm
// CHECK: return
func.func @layer_norm(%x: tensor<4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>) -> tensor<4x3xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %n = stablehlo.constant dense<3.0> : tensor<4xf32>
  %m = stablehlo.constant dense<3.0> : tensor<4xf32>
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<4xf32>
  %total = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [1] : (tensor<4x3xf32>, tensor<f32>) -> tensor<4xf32>
  %mean = stablehlo.divide %total, %n : tensor<4xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [0] : (tensor<4xf32>) -> tensor<4x3xf32>
  %c = stablehlo.subtract %x, %M : tensor<4x3xf32>
  %q = stablehlo.multiply %c, %c : tensor<4x3xf32>
  %squares = stablehlo.reduce(%q init: %zero) applies stablehlo.add across dimensions = [1] : (tensor<4x3xf32>, tensor<f32>) -> tensor<4xf32>
  %variance = stablehlo.divide %squares, %m : tensor<4xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<4xf32>
  %r = stablehlo.rsqrt %radicand : tensor<4xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [0] : (tensor<4xf32>) -> tensor<4x3xf32>
  %S = stablehlo.broadcast_in_dim %scale, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %B = stablehlo.broadcast_in_dim %offset, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %d = stablehlo.subtract %x, %M : tensor<4x3xf32>
  %h = stablehlo.multiply %d, %R : tensor<4x3xf32>
  %s = stablehlo.multiply %h, %S : tensor<4x3xf32>
  %y = stablehlo.add %s, %B : tensor<4x3xf32>
  return %y : tensor<4x3xf32>
}

// Instance normalization: statistics of each image.
// CHECK-LABEL: @instance_norm(
// CHECK-NOT: batch_norm
// CHECK: return
func.func @instance_norm(%x: tensor<2x4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>) -> tensor<2x4x3xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %n = stablehlo.constant dense<4.0> : tensor<2x3xf32>
  %m = stablehlo.constant dense<4.0> : tensor<2x3xf32>
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<2x3xf32>
  %total = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [1] : (tensor<2x4x3xf32>, tensor<f32>) -> tensor<2x3xf32>
  %mean = stablehlo.divide %total, %n : tensor<2x3xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [0, 2] : (tensor<2x3xf32>) -> tensor<2x4x3xf32>
  %c = stablehlo.subtract %x, %M : tensor<2x4x3xf32>
  %q = stablehlo.multiply %c, %c : tensor<2x4x3xf32>
  %squares = stablehlo.reduce(%q init: %zero) applies stablehlo.add across dimensions = [1] : (tensor<2x4x3xf32>, tensor<f32>) -> tensor<2x3xf32>
  %variance = stablehlo.divide %squares, %m : tensor<2x3xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<2x3xf32>
  %r = stablehlo.rsqrt %radicand : tensor<2x3xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [0, 2] : (tensor<2x3xf32>) -> tensor<2x4x3xf32>
  %S = stablehlo.broadcast_in_dim %scale, dims = [2] : (tensor<3xf32>) -> tensor<2x4x3xf32>
  %B = stablehlo.broadcast_in_dim %offset, dims = [2] : (tensor<3xf32>) -> tensor<2x4x3xf32>
  %d = stablehlo.subtract %x, %M : tensor<2x4x3xf32>
  %h = stablehlo.multiply %d, %R : tensor<2x4x3xf32>
  %s = stablehlo.multiply %h, %S : tensor<2x4x3xf32>
  %y = stablehlo.add %s, %B : tensor<2x4x3xf32>
  return %y : tensor<2x4x3xf32>
}

// Instance normalization of one image.
// CHECK-LABEL: @one_image(
// CHECK-NOT: batch_norm
// CHECK: return
func.func @one_image(%x: tensor<1x4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>) -> tensor<1x4x3xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %n = stablehlo.constant dense<4.0> : tensor<1x3xf32>
  %m = stablehlo.constant dense<4.0> : tensor<1x3xf32>
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<1x3xf32>
  %total = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [1] : (tensor<1x4x3xf32>, tensor<f32>) -> tensor<1x3xf32>
  %mean = stablehlo.divide %total, %n : tensor<1x3xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [0, 2] : (tensor<1x3xf32>) -> tensor<1x4x3xf32>
  %c = stablehlo.subtract %x, %M : tensor<1x4x3xf32>
  %q = stablehlo.multiply %c, %c : tensor<1x4x3xf32>
  %squares = stablehlo.reduce(%q init: %zero) applies stablehlo.add across dimensions = [1] : (tensor<1x4x3xf32>, tensor<f32>) -> tensor<1x3xf32>
  %variance = stablehlo.divide %squares, %m : tensor<1x3xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<1x3xf32>
  %r = stablehlo.rsqrt %radicand : tensor<1x3xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [0, 2] : (tensor<1x3xf32>) -> tensor<1x4x3xf32>
  %S = stablehlo.broadcast_in_dim %scale, dims = [2] : (tensor<3xf32>) -> tensor<1x4x3xf32>
  %B = stablehlo.broadcast_in_dim %offset, dims = [2] : (tensor<3xf32>) -> tensor<1x4x3xf32>
  %d = stablehlo.subtract %x, %M : tensor<1x4x3xf32>
  %h = stablehlo.multiply %d, %R : tensor<1x4x3xf32>
  %s = stablehlo.multiply %h, %S : tensor<1x4x3xf32>
  %y = stablehlo.add %s, %B : tensor<1x4x3xf32>
  return %y : tensor<1x4x3xf32>
}

// Standardized weights: no batch has statistics here, and hoist-weights computes them once.
// CHECK-LABEL: @weights(
// CHECK-NOT: batch_norm
// CHECK: return
func.func @weights(%x: tensor<4x3xf32> {stablenorm.weight = "kernel"}, %scale: tensor<3xf32>, %offset: tensor<3xf32>) -> tensor<4x3xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %n = stablehlo.constant dense<4.0> : tensor<3xf32>
  %m = stablehlo.constant dense<4.0> : tensor<3xf32>
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<3xf32>
  %total = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %mean = stablehlo.divide %total, %n : tensor<3xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %c = stablehlo.subtract %x, %M : tensor<4x3xf32>
  %q = stablehlo.multiply %c, %c : tensor<4x3xf32>
  %squares = stablehlo.reduce(%q init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %variance = stablehlo.divide %squares, %m : tensor<3xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<3xf32>
  %r = stablehlo.rsqrt %radicand : tensor<3xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %S = stablehlo.broadcast_in_dim %scale, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %B = stablehlo.broadcast_in_dim %offset, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %d = stablehlo.subtract %x, %M : tensor<4x3xf32>
  %h = stablehlo.multiply %d, %R : tensor<4x3xf32>
  %s = stablehlo.multiply %h, %S : tensor<4x3xf32>
  %y = stablehlo.add %s, %B : tensor<4x3xf32>
  return %y : tensor<4x3xf32>
}

// A scale that is computed from the batch's mean: what it scales is a batch norm, the whole is not.
// CHECK-LABEL: @own_mean(
// CHECK: %[[H:.*]], %[[MEAN:.*]], %{{.*}} = "stablehlo.batch_norm_training"(%arg0, %{{.*}}, %{{.*}})
// CHECK: %[[SCALE:.*]] = stablehlo.tanh %[[MEAN]]
// CHECK: stablehlo.multiply %[[H]]
// CHECK: return
// EXPLAIN-NEXT: raise-batch-norm: stablehlo.multiply: raised: training, feature_index = 1
func.func @own_mean(%x: tensor<4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>) -> tensor<4x3xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %n = stablehlo.constant dense<4.0> : tensor<3xf32>
  %m = stablehlo.constant dense<4.0> : tensor<3xf32>
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<3xf32>
  %total = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %mean = stablehlo.divide %total, %n : tensor<3xf32>
  %t = stablehlo.tanh %mean : tensor<3xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %c = stablehlo.subtract %x, %M : tensor<4x3xf32>
  %q = stablehlo.multiply %c, %c : tensor<4x3xf32>
  %squares = stablehlo.reduce(%q init: %zero) applies stablehlo.add across dimensions = [0] : (tensor<4x3xf32>, tensor<f32>) -> tensor<3xf32>
  %variance = stablehlo.divide %squares, %m : tensor<3xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<3xf32>
  %r = stablehlo.rsqrt %radicand : tensor<3xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %S = stablehlo.broadcast_in_dim %t, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %B = stablehlo.broadcast_in_dim %offset, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %d = stablehlo.subtract %x, %M : tensor<4x3xf32>
  %h = stablehlo.multiply %d, %R : tensor<4x3xf32>
  %s = stablehlo.multiply %h, %S : tensor<4x3xf32>
  %y = stablehlo.add %s, %B : tensor<4x3xf32>
  return %y : tensor<4x3xf32>
}

// Nothing is said of what is no batch norm.
// EXPLAIN-NEXT: module {
