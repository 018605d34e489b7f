// RUN: stablenorm-opt %s --passes=freeze-batch-norm,canonicalize | filecheck %s
// RUN: stablenorm-opt %s --passes=freeze-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN
// RUN: stablenorm-opt %s --passes=freeze-batch-norm{layers=.*/bn} --explain 2>&1 | filecheck %s --check-prefix=SOME
// RUN: %fails stablenorm-opt %s --passes=freeze-batch-norm{layers=*} | filecheck %s --check-prefix=ERROR
// ERROR: layers: got '*' ({{.*}}), allowed: a regular expression

// Where nothing updates the moving statistics, the weights' names say which they are.

// Beside the scale and the offset.
// CHECK-LABEL: @beside_the_parameters(
// CHECK: "stablehlo.batch_norm_inference"(%arg0, %arg3, %arg4, %arg2, %arg1)
// EXPLAIN: freeze-batch-norm: model/bn: frozen: its statistics are model/bn/moving_mean and model/bn/moving_variance
// SOME: freeze-batch-norm: model/bn: frozen: its statistics are model/bn/moving_mean and model/bn/moving_variance
func.func @beside_the_parameters(
    %x: tensor<4x3xf32>,
    %variance: tensor<3xf32> {stablenorm.weight = "model/bn/moving_variance"},
    %mean: tensor<3xf32> {stablenorm.weight = "model/bn/moving_mean"},
    %scale: tensor<3xf32> {stablenorm.weight = "model/bn/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "model/bn/beta"}) -> tensor<4x3xf32> {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  return %y : tensor<4x3xf32>
}

// PyTorch's names. A weight may have another shape, if it has a number for each feature.
// CHECK-LABEL: @torch(
// CHECK: %[[V:.*]] = stablehlo.reshape %arg4 : (tensor<1x3xf32>) -> tensor<3xf32>
// CHECK: "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg2, %arg3, %[[V]])
// EXPLAIN-NEXT: freeze-batch-norm: layer1.bn: frozen: its statistics are layer1.bn.running_mean and layer1.bn.running_var
// SOME-NEXT: freeze-batch-norm: layer1.bn: declined: the option layers=.*/bn leaves it out
func.func @torch(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "layer1.bn.weight"},
    %offset: tensor<3xf32> {stablenorm.weight = "layer1.bn.bias"},
    %mean: tensor<3xf32> {stablenorm.weight = "layer1.bn.running_mean"},
    %variance: tensor<1x3xf32> {stablenorm.weight = "layer1.bn.running_var"}) -> tensor<4x3xf32> {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  return %y : tensor<4x3xf32>
}

// A model of one layer needs no layer's name.
// CHECK-LABEL: @alone(
// CHECK: "stablehlo.batch_norm_inference"(%arg0, %arg1, %{{.*}}, %arg2, %arg3)
// EXPLAIN-NEXT: freeze-batch-norm: gamma: frozen: its statistics are moving_mean and moving_variance
func.func @alone(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "gamma"},
    %mean: tensor<3xf32> {stablenorm.weight = "moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "moving_variance"}) -> tensor<4x3xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<3xf32>
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %zero) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  return %y : tensor<4x3xf32>
}

// Neither scale nor offset: the location names the layer.
// CHECK-LABEL: @by_location(
// CHECK: "stablehlo.batch_norm_inference"(%arg0, %{{.*}}, %{{.*}}, %arg1, %arg2)
// EXPLAIN-NEXT: freeze-batch-norm: model/bare: frozen: its statistics are bare/moving_mean and bare/moving_variance
func.func @by_location(
    %x: tensor<4x3xf32>,
    %mean: tensor<3xf32> {stablenorm.weight = "bare/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "bare/moving_variance"},
    %other: tensor<3xf32> {stablenorm.weight = "other/moving_mean"},
    %another: tensor<3xf32> {stablenorm.weight = "other/moving_variance"}) -> tensor<4x3xf32> {
  %one = stablehlo.constant dense<1.0> : tensor<3xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<3xf32>
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %one, %zero) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
    loc("model/bare/FusedBatchNormV3")
  return %y : tensor<4x3xf32>
}

// The update comes first: here it reads other weights than those of the name.
// CHECK-LABEL: @update_before_name(
// CHECK: "stablehlo.batch_norm_inference"(%arg0, %arg1, %arg1, %arg4, %arg3)
// EXPLAIN-NEXT: freeze-batch-norm: swapped: frozen: its statistics are swapped/ema_mean and swapped/moving_variance
func.func @update_before_name(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "swapped/gamma"},
    %mean: tensor<3xf32> {stablenorm.weight = "swapped/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "swapped/moving_variance"},
    %ema: tensor<3xf32> {stablenorm.weight = "swapped/ema_mean"}) -> (tensor<4x3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %scale) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %half = stablehlo.constant dense<5.0e-1> : tensor<3xf32>
  %sum = stablehlo.add %ema, %m : tensor<3xf32>
  %nm = stablehlo.multiply %sum, %half : tensor<3xf32>
  return %y, %nm : tensor<4x3xf32>, tensor<3xf32>
}
