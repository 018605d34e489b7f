// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// s * (conv(x, W) + b - mean) + offset = conv(x, W * s) + (offset - (mean - b) * s)

// A bias between the convolution and the batch norm.
// CHECK-LABEL: @bias(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %{{.*}})
// CHECK: %[[D:.*]] = stablehlo.subtract %arg5, %{{.*}} : tensor<4xf32>
// CHECK: %[[DS:.*]] = stablehlo.multiply %[[D]], %[[S]] : tensor<4xf32>
// CHECK: %[[T:.*]] = stablehlo.subtract %arg4, %[[DS]] : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [3] : (tensor<4xf32>) -> tensor<1x3x3x4xf32>
// CHECK: stablehlo.add %[[C]], %[[B]]
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN: fold-batch-norm: bias: folded: conv
func.func @bias(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<4xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<4xf32> {stablenorm.weight = "bias/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "bias/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "bias/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "bias/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<4xf32>) -> tensor<1x3x3x4xf32>
  %a = stablehlo.add %c, %wide : tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%a, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// The sum the other way round.
// CHECK-LABEL: @bias_on_the_left(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %{{.*}})
// CHECK: %[[D:.*]] = stablehlo.subtract %arg5, %{{.*}} : tensor<4xf32>
// CHECK: %[[DS:.*]] = stablehlo.multiply %[[D]], %[[S]] : tensor<4xf32>
// CHECK: %[[T:.*]] = stablehlo.subtract %arg4, %[[DS]] : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [3] : (tensor<4xf32>) -> tensor<1x3x3x4xf32>
// CHECK: stablehlo.add %[[C]], %[[B]]
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: bias_on_the_left: folded: conv
func.func @bias_on_the_left(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<4xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<4xf32> {stablenorm.weight = "bias_on_the_left/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "bias_on_the_left/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "bias_on_the_left/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "bias_on_the_left/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<4xf32>) -> tensor<1x3x3x4xf32>
  %a = stablehlo.add %wide, %c : tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%a, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// A bias brought to the tensor's rank before it is broadcast.
// CHECK-LABEL: @bias_reshaped(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %{{.*}})
// CHECK: %[[D:.*]] = stablehlo.subtract %arg5, %{{.*}} : tensor<4xf32>
// CHECK: %[[DS:.*]] = stablehlo.multiply %[[D]], %[[S]] : tensor<4xf32>
// CHECK: %[[T:.*]] = stablehlo.subtract %arg4, %[[DS]] : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [3] : (tensor<4xf32>) -> tensor<1x3x3x4xf32>
// CHECK: stablehlo.add %[[C]], %[[B]]
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: bias_reshaped: folded: conv
func.func @bias_reshaped(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<4xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<4xf32> {stablenorm.weight = "bias_reshaped/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "bias_reshaped/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "bias_reshaped/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "bias_reshaped/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %r = stablehlo.reshape %b : (tensor<4xf32>) -> tensor<1x1x1x4xf32>
  %wide = stablehlo.broadcast_in_dim %r, dims = [0, 1, 2, 3] : (tensor<1x1x1x4xf32>) -> tensor<1x3x3x4xf32>
  %a = stablehlo.add %c, %wide : tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%a, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// One number for all channels.
// CHECK-LABEL: @bias_of_one_number(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %{{.*}})
// CHECK: %[[D:.*]] = stablehlo.subtract %arg5, %{{.*}} : tensor<4xf32>
// CHECK: %[[DS:.*]] = stablehlo.multiply %[[D]], %[[S]] : tensor<4xf32>
// CHECK: %[[T:.*]] = stablehlo.subtract %arg4, %[[DS]] : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [3] : (tensor<4xf32>) -> tensor<1x3x3x4xf32>
// CHECK: stablehlo.add %[[C]], %[[B]]
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: bias_of_one_number: folded: conv
func.func @bias_of_one_number(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<f32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<4xf32> {stablenorm.weight = "bias_of_one_number/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "bias_of_one_number/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "bias_of_one_number/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "bias_of_one_number/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [] : (tensor<f32>) -> tensor<1x3x3x4xf32>
  %a = stablehlo.add %c, %wide : tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%a, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// A constant that repeats one number.
// CHECK-LABEL: @bias_constant(
// CHECK: %[[S:.*]] = stablehlo.multiply %arg3, %{{.*}} : tensor<4xf32>
// CHECK: %[[C:.*]] = stablehlo.convolution(%arg0, %{{.*}})
// CHECK: %[[D:.*]] = stablehlo.subtract %arg5, %{{.*}} : tensor<4xf32>
// CHECK: %[[DS:.*]] = stablehlo.multiply %[[D]], %[[S]] : tensor<4xf32>
// CHECK: %[[T:.*]] = stablehlo.subtract %arg4, %[[DS]] : tensor<4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %[[T]], dims = [3] : (tensor<4xf32>) -> tensor<1x3x3x4xf32>
// CHECK: stablehlo.add %[[C]], %[[B]]
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: bias_constant: folded: conv
func.func @bias_constant(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<4xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<4xf32> {stablenorm.weight = "bias_constant/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "bias_constant/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "bias_constant/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "bias_constant/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %wide = stablehlo.constant dense<0.75> : tensor<1x3x3x4xf32>
  %a = stablehlo.add %c, %wide : tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%a, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// Two biases, one after the other.
// CHECK-LABEL: @two_biases(
// CHECK: stablehlo.convolution
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: two_biases: folded: conv
func.func @two_biases(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<4xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<4xf32> {stablenorm.weight = "two_biases/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "two_biases/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "two_biases/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "two_biases/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<4xf32>) -> tensor<1x3x3x4xf32>
  %c1 = stablehlo.add %c, %wide : tensor<1x3x3x4xf32>
  %a = stablehlo.add %c1, %wide : tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%a, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// The shift of a folded batch norm is a bias to the next one.
// CHECK-LABEL: @batch_norm_after_batch_norm(
// CHECK-COUNT-2: stablehlo.rsqrt
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: batch_norm_after_batch_norm: folded: conv
// EXPLAIN-NEXT: fold-batch-norm: batch_norm_after_batch_norm: folded: conv
func.func @batch_norm_after_batch_norm(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "batch_norm_after_batch_norm/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "batch_norm_after_batch_norm/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "batch_norm_after_batch_norm/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "batch_norm_after_batch_norm/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  %z = "stablehlo.batch_norm_inference"(%y, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %z : tensor<1x3x3x4xf32>
}

// A bias of each pixel: what is added is as large, once.
// CHECK-LABEL: @bias_of_each_pixel(
// CHECK: stablehlo.convolution
// CHECK: stablehlo.add %{{.*}} : tensor<1x3x3x4xf32>
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: bias_of_each_pixel: folded: conv
func.func @bias_of_each_pixel(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<1x3x3x4xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<4xf32> {stablenorm.weight = "bias_of_each_pixel/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "bias_of_each_pixel/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "bias_of_each_pixel/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "bias_of_each_pixel/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %a = stablehlo.add %c, %b : tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%a, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}

// A bias along the columns.
// CHECK-LABEL: @bias_along_another_dimension(
// CHECK: stablehlo.convolution
// CHECK: stablehlo.add %{{.*}} : tensor<1x3x3x4xf32>
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: bias_along_another_dimension: folded: conv
func.func @bias_along_another_dimension(
    %x: tensor<1x5x5x3xf32>,
    %w: tensor<3x3x3x4xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<3xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<4xf32> {stablenorm.weight = "bias_along_another_dimension/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "bias_along_another_dimension/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "bias_along_another_dimension/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "bias_along_another_dimension/variance"}) -> tensor<1x3x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<1x5x5x3xf32>, tensor<3x3x3x4xf32>) -> tensor<1x3x3x4xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [2] : (tensor<3xf32>) -> tensor<1x3x3x4xf32>
  %a = stablehlo.add %c, %wide : tensor<1x3x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%a, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<1x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<1x3x3x4xf32>
  return %y : tensor<1x3x3x4xf32>
}
