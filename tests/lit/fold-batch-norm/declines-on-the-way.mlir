// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// Where a batch norm stays because of what stands between it and the linear operation, or of the weight's place.

// A batch norm along the rows.
// CHECK-LABEL: @not_the_features(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN: fold-batch-norm: not_the_features: declined: it normalizes along a dimension of the convolution that is not its output features
func.func @not_the_features(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<3xf32> {stablenorm.weight = "not_the_features/scale"},
    %offset: tensor<3xf32> {stablenorm.weight = "not_the_features/offset"},
    %mean: tensor<3xf32> {stablenorm.weight = "not_the_features/mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "not_the_features/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// A batch norm along the batch.
// CHECK-LABEL: @not_a_dimension_of_the_weight(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: not_a_dimension_of_the_weight: declined: its input is an argument of the function: no linear operation comes before it
func.func @not_a_dimension_of_the_weight(
    %x: tensor<4x3xf32>,
    %w: tensor<3x2xf32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "not_a_dimension_of_the_weight/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "not_a_dimension_of_the_weight/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "not_a_dimension_of_the_weight/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "not_a_dimension_of_the_weight/variance"}) -> tensor<4x2xf32> {
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<4x3xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 0 : i64}>
    : (tensor<4x2xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<4x2xf32>
  return %y : tensor<4x2xf32>
}

// Columns and channels become one dimension.
// CHECK-LABEL: @channels_merged(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: channels_merged: declined: a reshape before it merges or splits the channels' dimension
func.func @channels_merged(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<12xf32> {stablenorm.weight = "channels_merged/scale"},
    %offset: tensor<12xf32> {stablenorm.weight = "channels_merged/offset"},
    %mean: tensor<12xf32> {stablenorm.weight = "channels_merged/mean"},
    %variance: tensor<12xf32> {stablenorm.weight = "channels_merged/variance"}) -> tensor<1x3x12xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %m = stablehlo.reshape %c : (tensor<1x3x3x4xf32>) -> tensor<1x3x12xf32>
  %y = "stablehlo.batch_norm_inference"(%m, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 2 : i64}>
    : (tensor<1x3x12xf32>, tensor<12xf32>, tensor<12xf32>, tensor<12xf32>, tensor<12xf32>) -> tensor<1x3x12xf32>
  return %y : tensor<1x3x12xf32>
}

// The channels become two dimensions.
// CHECK-LABEL: @channels_split(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: channels_split: declined: a reshape before it merges or splits the channels' dimension
func.func @channels_split(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<2xf32> {stablenorm.weight = "channels_split/scale"},
    %offset: tensor<2xf32> {stablenorm.weight = "channels_split/offset"},
    %mean: tensor<2xf32> {stablenorm.weight = "channels_split/mean"},
    %variance: tensor<2xf32> {stablenorm.weight = "channels_split/variance"}) -> tensor<1x3x3x2x2xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %m = stablehlo.reshape %c : (tensor<1x3x3x4xf32>) -> tensor<1x3x3x2x2xf32>
  %y = "stablehlo.batch_norm_inference"(%m, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 4 : i64}>
    : (tensor<1x3x3x2x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x3x3x2x2xf32>
  return %y : tensor<1x3x3x2x2xf32>
}

// Convolutions side by side.
// CHECK-LABEL: @concatenate(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: concatenate: declined: a branch of the concatenation before it cannot take the scale: its input is an argument of the function: no linear operation comes before it
func.func @concatenate(
    %x: tensor<1x5x5x3xf32>,
    %p: tensor<1x3x3x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<7xf32> {stablenorm.weight = "concatenate/scale"},
    %offset: tensor<7xf32> {stablenorm.weight = "concatenate/offset"},
    %mean: tensor<7xf32> {stablenorm.weight = "concatenate/mean"},
    %variance: tensor<7xf32> {stablenorm.weight = "concatenate/variance"}) -> tensor<1x3x3x7xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %m = stablehlo.concatenate %c, %p, dim = 3 : (tensor<1x3x3x4xf32>, tensor<1x3x3x3xf32>) -> tensor<1x3x3x7xf32>
  %y = "stablehlo.batch_norm_inference"(%m, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x7xf32>, tensor<7xf32>, tensor<7xf32>, tensor<7xf32>, tensor<7xf32>) -> tensor<1x3x3x7xf32>
  return %y : tensor<1x3x3x7xf32>
}

// A nonlinear operation between them.
// CHECK-LABEL: @relu(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: relu: declined: an activation or a maximum before it lets only a positive scale pass; its numbers are not known
func.func @relu(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "relu/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "relu/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "relu/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "relu/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<1x3x3x4xf32>
  %m = stablehlo.maximum %c, %zero : tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%m, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// An integer product.
// CHECK-LABEL: @from_integers(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: from_integers: declined: a convert before it leaves the floats: tensor<2x4xi32> to tensor<2x4xf32>
func.func @from_integers(
    %x: tensor<2x3xi32>,
    %w: tensor<3x4xi32> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "from_integers/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "from_integers/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "from_integers/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "from_integers/variance"}) -> tensor<2x4xf32> {
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<2x3xi32>, tensor<3x4xi32>) -> tensor<2x4xi32>
  %m = stablehlo.convert %d : (tensor<2x4xi32>) -> tensor<2x4xf32>
  %y = "stablehlo.batch_norm_inference"(%m, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// An integer weight cannot hold what is multiplied with a scale.
// CHECK-LABEL: @quantized_weight(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: quantized_weight: declined: the weight of the dot_general is of a type that is too coarse to be scaled: tensor<3x4xi8>
func.func @quantized_weight(
    %x: tensor<2x3xi8>,
    %w: tensor<3x4xi8> {stablenorm.weight = "dense/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "quantized_weight/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "quantized_weight/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "quantized_weight/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "quantized_weight/variance"}) -> tensor<2x4xf32> {
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<2x3xi8>, tensor<3x4xi8>) -> tensor<2x4xf32>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// A barrier asks for the tensor as it is.
// CHECK-LABEL: @optimization_barrier(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: optimization_barrier: declined: its input comes from stablehlo.optimization_barrier, which a per-channel scale cannot pass
func.func @optimization_barrier(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "optimization_barrier/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "optimization_barrier/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "optimization_barrier/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "optimization_barrier/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %m = stablehlo.optimization_barrier %c : tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%m, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}
