// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// A linear map on other dimensions than the channels', as a resizing is: A(s*x + t) = s*A(x) + A(t).

// Rows repeated, then a convolution that takes scale and shift.
// CHECK-LABEL: @rows_repeated(
// CHECK: "stablehlo.gather"(%arg0
// CHECK: %[[W:.*]] = stablehlo.multiply %arg1
// CHECK: stablehlo.convolution(%{{.*}}, %[[W]])
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN: fold-batch-norm: rows_repeated: folded: conv (elementwise operations less per call: 1)
func.func @rows_repeated(
    %x: tensor<2x3x3x4xf32>,
    %w: tensor<2x2x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "rows_repeated/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "rows_repeated/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "rows_repeated/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "rows_repeated/variance"}) -> tensor<2x4x3x6xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x3x3x4xf32>
  %rows = stablehlo.constant dense<[[0], [0], [1], [2]]> : tensor<4x1xi32>
  %g = "stablehlo.gather"(%y, %rows) <{dimension_numbers = #stablehlo.gather<offset_dims = [0, 2, 3],
    collapsed_slice_dims = [1], start_index_map = [1], index_vector_dim = 1>,
    slice_sizes = array<i64: 2, 1, 3, 4>}> : (tensor<2x3x3x4xf32>, tensor<4x1xi32>) -> tensor<2x4x3x4xf32>
  %c = stablehlo.convolution(%g, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 0], [0, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x4x3x4xf32>, tensor<2x2x4x6xf32>) -> tensor<2x4x3x6xf32>
  return %c : tensor<2x4x3x6xf32>
}

// Behind it, a batch norm: up into the convolution, its bias comes down.
// CHECK-LABEL: @behind_repeated_rows(
// CHECK: stablehlo.multiply %arg1
// CHECK: stablehlo.convolution
// CHECK: "stablehlo.gather"
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: behind_repeated_rows: folded: conv (elementwise operations less per call: 2)
func.func @behind_repeated_rows(
    %x: tensor<2x3x3x4xf32>,
    %w: tensor<2x2x4x4xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<4xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<4xf32> {stablenorm.weight = "behind_repeated_rows/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "behind_repeated_rows/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "behind_repeated_rows/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "behind_repeated_rows/variance"}) -> tensor<2x4x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 0], [0, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x3x3x4xf32>, tensor<2x2x4x4xf32>) -> tensor<2x3x3x4xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<4xf32>) -> tensor<2x3x3x4xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x4xf32>
  %rows = stablehlo.constant dense<[[0], [0], [1], [2]]> : tensor<4x1xi32>
  %g = "stablehlo.gather"(%a, %rows) <{dimension_numbers = #stablehlo.gather<offset_dims = [0, 2, 3],
    collapsed_slice_dims = [1], start_index_map = [1], index_vector_dim = 1>,
    slice_sizes = array<i64: 2, 1, 3, 4>}> : (tensor<2x3x3x4xf32>, tensor<4x1xi32>) -> tensor<2x4x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%g, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x4x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4x3x4xf32>
  return %y : tensor<2x4x3x4xf32>
}

// A part of the channels.
// CHECK-LABEL: @channels_gathered(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: channels_gathered: declined: {{.*}}; behind it, a gather takes a part of a dimension along which it varies
func.func @channels_gathered(
    %x: tensor<2x3x3x4xf32>,
    %scale: tensor<4xf32> {stablenorm.weight = "channels_gathered/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "channels_gathered/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "channels_gathered/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "channels_gathered/variance"}) -> tensor<2x3x3x2xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x3x3x4xf32>
  %columns = stablehlo.constant dense<[[1], [3]]> : tensor<2x1xi32>
  %g = "stablehlo.gather"(%y, %columns) <{dimension_numbers = #stablehlo.gather<offset_dims = [0, 1, 2],
    collapsed_slice_dims = [3], start_index_map = [3], index_vector_dim = 1>,
    slice_sizes = array<i64: 2, 3, 3, 1>}> : (tensor<2x3x3x4xf32>, tensor<2x1xi32>) -> tensor<2x3x3x2xf32>
  return %g : tensor<2x3x3x2xf32>
}

// Behind it, up.
// CHECK-LABEL: @behind_gathered_channels(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: behind_gathered_channels: declined: a gather before it takes a part of the channels; {{.*}}
func.func @behind_gathered_channels(
    %x: tensor<2x3x3x4xf32>,
    %w: tensor<2x2x4x4xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<4xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<2xf32> {stablenorm.weight = "behind_gathered_channels/scale"},
    %offset: tensor<2xf32> {stablenorm.weight = "behind_gathered_channels/offset"},
    %mean: tensor<2xf32> {stablenorm.weight = "behind_gathered_channels/mean"},
    %variance: tensor<2xf32> {stablenorm.weight = "behind_gathered_channels/variance"}) -> tensor<2x3x3x2xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 0], [0, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x3x3x4xf32>, tensor<2x2x4x4xf32>) -> tensor<2x3x3x4xf32>
  %columns = stablehlo.constant dense<[[1], [3]]> : tensor<2x1xi32>
  %g = "stablehlo.gather"(%c, %columns) <{dimension_numbers = #stablehlo.gather<offset_dims = [0, 1, 2],
    collapsed_slice_dims = [3], start_index_map = [3], index_vector_dim = 1>,
    slice_sizes = array<i64: 2, 3, 3, 1>}> : (tensor<2x3x3x4xf32>, tensor<2x1xi32>) -> tensor<2x3x3x2xf32>
  %y = "stablehlo.batch_norm_inference"(%g, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<2x3x3x2xf32>
  return %y : tensor<2x3x3x2xf32>
}

// Rows interpolated by a matrix: the scale lies along another dimension than it sums.
// CHECK-LABEL: @rows_interpolated(
// CHECK: stablehlo.dot_general %arg0, %arg1
// CHECK: %[[W:.*]] = stablehlo.multiply %arg2
// CHECK: stablehlo.convolution(%{{.*}}, %[[W]])
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: rows_interpolated: folded: conv (elementwise operations less per call: 1)
func.func @rows_interpolated(
    %x: tensor<2x3x3x4xf32>,
    %m: tensor<5x3xf32> {stablenorm.weight = "resize/matrix"},
    %w: tensor<2x2x4x6xf32> {stablenorm.weight = "conv/kernel"},
    %scale: tensor<4xf32> {stablenorm.weight = "rows_interpolated/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "rows_interpolated/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "rows_interpolated/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "rows_interpolated/variance"}) -> tensor<2x5x3x6xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x3x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x3x3x4xf32>
  %d = stablehlo.dot_general %y, %m, contracting_dims = [1] x [1], precision = [DEFAULT, DEFAULT]
    : (tensor<2x3x3x4xf32>, tensor<5x3xf32>) -> tensor<2x3x4x5xf32>
  %g = stablehlo.transpose %d, dims = [0, 3, 1, 2] : (tensor<2x3x4x5xf32>) -> tensor<2x5x3x4xf32>
  %c = stablehlo.convolution(%g, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 0], [0, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x3x4xf32>, tensor<2x2x4x6xf32>) -> tensor<2x5x3x6xf32>
  return %c : tensor<2x5x3x6xf32>
}

// Behind it, a batch norm: up into the convolution.
// CHECK-LABEL: @behind_interpolated_rows(
// CHECK: stablehlo.multiply %arg2
// CHECK: stablehlo.convolution
// CHECK: stablehlo.dot_general
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: behind_interpolated_rows: folded: conv (elementwise operations less per call: 2)
func.func @behind_interpolated_rows(
    %x: tensor<2x3x3x4xf32>,
    %m: tensor<5x3xf32> {stablenorm.weight = "resize/matrix"},
    %w: tensor<2x2x4x4xf32> {stablenorm.weight = "conv/kernel"},
    %b: tensor<4xf32> {stablenorm.weight = "conv/bias"},
    %scale: tensor<4xf32> {stablenorm.weight = "behind_interpolated_rows/scale"},
    %offset: tensor<4xf32> {stablenorm.weight = "behind_interpolated_rows/offset"},
    %mean: tensor<4xf32> {stablenorm.weight = "behind_interpolated_rows/mean"},
    %variance: tensor<4xf32> {stablenorm.weight = "behind_interpolated_rows/variance"}) -> tensor<2x5x3x4xf32> {
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 0], [0, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x3x3x4xf32>, tensor<2x2x4x4xf32>) -> tensor<2x3x3x4xf32>
  %wide = stablehlo.broadcast_in_dim %b, dims = [3] : (tensor<4xf32>) -> tensor<2x3x3x4xf32>
  %a = stablehlo.add %c, %wide : tensor<2x3x3x4xf32>
  %d = stablehlo.dot_general %a, %m, contracting_dims = [1] x [1], precision = [DEFAULT, DEFAULT]
    : (tensor<2x3x3x4xf32>, tensor<5x3xf32>) -> tensor<2x3x4x5xf32>
  %g = stablehlo.transpose %d, dims = [0, 3, 1, 2] : (tensor<2x3x4x5xf32>) -> tensor<2x5x3x4xf32>
  %y = "stablehlo.batch_norm_inference"(%g, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x3x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x3x4xf32>
  return %y : tensor<2x5x3x4xf32>
}
