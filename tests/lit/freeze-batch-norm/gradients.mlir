// RUN: stablenorm-opt %s --passes=freeze-batch-norm,canonicalize,cse | filecheck %s
// RUN: stablenorm-opt %s --passes="synchronize-batch-norm{replica_groups=[[0,1]]},freeze-batch-norm" --explain 2>&1 | filecheck %s --check-prefix=SYNCHRONIZED
// SYNCHRONIZED: declined: its sums are those of several replicas; freeze it before it is synchronized

// The gradient of a frozen batch norm is that of inference: nothing flows through the statistics. With
// h = (x - mean) * rsqrt(variance + epsilon), it is g * scale * rsqrt(variance + epsilon), sum(g * h) and sum(g).
// CHECK-LABEL: @gradient(
// CHECK-DAG: %[[X:.*]] = stablehlo.convert %arg0 : (tensor<4x3xf32>) -> tensor<4x3xf64>
// CHECK-DAG: %[[S:.*]] = stablehlo.convert %arg1 : (tensor<3xf32>) -> tensor<3xf64>
// CHECK-DAG: %[[G:.*]] = stablehlo.convert %arg5 : (tensor<4x3xf32>) -> tensor<4x3xf64>
// CHECK-DAG: %[[M:.*]] = stablehlo.convert %arg3 : (tensor<3xf32>) -> tensor<3xf64>
// CHECK-DAG: %[[V:.*]] = stablehlo.convert %arg4 : (tensor<3xf32>) -> tensor<3xf64>
// CHECK: %[[VE:.*]] = stablehlo.add %[[V]], %{{.*}} : tensor<3xf64>
// CHECK: %[[R:.*]] = stablehlo.rsqrt %[[VE]]
// CHECK: %[[MB:.*]] = stablehlo.broadcast_in_dim %[[M]], dims = [1]
// CHECK: %[[D:.*]] = stablehlo.subtract %[[X]], %[[MB]]
// CHECK: %[[RB:.*]] = stablehlo.broadcast_in_dim %[[R]], dims = [1]
// CHECK: %[[H:.*]] = stablehlo.multiply %[[D]], %[[RB]]
// CHECK: %[[SR:.*]] = stablehlo.multiply %[[S]], %[[R]]
// CHECK: %[[SRB:.*]] = stablehlo.broadcast_in_dim %[[SR]], dims = [1]
// CHECK: %[[DX:.*]] = stablehlo.multiply %[[G]], %[[SRB]]
// CHECK: %[[GH:.*]] = stablehlo.multiply %[[G]], %[[H]]
// CHECK: %[[DS:.*]] = stablehlo.reduce(%[[GH]] init: %{{.*}}) applies stablehlo.add across dimensions = [0]
// CHECK: %[[DO:.*]] = stablehlo.reduce(%[[G]] init: %{{.*}}) applies stablehlo.add across dimensions = [0]
// CHECK: %[[A:.*]] = stablehlo.convert %[[DX]] : (tensor<4x3xf64>) -> tensor<4x3xf32>
// CHECK: %[[B:.*]] = stablehlo.convert %[[DS]] : (tensor<3xf64>) -> tensor<3xf32>
// CHECK: %[[C:.*]] = stablehlo.convert %[[DO]] : (tensor<3xf64>) -> tensor<3xf32>
// CHECK: return %{{.*}}, %arg3, %arg4, %[[A]], %[[B]], %[[C]]
func.func @gradient(
    %x: tensor<4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>,
    %mean: tensor<3xf32>, %variance: tensor<3xf32>, %g: tensor<4x3xf32>)
    -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %a = stablehlo.constant dense<9.0e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<1.0e-1> : tensor<3xf32>
  %am = stablehlo.multiply %mean, %a : tensor<3xf32>
  %bm = stablehlo.multiply %m, %b : tensor<3xf32>
  %nm = stablehlo.add %am, %bm : tensor<3xf32>
  %av = stablehlo.multiply %variance, %a : tensor<3xf32>
  %bv = stablehlo.multiply %v, %b : tensor<3xf32>
  %nv = stablehlo.add %av, %bv : tensor<3xf32>
  %dx, %ds, %do = "stablehlo.batch_norm_grad"(%x, %scale, %m, %v, %g) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<4x3xf32>)
    -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  return %y, %nm, %nv, %dx, %ds, %do
    : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// All or nothing: a batch norm whose variance is read elsewhere keeps its gradient too.
// CHECK-LABEL: @kept_with_its_gradient(
// CHECK: stablehlo.batch_norm_training
// CHECK: stablehlo.batch_norm_grad
// CHECK: return
func.func @kept_with_its_gradient(
    %x: tensor<4x3xf32>, %scale: tensor<3xf32> {stablenorm.weight = "bn/gamma"}, %offset: tensor<3xf32>,
    %mean: tensor<3xf32> {stablenorm.weight = "bn/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "bn/moving_variance"}, %g: tensor<4x3xf32>)
    -> (tensor<4x3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %dx, %ds, %do = "stablehlo.batch_norm_grad"(%x, %scale, %m, %v, %g) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<4x3xf32>)
    -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  return %dx, %v : tensor<4x3xf32>, tensor<3xf32>
}
