// RUN: stablenorm-opt %s --passes=freeze-batch-norm,canonicalize | filecheck %s

// Where the batch norm and its moving statistics stand does not matter.

// One layer called twice updates its statistics twice: both calls use the first values.
// CHECK-LABEL: @shared_layer(
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg1, %arg2, %arg3)
// CHECK: %[[Z:.*]] = "stablehlo.batch_norm_inference"(%[[Y]], %arg1, %arg1, %arg2, %arg3)
// CHECK: return %[[Z]], %arg2, %arg3
func.func @shared_layer(%x: tensor<4x3xf32>, %scale: tensor<3xf32>, %mean: tensor<3xf32>, %variance: tensor<3xf32>)
    -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %h = stablehlo.constant dense<5.0e-1> : tensor<3xf32>
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %scale) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %sm = stablehlo.add %mean, %m : tensor<3xf32>
  %nm = stablehlo.multiply %sm, %h : tensor<3xf32>
  %sv = stablehlo.add %variance, %v : tensor<3xf32>
  %nv = stablehlo.multiply %sv, %h : tensor<3xf32>
  %z, %m2, %v2 = "stablehlo.batch_norm_training"(%y, %scale, %scale) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %sm2 = stablehlo.add %nm, %m2 : tensor<3xf32>
  %nm2 = stablehlo.multiply %sm2, %h : tensor<3xf32>
  %sv2 = stablehlo.add %nv, %v2 : tensor<3xf32>
  %nv2 = stablehlo.multiply %sv2, %h : tensor<3xf32>
  return %z, %nm2, %nv2 : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// All layers' statistics in one array, cut behind the batch norm: the slices move before it.
// CHECK-LABEL: @packed(
// CHECK-DAG: %[[M:.*]] = stablehlo.slice %arg2 [0:3]
// CHECK-DAG: %[[V:.*]] = stablehlo.slice %arg2 [3:6]
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg1, %[[M]], %[[V]])
// CHECK: %[[N:.*]] = stablehlo.concatenate %[[M]], %[[V]]
// CHECK: return %[[Y]], %[[N]]
func.func @packed(%x: tensor<4x3xf32>, %scale: tensor<3xf32>, %all: tensor<6xf32>) -> (tensor<4x3xf32>, tensor<6xf32>) {
  %h = stablehlo.constant dense<5.0e-1> : tensor<3xf32>
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %scale) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %mean = stablehlo.slice %all [0:3] : (tensor<6xf32>) -> tensor<3xf32>
  %variance = stablehlo.slice %all [3:6] : (tensor<6xf32>) -> tensor<3xf32>
  %sm = stablehlo.add %mean, %m : tensor<3xf32>
  %nm = stablehlo.multiply %sm, %h : tensor<3xf32>
  %sv = stablehlo.add %variance, %v : tensor<3xf32>
  %nv = stablehlo.multiply %sv, %h : tensor<3xf32>
  %new = stablehlo.concatenate %nm, %nv, dim = 0 : (tensor<3xf32>, tensor<3xf32>) -> tensor<6xf32>
  return %y, %new : tensor<4x3xf32>, tensor<6xf32>
}

// A training loop carries the statistics: frozen, each step gets what the first one got.
// CHECK-LABEL: @loop(
// CHECK: stablehlo.while
// CHECK: stablehlo.batch_norm_inference
// CHECK-NOT: batch_norm_training
// CHECK: return
func.func @loop(%x: tensor<4x3xf32>, %scale: tensor<3xf32>, %mean: tensor<3xf32>, %variance: tensor<3xf32>)
    -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %one = stablehlo.constant dense<1> : tensor<i32>
  %two = stablehlo.constant dense<2> : tensor<i32>
  %h = stablehlo.constant dense<5.0e-1> : tensor<3xf32>
  %r:4 = stablehlo.while(%i = %zero, %t = %x, %om = %mean, %ov = %variance)
      : tensor<i32>, tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
    cond {
      %p = stablehlo.compare LT, %i, %two : (tensor<i32>, tensor<i32>) -> tensor<i1>
      stablehlo.return %p : tensor<i1>
    } do {
      %j = stablehlo.add %i, %one : tensor<i32>
      %y, %m, %v = "stablehlo.batch_norm_training"(%t, %scale, %scale)
        <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
        : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
      %sm = stablehlo.add %om, %m : tensor<3xf32>
      %nm = stablehlo.multiply %sm, %h : tensor<3xf32>
      %sv = stablehlo.add %ov, %v : tensor<3xf32>
      %nv = stablehlo.multiply %sv, %h : tensor<3xf32>
      stablehlo.return %j, %y, %nm, %nv : tensor<i32>, tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
    }
  return %r#1, %r#2, %r#3 : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// float16 is computed in float32: a moving variance of float32 may be too large for it.
// CHECK-LABEL: @float16(
// CHECK: %[[X:.*]] = stablehlo.convert %arg0 : (tensor<4x3xf16>) -> tensor<4x3xf32>
// CHECK: %[[S:.*]] = stablehlo.convert %arg1 : (tensor<3xf16>) -> tensor<3xf32>
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%[[X]], %[[S]], %{{.*}}, %arg2, %arg3)
// CHECK: %[[ROUNDED:.*]] = stablehlo.convert %[[Y]] : (tensor<4x3xf32>) -> tensor<4x3xf16>
// CHECK: return %[[ROUNDED]], %arg2, %arg3
func.func @float16(%x: tensor<4x3xf16>, %scale: tensor<3xf16>, %mean: tensor<3xf32>, %variance: tensor<3xf32>)
    -> (tensor<4x3xf16>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %scale) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf16>, tensor<3xf16>, tensor<3xf16>) -> (tensor<4x3xf16>, tensor<3xf16>, tensor<3xf16>)
  %h = stablehlo.constant dense<5.0e-1> : tensor<3xf32>
  %wm = stablehlo.convert %m : (tensor<3xf16>) -> tensor<3xf32>
  %wv = stablehlo.convert %v : (tensor<3xf16>) -> tensor<3xf32>
  %sm = stablehlo.add %mean, %wm : tensor<3xf32>
  %nm = stablehlo.multiply %sm, %h : tensor<3xf32>
  %sv = stablehlo.add %variance, %wv : tensor<3xf32>
  %nv = stablehlo.multiply %sv, %h : tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf16>, tensor<3xf32>, tensor<3xf32>
}

// The batch size, and with it Bessel's factor, is known only when the program runs.
// CHECK-LABEL: @dynamic(
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg1, %arg2, %arg3)
// CHECK: return %[[Y]], %arg2, %arg3
func.func @dynamic(%x: tensor<?x5x3xf32>, %scale: tensor<3xf32>, %mean: tensor<3xf32>, %variance: tensor<3xf32>)
    -> (tensor<?x5x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %scale) <{epsilon = 1.0e-3 : f32, feature_index = 2 : i64}>
    : (tensor<?x5x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<?x5x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %h = stablehlo.constant dense<5.0e-1> : tensor<3xf32>
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %five = stablehlo.constant dense<5> : tensor<i32>
  %rows = stablehlo.get_dimension_size %x, dim = 0 : (tensor<?x5x3xf32>) -> tensor<i32>
  %count = stablehlo.multiply %rows, %five : tensor<i32>
  %n = stablehlo.convert %count : (tensor<i32>) -> tensor<f32>
  %less = stablehlo.subtract %n, %one : tensor<f32>
  %k = stablehlo.divide %n, %less : tensor<f32>
  %bessel = stablehlo.broadcast_in_dim %k, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %sm = stablehlo.add %mean, %m : tensor<3xf32>
  %nm = stablehlo.multiply %sm, %h : tensor<3xf32>
  %u = stablehlo.multiply %v, %bessel : tensor<3xf32>
  %sv = stablehlo.add %variance, %u : tensor<3xf32>
  %nv = stablehlo.multiply %sv, %h : tensor<3xf32>
  return %y, %nm, %nv : tensor<?x5x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// Several feature dimensions, and weights, which count no more: composites. What may turn the vectors is no average.
// CHECK-LABEL: @composite(
// CHECK: %[[Y:.*]] = stablehlo.composite "stablenorm.batch_norm_inference" %arg0, %arg1, %arg1, %arg2, %arg3
// CHECK: return %[[Y]], %arg2, %arg3
// CHECK-LABEL: @composite_turned(
// CHECK: stablehlo.composite "stablenorm.batch_norm_training"
func.func @composite(
    %x: tensor<4x3x2xf32>, %scale: tensor<3x2xf32>, %mean: tensor<3x2xf32>, %variance: tensor<3x2xf32>,
    %weight: tensor<4x3x2xf32>) -> (tensor<4x3x2xf32>, tensor<3x2xf32>, tensor<3x2xf32>) {
  %y, %m, %v = stablehlo.composite "stablenorm.batch_norm_training" %x, %scale, %scale, %weight {
      composite_attributes = {
        epsilon = 1.0e-3 : f64, feature_indices = array<i64: 1, 2>, operands = ["operand", "scale", "offset", "weight"]},
      decomposition = @decomposition}
    : (tensor<4x3x2xf32>, tensor<3x2xf32>, tensor<3x2xf32>, tensor<4x3x2xf32>)
    -> (tensor<4x3x2xf32>, tensor<3x2xf32>, tensor<3x2xf32>)
  %h = stablehlo.constant dense<5.0e-1> : tensor<3x2xf32>
  %sm = stablehlo.add %mean, %m : tensor<3x2xf32>
  %nm = stablehlo.multiply %sm, %h : tensor<3x2xf32>
  %sv = stablehlo.add %variance, %v : tensor<3x2xf32>
  %nv = stablehlo.multiply %sv, %h : tensor<3x2xf32>
  return %y, %nm, %nv : tensor<4x3x2xf32>, tensor<3x2xf32>, tensor<3x2xf32>
}
func.func @composite_turned(
    %x: tensor<4x3x2xf32>, %scale: tensor<3x2xf32>, %mean: tensor<2x3xf32>, %weight: tensor<4x3x2xf32>)
    -> (tensor<4x3x2xf32>, tensor<2x3xf32>) {
  %y, %m, %v = stablehlo.composite "stablenorm.batch_norm_training" %x, %scale, %scale, %weight {
      composite_attributes = {
        epsilon = 1.0e-3 : f64, feature_indices = array<i64: 1, 2>, operands = ["operand", "scale", "offset", "weight"]},
      decomposition = @decomposition}
    : (tensor<4x3x2xf32>, tensor<3x2xf32>, tensor<3x2xf32>, tensor<4x3x2xf32>)
    -> (tensor<4x3x2xf32>, tensor<3x2xf32>, tensor<3x2xf32>)
  %h = stablehlo.constant dense<5.0e-1> : tensor<2x3xf32>
  %turned = stablehlo.broadcast_in_dim %m, dims = [1, 0] : (tensor<3x2xf32>) -> tensor<2x3xf32>
  %sm = stablehlo.add %mean, %turned : tensor<2x3xf32>
  %nm = stablehlo.multiply %sm, %h : tensor<2x3xf32>
  return %y, %nm : tensor<4x3x2xf32>, tensor<2x3xf32>
}
func.func private @decomposition(%x: tensor<4x3x2xf32>, %s: tensor<3x2xf32>, %o: tensor<3x2xf32>, %w: tensor<4x3x2xf32>)
    -> (tensor<4x3x2xf32>, tensor<3x2xf32>, tensor<3x2xf32>) {
  return %x, %s, %o : tensor<4x3x2xf32>, tensor<3x2xf32>, tensor<3x2xf32>
}
