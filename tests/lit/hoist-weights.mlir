// RUN: stablenorm-opt %s --passes=hoist-weights --split-input-file | filecheck %s

// Arithmetic on weights moves to @prepare; a broadcast, which costs nothing, stays.
// CHECK-LABEL: func.func public @prepare(
// CHECK-SAME: %[[W:.*]]: tensor<3xf32> {stablenorm.weight = "w"}) -> tensor<3xf32>
// CHECK-NEXT: %[[R:.*]] = stablehlo.rsqrt %[[W]] : tensor<3xf32>
// CHECK: return %[[R]] : tensor<3xf32>
// CHECK-LABEL: @main(
// CHECK-SAME: %[[X:.*]]: tensor<2x3xf32>, %[[S:.*]]: tensor<3xf32> {stablenorm.prepared = "w"}) -> tensor<2x3xf32>
// CHECK-NEXT: %[[B:.*]] = stablehlo.broadcast_in_dim %[[S]], dims = [1]
// CHECK-NEXT: %[[Y:.*]] = stablehlo.multiply %[[X]], %[[B]]
// CHECK-NEXT: return %[[Y]]
func.func public @main(%x: tensor<2x3xf32>, %w: tensor<3xf32> {stablenorm.weight = "w"}) -> tensor<2x3xf32> {
  %s = stablehlo.rsqrt %w : tensor<3xf32>
  %b = stablehlo.broadcast_in_dim %s, dims = [1] : (tensor<3xf32>) -> tensor<2x3xf32>
  %y = stablehlo.multiply %x, %b : tensor<2x3xf32>
  return %y : tensor<2x3xf32>
}

// -----

// A weight as it is, a weight that is returned, and a weight that nobody reads.
// CHECK-LABEL: @prepare(
// CHECK-SAME: %[[W:.*]]: tensor<3xf32> {stablenorm.weight = "w"}, %{{.*}}: tensor<3xf32> {stablenorm.weight = "unread"})
// CHECK-NEXT: return %[[W]] : tensor<3xf32>
// CHECK-LABEL: @main(
// CHECK-SAME: %[[X:.*]]: tensor<3xf32>, %[[P:.*]]: tensor<3xf32> {stablenorm.prepared = "w"})
// CHECK-NEXT: %[[Y:.*]] = stablehlo.add %[[X]], %[[P]]
// CHECK-NEXT: return %[[Y]], %[[P]]
func.func public @main(%w: tensor<3xf32> {stablenorm.weight = "w"}, %x: tensor<3xf32>,
    %v: tensor<3xf32> {stablenorm.weight = "unread"}) -> (tensor<3xf32>, tensor<3xf32>) {
  %y = stablehlo.add %x, %w : tensor<3xf32>
  return %y, %w : tensor<3xf32>, tensor<3xf32>
}

// -----

// A value that two operations read is prepared once.
// CHECK-LABEL: @prepare(
// CHECK: return %{{[^,]*}} : tensor<3xf32>
// CHECK-LABEL: @main(
// CHECK: stablehlo.add %[[X:.*]], %[[P:.*]] :
// CHECK: stablehlo.multiply %{{.*}}, %[[P]] :
func.func public @main(%x: tensor<3xf32>, %w: tensor<3xf32> {stablenorm.weight = "w"}) -> tensor<3xf32> {
  %s = stablehlo.rsqrt %w : tensor<3xf32>
  %a = stablehlo.add %x, %s : tensor<3xf32>
  %y = stablehlo.multiply %a, %s : tensor<3xf32>
  return %y : tensor<3xf32>
}

// -----

// Integers and comparisons too: @main has lost the arguments that they are computed from.
// CHECK-LABEL: @prepare(
// CHECK: stablehlo.compare
// CHECK: return %{{.*}} : tensor<3xi1>
// CHECK-LABEL: @main(
// CHECK-NOT: stablehlo.compare
// CHECK: stablehlo.select
func.func public @main(%x: tensor<3xf32>, %w: tensor<3xf32> {stablenorm.weight = "w"}) -> tensor<3xf32> {
  %zero = stablehlo.constant dense<0.0> : tensor<3xf32>
  %p = stablehlo.compare GT, %w, %zero : (tensor<3xf32>, tensor<3xf32>) -> tensor<3xi1>
  %y = stablehlo.select %p, %x, %zero : tensor<3xi1>, tensor<3xf32>
  return %y : tensor<3xf32>
}

// -----

// Arithmetic in a branch is done once, in @prepare.
// CHECK-LABEL: @prepare(
// CHECK: %[[R:.*]] = stablehlo.rsqrt
// CHECK: return %[[R]]
// CHECK-LABEL: @main(
// CHECK-SAME: %[[P:[a-z0-9]+]]: tensor<3xf32> {stablenorm.prepared = "w"}
// CHECK: stablehlo.if
// CHECK-NOT: stablehlo.rsqrt
// CHECK: return
func.func public @main(%p: tensor<i1>, %x: tensor<3xf32>, %w: tensor<3xf32> {stablenorm.weight = "w"}) -> tensor<3xf32> {
  %r = "stablehlo.if"(%p) ({
    %s = stablehlo.rsqrt %w : tensor<3xf32>
    %y = stablehlo.multiply %x, %s : tensor<3xf32>
    stablehlo.return %y : tensor<3xf32>
  }, {
    stablehlo.return %x : tensor<3xf32>
  }) : (tensor<i1>) -> tensor<3xf32>
  return %r : tensor<3xf32>
}

// -----

// Arithmetic on constants that vary is prepared; a constant alone stays, and arithmetic on one repeated number too.
// CHECK-LABEL: @prepare() -> tensor<3xf32>
// CHECK: stablehlo.rsqrt
// CHECK-LABEL: @main(
// CHECK-SAME: {stablenorm.prepared = "constant"}
// CHECK: stablehlo.constant dense<[1.000000e+00, 2.000000e+00, 3.000000e+00]>
// CHECK: stablehlo.sqrt
// CHECK-NOT: stablehlo.rsqrt
// CHECK: return
func.func public @main(%x: tensor<3xf32>) -> tensor<3xf32> {
  %c = stablehlo.constant dense<[1.0, 2.0, 3.0]> : tensor<3xf32>
  %r = stablehlo.rsqrt %c : tensor<3xf32>
  %two = stablehlo.constant dense<2.0> : tensor<3xf32>
  %q = stablehlo.sqrt %two : tensor<3xf32>
  %0 = stablehlo.multiply %x, %c : tensor<3xf32>
  %1 = stablehlo.multiply %0, %q : tensor<3xf32>
  %2 = stablehlo.add %1, %r : tensor<3xf32>
  return %2 : tensor<3xf32>
}

// -----

// Without weights there is nothing to prepare.
// CHECK: module
// CHECK-NOT: @prepare
// CHECK-LABEL: @main(
// CHECK-NEXT: return %arg0
func.func public @main(%x: tensor<3xf32>) -> tensor<3xf32> {
  return %x : tensor<3xf32>
}

// -----

// Random numbers and custom calls are no arithmetic: each call may give others.
// CHECK-LABEL: @main(
// CHECK: stablehlo.custom_call @draw
func.func public @main(%x: tensor<3xf32>, %w: tensor<3xf32> {stablenorm.weight = "w"}) -> tensor<3xf32> {
  %r = stablehlo.custom_call @draw(%w) : (tensor<3xf32>) -> tensor<3xf32>
  %y = stablehlo.multiply %x, %r : tensor<3xf32>
  return %y : tensor<3xf32>
}

// -----

// Parts of one weight that are repeated: it is prepared whole, once, and @main reads the parts.
// CHECK-LABEL: @prepare(
// CHECK: return %{{[^,]*}} : tensor<2x3xf32>
// CHECK-LABEL: @main(
// CHECK-SAME: %[[X:.*]]: tensor<4x3xf32>, %[[P:[^,]*]]: tensor<2x3xf32> {stablenorm.prepared = "w"})
// CHECK: stablehlo.slice %[[P]] [0:1, 0:3]
// CHECK: stablehlo.slice %[[P]] [1:2, 0:3]
func.func public @main(%x: tensor<4x3xf32>, %w: tensor<2x3xf32> {stablenorm.weight = "w"}) -> tensor<4x3xf32> {
  %e = stablehlo.exponential %w : tensor<2x3xf32>
  %a = stablehlo.slice %e [0:1, 0:3] : (tensor<2x3xf32>) -> tensor<1x3xf32>
  %b = stablehlo.reshape %a : (tensor<1x3xf32>) -> tensor<3xf32>
  %c = stablehlo.broadcast_in_dim %b, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %d = stablehlo.slice %e [1:2, 0:3] : (tensor<2x3xf32>) -> tensor<1x3xf32>
  %f = stablehlo.reshape %d : (tensor<1x3xf32>) -> tensor<3xf32>
  %g = stablehlo.broadcast_in_dim %f, dims = [1] : (tensor<3xf32>) -> tensor<4x3xf32>
  %h = stablehlo.multiply %x, %c : tensor<4x3xf32>
  %y = stablehlo.add %h, %g : tensor<4x3xf32>
  return %y : tensor<4x3xf32>
}

// -----

// A part that nothing repeats is prepared as it is: a matrix product would copy it on every call.
// CHECK-LABEL: @prepare(
// CHECK: return %{{[^,]*}} : tensor<3x2xf32>
// CHECK-LABEL: @main(
// CHECK-NOT: stablehlo.slice
func.func public @main(%x: tensor<4x3xf32>, %w: tensor<6x2xf32> {stablenorm.weight = "w"}) -> tensor<4x2xf32> {
  %a = stablehlo.slice %w [0:3, 0:2] : (tensor<6x2xf32>) -> tensor<3x2xf32>
  %y = stablehlo.dot_general %x, %a, contracting_dims = [1] x [0] : (tensor<4x3xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>
  return %y : tensor<4x2xf32>
}
