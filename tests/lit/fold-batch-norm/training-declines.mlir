// RUN: stablenorm-opt %s --passes=fold-batch-norm{training=true} | filecheck %s

// Where the scale of a gradient stays.

// The gradient of the weight is half as large as what is scaled.
// CHECK-LABEL: @no_smaller(
// CHECK: stablehlo.multiply %{{.*}}, %{{.*}} : tensor<6x4xf32>
// CHECK-NOT: stablehlo.multiply
func.func @no_smaller(
    %x: tensor<6x3xf32>,
    %g: tensor<6x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "scale"}) -> tensor<3x4xf32> {
  %s = stablehlo.broadcast_in_dim %scale, dims = [1] : (tensor<4xf32>) -> tensor<6x4xf32>
  %sg = stablehlo.multiply %g, %s : tensor<6x4xf32>
  %gw = stablehlo.dot_general %x, %sg, contracting_dims = [0] x [0] : (tensor<6x3xf32>, tensor<6x4xf32>) -> tensor<3x4xf32>
  return %gw : tensor<3x4xf32>
}

// Each gradient is smaller than half, both together are not.
// CHECK-LABEL: @no_smaller_together(
// CHECK: stablehlo.multiply %{{.*}}, %{{.*}} : tensor<10x4xf32>
// CHECK-NOT: stablehlo.multiply
func.func @no_smaller_together(
    %x: tensor<10x3xf32>,
    %y: tensor<10x3xf32>,
    %g: tensor<10x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "scale"}) -> (tensor<3x4xf32>, tensor<3x4xf32>) {
  %s = stablehlo.broadcast_in_dim %scale, dims = [1] : (tensor<4xf32>) -> tensor<10x4xf32>
  %sg = stablehlo.multiply %g, %s : tensor<10x4xf32>
  %a = stablehlo.dot_general %x, %sg, contracting_dims = [0] x [0] : (tensor<10x3xf32>, tensor<10x4xf32>) -> tensor<3x4xf32>
  %b = stablehlo.dot_general %y, %sg, contracting_dims = [0] x [0] : (tensor<10x3xf32>, tensor<10x4xf32>) -> tensor<3x4xf32>
  return %a, %b : tensor<3x4xf32>, tensor<3x4xf32>
}

// The product sums over what is scaled.
// CHECK-LABEL: @summed_over(
// CHECK: stablehlo.multiply %{{.*}}, %{{.*}} : tensor<16x4xf32>
// CHECK-NOT: stablehlo.multiply
func.func @summed_over(
    %x: tensor<2x4xf32>,
    %g: tensor<16x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "scale"}) -> tensor<2x16xf32> {
  %s = stablehlo.broadcast_in_dim %scale, dims = [1] : (tensor<4xf32>) -> tensor<16x4xf32>
  %sg = stablehlo.multiply %g, %s : tensor<16x4xf32>
  %d = stablehlo.dot_general %x, %sg, contracting_dims = [1] x [1] : (tensor<2x4xf32>, tensor<16x4xf32>) -> tensor<2x16xf32>
  return %d : tensor<2x16xf32>
}

// A convolution sums over the features of its left operand, and its groups are of its batch.
// CHECK-LABEL: @groups_of_the_batch(
// CHECK: stablehlo.multiply %{{.*}}, %{{.*}} : tensor<4x8x8x3xf32>
// CHECK-NOT: stablehlo.multiply
func.func @groups_of_the_batch(
    %x: tensor<8x8x3x2xf32>,
    %g: tensor<4x8x8x3xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "scale"}) -> tensor<2x1x1x2xf32> {
  %s = stablehlo.broadcast_in_dim %scale, dims = [0] : (tensor<4xf32>) -> tensor<4x8x8x3xf32>
  %sg = stablehlo.multiply %g, %s : tensor<4x8x8x3xf32>
  %d = stablehlo.convolution(%sg, %x) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {}
    {batch_group_count = 2 : i64, feature_group_count = 1 : i64}
    : (tensor<4x8x8x3xf32>, tensor<8x8x3x2xf32>) -> tensor<2x1x1x2xf32>
  return %d : tensor<2x1x1x2xf32>
}

// The loss reads what is scaled, too.
// CHECK-LABEL: @read_elsewhere(
// CHECK: stablehlo.multiply %{{.*}}, %{{.*}} : tensor<16x4xf32>
// CHECK-NOT: stablehlo.multiply
func.func @read_elsewhere(
    %x: tensor<16x3xf32>,
    %g: tensor<16x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "scale"}) -> (tensor<3x4xf32>, tensor<16x4xf32>) {
  %s = stablehlo.broadcast_in_dim %scale, dims = [1] : (tensor<4xf32>) -> tensor<16x4xf32>
  %sg = stablehlo.multiply %g, %s : tensor<16x4xf32>
  %gw = stablehlo.dot_general %x, %sg, contracting_dims = [0] x [0] : (tensor<16x3xf32>, tensor<16x4xf32>) -> tensor<3x4xf32>
  return %gw, %sg : tensor<3x4xf32>, tensor<16x4xf32>
}

// A map that shifts, too.
// CHECK-LABEL: @shifts(
// CHECK: stablehlo.batch_norm_inference
// CHECK-NOT: stablehlo.multiply
func.func @shifts(
    %x: tensor<16x3xf32>,
    %g: tensor<16x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "bn/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "bn/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "bn/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "bn/variance"}) -> tensor<3x4xf32> {
  %y = "stablehlo.batch_norm_inference"(%g, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<16x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<16x4xf32>
  %gw = stablehlo.dot_general %x, %y, contracting_dims = [0] x [0] : (tensor<16x3xf32>, tensor<16x4xf32>) -> tensor<3x4xf32>
  return %gw : tensor<3x4xf32>
}

// A sum of what float16 holds may be more than it holds.
// CHECK-LABEL: @float16(
// CHECK: stablehlo.multiply %{{.*}}, %{{.*}} : tensor<16x4xf16>
// CHECK-NOT: stablehlo.multiply
func.func @float16(
    %x: tensor<16x3xf16>,
    %g: tensor<16x4xf16>,
    %scale: tensor<4xf16> {stablenorm.weight = "scale"}) -> tensor<3x4xf16> {
  %s = stablehlo.broadcast_in_dim %scale, dims = [1] : (tensor<4xf16>) -> tensor<16x4xf16>
  %sg = stablehlo.multiply %g, %s : tensor<16x4xf16>
  %gw = stablehlo.dot_general %x, %sg, contracting_dims = [0] x [0] : (tensor<16x3xf16>, tensor<16x4xf16>) -> tensor<3x4xf16>
  return %gw : tensor<3x4xf16>
}

// How many elements what is scaled has is known only when the program runs.
// CHECK-LABEL: @open_batch(
// CHECK: stablehlo.multiply %{{.*}}, %{{.*}} : tensor<?x4xf32>
// CHECK-NOT: stablehlo.multiply
func.func @open_batch(
    %x: tensor<?x3xf32>,
    %g: tensor<?x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "scale"}) -> tensor<3x4xf32> {
  %n = stablehlo.get_dimension_size %g, dim = 0 : (tensor<?x4xf32>) -> tensor<i32>
  %rows = stablehlo.reshape %n : (tensor<i32>) -> tensor<1xi32>
  %four = stablehlo.constant dense<4> : tensor<1xi32>
  %sizes = stablehlo.concatenate %rows, %four, dim = 0 : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>
  %s = stablehlo.dynamic_broadcast_in_dim %scale, %sizes, dims = [1] : (tensor<4xf32>, tensor<2xi32>) -> tensor<?x4xf32>
  %sg = stablehlo.multiply %g, %s : tensor<?x4xf32>
  %gw = stablehlo.dot_general %x, %sg, contracting_dims = [0] x [0] : (tensor<?x3xf32>, tensor<?x4xf32>) -> tensor<3x4xf32>
  return %gw : tensor<3x4xf32>
}
