// RUN: stablenorm-opt %s --passes=fold-batch-norm | filecheck %s
// RUN: stablenorm-opt %s --passes=fold-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// Folded weights are finite, or nothing is folded. Constants are looked at, and weights of known value.

// The root of a negative number is NaN.
// CHECK-LABEL: @negative_variance(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN: fold-batch-norm: stablehlo.batch_norm_inference: declined: a folded weight would not be finite in f32
func.func @negative_variance(
    %x: tensor<2x2xf32>) -> tensor<2x2xf32> {
  %w = stablehlo.constant dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf32>
  %scale = stablehlo.constant dense<[1.0, 2.0]> : tensor<2xf32>
  %offset = stablehlo.constant dense<[0.0, 1.0]> : tensor<2xf32>
  %mean = stablehlo.constant dense<[0.5, 1.5]> : tensor<2xf32>
  %variance = stablehlo.constant dense<[1.0, -1.0]> : tensor<2xf32>
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<2x2xf32>
  return %y : tensor<2x2xf32>
}

// A product beyond 65504.
// CHECK-LABEL: @float16_weight_overflows(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: declined: a folded weight would not be finite in f16
func.func @float16_weight_overflows(
    %x: tensor<2x2xf16>) -> tensor<2x2xf16> {
  %w = stablehlo.constant dense<[[1000.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf16>
  %scale = stablehlo.constant dense<[100.0, 2.0]> : tensor<2xf16>
  %offset = stablehlo.constant dense<[0.0, 1.0]> : tensor<2xf16>
  %mean = stablehlo.constant dense<[0.5, 1.5]> : tensor<2xf16>
  %variance = stablehlo.constant dense<[1.0, 1.0]> : tensor<2xf16>
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<2x2xf16>, tensor<2x2xf16>) -> tensor<2x2xf16>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x2xf16>, tensor<2xf16>, tensor<2xf16>, tensor<2xf16>, tensor<2xf16>) -> tensor<2x2xf16>
  return %y : tensor<2x2xf16>
}

// A shift beyond 65504, of a finite weight.
// CHECK-LABEL: @float16_bias_overflows(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: declined: a folded bias would not be finite in f16
func.func @float16_bias_overflows(
    %x: tensor<2x2xf16>) -> tensor<2x2xf16> {
  %w = stablehlo.constant dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf16>
  %scale = stablehlo.constant dense<[100.0, 2.0]> : tensor<2xf16>
  %offset = stablehlo.constant dense<[0.0, 1.0]> : tensor<2xf16>
  %mean = stablehlo.constant dense<[1000.0, 1.5]> : tensor<2xf16>
  %variance = stablehlo.constant dense<[1.0, 1.0]> : tensor<2xf16>
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<2x2xf16>, tensor<2x2xf16>) -> tensor<2x2xf16>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x2xf16>, tensor<2xf16>, tensor<2xf16>, tensor<2xf16>, tensor<2xf16>) -> tensor<2x2xf16>
  return %y : tensor<2x2xf16>
}

// The largest float16 plus epsilon is no infinity: the arithmetic is in float32.
// CHECK-LABEL: @float16_variance_is_large(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: folded: stablehlo.dot_general
func.func @float16_variance_is_large(
    %x: tensor<2x2xf16>) -> tensor<2x2xf16> {
  %w = stablehlo.constant dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf16>
  %scale = stablehlo.constant dense<[100.0, 2.0]> : tensor<2xf16>
  %offset = stablehlo.constant dense<[0.0, 1.0]> : tensor<2xf16>
  %mean = stablehlo.constant dense<[0.5, 1.5]> : tensor<2xf16>
  %variance = stablehlo.constant dense<[65504.0, 1.0]> : tensor<2xf16>
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<2x2xf16>, tensor<2x2xf16>) -> tensor<2x2xf16>
  %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x2xf16>, tensor<2xf16>, tensor<2xf16>, tensor<2xf16>, tensor<2xf16>) -> tensor<2x2xf16>
  return %y : tensor<2x2xf16>
}

// Zero times infinity is NaN: a ReLU written as a clamp.
// CHECK-LABEL: @endless_bound(
// CHECK: stablehlo.batch_norm_inference
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: declined: a bound before it is not finite, or not known, and the scale has a zero
func.func @endless_bound(
    %x: tensor<2x2xf32>) -> tensor<2x2xf32> {
  %w = stablehlo.constant dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf32>
  %scale = stablehlo.constant dense<[1.0, 0.0]> : tensor<2xf32>
  %offset = stablehlo.constant dense<[0.5, 1.0]> : tensor<2xf32>
  %mean = stablehlo.constant dense<[0.5, 1.5]> : tensor<2xf32>
  %variance = stablehlo.constant dense<[1.0, 2.0]> : tensor<2xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %inf = stablehlo.constant dense<0x7F800000> : tensor<f32>
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
  %c = stablehlo.clamp %zero, %d, %inf : (tensor<f32>, tensor<2x2xf32>, tensor<f32>) -> tensor<2x2xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<2x2xf32>
  return %y : tensor<2x2xf32>
}

// The same with a scale that is positive everywhere.
// CHECK-LABEL: @endless_bound_of_a_positive_scale(
// CHECK-NOT: batch_norm_inference
// CHECK: return
// EXPLAIN-NEXT: fold-batch-norm: stablehlo.batch_norm_inference: folded: stablehlo.dot_general
func.func @endless_bound_of_a_positive_scale(
    %x: tensor<2x2xf32>) -> tensor<2x2xf32> {
  %w = stablehlo.constant dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf32>
  %scale = stablehlo.constant dense<[1.0, 2.0]> : tensor<2xf32>
  %offset = stablehlo.constant dense<[0.5, 1.0]> : tensor<2xf32>
  %mean = stablehlo.constant dense<[0.5, 1.5]> : tensor<2xf32>
  %variance = stablehlo.constant dense<[1.0, 2.0]> : tensor<2xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %inf = stablehlo.constant dense<0x7F800000> : tensor<f32>
  %d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
  %c = stablehlo.clamp %zero, %d, %inf : (tensor<f32>, tensor<2x2xf32>, tensor<f32>) -> tensor<2x2xf32>
  %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<2x2xf32>
  return %y : tensor<2x2xf32>
}
