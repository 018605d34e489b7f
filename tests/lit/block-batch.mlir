// RUN: stablenorm-opt %s --passes='block-batch{most_bytes=432}' --split-input-file | filecheck %s

// Activations of 9 * 6 * 4 bytes a sample: blocks of two samples. What is repeated for each sample is repeated for those
// of a block; weights stay outside.
// CHECK-LABEL: func.func @main(
// CHECK-SAME: %[[X:arg0]]: tensor<8x9x3xf32>, %[[W:arg1]]: tensor<3x3x4xf32>
// CHECK-DAG: %[[BATCH:.*]] = stablehlo.constant dense<8> : tensor<i32>
// CHECK-DAG: %[[STEP:.*]] = stablehlo.constant dense<2> : tensor<i32>
// CHECK-DAG: %[[EMPTY:.*]] = stablehlo.constant dense<0.000000e+00> : tensor<8x9x6xf32>
// CHECK: %[[LOOP:.*]]:2 = stablehlo.while(%[[START:.*]] = %[[ZERO:.*]], %[[WHOLE:.*]] = %[[EMPTY]])
// CHECK: stablehlo.compare LT, %[[START]], %[[BATCH]]
// CHECK: %[[PART:.*]] = stablehlo.dynamic_slice %[[X]], %[[START]], %[[ZERO]], %[[ZERO]], sizes = [2, 9, 3]
// CHECK: %[[C:.*]] = stablehlo.convolution(%[[PART]], %[[W]])
// CHECK-SAME: -> tensor<2x9x4xf32>
// CHECK: %[[B:.*]] = stablehlo.broadcast_in_dim %arg2, dims = [2] : (tensor<4xf32>) -> tensor<2x9x4xf32>
// CHECK: %[[S:.*]] = stablehlo.add %[[C]], %[[B]] : tensor<2x9x4xf32>
// CHECK: %[[FLOOR:.*]] = stablehlo.constant dense<0.000000e+00> : tensor<2x9x4xf32>
// CHECK: %[[R:.*]] = stablehlo.maximum %[[S]], %[[FLOOR]] : tensor<2x9x4xf32>
// CHECK: %[[D:.*]] = stablehlo.dot_general %[[R]], %arg3, contracting_dims = [2] x [0]
// CHECK-SAME: -> tensor<2x9x6xf32>
// CHECK: %[[NEW:.*]] = stablehlo.dynamic_update_slice %[[WHOLE]], %[[D]], %[[START]], %[[ZERO]], %[[ZERO]]
// CHECK: %[[NEXT:.*]] = stablehlo.add %[[START]], %[[STEP]]
// CHECK: stablehlo.return %[[NEXT]], %[[NEW]]
// CHECK: return %[[LOOP]]#1
func.func @main(%x: tensor<8x9x3xf32>, %w: tensor<3x3x4xf32> {stablenorm.weight = "w"},
                %b: tensor<4xf32> {stablenorm.weight = "b"}, %v: tensor<4x6xf32> {stablenorm.prepared = "v"})
    -> tensor<8x9x6xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<8x9x4xf32>
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {pad = [[1, 1]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<8x9x3xf32>, tensor<3x3x4xf32>) -> tensor<8x9x4xf32>
  %1 = stablehlo.broadcast_in_dim %b, dims = [2] : (tensor<4xf32>) -> tensor<8x9x4xf32>
  %2 = stablehlo.add %0, %1 : tensor<8x9x4xf32>
  %3 = stablehlo.maximum %2, %zero : tensor<8x9x4xf32>
  %y = stablehlo.dot_general %3, %v, contracting_dims = [2] x [0] : (tensor<8x9x4xf32>, tensor<4x6xf32>) -> tensor<8x9x6xf32>
  return %y : tensor<8x9x6xf32>
}

// -----

// A kernel that is an input may depend on every sample.
// CHECK-LABEL: func.func @main(
// CHECK-NOT: stablehlo.while
func.func @main(%x: tensor<8x9x3xf32>, %w: tensor<8x3x4xf32>, %v: tensor<4x6xf32> {stablenorm.weight = "v"})
    -> tensor<8x9x6xf32> {
  %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {pad = [[4, 3]]}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}
    : (tensor<8x9x3xf32>, tensor<8x3x4xf32>) -> tensor<8x9x4xf32>
  %y = stablehlo.dot_general %0, %v, contracting_dims = [2] x [0] : (tensor<8x9x4xf32>, tensor<4x6xf32>) -> tensor<8x9x6xf32>
  return %y : tensor<8x9x6xf32>
}

// -----

// A sum over the batch.
// CHECK-LABEL: func.func @main(
// CHECK-NOT: stablehlo.while
func.func @main(%x: tensor<8x9x3xf32>, %w: tensor<3x4xf32> {stablenorm.weight = "w"},
                %v: tensor<4x6xf32> {stablenorm.weight = "v"}) -> tensor<9x6xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.dot_general %x, %w, contracting_dims = [2] x [0] : (tensor<8x9x3xf32>, tensor<3x4xf32>) -> tensor<8x9x4xf32>
  %1 = stablehlo.dot_general %0, %v, contracting_dims = [2] x [0] : (tensor<8x9x4xf32>, tensor<4x6xf32>) -> tensor<8x9x6xf32>
  %y = stablehlo.reduce(%1 init: %zero) applies stablehlo.add across dimensions = [0]
    : (tensor<8x9x6xf32>, tensor<f32>) -> tensor<9x6xf32>
  return %y : tensor<9x6xf32>
}

// -----

// Several results, of every type, one twice; an input goes through the loop, a weight does not.
// CHECK-LABEL: func.func @main(
// CHECK: %[[LOOP:.*]]:6 = stablehlo.while
// CHECK: return %[[LOOP]]#1, %[[LOOP]]#2, %[[LOOP]]#3, %arg1, %[[LOOP]]#4, %[[LOOP]]#5
func.func @main(%x: tensor<8x9x11xf32>, %w: tensor<11x11xf32> {stablenorm.weight = "w"})
    -> (tensor<8x9x11xf32>, tensor<8x9x11xf32>, tensor<8x9x11xf32>, tensor<11x11xf32>, tensor<8x9x11xi1>, tensor<8x9x11xbf16>) {
  %0 = stablehlo.dot_general %x, %w, contracting_dims = [2] x [0] : (tensor<8x9x11xf32>, tensor<11x11xf32>) -> tensor<8x9x11xf32>
  %1 = stablehlo.dot_general %0, %w, contracting_dims = [2] x [1] : (tensor<8x9x11xf32>, tensor<11x11xf32>) -> tensor<8x9x11xf32>
  %2 = stablehlo.compare GT, %1, %x : (tensor<8x9x11xf32>, tensor<8x9x11xf32>) -> tensor<8x9x11xi1>
  %3 = stablehlo.convert %1 : (tensor<8x9x11xf32>) -> tensor<8x9x11xbf16>
  return %1, %1, %x, %w, %2, %3
    : tensor<8x9x11xf32>, tensor<8x9x11xf32>, tensor<8x9x11xf32>, tensor<11x11xf32>, tensor<8x9x11xi1>, tensor<8x9x11xbf16>
}

// -----

// A matrix larger than what a block computes is read once, by the whole batch.
// CHECK-LABEL: func.func @main(
// CHECK-NOT: stablehlo.while
func.func @main(%x: tensor<8x99xf32>, %w: tensor<99x99xf32> {stablenorm.weight = "w"}) -> tensor<8x99xf32> {
  %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<8x99xf32>, tensor<99x99xf32>) -> tensor<8x99xf32>
  %1 = stablehlo.dot_general %0, %w, contracting_dims = [1] x [1] : (tensor<8x99xf32>, tensor<99x99xf32>) -> tensor<8x99xf32>
  return %1 : tensor<8x99xf32>
}
