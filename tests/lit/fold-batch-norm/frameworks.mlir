// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// As frameworks write them: pools that count what they average, leaky ReLU, gates, global maxima.

// An average that counts fewer at the border.
// CHECK-LABEL: @pool_before(
// CHECK: stablehlo.multiply %arg1
// CHECK: stablehlo.convolution
// CHECK: stablehlo.divide
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN: fold-batch-norm: stablehlo.batch_norm_inference: folded: conv (elementwise operations less per call: 1)
func.func @pool_before(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x4xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x5x5x4xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x4xf32>) -> tensor<2x5x5x4xf32>
  %low = stablehlo.constant dense<0.0> : tensor<f32>
  %sum = "stablehlo.reduce_window"(%c, %low) <{window_dimensions = array<i64: 1, 2, 2, 1>, padding = dense<[[0, 0], [0, 1], [0, 1], [0, 0]]> : tensor<4x2xi64>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %o = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %o : tensor<f32>
  }) : (tensor<2x5x5x4xf32>, tensor<f32>) -> tensor<2x5x5x4xf32>
  %n = stablehlo.constant dense<[4.0, 4.0, 4.0, 4.0, 2.0]> : tensor<5xf32>
  %count = stablehlo.broadcast_in_dim %n, dims = [1] : (tensor<5xf32>) -> tensor<2x5x5x4xf32>
  %p = stablehlo.divide %sum, %count : tensor<2x5x5x4xf32>
  %y = "stablehlo.batch_norm_inference"(%p, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  return %y : tensor<2x5x5x4xf32>
}

// The same behind it.
// CHECK-LABEL: @pool_behind(
// CHECK: stablehlo.divide
// CHECK: stablehlo.multiply %arg1
// CHECK: stablehlo.convolution
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: folded: conv (elementwise operations less per call: 1)
func.func @pool_behind(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x4xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x5x5x4xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %low = stablehlo.constant dense<0.0> : tensor<f32>
  %sum = "stablehlo.reduce_window"(%y, %low) <{window_dimensions = array<i64: 1, 2, 2, 1>, padding = dense<[[0, 0], [0, 1], [0, 1], [0, 0]]> : tensor<4x2xi64>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %o = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %o : tensor<f32>
  }) : (tensor<2x5x5x4xf32>, tensor<f32>) -> tensor<2x5x5x4xf32>
  %n = stablehlo.constant dense<[4.0, 4.0, 4.0, 4.0, 2.0]> : tensor<5xf32>
  %count = stablehlo.broadcast_in_dim %n, dims = [1] : (tensor<5xf32>) -> tensor<2x5x5x4xf32>
  %p = stablehlo.divide %sum, %count : tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%p, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x4xf32>) -> tensor<2x5x5x4xf32>
  return %c : tensor<2x5x5x4xf32>
}

// A leaky ReLU, as Keras writes it.
// CHECK-LABEL: @leaky_relu_before(
// CHECK: stablehlo.multiply %arg1
// CHECK: %[[C:.*]] = stablehlo.convolution
// CHECK: stablehlo.compare GE, %[[C]]
// CHECK: stablehlo.select
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: folded: conv (elementwise operations less per call: 1)
func.func @leaky_relu_before(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x4xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x5x5x4xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x4xf32>) -> tensor<2x5x5x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<2x5x5x4xf32>
  %slope = stablehlo.constant dense<0.3> : tensor<2x5x5x4xf32>
  %above = stablehlo.compare GE, %c, %zero : (tensor<2x5x5x4xf32>, tensor<2x5x5x4xf32>) -> tensor<2x5x5x4xi1>
  %less = stablehlo.multiply %slope, %c : tensor<2x5x5x4xf32>
  %p = stablehlo.select %above, %c, %less : tensor<2x5x5x4xi1>, tensor<2x5x5x4xf32>
  %y = "stablehlo.batch_norm_inference"(%p, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  return %y : tensor<2x5x5x4xf32>
}

// Behind it: the shift, divided by the scale, is added before.
// CHECK-LABEL: @leaky_relu_behind(
// CHECK: %[[A:.*]] = stablehlo.add %arg0
// CHECK: stablehlo.compare GE, %[[A]]
// CHECK: stablehlo.select
// CHECK: stablehlo.multiply %arg1
// CHECK: stablehlo.convolution
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: folded: conv (elementwise operations less per call: 1)
func.func @leaky_relu_behind(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x4xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x5x5x4xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<2x5x5x4xf32>
  %slope = stablehlo.constant dense<0.3> : tensor<2x5x5x4xf32>
  %above = stablehlo.compare GE, %y, %zero : (tensor<2x5x5x4xf32>, tensor<2x5x5x4xf32>) -> tensor<2x5x5x4xi1>
  %less = stablehlo.multiply %slope, %y : tensor<2x5x5x4xf32>
  %p = stablehlo.select %above, %y, %less : tensor<2x5x5x4xi1>, tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%p, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x4xf32>) -> tensor<2x5x5x4xf32>
  return %c : tensor<2x5x5x4xf32>
}

// As a maximum.
// CHECK-LABEL: @leaky_relu_as_a_maximum(
// CHECK: %[[A:.*]] = stablehlo.add %arg0
// CHECK: stablehlo.maximum %[[A]]
// CHECK: stablehlo.multiply %arg1
// CHECK: stablehlo.convolution
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: folded: conv (elementwise operations less per call: 1)
func.func @leaky_relu_as_a_maximum(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x4xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x5x5x4xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %slope = stablehlo.constant dense<0.3> : tensor<2x5x5x4xf32>
  %less = stablehlo.multiply %y, %slope : tensor<2x5x5x4xf32>
  %p = stablehlo.maximum %y, %less : tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%p, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x4xf32>) -> tensor<2x5x5x4xf32>
  return %c : tensor<2x5x5x4xf32>
}

// Another selection.
// CHECK-LABEL: @another_selection(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: declined: a selection before it that is no leaky ReLU; behind it, it is an output
func.func @another_selection(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x4xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x5x5x4xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x4xf32>) -> tensor<2x5x5x4xf32>
  %flag = stablehlo.compare GE, %x, %c : (tensor<2x5x5x4xf32>, tensor<2x5x5x4xf32>) -> tensor<2x5x5x4xi1>
  %p = stablehlo.select %flag, %c, %x : tensor<2x5x5x4xi1>, tensor<2x5x5x4xf32>
  %y = "stablehlo.batch_norm_inference"(%p, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  return %y : tensor<2x5x5x4xf32>
}

// Something else reads what it reads.
// CHECK-LABEL: @leaky_relu_beside_another_reader(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: declined: something else than the leaky ReLU before it reads what that reads; behind it, a sum with a tensor that does not have that scale
func.func @leaky_relu_beside_another_reader(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x4xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x5x5x4xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %t = stablehlo.tanh %w : tensor<3x3x4x4xf32>
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x4xf32>) -> tensor<2x5x5x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<2x5x5x4xf32>
  %slope = stablehlo.constant dense<0.3> : tensor<2x5x5x4xf32>
  %above = stablehlo.compare GE, %c, %zero : (tensor<2x5x5x4xf32>, tensor<2x5x5x4xf32>) -> tensor<2x5x5x4xi1>
  %less = stablehlo.multiply %slope, %c : tensor<2x5x5x4xf32>
  %p = stablehlo.select %above, %c, %less : tensor<2x5x5x4xi1>, tensor<2x5x5x4xf32>
  %y = "stablehlo.batch_norm_inference"(%p, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %q = stablehlo.add %y, %c : tensor<2x5x5x4xf32>
  return %q : tensor<2x5x5x4xf32>
}

// A gate: the scale goes into its other factor.
// CHECK-LABEL: @gate_before(
// CHECK: stablehlo.multiply %arg1
// CHECK: %[[C:.*]] = stablehlo.convolution
// CHECK: stablehlo.multiply %[[C]]
// CHECK: stablehlo.add
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: folded: conv (elementwise operations less per call: 1)
func.func @gate_before(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x4xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x5x5x4xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x4xf32>) -> tensor<2x5x5x4xf32>
  %g = stablehlo.logistic %x : tensor<2x5x5x4xf32>
  %p = stablehlo.multiply %c, %g : tensor<2x5x5x4xf32>
  %y = "stablehlo.batch_norm_inference"(%p, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  return %y : tensor<2x5x5x4xf32>
}

// Behind it, a gate: a shift cannot pass, a scale does.
// CHECK-LABEL: @gate_behind(
// CHECK: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: declined: {{.*}}; behind it, it is multiplied with a tensor that depends on the model's inputs
func.func @gate_behind(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x4xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x5x5x4xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %g = stablehlo.logistic %x : tensor<2x5x5x4xf32>
  %p = stablehlo.multiply %y, %g : tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%p, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x4xf32>) -> tensor<2x5x5x4xf32>
  return %c : tensor<2x5x5x4xf32>
}

// A ReLU first, which keeps the shift.
// CHECK-LABEL: @relu_and_gate_behind(
// CHECK: stablehlo.add %arg0
// CHECK: stablehlo.multiply %arg1
// CHECK: stablehlo.convolution
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: folded: conv (elementwise operations less per call: 1)
func.func @relu_and_gate_behind(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x4xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x5x5x4xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<2x5x5x4xf32>
  %p0 = stablehlo.maximum %y, %zero : tensor<2x5x5x4xf32>
  %g = stablehlo.logistic %x : tensor<2x5x5x4xf32>
  %p = stablehlo.multiply %p0, %g : tensor<2x5x5x4xf32>
  %c = stablehlo.convolution(%p, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x4xf32>) -> tensor<2x5x5x4xf32>
  return %c : tensor<2x5x5x4xf32>
}

// The maximum of each image.
// CHECK-LABEL: @global_maximum_before(
// CHECK: stablehlo.multiply %arg1
// CHECK: stablehlo.convolution
// CHECK: stablehlo.maximum
// CHECK: stablehlo.add
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: folded: conv (elementwise operations less per call: 1)
func.func @global_maximum_before(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x4xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x4xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %c = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
    window = {pad = [[1, 1], [1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<2x5x5x4xf32>, tensor<3x3x4x4xf32>) -> tensor<2x5x5x4xf32>
  %low = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %r = stablehlo.reduce(%c init: %low) applies stablehlo.maximum across dimensions = [1, 2] : (tensor<2x5x5x4xf32>, tensor<f32>) -> tensor<2x4xf32>
  %y = "stablehlo.batch_norm_inference"(%r, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// The same behind it: the shift passes, too.
// CHECK-LABEL: @global_maximum_behind(
// CHECK: stablehlo.maximum
// CHECK: stablehlo.multiply %arg2
// CHECK: stablehlo.dot_general
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: folded: dense (elementwise operations less per call: 1)
func.func @global_maximum_behind(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x4xf32> {stablenorm.weight = "conv/kernel"},
    %v: tensor<4x3xf32> {stablenorm.weight = "dense/kernel"}) -> tensor<2x3xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %low = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %r = stablehlo.reduce(%y init: %low) applies stablehlo.maximum across dimensions = [1, 2] : (tensor<2x5x5x4xf32>, tensor<f32>) -> tensor<2x4xf32>
  %z = stablehlo.dot_general %r, %v, contracting_dims = [1] x [0]
    : (tensor<2x4xf32>, tensor<4x3xf32>) -> tensor<2x3xf32>
  return %z : tensor<2x3xf32>
}

// A dilated convolution, as TensorFlow writes it: rows go into the batch, and come back.
// CHECK-LABEL: @space_to_batch(
// CHECK: stablehlo.multiply %arg1
// CHECK: stablehlo.convolution(%{{.*}}, %{{.*}})
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: folded: conv (elementwise operations less per call: 1)
func.func @space_to_batch(
    %x: tensor<2x5x5x4xf32>,
    %w: tensor<3x3x4x4xf32> {stablenorm.weight = "conv/kernel"}) -> tensor<2x4x3x4xf32> {
  %scale = stablehlo.constant dense<[1.0, 2.0, 0.5, 3.0]> : tensor<4xf32>
  %offset = stablehlo.constant dense<[1.0, -2.0, 0.5, -3.0]> : tensor<4xf32>
  %mean = stablehlo.constant dense<[0.1, -0.2, 0.3, 0.4]> : tensor<4xf32>
  %variance = stablehlo.constant dense<[1.2, 2.0, 0.7, 3.0]> : tensor<4xf32>
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<2x5x5x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x5x4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %pad = stablehlo.pad %y, %zero, low = [0, 2, 0, 0], high = [0, 1, 0, 0], interior = [0, 0, 0, 0]
    : (tensor<2x5x5x4xf32>, tensor<f32>) -> tensor<2x8x5x4xf32>
  %split = stablehlo.reshape %pad : (tensor<2x8x5x4xf32>) -> tensor<2x4x2x5x4xf32>
  %turned = stablehlo.transpose %split, dims = [2, 0, 1, 3, 4] : (tensor<2x4x2x5x4xf32>) -> tensor<2x2x4x5x4xf32>
  %b = stablehlo.reshape %turned : (tensor<2x2x4x5x4xf32>) -> tensor<4x4x5x4xf32>
  %c = stablehlo.convolution(%b, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<4x4x5x4xf32>, tensor<3x3x4x4xf32>) -> tensor<4x2x3x4xf32>
  %d = stablehlo.reshape %c : (tensor<4x2x3x4xf32>) -> tensor<2x2x2x3x4xf32>
  %back = stablehlo.transpose %d, dims = [1, 2, 0, 3, 4] : (tensor<2x2x2x3x4xf32>) -> tensor<2x2x2x3x4xf32>
  %z = stablehlo.reshape %back : (tensor<2x2x2x3x4xf32>) -> tensor<2x4x3x4xf32>
  return %z : tensor<2x4x3x4xf32>
}
