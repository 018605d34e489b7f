// Remarks go to standard error with their file and line, the module to standard output; parts keep the file's lines.
// RUN: stablenorm-opt %s --passes=fold-batch-norm,lower-batch-norm --split-input-file --explain 2>%t | filecheck %s
// RUN: filecheck %s --check-prefix=EXPLAIN --input-file %t
// RUN: stablenorm-opt %s --passes=fold-batch-norm,lower-batch-norm --split-input-file 2>&1 | filecheck %s --check-prefix=QUIET
// QUIET-NOT: remark
// QUIET: @second
// QUIET-NOT: remark

// CHECK: module {
// CHECK-NEXT: @first(
// EXPLAIN: explain.mlir:14:{{[0-9]+}}: remark: fold-batch-norm: bn: declined: its input is an argument of the function
// EXPLAIN-NEXT: explain.mlir:14:{{[0-9]+}}: remark: lower-batch-norm: bn: lowered: no pass folded it
func.func public @first(%x: tensor<2x3xf32>, %w: tensor<3xf32> {stablenorm.weight = "bn/variance"}) -> tensor<2x3xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %w, %w, %w, %w) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  return %y : tensor<2x3xf32>
}

// -----

// CHECK: // -----
// CHECK-NEXT: module {
// CHECK-NEXT: @second(
// EXPLAIN-NEXT: explain.mlir:[[# @LINE + 2]]
func.func public @second(%x: tensor<2x3xf32>, %w: tensor<3xf32> {stablenorm.weight = "bn/variance"}) -> tensor<2x3xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %w, %w, %w, %w) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<2x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  return %y : tensor<2x3xf32>
}
