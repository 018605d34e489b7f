// RUN: stablenorm-opt %s --passes=freeze-batch-norm,canonicalize | filecheck %s
// RUN: stablenorm-opt %s --passes=freeze-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// Every spelling of `old * momentum + batch * (1 - momentum)`: y is normalized with the old values, and they stay.

// EXPLAIN-COUNT-8: freeze-batch-norm: stablehlo.batch_norm_training: frozen: its statistics are
// EXPLAIN-NOT: declined

// Flax, Keras 3 on JAX, stablenorm.ops.batch_norm: a weighted sum.
// CHECK-LABEL: @sum(
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg2, %arg3, %arg4)
// CHECK-SAME: epsilon = 1.000000e-03 : f32, feature_index = 1 : i64
// CHECK-NEXT: return %[[Y]], %arg3, %arg4
func.func @sum(
    %x: tensor<4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>,
    %mean: tensor<3xf32>, %variance: tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %a = stablehlo.constant dense<9.9e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<1.0e-2> : tensor<3xf32>
  %am = stablehlo.multiply %mean, %a : tensor<3xf32>
  %bm = stablehlo.multiply %b, %m : tensor<3xf32>
  %nm = stablehlo.add %am, %bm : tensor<3xf32>
  %av = stablehlo.multiply %a, %variance : tensor<3xf32>
  %bv = stablehlo.multiply %v, %b : tensor<3xf32>
  %nv = stablehlo.add %bv, %av : tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// TensorFlow: a step towards the batch, from a scalar; Bessel's factor is 4 / 3.
// CHECK-LABEL: @difference(
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg2, %arg3, %arg4)
// CHECK-SAME: epsilon = 1.000000e-03 : f32, feature_index = 1 : i64
// CHECK-NEXT: return %[[Y]], %arg3, %arg4
func.func @difference(
    %x: tensor<4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>,
    %mean: tensor<3xf32>, %variance: tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %s = stablehlo.constant dense<9.999990e-03> : tensor<f32>
  %k = stablehlo.constant dense<1.33333337> : tensor<f32>
  %b = stablehlo.broadcast_in_dim %s, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %bessel = stablehlo.broadcast_in_dim %k, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %dm = stablehlo.subtract %mean, %m : tensor<3xf32>
  %sm = stablehlo.multiply %dm, %b : tensor<3xf32>
  %nm = stablehlo.subtract %mean, %sm : tensor<3xf32>
  %u = stablehlo.multiply %v, %bessel : tensor<3xf32>
  %dv = stablehlo.subtract %variance, %u : tensor<3xf32>
  %sv = stablehlo.multiply %dv, %b : tensor<3xf32>
  %nv = stablehlo.subtract %variance, %sv : tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// The other way round, with a quotient and a negation.
// CHECK-LABEL: @step(
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg2, %arg3, %arg4)
// CHECK-SAME: epsilon = 1.000000e-03 : f32, feature_index = 1 : i64
// CHECK-NEXT: return %[[Y]], %arg3, %arg4
func.func @step(
    %x: tensor<4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>,
    %mean: tensor<3xf32>, %variance: tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %h = stablehlo.constant dense<1.0e+2> : tensor<3xf32>
  %dm = stablehlo.subtract %m, %mean : tensor<3xf32>
  %sm = stablehlo.divide %dm, %h : tensor<3xf32>
  %nm = stablehlo.add %sm, %mean : tensor<3xf32>
  %minus = stablehlo.negate %variance : tensor<3xf32>
  %dv = stablehlo.add %minus, %v : tensor<3xf32>
  %sv = stablehlo.divide %dv, %h : tensor<3xf32>
  %nv = stablehlo.add %variance, %sv : tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// momentum = 1: nothing is learnt, and that stays so.
// CHECK-LABEL: @no_momentum(
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg2, %arg3, %arg4)
// CHECK-SAME: epsilon = 1.000000e-03 : f32, feature_index = 1 : i64
// CHECK-NEXT: return %[[Y]], %arg3, %arg4
func.func @no_momentum(
    %x: tensor<4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>,
    %mean: tensor<3xf32>, %variance: tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %zero = stablehlo.constant dense<0.0> : tensor<3xf32>
  %dm = stablehlo.subtract %mean, %m : tensor<3xf32>
  %sm = stablehlo.multiply %dm, %zero : tensor<3xf32>
  %nm = stablehlo.subtract %mean, %sm : tensor<3xf32>
  %dv = stablehlo.subtract %variance, %v : tensor<3xf32>
  %sv = stablehlo.multiply %dv, %zero : tensor<3xf32>
  %nv = stablehlo.subtract %variance, %sv : tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// The momentum is known only when the program runs.
// CHECK-LABEL: @momentum_is_an_input(
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg2, %arg3, %arg4)
// CHECK-SAME: epsilon = 1.000000e-03 : f32, feature_index = 1 : i64
// CHECK-NEXT: return %[[Y]], %arg3, %arg4
func.func @momentum_is_an_input(
    %x: tensor<4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>,
    %mean: tensor<3xf32>, %variance: tensor<3xf32>, %momentum: tensor<f32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %one = stablehlo.constant dense<1.0> : tensor<3xf32>
  %a = stablehlo.broadcast_in_dim %momentum, dims = [] : (tensor<f32>) -> tensor<3xf32>
  %b = stablehlo.subtract %one, %a : tensor<3xf32>
  %am = stablehlo.multiply %mean, %a : tensor<3xf32>
  %bm = stablehlo.multiply %m, %b : tensor<3xf32>
  %nm = stablehlo.add %am, %bm : tensor<3xf32>
  %av = stablehlo.multiply %variance, %a : tensor<3xf32>
  %bv = stablehlo.multiply %v, %b : tensor<3xf32>
  %nv = stablehlo.add %av, %bv : tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// A count says whether there was a batch, and what Bessel's factor is.
// CHECK-LABEL: @counted(
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg2, %arg3, %arg4)
// CHECK-SAME: epsilon = 1.000000e-03 : f32, feature_index = 1 : i64
// CHECK-NEXT: return %[[Y]], %arg3, %arg4
func.func @counted(
    %x: tensor<4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>,
    %mean: tensor<3xf32>, %variance: tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %n = stablehlo.constant dense<4.0> : tensor<3xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<3xf32>
  %one = stablehlo.constant dense<1.0> : tensor<3xf32>
  %a = stablehlo.constant dense<9.0e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<1.0e-1> : tensor<3xf32>
  %some = stablehlo.compare GT, %n, %zero, FLOAT : (tensor<3xf32>, tensor<3xf32>) -> tensor<3xi1>
  %more = stablehlo.compare GT, %n, %one, FLOAT : (tensor<3xf32>, tensor<3xf32>) -> tensor<3xi1>
  %less = stablehlo.subtract %n, %one : tensor<3xf32>
  %d = stablehlo.select %more, %less, %one : tensor<3xi1>, tensor<3xf32>
  %q = stablehlo.divide %n, %d : tensor<3xf32>
  %k = stablehlo.select %more, %q, %one : tensor<3xi1>, tensor<3xf32>
  %am = stablehlo.multiply %mean, %a : tensor<3xf32>
  %bm = stablehlo.multiply %m, %b : tensor<3xf32>
  %sm = stablehlo.add %am, %bm : tensor<3xf32>
  %nm = stablehlo.select %some, %sm, %mean : tensor<3xi1>, tensor<3xf32>
  %u = stablehlo.multiply %v, %k : tensor<3xf32>
  %av = stablehlo.multiply %variance, %a : tensor<3xf32>
  %bv = stablehlo.multiply %u, %b : tensor<3xf32>
  %sv = stablehlo.add %av, %bv : tensor<3xf32>
  %nv = stablehlo.select %some, %sv, %variance : tensor<3xi1>, tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// An input says whether to update. A variance is not negative, whatever is done about that.
// CHECK-LABEL: @asked(
// CHECK: %[[Y:.*]] = "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg2, %arg3, %arg4)
// CHECK-SAME: epsilon = 1.000000e-03 : f32, feature_index = 1 : i64
// CHECK-NEXT: return %[[Y]], %arg3, %arg4
func.func @asked(
    %x: tensor<4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>,
    %mean: tensor<3xf32>, %variance: tensor<3xf32>, %learn: tensor<i1>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %zero = stablehlo.constant dense<0.0> : tensor<3xf32>
  %a = stablehlo.constant dense<9.0e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<1.0e-1> : tensor<3xf32>
  %am = stablehlo.multiply %mean, %a : tensor<3xf32>
  %bm = stablehlo.multiply %m, %b : tensor<3xf32>
  %sm = stablehlo.add %am, %bm : tensor<3xf32>
  %nm = stablehlo.select %learn, %sm, %mean : tensor<i1>, tensor<3xf32>
  %u = stablehlo.maximum %v, %zero : tensor<3xf32>
  %av = stablehlo.multiply %variance, %a : tensor<3xf32>
  %bv = stablehlo.multiply %u, %b : tensor<3xf32>
  %sv = stablehlo.add %av, %bv : tensor<3xf32>
  %nv = stablehlo.select %learn, %sv, %variance : tensor<i1>, tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// The moving statistics are float16, computed with in float32, in another shape; what converts them comes too late.
// CHECK-LABEL: @narrow(
// CHECK-DAG: %[[M:.*]] = stablehlo.convert %arg3 : (tensor<3xf16>) -> tensor<3xf32>
// CHECK-DAG: %[[V:.*]] = stablehlo.convert %arg4 : (tensor<3xf16>) -> tensor<3xf32>
// CHECK: "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg2, %[[M]], %[[V]])
// CHECK: return
func.func @narrow(
    %x: tensor<4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>,
    %mean: tensor<3xf16>, %variance: tensor<3xf16>) -> (tensor<4x3xf32>, tensor<3xf16>, tensor<3xf16>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %a = stablehlo.constant dense<9.9e-1> : tensor<1x3xf32>
  %b = stablehlo.constant dense<1.0e-2> : tensor<1x3xf32>
  %wm = stablehlo.convert %mean : (tensor<3xf16>) -> tensor<3xf32>
  %rm = stablehlo.reshape %wm : (tensor<3xf32>) -> tensor<1x3xf32>
  %rb = stablehlo.reshape %m : (tensor<3xf32>) -> tensor<1x3xf32>
  %am = stablehlo.multiply %rm, %a : tensor<1x3xf32>
  %bm = stablehlo.multiply %rb, %b : tensor<1x3xf32>
  %sm = stablehlo.add %am, %bm : tensor<1x3xf32>
  %fm = stablehlo.reshape %sm : (tensor<1x3xf32>) -> tensor<3xf32>
  %nm = stablehlo.convert %fm : (tensor<3xf32>) -> tensor<3xf16>
  %c = stablehlo.constant dense<9.9e-1> : tensor<3xf32>
  %d = stablehlo.constant dense<1.0e-2> : tensor<3xf32>
  %wv = stablehlo.convert %variance : (tensor<3xf16>) -> tensor<3xf32>
  %av = stablehlo.multiply %wv, %c : tensor<3xf32>
  %bv = stablehlo.multiply %v, %d : tensor<3xf32>
  %sv = stablehlo.add %av, %bv : tensor<3xf32>
  %nv = stablehlo.convert %sv : (tensor<3xf32>) -> tensor<3xf16>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf16>, tensor<3xf16>
}
