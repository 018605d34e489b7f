// RUN: stablenorm-opt %s --passes=lower-pooling --split-input-file | filecheck %s

// CHECK-LABEL: @maximum(
// CHECK: %[[P:.*]] = stablehlo.pad %arg0, %{{.*}}, low = [0, 1, 0], high = [0, 0, 0], interior = [0, 0, 0]
// CHECK-SAME: -> tensor<2x9x3xf32>
// CHECK: %[[A:.*]] = stablehlo.slice %[[P]] [0:2, 0:7:2, 0:3]
// CHECK: %[[B:.*]] = stablehlo.slice %[[P]] [0:2, 1:8:2, 0:3]
// CHECK: %[[M:.*]] = stablehlo.maximum %[[A]], %[[B]]
// CHECK: %[[C:.*]] = stablehlo.slice %[[P]] [0:2, 2:9:2, 0:3]
// CHECK: %[[Y:.*]] = stablehlo.maximum %[[M]], %[[C]] : tensor<2x4x3xf32>
// CHECK: return %[[Y]]
func.func @maximum(%x: tensor<2x8x3xf32>) -> tensor<2x4x3xf32> {
  %lowest = stablehlo.constant dense<0xFF800000> : tensor<f32>
  %y = "stablehlo.reduce_window"(%x, %lowest) <{window_dimensions = array<i64: 1, 3, 1>,
      window_strides = array<i64: 1, 2, 1>, padding = dense<[[0, 0], [1, 0], [0, 0]]> : tensor<3x2xi64>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %m = stablehlo.maximum %a, %b : tensor<f32>
    stablehlo.return %m : tensor<f32>
  }) : (tensor<2x8x3xf32>, tensor<f32>) -> tensor<2x4x3xf32>
  return %y : tensor<2x4x3xf32>
}

// -----

// A sum of half types is one of float32; dilated windows.
// CHECK-LABEL: @sum(
// CHECK: %[[X:.*]] = stablehlo.convert %arg0 : (tensor<8x3xbf16>) -> tensor<8x3xf32>
// CHECK: %[[A:.*]] = stablehlo.slice %[[X]] [0:5, 0:3]
// CHECK: %[[B:.*]] = stablehlo.slice %[[X]] [3:8, 0:3]
// CHECK: %[[S:.*]] = stablehlo.add %[[A]], %[[B]] : tensor<5x3xf32>
// CHECK: stablehlo.convert %[[S]] : (tensor<5x3xf32>) -> tensor<5x3xbf16>
func.func @sum(%x: tensor<8x3xbf16>) -> tensor<5x3xbf16> {
  %zero = stablehlo.constant dense<0.0> : tensor<bf16>
  %y = "stablehlo.reduce_window"(%x, %zero) <{window_dimensions = array<i64: 2, 1>,
      window_dilations = array<i64: 3, 1>}> ({
  ^bb0(%a: tensor<bf16>, %b: tensor<bf16>):
    %m = stablehlo.add %a, %b : tensor<bf16>
    stablehlo.return %m : tensor<bf16>
  }) : (tensor<8x3xbf16>, tensor<bf16>) -> tensor<5x3xbf16>
  return %y : tensor<5x3xbf16>
}

// -----

// What starts from a number, multiplies, has a large window, or computes nothing stays.
// CHECK-LABEL: @kept(
// CHECK-COUNT-4: stablehlo.reduce_window
// CHECK: return
func.func @kept(%x: tensor<60xf32>) -> (tensor<59xf32>, tensor<59xf32>, tensor<31xf32>, tensor<59xf32>) {
  %one = stablehlo.constant dense<1.0> : tensor<f32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = "stablehlo.reduce_window"(%x, %one) <{window_dimensions = array<i64: 2>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %m = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %m : tensor<f32>
  }) : (tensor<60xf32>, tensor<f32>) -> tensor<59xf32>
  %1 = "stablehlo.reduce_window"(%x, %one) <{window_dimensions = array<i64: 2>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %m = stablehlo.multiply %a, %b : tensor<f32>
    stablehlo.return %m : tensor<f32>
  }) : (tensor<60xf32>, tensor<f32>) -> tensor<59xf32>
  %2 = "stablehlo.reduce_window"(%x, %zero) <{window_dimensions = array<i64: 30>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    %m = stablehlo.add %a, %b : tensor<f32>
    stablehlo.return %m : tensor<f32>
  }) : (tensor<60xf32>, tensor<f32>) -> tensor<31xf32>
  %3 = "stablehlo.reduce_window"(%x, %zero) <{window_dimensions = array<i64: 2>}> ({
  ^bb0(%a: tensor<f32>, %b: tensor<f32>):
    stablehlo.return %b : tensor<f32>
  }) : (tensor<60xf32>, tensor<f32>) -> tensor<59xf32>
  return %0, %1, %2, %3 : tensor<59xf32>, tensor<59xf32>, tensor<31xf32>, tensor<59xf32>
}
