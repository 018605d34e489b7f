"""Narrow and wide types, and weights at the edges of what folds."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tf_keras

from stablenorm import compiler
from stablenorm.compiler import demo
from tests.models.conftest import Check, assert_close, eager, normal

layers = tf_keras.layers
# A few units in the last place of the type that is computed in, relative to the largest output.
TYPES = {
    "mixed_bfloat16": (np.float32, ml_dtypes.bfloat16, 2e-2),
    "mixed_float16": (np.float32, np.float16, 3e-3),
    "float16": (np.float16, np.float16, 3e-3),
    "float64": (np.float64, np.float64, 1e-14),
}


def build(shape: tuple[int, ...], *stack: Any) -> Any:
    x = tf_keras.Input(shape)
    value = x
    for layer in stack:
        value = layer(value)
    return tf_keras.Model(x, value)


@pytest.mark.parametrize("name", TYPES)
def test_other_types_than_float32(name: str, check: Check) -> None:
    given, computed, tolerance = TYPES[name]
    tf_keras.backend.set_floatx(np.dtype(given).name)
    tf_keras.mixed_precision.set_global_policy(name)
    norm = layers.BatchNormalization
    convolutions = build(
        (6, 6, 3), layers.Conv2D(4, 3), norm(), norm(), layers.ReLU(), layers.DepthwiseConv2D(3, use_bias=False), norm()
    )
    executable = check(convolutions, normal(2, 6, 6, 3, dtype=given), folds=(3, 3), tolerance=tolerance)
    assert executable.signature.outputs[0].dtype == np.dtype(computed).name
    check(build((5,), layers.Dense(4), norm()), normal(2, 5, dtype=given), folds=(1, 1), tolerance=tolerance)
    check(build((3, 5), layers.Dense(4), norm()), normal(2, 3, 5, dtype=given), folds=(1, 1), tolerance=tolerance)
    check(build((5,), norm()), normal(2, 5, dtype=given), folds=(0, 1), tolerance=tolerance)


def compiled(model: Any, **values: Any) -> compiler.Executable:
    """The model with random weights, but for those named: all weights whose name ends so get the value."""
    demo.randomize(model)
    for weight in model.weights:
        name = weight.name.rsplit("/", 1)[-1].removesuffix(":0")
        if name in values:
            weight.assign(np.broadcast_to(values[name], weight.shape))
    return compiler.compile(model)


@pytest.mark.parametrize(
    ("epsilon", "values"),
    [
        (1e-3, {"gamma": [0.0, 1.0, -1.0, 0.0, -2.0]}),
        (1e-3, {"moving_variance": 0.0}),
        (1e-3, {"moving_variance": 1e-30}),
        (1e-7, {"moving_variance": 1e-8}),
        (1e-3, {"moving_variance": 1e30}),
        (1e-3, {"moving_variance": np.inf}),
    ],
    ids=str,
)
@pytest.mark.parametrize("linear", [lambda: layers.Conv2D(5, 3), lambda: layers.Dense(5)], ids=["Conv2D", "Dense"])
def test_weights_at_the_edge_fold(linear: Any, epsilon: float, values: dict[str, Any]) -> None:
    model = build((6, 6, 3), linear(), layers.BatchNormalization(epsilon=epsilon))
    executable = compiled(model, **values)
    assert_close(executable(normal(2, 6, 6, 3)), eager(model, normal(2, 6, 6, 3)))
    assert executable.report.folded == 1


@pytest.mark.parametrize(
    "values",
    [
        {"moving_variance": -1.0},
        {"moving_variance": np.nan},
        {"moving_mean": np.inf},
        {"gamma": 3e38, "moving_variance": 1e-6},
        {"kernel": np.nan},
        {"bias": np.inf},
    ],
    ids=str,
)
def test_what_would_not_be_finite_is_kept_and_says_so(values: dict[str, Any]) -> None:
    model = build((6, 6, 3), layers.Conv2D(5, 3), layers.BatchNormalization())
    executable = compiled(model, **values)
    (row,) = (row for row in executable.report.rows if row.kind == "batch norm")
    assert row.status == "kept"
    assert "would not be finite" in row.reason
    ours, theirs = executable(normal(1, 6, 6, 3)), eager(model, normal(1, 6, 6, 3))
    np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs))


@pytest.mark.parametrize("ratio", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("shape", [(4,), (5, 4), (5, 5, 4)], ids=str)
def test_a_kept_batch_norm_does_not_cancel(shape: tuple[int, ...], ratio: float) -> None:
    """Against float64, as tf_keras itself cancels at ranks 2 and 3: ``x * s + (offset - mean * s)``."""
    model = build(shape, layers.BatchNormalization())
    executable = compiled(model, moving_mean=ratio, moving_variance=1.0)
    x = normal(2, *shape) + np.float32(ratio)
    gamma, beta, mean, variance = (weight.numpy().astype(np.float64) for weight in model.weights)
    exact = (x.astype(np.float64) - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    # x - mean is exact here; a few roundings of float32 are left.
    np.testing.assert_allclose(executable(x), exact, rtol=0, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize("ratio", [1e2, 1e4])
def test_a_bias_near_the_mean_does_not_cancel(ratio: float) -> None:
    """Against float64: tf_keras adds the bias before it subtracts the mean, and loses what ``ratio`` hides."""
    model = build((8,), layers.Dense(4), layers.BatchNormalization())
    executable = compiled(
        model, bias=[ratio, ratio + 1.5, -ratio, ratio], moving_mean=[ratio, ratio, -ratio, ratio + 2]
    )
    x = normal(4, 8)
    kernel, bias, gamma, beta, mean, variance = (w.numpy().astype(np.float64) for w in model.weights)
    exact = (x.astype(np.float64) @ kernel + bias - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    # A dot product of eight terms and three more roundings of float32.
    np.testing.assert_allclose(executable(x), exact, rtol=0, atol=1e-6 * np.abs(exact).max())
