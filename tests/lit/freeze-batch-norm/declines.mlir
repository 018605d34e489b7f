// RUN: stablenorm-opt %s --passes=freeze-batch-norm,canonicalize | filecheck %s
// RUN: stablenorm-opt %s --passes=freeze-batch-norm --explain 2>&1 | filecheck %s --check-prefix=EXPLAIN

// Where a batch norm stays in training mode, and why: a reason for each guard.

// Whoever reads the batch's own mean would get another one.
// CHECK-LABEL: @returned_mean(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN: freeze-batch-norm: returned_mean: declined: its batch mean is read by func.return, which does not average it into a moving one; take that reader out
func.func @returned_mean(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "returned_mean/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "returned_mean/beta"},
    %mean: tensor<3xf32> {stablenorm.weight = "returned_mean/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "returned_mean/moving_variance"}) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %a = stablehlo.constant dense<9.0e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<1.0e-1> : tensor<3xf32>
  %am = stablehlo.multiply %mean, %a : tensor<3xf32>
  %bm = stablehlo.multiply %m, %b : tensor<3xf32>
  %nm = stablehlo.add %am, %bm : tensor<3xf32>
  %av = stablehlo.multiply %variance, %a : tensor<3xf32>
  %bv = stablehlo.multiply %v, %b : tensor<3xf32>
  %nv = stablehlo.add %av, %bv : tensor<3xf32>
  return %y, %m, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// Arithmetic that is no average, here a normalization written out with the batch's variance.
// CHECK-LABEL: @normalized_again(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NEXT: freeze-batch-norm: normalized_again: declined: its batch variance is read by stablehlo.rsqrt, which does not average it into a moving one; take that reader out
func.func @normalized_again(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "normalized_again/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "normalized_again/beta"},
    %mean: tensor<3xf32> {stablenorm.weight = "normalized_again/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "normalized_again/moving_variance"}) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %a = stablehlo.constant dense<9.0e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<1.0e-1> : tensor<3xf32>
  %am = stablehlo.multiply %mean, %a : tensor<3xf32>
  %bm = stablehlo.multiply %m, %b : tensor<3xf32>
  %nm = stablehlo.add %am, %bm : tensor<3xf32>
  %nv = stablehlo.rsqrt %v : tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// 0.9 and 0.2: a sum, no average.
// CHECK-LABEL: @weights_do_not_sum_to_one(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NEXT: freeze-batch-norm: weights_do_not_sum_to_one: declined: its batch mean is read by func.return, which does not average it into a moving one; take that reader out
func.func @weights_do_not_sum_to_one(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "weights_do_not_sum_to_one/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "weights_do_not_sum_to_one/beta"},
    %mean: tensor<3xf32> {stablenorm.weight = "weights_do_not_sum_to_one/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "weights_do_not_sum_to_one/moving_variance"}) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %a = stablehlo.constant dense<9.0e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<2.0e-1> : tensor<3xf32>
  %am = stablehlo.multiply %mean, %a : tensor<3xf32>
  %bm = stablehlo.multiply %m, %b : tensor<3xf32>
  %nm = stablehlo.add %am, %bm : tensor<3xf32>
  %av = stablehlo.multiply %variance, %a : tensor<3xf32>
  %bv = stablehlo.multiply %v, %b : tensor<3xf32>
  %nv = stablehlo.add %av, %bv : tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// Bessel's factor for 4 elements is 4 / 3, not 5 / 4.
// CHECK-LABEL: @another_factor(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NEXT: freeze-batch-norm: another_factor: declined: its batch variance is read by func.return, which does not average it into a moving one; take that reader out
func.func @another_factor(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "another_factor/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "another_factor/beta"},
    %mean: tensor<3xf32> {stablenorm.weight = "another_factor/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "another_factor/moving_variance"}) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %a = stablehlo.constant dense<9.0e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<1.0e-1> : tensor<3xf32>
  %am = stablehlo.multiply %mean, %a : tensor<3xf32>
  %bm = stablehlo.multiply %m, %b : tensor<3xf32>
  %nm = stablehlo.add %am, %bm : tensor<3xf32>
  %k = stablehlo.constant dense<1.25> : tensor<3xf32>
  %u = stablehlo.multiply %v, %k : tensor<3xf32>
  %av = stablehlo.multiply %variance, %a : tensor<3xf32>
  %bv = stablehlo.multiply %u, %b : tensor<3xf32>
  %nv = stablehlo.add %av, %bv : tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// A mean has no such factor.
// CHECK-LABEL: @unbiased_mean(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NEXT: freeze-batch-norm: unbiased_mean: declined: its batch mean is read by func.return, which does not average it into a moving one; take that reader out
func.func @unbiased_mean(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "unbiased_mean/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "unbiased_mean/beta"},
    %mean: tensor<3xf32> {stablenorm.weight = "unbiased_mean/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "unbiased_mean/moving_variance"}) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %a = stablehlo.constant dense<9.0e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<1.0e-1> : tensor<3xf32>
  %k = stablehlo.constant dense<1.33333337> : tensor<3xf32>
  %u = stablehlo.multiply %m, %k : tensor<3xf32>
  %am = stablehlo.multiply %mean, %a : tensor<3xf32>
  %bm = stablehlo.multiply %u, %b : tensor<3xf32>
  %nm = stablehlo.add %am, %bm : tensor<3xf32>
  %av = stablehlo.multiply %variance, %a : tensor<3xf32>
  %bv = stablehlo.multiply %v, %b : tensor<3xf32>
  %nv = stablehlo.add %av, %bv : tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// Not linear, though it is old where the batch agrees.
// CHECK-LABEL: @squared(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NEXT: freeze-batch-norm: squared: declined: its batch variance is read by func.return, which does not average it into a moving one; take that reader out
func.func @squared(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "squared/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "squared/beta"},
    %mean: tensor<3xf32> {stablenorm.weight = "squared/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "squared/moving_variance"}) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %a = stablehlo.constant dense<9.0e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<1.0e-1> : tensor<3xf32>
  %am = stablehlo.multiply %mean, %a : tensor<3xf32>
  %bm = stablehlo.multiply %m, %b : tensor<3xf32>
  %nm = stablehlo.add %am, %bm : tensor<3xf32>
  %q = stablehlo.multiply %v, %v : tensor<3xf32>
  %nv = stablehlo.divide %q, %variance : tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// momentum = 0: the old value has no part in the new one.
// CHECK-LABEL: @only_the_batch(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NEXT: freeze-batch-norm: only_the_batch: declined: its batch mean is read by func.return, which does not average it into a moving one; take that reader out
func.func @only_the_batch(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "only_the_batch/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "only_the_batch/beta"},
    %mean: tensor<3xf32> {stablenorm.weight = "only_the_batch/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "only_the_batch/moving_variance"}) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %a = stablehlo.constant dense<9.0e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<1.0e-1> : tensor<3xf32>
  %one = stablehlo.constant dense<1.0> : tensor<3xf32>
  %dm = stablehlo.subtract %mean, %m : tensor<3xf32>
  %sm = stablehlo.multiply %dm, %one : tensor<3xf32>
  %nm = stablehlo.subtract %mean, %sm : tensor<3xf32>
  %av = stablehlo.multiply %variance, %a : tensor<3xf32>
  %bv = stablehlo.multiply %v, %b : tensor<3xf32>
  %nv = stablehlo.add %av, %bv : tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// Which of the two would it be?
// CHECK-LABEL: @two_averages(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NEXT: freeze-batch-norm: two_averages: declined: its batch mean is averaged into two moving ones; leave one of them out
func.func @two_averages(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "two_averages/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "two_averages/beta"},
    %mean: tensor<3xf32> {stablenorm.weight = "two_averages/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "two_averages/moving_variance"}) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %a = stablehlo.constant dense<9.0e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<1.0e-1> : tensor<3xf32>
  %am = stablehlo.multiply %mean, %a : tensor<3xf32>
  %bm = stablehlo.multiply %m, %b : tensor<3xf32>
  %nm = stablehlo.add %am, %bm : tensor<3xf32>
  %ao = stablehlo.multiply %offset, %a : tensor<3xf32>
  %no = stablehlo.add %ao, %bm : tensor<3xf32>
  %av = stablehlo.multiply %variance, %a : tensor<3xf32>
  %bv = stablehlo.multiply %v, %b : tensor<3xf32>
  %nv = stablehlo.add %av, %bv : tensor<3xf32>
  return %y, %nm, %no, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>
}

// What it is averaged with is the batch, too: its first row.
// CHECK-LABEL: @average_of_the_batch(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NEXT: freeze-batch-norm: average_of_the_batch: declined: its batch mean is averaged into what depends on the batch too; average it into a moving one
func.func @average_of_the_batch(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "average_of_the_batch/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "average_of_the_batch/beta"},
    %mean: tensor<3xf32> {stablenorm.weight = "average_of_the_batch/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "average_of_the_batch/moving_variance"}) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %row = stablehlo.slice %x [0:1, 0:3] : (tensor<4x3xf32>) -> tensor<1x3xf32>
  %first = stablehlo.reshape %row : (tensor<1x3xf32>) -> tensor<3xf32>
  %a = stablehlo.constant dense<9.0e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<1.0e-1> : tensor<3xf32>
  %am = stablehlo.multiply %first, %a : tensor<3xf32>
  %bm = stablehlo.multiply %m, %b : tensor<3xf32>
  %nm = stablehlo.add %am, %bm : tensor<3xf32>
  %av = stablehlo.multiply %variance, %a : tensor<3xf32>
  %bv = stablehlo.multiply %v, %b : tensor<3xf32>
  %nv = stablehlo.add %av, %bv : tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// Or its own output, of which the arguments say nothing.
// CHECK-LABEL: @average_of_its_output(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NEXT: freeze-batch-norm: average_of_its_output: declined: its batch mean is averaged into what depends on the batch too; average it into a moving one
func.func @average_of_its_output(
    %x: tensor<4x3xf32> {stablenorm.weight = "kernel"},
    %scale: tensor<3xf32> {stablenorm.weight = "average_of_its_output/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "average_of_its_output/beta"},
    %mean: tensor<3xf32> {stablenorm.weight = "average_of_its_output/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "average_of_its_output/moving_variance"}) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %row = stablehlo.slice %y [0:1, 0:3] : (tensor<4x3xf32>) -> tensor<1x3xf32>
  %first = stablehlo.reshape %row : (tensor<1x3xf32>) -> tensor<3xf32>
  %a = stablehlo.constant dense<9.0e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<1.0e-1> : tensor<3xf32>
  %am = stablehlo.multiply %first, %a : tensor<3xf32>
  %bm = stablehlo.multiply %m, %b : tensor<3xf32>
  %nm = stablehlo.add %am, %bm : tensor<3xf32>
  %av = stablehlo.multiply %variance, %a : tensor<3xf32>
  %bv = stablehlo.multiply %v, %b : tensor<3xf32>
  %nv = stablehlo.add %av, %bv : tensor<3xf32>
  return %y, %nm, %nv : tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>
}

// Nothing is updated, and no weight is called as its parameters are.
// CHECK-LABEL: @no_names(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NEXT: freeze-batch-norm: no_names: declined: its batch mean is averaged into nothing, and no weights are called no_names/moving_mean and no_names/moving_variance; return the new moving statistics too
func.func @no_names(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "no_names/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "no_names/beta"},
    %mean: tensor<3xf32> {stablenorm.weight = "other/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "other/moving_variance"}) -> tensor<4x3xf32> {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  return %y : tensor<4x3xf32>
}

// One of the two is not enough.
// CHECK-LABEL: @no_variance(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NEXT: freeze-batch-norm: no_variance: declined: its batch variance is averaged into nothing, and no weights are called no_variance/moving_mean and no_variance/moving_variance; return the new moving statistics too
func.func @no_variance(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "no_variance/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "no_variance/beta"},
    %mean: tensor<3xf32> {stablenorm.weight = "other/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "other/moving_variance"}) -> (tensor<4x3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %a = stablehlo.constant dense<9.0e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<1.0e-1> : tensor<3xf32>
  %am = stablehlo.multiply %mean, %a : tensor<3xf32>
  %bm = stablehlo.multiply %m, %b : tensor<3xf32>
  %nm = stablehlo.add %am, %bm : tensor<3xf32>
  return %y, %nm : tensor<4x3xf32>, tensor<3xf32>
}

// Two layers are called two_layers: a frontend has numbered the weights, in an order of its own.
// CHECK-LABEL: @two_layers(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NEXT: freeze-batch-norm: two_layers: declined: its batch mean belongs to one of several layers with a two_layers/moving_mean; give each layer a name of its own
func.func @two_layers(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "two_layers/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "two_layers/beta"},
    %mean: tensor<3xf32> {stablenorm.weight = "two_layers/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "two_layers/moving_variance"},
    %other: tensor<3xf32> {stablenorm.weight = "two_layers/moving_mean_1"}) -> tensor<4x3xf32> {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  return %y : tensor<4x3xf32>
}

// A weight of that name, with another number of elements.
// CHECK-LABEL: @other_shape(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NEXT: freeze-batch-norm: other_shape: declined: its batch mean is averaged into nothing, and no weights are called other_shape/moving_mean and other_shape/moving_variance; return the new moving statistics too
func.func @other_shape(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "other_shape/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "other_shape/beta"},
    %mean: tensor<4xf32> {stablenorm.weight = "other_shape/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "other_shape/moving_variance"}) -> tensor<4x3xf32> {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  return %y : tensor<4x3xf32>
}

// Whether there is an update is decided by a branch.
// CHECK-LABEL: @in_a_branch(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NEXT: freeze-batch-norm: in_a_branch: declined: its batch mean is averaged inside a branch or a loop; average it outside
func.func @in_a_branch(
    %x: tensor<4x3xf32>,
    %scale: tensor<3xf32> {stablenorm.weight = "in_a_branch/gamma"},
    %offset: tensor<3xf32> {stablenorm.weight = "in_a_branch/beta"},
    %mean: tensor<3xf32> {stablenorm.weight = "in_a_branch/moving_mean"},
    %variance: tensor<3xf32> {stablenorm.weight = "in_a_branch/moving_variance"}, %p: tensor<i1>) -> (tensor<4x3xf32>, tensor<3xf32>) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>) -> (tensor<4x3xf32>, tensor<3xf32>, tensor<3xf32>)
  %a = stablehlo.constant dense<9.0e-1> : tensor<3xf32>
  %b = stablehlo.constant dense<1.0e-1> : tensor<3xf32>
  %nm = "stablehlo.if"(%p) ({
    %am = stablehlo.multiply %mean, %a : tensor<3xf32>
    %bm = stablehlo.multiply %m, %b : tensor<3xf32>
    %sm = stablehlo.add %am, %bm : tensor<3xf32>
    stablehlo.return %sm : tensor<3xf32>
  }, {
    stablehlo.return %mean : tensor<3xf32>
  }) : (tensor<i1>) -> tensor<3xf32>
  return %y, %nm : tensor<4x3xf32>, tensor<3xf32>
}

// The number of features is known only when the program runs.
// CHECK-LABEL: @dynamic_features(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NEXT: freeze-batch-norm: dynamic_features: declined: its number of features is known only when the program runs; give it a static size
func.func @dynamic_features(
    %x: tensor<4x?xf32>, %scale: tensor<?xf32> {stablenorm.weight = "dynamic_features/gamma"}, %offset: tensor<?xf32>) -> tensor<4x?xf32> {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %scale, %offset) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<4x?xf32>, tensor<?xf32>, tensor<?xf32>) -> (tensor<4x?xf32>, tensor<?xf32>, tensor<?xf32>)
  return %y : tensor<4x?xf32>
}

// TensorFlow's layer normalization, with constant scale and offset, is no batch norm: nothing is said of it.
// CHECK-LABEL: @layer_norm(
// CHECK: stablehlo.batch_norm_training
// EXPLAIN-NOT: remark
func.func @layer_norm(%x: tensor<1x4x3x1xf32>) -> tensor<1x4x3x1xf32> {
  %one = stablehlo.constant dense<1.0> : tensor<4xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<4xf32>
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %one, %zero) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (tensor<1x4x3x1xf32>, tensor<4xf32>, tensor<4xf32>) -> (tensor<1x4x3x1xf32>, tensor<4xf32>, tensor<4xf32>)
  return %y : tensor<1x4x3x1xf32>
}
