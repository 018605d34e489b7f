// RUN: stablenorm-opt %s --passes="synchronize-batch-norm{replica_groups=[[0,1],[2,3]]}" | filecheck %s --check-prefix=NAMED
// RUN: stablenorm-opt %s --passes="synchronize-batch-norm{replica_groups=[[0,1],[2,3]]},lower-batch-norm" | filecheck %s
// RUN: %fails stablenorm-opt %s --passes=synchronize-batch-norm 2>&1 | filecheck %s --check-prefix=MISSING
// RUN: %fails stablenorm-opt %s --passes="synchronize-batch-norm{replica_groups=[[0,1],[1]]}" 2>&1 | filecheck %s --check-prefix=WRONG

// MISSING: error: synchronize-batch-norm: got no replica_groups, allowed: groups of one size
// WRONG: error: synchronize-batch-norm: got replica_groups={{.*}}, allowed: groups of one size that hold each

// Forward sends one array: two sums of each feature, in float64. Backward sends one: two sums of each feature.
// NAMED-LABEL: @step(
// NAMED: stablehlo.composite "stablenorm.batch_norm_training"
// NAMED-SAME: replica_groups = dense<{{\[}}[0, 1], [2, 3]]> : tensor<2x2xi64>
// NAMED: stablehlo.composite "stablenorm.batch_norm_grad"
// NAMED-SAME: replica_groups = dense<{{\[}}[0, 1], [2, 3]]> : tensor<2x2xi64>
// NAMED: return

// CHECK-LABEL: @step(
// CHECK-NOT: all_reduce
// CHECK: %[[SUMS:.*]] = stablehlo.concatenate %{{.*}}, %{{.*}}, dim = 0 : (tensor<3xf64>, tensor<3xf64>) -> tensor<6xf64>
// CHECK: "stablehlo.all_reduce"(%[[SUMS]]) <{channel_handle = #stablehlo.channel_handle<handle = [[ONE:.*]], type = 1>, replica_groups = dense<{{\[}}[0, 1], [2, 3]]> : tensor<2x2xi64>, use_global_device_ids}>
// CHECK: }) : (tensor<6xf64>) -> tensor<6xf64>
// CHECK-NOT: all_reduce
// CHECK: %[[SLOPES:.*]] = stablehlo.concatenate %{{.*}}, %{{.*}}, dim = 0 : (tensor<3xf32>, tensor<3xf32>) -> tensor<6xf32>
// CHECK: "stablehlo.all_reduce"(%[[SLOPES]])
// CHECK: }) : (tensor<6xf32>) -> tensor<6xf32>
// CHECK-NOT: all_reduce
// CHECK: return
func.func @step(%x: tensor<4x3xf32>, %scale: tensor<3xf32>, %offset: tensor<3xf32>, %grad: tensor<4x3xf32>)
    -> (tensor<4x3xf32>, tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %mean, %variance = "stablehlo.batch_norm_training"(%x, %scale, %offset)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %dx, %dscale, %doffset = "stablehlo.batch_norm_grad"(%x, %scale, %mean, %variance, %grad)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<4x3xf32>)
    -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  return %y, %dx, %dscale, %doffset : tensor<4x3xf32>, tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// A gradient that has not its training beside it takes the statistics that it is given: still one array.
// CHECK-LABEL: @gradient_alone(
// CHECK: "stablehlo.all_reduce"
// CHECK: }) : (tensor<6xf32>) -> tensor<6xf32>
// CHECK-NOT: all_reduce
// CHECK: return
func.func @gradient_alone(%x: tensor<4x3xf16>, %v: tensor<3xf16>) -> tensor<4x3xf16> {
  %dx, %dscale, %doffset = "stablehlo.batch_norm_grad"(%x, %v, %v, %v, %x)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf16>, tensor<3xf16>, tensor<3xf16>, tensor<3xf16>, tensor<4x3xf16>)
    -> (tensor<4x3xf16>, tensor<3xf16>, tensor<3xf16>)
  return %dx : tensor<4x3xf16>
}

// With weights, each replica counts something else, so the count is sent too.
// CHECK-LABEL: @weights(
// CHECK: "stablehlo.all_reduce"
// CHECK: }) : (tensor<9xf64>) -> tensor<9xf64>
// CHECK-NOT: all_reduce
// CHECK: return
func.func @weights(%x: tensor<4x3xf32>, %v: tensor<3xf32>) -> tensor<4x3xf32> {
  %0:3 = stablehlo.composite "stablenorm.batch_norm_training" %x, %v, %v, %x {
    composite_attributes = {
      epsilon = 1.0e-3 : f64, feature_indices = array<i64: 1>, operands = ["operand", "scale", "offset", "weight"]
    },
    decomposition = @training
  } : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<4x3xf32>)
    -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  return %0#0 : tensor<4x3xf32>
}

func.func private @training(%x: tensor<4x3xf32>, %v: tensor<3xf32>, %w: tensor<3xf32>, %weight: tensor<4x3xf32>)
    -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  return %x, %v, %v : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// Inference has no statistics to share, and what has groups keeps them.
// NAMED-LABEL: @inference(
// NAMED-NEXT: "stablehlo.batch_norm_inference"
func.func @inference(%x: tensor<4x3xf32>, %v: tensor<3xf32>) -> tensor<4x3xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %v, %v, %v, %v) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<4x3xf32>
  return %y : tensor<4x3xf32>
}
