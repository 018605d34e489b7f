// A convolution, its batch norm and a relu, as they come from a tf_keras model: weights are arguments, by name.
func.func @main(
    %x: tensor<1x8x8x3xf32>,
    %kernel: tensor<3x3x3x16xf32> {stablenorm.weight = "conv/kernel"},
    %gamma: tensor<16xf32> {stablenorm.weight = "bn/gamma"},
    %beta: tensor<16xf32> {stablenorm.weight = "bn/beta"},
    %mean: tensor<16xf32> {stablenorm.weight = "bn/moving_mean"},
    %variance: tensor<16xf32> {stablenorm.weight = "bn/moving_variance"}) -> tensor<1x6x6x16xf32> {
  %c = stablehlo.convolution(%x, %kernel) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x8x8x3xf32>, tensor<3x3x3x16xf32>) -> tensor<1x6x6x16xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %gamma, %beta, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x6x6x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<16xf32>) -> tensor<1x6x6x16xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<1x6x6x16xf32>
  %relu = stablehlo.maximum %y, %zero : tensor<1x6x6x16xf32>
  return %relu : tensor<1x6x6x16xf32>
}
