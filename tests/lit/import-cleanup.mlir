// RUN: stablenorm-opt %s --passes=import-cleanup --split-input-file | filecheck %s

// A private helper is inlined, and gone.
// CHECK-LABEL: @helper(
// CHECK-SAME: %[[X:.*]]: tensor<2xf32>
// CHECK: %[[Y:.*]] = stablehlo.maximum %[[X]], %{{.*}} : tensor<2xf32>
// CHECK-NEXT: return %[[Y]]
// CHECK-NOT: private
func.func public @helper(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = call @relu(%x) : (tensor<2xf32>) -> tensor<2xf32>
  return %0 : tensor<2xf32>
}
func.func private @relu(%x: tensor<2xf32>) -> tensor<2xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<2xf32>
  %0 = stablehlo.maximum %x, %zero : tensor<2xf32>
  return %0 : tensor<2xf32>
}

// -----

// Helpers that call helpers, in an order of their own, twice, and one that returns its argument.
// CHECK-LABEL: @nested(
// CHECK-COUNT-4: stablehlo.negate
// CHECK-NOT: call
// CHECK: return
func.func public @nested(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = call @twice(%x) : (tensor<2xf32>) -> tensor<2xf32>
  %1 = call @same(%0) : (tensor<2xf32>) -> tensor<2xf32>
  %2 = call @twice(%1) : (tensor<2xf32>) -> tensor<2xf32>
  return %2 : tensor<2xf32>
}
func.func private @twice(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = call @once(%x) : (tensor<2xf32>) -> tensor<2xf32>
  %1 = call @once(%0) : (tensor<2xf32>) -> tensor<2xf32>
  return %1 : tensor<2xf32>
}
func.func private @same(%x: tensor<2xf32>) -> tensor<2xf32> {
  return %x : tensor<2xf32>
}
func.func private @once(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = stablehlo.negate %x : tensor<2xf32>
  return %0 : tensor<2xf32>
}

// -----

// A call in a branch is inlined into the branch.
// CHECK-LABEL: @branch(
// CHECK: stablehlo.if
// CHECK-NEXT: stablehlo.negate
// CHECK-NOT: call
// CHECK: return
func.func public @branch(%p: tensor<i1>, %x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = "stablehlo.if"(%p) ({
    %1 = func.call @once(%x) : (tensor<2xf32>) -> tensor<2xf32>
    stablehlo.return %1 : tensor<2xf32>
  }, {
    stablehlo.return %x : tensor<2xf32>
  }) : (tensor<i1>) -> tensor<2xf32>
  return %0 : tensor<2xf32>
}
func.func private @once(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = stablehlo.negate %x : tensor<2xf32>
  return %0 : tensor<2xf32>
}

// -----

// A composite is its decomposition.
// CHECK-LABEL: @composite(
// CHECK-NOT: stablehlo.composite
// CHECK: stablehlo.negate
// CHECK: return
func.func public @composite(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = stablehlo.composite "some.negation" %x {decomposition = @once} : (tensor<2xf32>) -> tensor<2xf32>
  return %0 : tensor<2xf32>
}
func.func private @once(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = stablehlo.negate %x : tensor<2xf32>
  return %0 : tensor<2xf32>
}

// -----

// mhlo.copy, one after another, is dropped.
// CHECK-LABEL: @copies(
// CHECK-SAME: %[[X:.*]]: tensor<2xf32>
// CHECK-NEXT: return %[[X]]
func.func public @copies(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = mhlo.copy %x : tensor<2xf32>
  %1 = mhlo.copy %0 : tensor<2xf32>
  return %1 : tensor<2xf32>
}

// -----

// Deprecated operations become StableHLO's own.
// CHECK-LABEL: @deprecated(
// CHECK-NOT: stablehlo.broadcast %
// CHECK: stablehlo.broadcast_in_dim
// CHECK: stablehlo.dot_general
// CHECK: return
func.func public @deprecated(%x: tensor<3xf32>, %w: tensor<3x4xf32>) -> tensor<2x4xf32> {
  %0 = stablehlo.broadcast %x, sizes = [2] : (tensor<3xf32>) -> tensor<2x3xf32>
  %1 = stablehlo.dot %0, %w : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
  return %1 : tensor<2x4xf32>
}

// -----

// Operations of the CHLO dialect become StableHLO.
// CHECK-LABEL: @chlo(
// CHECK: %[[Y:.*]] = stablehlo.multiply %[[X:.*]], %[[X]] : tensor<2xf32>
// CHECK: return %[[Y]]
func.func public @chlo(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = chlo.square %x : tensor<2xf32> -> tensor<2xf32>
  return %0 : tensor<2xf32>
}

// -----

// A reshape that changes nothing goes, dead and repeated operations go.
// CHECK-LABEL: @nothing(
// CHECK: %[[S:.*]] = stablehlo.negate
// CHECK-NEXT: %[[Y:.*]] = stablehlo.multiply %[[S]], %[[S]]
// CHECK-NEXT: return %[[Y]]
func.func public @nothing(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = stablehlo.reshape %x : (tensor<2xf32>) -> tensor<2xf32>
  %1 = stablehlo.negate %0 : tensor<2xf32>
  %2 = stablehlo.negate %x : tensor<2xf32>
  %3 = stablehlo.exponential %x : tensor<2xf32>
  %4 = stablehlo.multiply %1, %2 : tensor<2xf32>
  return %4 : tensor<2xf32>
}
