// RUN: stablenorm-opt %s --passes=import-cleanup | filecheck %s --check-prefix=KEPT
// RUN: stablenorm-opt %s --passes=lower-batch-norm | filecheck %s

// A composite of stablenorm says what no operation of StableHLO can: two feature dimensions, weights. It keeps its name
// until it is lowered, by the name and not by its decomposition; any other composite is inlined.

// KEPT-LABEL: @several_features_and_weights(
// KEPT: stablehlo.composite "stablenorm.batch_norm_training"
// CHECK-LABEL: @several_features_and_weights(
// CHECK-NOT: stablehlo.composite
// CHECK: %[[W:.*]] = stablehlo.convert %arg3 : (tensor<4x2x3xf32>) -> tensor<4x2x3xf64>
// CHECK: %[[C:.*]] = stablehlo.reduce(%[[W]] {{.*}} across dimensions = [0]
// CHECK: %[[E:.*]] = stablehlo.constant dense<1.000000e-03> : tensor<2x3xf64>
// CHECK: %[[V:.*]] = stablehlo.add %{{.*}}, %[[E]] : tensor<2x3xf64>
// CHECK: stablehlo.rsqrt %[[V]]
// CHECK: return %{{.*}}, %{{.*}}, %{{.*}} : tensor<4x2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>
func.func @several_features_and_weights(
    %x: tensor<4x2x3xf32>, %scale: tensor<2x3xf32>, %offset: tensor<2x3xf32>, %weight: tensor<4x2x3xf32>)
    -> (tensor<4x2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>) {
  %0:3 = stablehlo.composite "stablenorm.batch_norm_training" %x, %scale, %offset, %weight {
    composite_attributes = {
      epsilon = 1.0e-3 : f64, feature_indices = array<i64: 1, 2>, operands = ["operand", "scale", "offset", "weight"]
    },
    decomposition = @training
  } : (tensor<4x2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<4x2x3xf32>)
    -> (tensor<4x2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>)
  return %0#0, %0#1, %0#2 : tensor<4x2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>
}

// KEPT-LABEL: @another_composite(
// KEPT-NEXT: stablehlo.negate
func.func @another_composite(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = stablehlo.composite "other.negate" %x {decomposition = @negate} : (tensor<2xf32>) -> tensor<2xf32>
  return %0 : tensor<2xf32>
}

// The decomposition is not read here: any would do.
// KEPT: func.func private @training(
// CHECK-NOT: @training
func.func private @training(
    %x: tensor<4x2x3xf32>, %scale: tensor<2x3xf32>, %offset: tensor<2x3xf32>, %weight: tensor<4x2x3xf32>)
    -> (tensor<4x2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>) {
  return %x, %scale, %offset : tensor<4x2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>
}

func.func private @negate(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = stablehlo.negate %x : tensor<2xf32>
  return %0 : tensor<2xf32>
}
