func.func public @main(%x: tensor<2x3xf32>, %w: tensor<3xf32> {stablenorm.weight = "bn/variance"}) -> tensor<2x3xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %w, %w, %w, %w) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  return %y : tensor<2x3xf32>
}
