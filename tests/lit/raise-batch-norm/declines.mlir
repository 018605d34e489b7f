// RUN: stablenorm-opt %s --passes=raise-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=raise-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// What is not raised: with a reason where it is nearly a batch norm, without a word where it is none.

// Parameters along two dimensions: the operation has one feature_index.
// CHECK-LABEL: @two_axes(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN: raise-batch-norm: two_axes: declined: its parameters vary along several dimensions, which batch_norm_inference cannot say
func.func @two_axes(
    %x: tensor<2x3x4xf32>,
    %mean: tensor<3x4xf32> {stablenorm.weight = "two_axes/mean"},
    %variance: tensor<3x4xf32> {stablenorm.weight = "two_axes/variance"}) -> tensor<2x3x4xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<3x4xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<3x4xf32>
  %r = stablehlo.rsqrt %radicand : tensor<3x4xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [1, 2] : (tensor<3x4xf32>) -> tensor<2x3x4xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [1, 2] : (tensor<3x4xf32>) -> tensor<2x3x4xf32>
  %d = stablehlo.subtract %x, %M : tensor<2x3x4xf32>
  %y = stablehlo.multiply %d, %R : tensor<2x3x4xf32>
  return %y : tensor<2x3x4xf32>
}

// The mean along one dimension, the variance along another.
// CHECK-LABEL: @different_axes(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: raise-batch-norm: different_axes: declined: its parameters vary along several dimensions, which batch_norm_inference cannot say
func.func @different_axes(
    %x: tensor<3x3xf32>,
    %mean: tensor<3xf32> {stablenorm.weight = "different_axes/mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "different_axes/variance"}) -> tensor<3x3xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<3xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<3xf32>
  %r = stablehlo.rsqrt %radicand : tensor<3xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [0] : (tensor<3xf32>) -> tensor<3x3xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [1] : (tensor<3xf32>) -> tensor<3x3xf32>
  %d = stablehlo.subtract %x, %M : tensor<3x3xf32>
  %y = stablehlo.multiply %d, %R : tensor<3x3xf32>
  return %y : tensor<3x3xf32>
}

// Layer normalization: mean and variance are those of the input itself.
// CHECK-LABEL: @layer_norm(
// CHECK-NOT: batch_norm_inference
// CHECK: return
func.func @layer_norm(
    %x: tensor<2x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "layer_norm/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "layer_norm/offset"}) -> tensor<2x4xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %four = stablehlo.constant dense<4.0> : tensor<2xf32>
  %sum = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [1] : (tensor<2x4xf32>, tensor<f32>) -> tensor<2xf32>
  %m = stablehlo.divide %sum, %four : tensor<2xf32>
  %M = stablehlo.broadcast_in_dim %m, dims = [0] : (tensor<2xf32>) -> tensor<2x4xf32>
  %d = stablehlo.subtract %x, %M : tensor<2x4xf32>
  %q = stablehlo.multiply %d, %d : tensor<2x4xf32>
  %squares = stablehlo.reduce(%q init: %zero) applies stablehlo.add across dimensions = [1] : (tensor<2x4xf32>, tensor<f32>) -> tensor<2xf32>
  %r = stablehlo.rsqrt %squares : tensor<2xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [0] : (tensor<2xf32>) -> tensor<2x4xf32>
  %S = stablehlo.broadcast_in_dim %scale, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %B = stablehlo.broadcast_in_dim %offset, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %n = stablehlo.multiply %d, %R : tensor<2x4xf32>
  %s = stablehlo.multiply %n, %S : tensor<2x4xf32>
  %y = stablehlo.add %s, %B : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// A scale and an offset without a root.
// CHECK-LABEL: @affine(
// CHECK-NOT: batch_norm_inference
// CHECK: return
func.func @affine(
    %x: tensor<2x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "affine/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "affine/offset"}) -> tensor<2x4xf32> {
  %S = stablehlo.broadcast_in_dim %scale, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %B = stablehlo.broadcast_in_dim %offset, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %s = stablehlo.multiply %x, %S : tensor<2x4xf32>
  %y = stablehlo.add %s, %B : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// A root without a mean: RMS normalization by weights, say.
// CHECK-LABEL: @no_mean(
// CHECK-NOT: batch_norm_inference
// CHECK: return
func.func @no_mean(
    %x: tensor<2x4xf32>,
    %offset: tensor<4xf32> {stablenorm.weight = "no_mean/offset"},
    %variance: tensor<4xf32> {stablenorm.weight = "no_mean/variance"}) -> tensor<2x4xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<4xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<4xf32>
  %r = stablehlo.rsqrt %radicand : tensor<4xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %B = stablehlo.broadcast_in_dim %offset, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %s = stablehlo.multiply %x, %R : tensor<2x4xf32>
  %y = stablehlo.add %s, %B : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// The mean is divided by another root than the input.
// CHECK-LABEL: @another_root(
// CHECK-NOT: batch_norm_inference
// CHECK: return
func.func @another_root(
    %x: tensor<2x4xf32>,
    %mean: tensor<4xf32> {stablenorm.weight = "another_root/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "another_root/variance"},
    %variance2: tensor<4xf32> {stablenorm.weight = "another_root/variance2"}) -> tensor<2x4xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<4xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<4xf32>
  %r = stablehlo.rsqrt %radicand : tensor<4xf32>
  %q = stablehlo.rsqrt %variance2 : tensor<4xf32>
  %mq = stablehlo.multiply %mean, %q : tensor<4xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %B = stablehlo.broadcast_in_dim %mq, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %s = stablehlo.multiply %x, %R : tensor<2x4xf32>
  %y = stablehlo.subtract %s, %B : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// A mean with a root of its own in it.
// CHECK-LABEL: @root_in_the_mean(
// CHECK-NOT: batch_norm_inference
// CHECK: return
func.func @root_in_the_mean(
    %x: tensor<2x4xf32>,
    %mean: tensor<4xf32> {stablenorm.weight = "root_in_the_mean/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "root_in_the_mean/variance"},
    %variance2: tensor<4xf32> {stablenorm.weight = "root_in_the_mean/variance2"}) -> tensor<2x4xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<4xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<4xf32>
  %r = stablehlo.rsqrt %radicand : tensor<4xf32>
  %q = stablehlo.rsqrt %variance2 : tensor<4xf32>
  %mq = stablehlo.multiply %mean, %q : tensor<4xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %M = stablehlo.broadcast_in_dim %mq, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %d = stablehlo.subtract %x, %M : tensor<2x4xf32>
  %y = stablehlo.multiply %d, %R : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// mean - x: no batch norm, but minus one.
// CHECK-LABEL: @mirrored(
// CHECK-NOT: batch_norm_inference
// CHECK: return
func.func @mirrored(
    %x: tensor<2x4xf32>,
    %mean: tensor<4xf32> {stablenorm.weight = "mirrored/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "mirrored/variance"}) -> tensor<2x4xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<4xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<4xf32>
  %r = stablehlo.rsqrt %radicand : tensor<4xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %d = stablehlo.subtract %M, %x : tensor<2x4xf32>
  %y = stablehlo.multiply %d, %R : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// Nothing is said of arithmetic that is no batch norm.
// EXPLAIN-NEXT: module {

// A bias, and then a division by one root for all channels, as attention divides by that of its depth: no variance.
// CHECK-LABEL: @one_root_for_all(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NOT: raise-batch-norm: one_root_for_all
func.func @one_root_for_all(
    %x: tensor<2x4xf32>, %bias: tensor<4xf32> {stablenorm.weight = "one_root_for_all/bias"}) -> tensor<2x4xf32> {
  %B = stablehlo.broadcast_in_dim %bias, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %q = stablehlo.add %x, %B : tensor<2x4xf32>
  %depth = stablehlo.constant dense<8.0> : tensor<f32>
  %root = stablehlo.sqrt %depth : tensor<f32>
  %R = stablehlo.broadcast_in_dim %root, dims = [] : (tensor<f32>) -> tensor<2x4xf32>
  %y = stablehlo.divide %q, %R : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}
