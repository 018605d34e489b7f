"""freeze-batch-norm by value: what is frozen computes what tf_keras does in inference, and so does its gradient."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from stablenorm import compiler
from stablenorm.compiler import demo
from stablenorm.compiler.frontends.tensorflow_captures import variable_labels
from stablenorm.compiler.frontends.tensorflow_module import TensorFlowModel, import_model
from stablenorm.compiler.signature import TensorSpec
from stablenorm.compiler.targets import TARGETS
from stablenorm.ops import BatchNormInference
from tests.passes.modules import by_interpreter, by_xla, only, parse, random_arguments, run

layers = tf_keras.layers
UPDATES = (Path(__file__).parents[1] / "lit" / "freeze-batch-norm" / "updates.mlir").read_text()
EPSILON = float(np.float32(1e-3))
FOLDING = TARGETS["cpu"].pipeline.replace("fold-batch-norm", "freeze-batch-norm,fold-batch-norm")
# Rounding of some operations in the type, relative to the largest value.
TOLERANCE = {"float64": 1e-13, "float32": 1e-6, "float16": 2e-3}
ELEMENTS = {"float64": "f64", "float32": "f32", "float16": "f16"}

pytestmark = pytest.mark.filterwarnings("ignore:a compiled call does not update these variables")


def assert_close(got, exact, tolerance):
    assert got.shape == exact.shape
    limit = tolerance * np.abs(exact.astype(np.float64)).max()
    np.testing.assert_allclose(got.astype(np.float64), exact.astype(np.float64), rtol=0, atol=limit)


@pytest.mark.parametrize("name", re.findall(r"func\.func @(\w+)", UPDATES))
def test_every_spelling_is_normalized_with_the_old_values_which_stay(name):
    module = only(parse(UPDATES), name)
    run(module, "freeze-batch-norm,lower-batch-norm")
    x, scale, offset, mean, variance, *others = random_arguments(module, seed=3)
    variance = np.abs(variance) + np.asarray(0.25, variance.dtype)
    results = by_interpreter(module, [x, scale, offset, mean, variance, *others])
    (exact,) = BatchNormInference(EPSILON, 1).reference(x, scale, offset, mean, variance)
    assert_close(results[0], exact, TOLERANCE["float32"])
    assert np.array_equal(results[1], mean)
    assert np.array_equal(results[2], variance)


SPELLINGS = {
    "sum": ["p = multiply variance a", "q = multiply u b", "nv = add q p"],
    "step": ["p = subtract u variance", "q = multiply b p", "nv = add variance q"],
}


def update_of(spelling, momentum, fresh, coefficient, rows=None):
    """A batch norm whose variance is updated; momentum and 1 - momentum are constants of the type ``coefficient``."""
    v, c, t = "tensor<3xf32>", f"tensor<{coefficient}>", f"tensor<{rows or 8}x3xf32>"
    numbers = [
        f"%{name}c = stablehlo.constant dense<{float(value):.17e}> : {c}\n"
        f"%{name}w = stablehlo.convert %{name}c : ({c}) -> tensor<f32>\n"
        f"%{name} = stablehlo.broadcast_in_dim %{name}w, dims = [] : (tensor<f32>) -> {v}"
        for name, value in (("a", momentum), ("b", fresh))
    ]
    lines = ["u = multiply v k", *SPELLINGS[spelling], "sm = add mean m", "nm = multiply sm half"]
    steps = [re.sub(r"(\w+) = (\w+) (\w+) (\w+)", rf"%\1 = stablehlo.\2 %\3, %\4 : {v}", line) for line in lines]
    body = "\n".join([*numbers, *steps])
    return parse(f"""func.func @main(%x: {t}, %s: {v}, %mean: {v}, %variance: {v}) -> ({t}, {v}, {v}) {{
      %y, %m, %v = "stablehlo.batch_norm_training"(%x, %s, %s)
        <{{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}}> : ({t}, {v}, {v}) -> ({t}, {v}, {v})
      %half = stablehlo.constant dense<5.0e-1> : {v}
      %k = stablehlo.constant dense<{rows / (rows - 1) if rows else 1.0:.17e}> : {v}
      {body}
      return %y, %nm, %nv : {t}, {v}, {v} }}""")


TYPES = st.sampled_from(["f64", "f32", "f16", "bf16"])
ROWS = st.none() | st.integers(2, 100_000)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([*SPELLINGS]), st.floats(0.01, 0.9999), TYPES, ROWS)
def test_any_momentum_in_any_type_is_an_update(spelling, momentum, coefficient, rows):
    (remark,) = run(update_of(spelling, momentum, 1 - momentum, coefficient, rows), "freeze-batch-norm").remarks
    assert remark.verdict == "frozen"


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 0.99), st.sampled_from([0.9, 0.999, 1.001, 1.1, -1.0]))
def test_what_does_not_sum_to_one_is_no_update(momentum, wrong):
    (remark,) = run(update_of("sum", momentum, (1 - momentum) * wrong, "f32"), "freeze-batch-norm").remarks
    assert remark.verdict == "declined"


GRADIENT = """func.func @main(%x: T, %scale: V, %g: T, %mean: V {stablenorm.weight = "bn/moving_mean"},
    %variance: V {stablenorm.weight = "bn/moving_variance"}, %s: V {stablenorm.weight = "bn/gamma"}) -> (T, V, V) {
  %y, %m, %v = "stablehlo.batch_norm_training"(%x, %s, %s) <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
    : (T, V, V) -> (T, V, V)
  %dx, %ds, %do = "stablehlo.batch_norm_grad"(%x, %scale, %m, %v, %g)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}> : (T, V, V, V, T) -> (T, V, V)
  return %dx, %ds, %do : T, V, V }"""


@pytest.mark.parametrize("level", [0.0, 1e4])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_gradient_is_that_of_inference_at_any_mean(dtype, level):
    if dtype == "float16":
        level /= 100
    text = GRADIENT.replace("T", f"tensor<16x3x{ELEMENTS[dtype]}>").replace("V", f"tensor<3x{ELEMENTS[dtype]}>")
    module = parse(text)
    run(module, "freeze-batch-norm,lower-batch-norm")
    assert "batch_norm" not in str(module)
    arguments = random_arguments(module)
    arguments[0] += np.asarray(level, dtype)
    arguments[3] += np.asarray(level, dtype)
    x, scale, g, mean, variance = (each.astype(np.float64) for each in arguments[:5])
    h = (x - mean) / np.sqrt(variance + EPSILON)
    exact = [g * scale / np.sqrt(variance + EPSILON), (g * h).sum(0), g.sum(0)]
    for results in (by_interpreter(module, arguments), by_xla(module, arguments)):
        for got, truth in zip(results, exact, strict=True):
            assert_close(got, truth, TOLERANCE[dtype])


def test_a_train_step_of_tensorflow_becomes_that_of_a_layer_that_is_not_trainable():
    """Output, gradients and moving statistics, by the tape; the statistics' updates are in the graph."""
    import tensorflow as tf

    norm = layers.BatchNormalization(name="bn", momentum=0.9)
    norm.build((4, 5, 5, 3))
    demo.randomize(norm)
    generator = np.random.default_rng(0)
    x, g = (generator.normal(size=(4, 5, 5, 3)).astype(np.float32) for _ in range(2))

    def step(x, g):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([x, norm.gamma, norm.beta])
            y = norm(x, training=True)
        gradients = tape.gradient(y, [x, norm.gamma, norm.beta], g)
        return [y, *gradients, norm.moving_mean + 0.0, norm.moving_variance + 0.0]

    specs = tuple(TensorSpec(name, x.shape, "float32") for name in ("x", "g"))
    imported = import_model(TensorFlowModel(step, specs, (0, 1), lambda: variable_labels(norm.weights)))
    context = run(imported.module, "import-cleanup,freeze-batch-norm,lower-batch-norm", imported.weights)
    assert [remark.verdict for remark in context.remarks] == ["frozen", "lowered"]
    results = by_xla(imported.module, [x, g, *imported.weights.values()])
    norm.trainable = False
    for got, truth in zip(results, step(tf.constant(x), tf.constant(g)), strict=True):
        assert_close(got, truth.numpy(), 1e-5)  # tf_keras sums in float32


def blocks(**call):
    x = tf_keras.Input((8, 8, 3))
    y = layers.BatchNormalization(name="first")(layers.Conv2D(4, 3)(x), **call)
    y = layers.BatchNormalization(name="second", scale=False)(layers.Conv2D(5, 3)(layers.ReLU()(y)), **call)
    return tf_keras.Model(x, y)


def bare(**call):
    """No parameter of the layer names it; another layer norm without batch norm stands beside it."""
    x = tf_keras.Input((8, 8, 3))
    inner = tf_keras.Input((8, 8, 4))
    norm = layers.BatchNormalization(name="bn", center=False, scale=False)
    model = tf_keras.Model(inner, norm(inner, **call), name="inner")
    return tf_keras.Model(x, layers.LayerNormalization()(model(layers.Conv2D(4, 3, padding="same")(x))))


def shared(**call):
    x = tf_keras.Input((8, 8, 3))
    norm = layers.BatchNormalization(center=False)
    return tf_keras.Model(x, norm(layers.Conv2D(3, 3)(norm(layers.Conv2D(3, 3)(x), **call)), **call))


def volume(**call):
    x = tf_keras.Input((5, 5, 5, 2))
    return tf_keras.Model(x, layers.BatchNormalization(axis=-1)(layers.Conv3D(4, 3)(x), **call))


def mixed(**call):
    policy = tf_keras.mixed_precision.Policy("mixed_bfloat16")
    x = tf_keras.Input((8, 8, 3))
    return tf_keras.Model(x, layers.BatchNormalization(dtype=policy)(layers.Conv2D(4, 3, dtype=policy)(x), **call))


@pytest.mark.parametrize(("build", "norms"), [(blocks, 2), (bare, 1), (shared, 2), (volume, 1), (mixed, 1)])
def test_a_model_exported_in_training_mode_is_frozen_and_folded(build, norms):
    inference = build()
    demo.randomize(inference)
    training = build(training=True)
    training.set_weights(inference.get_weights())
    executable = compiler.compile(training, passes=FOLDING)
    assert (executable.report.folded, executable.report.total) == (norms, norms), str(executable.report)
    x = np.random.default_rng(0).normal(size=(4, *inference.input_shape[1:])).astype(np.float32)
    exact = np.asarray(inference(x, training=False)).astype(np.float64)
    # The kernel is rounded to bfloat16 after it was scaled, not before.
    assert_close(executable(x).astype(np.float64), exact, 3e-2 if build is mixed else 1e-5)


def test_only_the_layers_that_are_named_are_frozen():
    model = blocks(training=True)
    demo.randomize(model)
    executable = compiler.compile(model, passes=FOLDING.replace("freeze-batch-norm", "freeze-batch-norm{layers=first}"))
    first, second = sorted(executable.report.rows, key=lambda row: row.name)
    assert (first.name, first.status) == ("first", "folded")
    assert (second.name, second.status, second.reason) == ("second", "kept", "the option layers=first leaves it out")


def test_without_the_pass_a_model_keeps_to_the_statistics_of_its_batch():
    model = blocks(training=True)
    demo.randomize(model)
    executable = compiler.compile(model)
    assert executable.report.folded == 0
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    assert_close(executable(x), np.asarray(model(x)), 1e-5)
