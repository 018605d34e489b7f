// What a CPU gets of a folded network: a pointwise convolution as a matrix product, a depthwise one as one sum; places
// that are skipped are not computed. The batch is small: it stays whole.
// RUN: stablenorm-opt %s --passes='import-cleanup,raise-batch-norm,fold-batch-norm,lower-batch-norm,skip-places,lower-depthwise-convolution,lower-pointwise-convolution,lower-pooling,hoist-weights,block-batch,canonicalize,cse' | filecheck %s

// CHECK-LABEL: func.func public @prepare(
// CHECK: stablehlo.multiply %{{.*}} : tensor<3x4x6xf32>
// CHECK: return
// CHECK-LABEL: func.func @main(
// CHECK-NOT: batch_norm
// CHECK: stablehlo.convolution(%arg0, %arg1) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f]
// CHECK-SAME: stride = [2]
// CHECK-SAME: -> tensor<2x4x6xf32>
// CHECK-NOT: stablehlo.while
// CHECK: stablehlo.maximum
// CHECK: stablehlo.dot_general
// CHECK-NOT: stablehlo.convolution
// CHECK-COUNT-3: stablehlo.slice
// CHECK: return
func.func @main(%x: tensor<2x8x4xf32>,
    %w: tensor<3x4x6xf32> {stablenorm.weight = "conv/kernel"}, %mean: tensor<6xf32> {stablenorm.weight = "bn/mean"},
    %variance: tensor<6xf32> {stablenorm.weight = "bn/variance"}, %scale: tensor<6xf32> {stablenorm.weight = "bn/gamma"},
    %offset: tensor<6xf32> {stablenorm.weight = "bn/beta"}, %v: tensor<1x6x5xf32> {stablenorm.weight = "project/kernel"},
    %d: tensor<3x1x5xf32> {stablenorm.weight = "depthwise/kernel"}) -> tensor<2x2x5xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<2x8x6xf32>
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {pad = [[1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x8x4xf32>, tensor<3x4x6xf32>) -> tensor<2x8x6xf32>
  %1 = "stablehlo.batch_norm_inference"(%0, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 2 : i64}>
    : (tensor<2x8x6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>, tensor<6xf32>) -> tensor<2x8x6xf32>
  %2 = stablehlo.maximum %1, %zero : tensor<2x8x6xf32>
  %3 = stablehlo.convolution(%2, %v) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {stride = [2]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x8x6xf32>, tensor<1x6x5xf32>) -> tensor<2x4x5xf32>
  %y = stablehlo.convolution(%3, %d) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 5 : i64}
    : (tensor<2x4x5xf32>, tensor<3x1x5xf32>) -> tensor<2x2x5xf32>
  return %y : tensor<2x2x5xf32>
}
