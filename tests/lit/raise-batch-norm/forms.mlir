// RUN: stablenorm-opt %s --passes=raise-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=raise-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// Every way in which a batch norm is written out is one: x * g * r - mean * g * r + offset.

// TensorFlow: x * inv + (offset - mean * inv), inv = rsqrt(variance + epsilon) * scale.
// CHECK-LABEL: @tensorflow(
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg2, %arg3, %arg4) <{epsilon = 1.000000e-03 : f32, feature_index = 1 : i64}>
// CHECK-NEXT: return %[[Y]]
// EXPLAIN: raise-batch-norm: tensorflow: raised: feature_index = 1
func.func @tensorflow(
    %x: tensor<2x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "tensorflow/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "tensorflow/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "tensorflow/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "tensorflow/variance"}) -> tensor<2x4xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<4xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<4xf32>
  %r = stablehlo.rsqrt %radicand : tensor<4xf32>
  %inv = stablehlo.multiply %r, %scale : tensor<4xf32>
  %mi = stablehlo.multiply %mean, %inv : tensor<4xf32>
  %t = stablehlo.subtract %offset, %mi : tensor<4xf32>
  %I = stablehlo.broadcast_in_dim %inv, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %B = stablehlo.broadcast_in_dim %t, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %xi = stablehlo.multiply %x, %I : tensor<2x4xf32>
  %y = stablehlo.add %xi, %B : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// Keras 3 on JAX: the negated mean times inv, plus offset.
// CHECK-LABEL: @keras_3(
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg2, %{{.*}}, %arg4) <{epsilon = 1.000000e-03 : f32, feature_index = 1 : i64}>
// CHECK-NEXT: return %[[Y]]
// EXPLAIN-NEXT: raise-batch-norm: keras_3: raised: feature_index = 1
func.func @keras_3(
    %x: tensor<2x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "keras_3/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "keras_3/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "keras_3/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "keras_3/variance"}) -> tensor<2x4xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<4xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<4xf32>
  %r = stablehlo.rsqrt %radicand : tensor<4xf32>
  %inv = stablehlo.multiply %r, %scale : tensor<4xf32>
  %nm = stablehlo.negate %mean : tensor<4xf32>
  %mi = stablehlo.multiply %nm, %inv : tensor<4xf32>
  %t = stablehlo.add %offset, %mi : tensor<4xf32>
  %I = stablehlo.broadcast_in_dim %inv, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %B = stablehlo.broadcast_in_dim %t, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %xi = stablehlo.multiply %x, %I : tensor<2x4xf32>
  %y = stablehlo.add %xi, %B : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// Flax: (x - mean) * (rsqrt(variance + epsilon) * scale) + offset, on parameters of the tensor's rank.
// CHECK-LABEL: @flax(
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, {{.*}}) <{epsilon = 1.000000e-03 : f32, feature_index = 1 : i64}>
// CHECK-NEXT: return %[[Y]]
// EXPLAIN-NEXT: raise-batch-norm: flax: raised: feature_index = 1
func.func @flax(
    %x: tensor<2x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "flax/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "flax/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "flax/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "flax/variance"}) -> tensor<2x4xf32> {
  %mean1 = stablehlo.reshape %mean : (tensor<4xf32>) -> tensor<1x4xf32>
  %variance1 = stablehlo.reshape %variance : (tensor<4xf32>) -> tensor<1x4xf32>
  %scale1 = stablehlo.reshape %scale : (tensor<4xf32>) -> tensor<1x4xf32>
  %offset1 = stablehlo.reshape %offset : (tensor<4xf32>) -> tensor<1x4xf32>
  %epsilon1 = stablehlo.constant dense<1.0e-3> : tensor<1x4xf32>
  %radicand1 = stablehlo.add %variance1, %epsilon1 : tensor<1x4xf32>
  %r = stablehlo.rsqrt %radicand1 : tensor<1x4xf32>
  %s = stablehlo.multiply %r, %scale1 : tensor<1x4xf32>
  %M = stablehlo.broadcast_in_dim %mean1, dims = [0, 1] : (tensor<1x4xf32>) -> tensor<2x4xf32>
  %S = stablehlo.broadcast_in_dim %s, dims = [0, 1] : (tensor<1x4xf32>) -> tensor<2x4xf32>
  %B = stablehlo.broadcast_in_dim %offset1, dims = [0, 1] : (tensor<1x4xf32>) -> tensor<2x4xf32>
  %d = stablehlo.subtract %x, %M : tensor<2x4xf32>
  %e = stablehlo.multiply %d, %S : tensor<2x4xf32>
  %y = stablehlo.add %e, %B : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// (x - mean) / sqrt(variance + epsilon) * scale + offset.
// CHECK-LABEL: @division(
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg2, %arg3, %arg4) <{epsilon = 1.000000e-03 : f32, feature_index = 1 : i64}>
// CHECK-NEXT: return %[[Y]]
// EXPLAIN-NEXT: raise-batch-norm: division: raised: feature_index = 1
func.func @division(
    %x: tensor<2x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "division/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "division/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "division/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "division/variance"}) -> tensor<2x4xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<4xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<4xf32>
  %root = stablehlo.sqrt %radicand : tensor<4xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %R = stablehlo.broadcast_in_dim %root, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %S = stablehlo.broadcast_in_dim %scale, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %B = stablehlo.broadcast_in_dim %offset, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %d = stablehlo.subtract %x, %M : tensor<2x4xf32>
  %e = stablehlo.divide %d, %R : tensor<2x4xf32>
  %s = stablehlo.multiply %e, %S : tensor<2x4xf32>
  %y = stablehlo.add %s, %B : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// Without a scale: it is one.
// CHECK-LABEL: @without_scale(
// CHECK: %[[ONE:.*]] = stablehlo.constant dense<1.000000e+00> : tensor<4xf32>
// CHECK: "stablehlo.batch_norm_inference"(%arg0, %[[ONE]], %arg1, %arg2, %arg3)
// EXPLAIN-NEXT: raise-batch-norm: without_scale: raised: feature_index = 1
func.func @without_scale(
    %x: tensor<2x4xf32>,
    %offset: tensor<4xf32> {stablenorm.weight = "without_scale/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "without_scale/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "without_scale/variance"}) -> tensor<2x4xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<4xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<4xf32>
  %r = stablehlo.rsqrt %radicand : tensor<4xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %B = stablehlo.broadcast_in_dim %offset, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %d = stablehlo.subtract %x, %M : tensor<2x4xf32>
  %e = stablehlo.multiply %d, %R : tensor<2x4xf32>
  %y = stablehlo.add %e, %B : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// Without an offset: it is zero.
// CHECK-LABEL: @without_offset(
// CHECK: %[[ZERO:.*]] = stablehlo.constant dense<0.000000e+00> : tensor<4xf32>
// CHECK: "stablehlo.batch_norm_inference"(%arg0, %arg1, %[[ZERO]], %arg2, %arg3)
// EXPLAIN-NEXT: raise-batch-norm: without_offset: raised: feature_index = 1
func.func @without_offset(
    %x: tensor<2x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "without_offset/scale"},
    %mean: tensor<4xf32> {stablenorm.weight = "without_offset/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "without_offset/variance"}) -> tensor<2x4xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<4xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<4xf32>
  %r = stablehlo.rsqrt %radicand : tensor<4xf32>
  %s = stablehlo.multiply %r, %scale : tensor<4xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %S = stablehlo.broadcast_in_dim %s, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %d = stablehlo.subtract %x, %M : tensor<2x4xf32>
  %y = stablehlo.multiply %d, %S : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// Without an epsilon, or with one that is already in the variance.
// CHECK-LABEL: @without_epsilon(
// CHECK: "stablehlo.batch_norm_inference"(%arg0, %{{.*}}, %{{.*}}, %arg1, %arg2) <{epsilon = 0.000000e+00 : f32, feature_index = 1 : i64}>
// EXPLAIN-NEXT: raise-batch-norm: without_epsilon: raised: feature_index = 1
func.func @without_epsilon(
    %x: tensor<2x4xf32>,
    %mean: tensor<4xf32> {stablenorm.weight = "without_epsilon/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "without_epsilon/variance"}) -> tensor<2x4xf32> {
  %r = stablehlo.rsqrt %variance : tensor<4xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %d = stablehlo.subtract %x, %M : tensor<2x4xf32>
  %y = stablehlo.multiply %d, %R : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// One channel: its dimension is told by where the parameters lie.
// CHECK-LABEL: @one_channel(
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, {{.*}}) <{epsilon = 1.000000e-03 : f32, feature_index = 0 : i64}>
// CHECK-NEXT: return %[[Y]]
// EXPLAIN-NEXT: raise-batch-norm: one_channel: raised: feature_index = 0
func.func @one_channel(
    %x: tensor<1x2xf32>,
    %mean: tensor<1xf32> {stablenorm.weight = "one_channel/mean"},
    %variance: tensor<1xf32> {stablenorm.weight = "one_channel/variance"}) -> tensor<1x2xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<1xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<1xf32>
  %r = stablehlo.rsqrt %radicand : tensor<1xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [0] : (tensor<1xf32>) -> tensor<1x2xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [0] : (tensor<1xf32>) -> tensor<1x2xf32>
  %d = stablehlo.subtract %x, %M : tensor<1x2xf32>
  %y = stablehlo.multiply %d, %R : tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// Channels first.
// CHECK-LABEL: @first_dimension(
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, {{.*}}) <{epsilon = 1.000000e-03 : f32, feature_index = 0 : i64}>
// CHECK-NEXT: return %[[Y]]
// EXPLAIN-NEXT: raise-batch-norm: first_dimension: raised: feature_index = 0
func.func @first_dimension(
    %x: tensor<2x4xf32>,
    %mean: tensor<2xf32> {stablenorm.weight = "first_dimension/mean"},
    %variance: tensor<2xf32> {stablenorm.weight = "first_dimension/variance"}) -> tensor<2x4xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<2xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<2xf32>
  %r = stablehlo.rsqrt %radicand : tensor<2xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [0] : (tensor<2xf32>) -> tensor<2x4xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [0] : (tensor<2xf32>) -> tensor<2x4xf32>
  %d = stablehlo.subtract %x, %M : tensor<2x4xf32>
  %y = stablehlo.multiply %d, %R : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// The sum behind a batch norm is not part of it.
// CHECK-LABEL: @residual(
// CHECK: %[[N:.*]] = "stablehlo.batch_norm_inference"(%arg0, {{.*}})
// CHECK-NEXT: %[[Y:.*]] = stablehlo.add %[[N]], %arg0
// CHECK-NEXT: return %[[Y]]
// EXPLAIN-NEXT: raise-batch-norm: residual: raised: feature_index = 1
func.func @residual(
    %x: tensor<2x4xf32>,
    %offset: tensor<4xf32> {stablenorm.weight = "residual/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "residual/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "residual/variance"}) -> tensor<2x4xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<4xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<4xf32>
  %r = stablehlo.rsqrt %radicand : tensor<4xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %B = stablehlo.broadcast_in_dim %offset, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %d = stablehlo.subtract %x, %M : tensor<2x4xf32>
  %e = stablehlo.multiply %d, %R : tensor<2x4xf32>
  %f = stablehlo.add %e, %B : tensor<2x4xf32>
  %y = stablehlo.add %f, %x : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// Two batch norms of one tensor, and their sum, stay two.
// CHECK-LABEL: @sum_of_two(
// CHECK-COUNT-2: stablehlo.batch_norm_inference
// CHECK: stablehlo.add
// EXPLAIN-NEXT: raise-batch-norm: sum_of_two: raised: feature_index = 1
// EXPLAIN-NEXT: raise-batch-norm: sum_of_two: raised: feature_index = 1
func.func @sum_of_two(
    %x: tensor<2x4xf32>,
    %mean: tensor<4xf32> {stablenorm.weight = "sum_of_two/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "sum_of_two/variance"},
    %mean2: tensor<4xf32> {stablenorm.weight = "sum_of_two/mean2"},
    %variance2: tensor<4xf32> {stablenorm.weight = "sum_of_two/variance2"}) -> tensor<2x4xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<4xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<4xf32>
  %r = stablehlo.rsqrt %radicand : tensor<4xf32>
  %r2 = stablehlo.rsqrt %variance2 : tensor<4xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %N = stablehlo.broadcast_in_dim %mean2, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %Q = stablehlo.broadcast_in_dim %r2, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %d = stablehlo.subtract %x, %M : tensor<2x4xf32>
  %e = stablehlo.multiply %d, %R : tensor<2x4xf32>
  %g = stablehlo.subtract %x, %N : tensor<2x4xf32>
  %h = stablehlo.multiply %g, %Q : tensor<2x4xf32>
  %y = stablehlo.add %e, %h : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// A float64 epsilon is no float32: what the attribute cannot hold joins the variance, and the sum is the one that was written.
// CHECK-LABEL: @float64(
// CHECK: %[[REST:.*]] = stablehlo.constant dense<-4.74{{.*}}E-11> : tensor<4xf64>
// CHECK: %[[V:.*]] = stablehlo.add %arg2, %[[REST]]
// CHECK: "stablehlo.batch_norm_inference"(%arg0, %{{.*}}, %{{.*}}, %arg1, %[[V]]) <{epsilon = 1.000000e-03 : f32
// EXPLAIN-NEXT: raise-batch-norm: float64: raised: feature_index = 1
func.func @float64(
    %x: tensor<2x4xf64>,
    %mean: tensor<4xf64> {stablenorm.weight = "float64/mean"},
    %variance: tensor<4xf64> {stablenorm.weight = "float64/variance"}) -> tensor<2x4xf64> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<4xf64>
  %radicand = stablehlo.add %variance, %epsilon : tensor<4xf64>
  %r = stablehlo.rsqrt %radicand : tensor<4xf64>
  %M = stablehlo.broadcast_in_dim %mean, dims = [1] : (tensor<4xf64>) -> tensor<2x4xf64>
  %R = stablehlo.broadcast_in_dim %r, dims = [1] : (tensor<4xf64>) -> tensor<2x4xf64>
  %d = stablehlo.subtract %x, %M : tensor<2x4xf64>
  %y = stablehlo.multiply %d, %R : tensor<2x4xf64>
  return %y : tensor<2x4xf64>
}

// A scale that is one number for all channels.
// CHECK-LABEL: @scalar_scale(
// CHECK: %[[SCALE:.*]] = stablehlo.broadcast_in_dim %arg1, dims = [] : (tensor<f32>) -> tensor<4xf32>
// CHECK: "stablehlo.batch_norm_inference"(%arg0, %[[SCALE]], %{{.*}}, %arg2, %arg3)
// EXPLAIN-NEXT: raise-batch-norm: scalar_scale: raised: feature_index = 1
func.func @scalar_scale(
    %x: tensor<2x4xf32>,
    %scale: tensor<f32> {stablenorm.weight = "scalar_scale/scale"},
    %mean: tensor<4xf32> {stablenorm.weight = "scalar_scale/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "scalar_scale/variance"}) -> tensor<2x4xf32> {
  %epsilon = stablehlo.constant dense<1.0e-3> : tensor<4xf32>
  %radicand = stablehlo.add %variance, %epsilon : tensor<4xf32>
  %r = stablehlo.rsqrt %radicand : tensor<4xf32>
  %M = stablehlo.broadcast_in_dim %mean, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %R = stablehlo.broadcast_in_dim %r, dims = [1] : (tensor<4xf32>) -> tensor<2x4xf32>
  %S = stablehlo.broadcast_in_dim %scale, dims = [] : (tensor<f32>) -> tensor<2x4xf32>
  %d = stablehlo.subtract %x, %M : tensor<2x4xf32>
  %e = stablehlo.multiply %d, %R : tensor<2x4xf32>
  %y = stablehlo.multiply %e, %S : tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}
