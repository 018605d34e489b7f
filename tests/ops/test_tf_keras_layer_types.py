"""Policies and types of the tf_keras layer."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from stablenorm.ops import BatchNormTraining
from stablenorm.ops.tf_keras import BatchNormalization
from tests.ops.tf_keras_layers import MODES, close, normal, pair, randomised, step

HALF = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "mixed_float16": np.float16,
    "mixed_bfloat16": ml_dtypes.bfloat16,
}


@pytest.mark.parametrize("shape", [(96, 3), (24, 2, 2, 3)], ids=str)
@pytest.mark.parametrize("policy", HALF)
def test_half_types(policy: str, shape: tuple[int, ...]) -> None:
    """At mean/deviation = 100: y is rounded once; statistics, weights and their gradients are float32, as in stock."""
    x, upstream = normal(*shape, mean=100.0).astype(HALF[policy]), normal(*shape)
    ours, stock = pair(shape, dtype=policy, momentum=0.0)
    axis = len(shape) - 1
    y, mean, variance = BatchNormTraining(1e-3, axis).reference(
        x.astype(np.float64), ours.gamma.numpy(), ours.beta.numpy()
    )
    got, expected = step(ours, x, upstream, training=True), step(stock, x, upstream, training=True)
    assert [value.dtype for value in got] == [value.dtype for value in expected]
    assert got[0].dtype == HALF[policy]
    assert [w.dtype for w in ours.weights] == [w.dtype for w in stock.weights] == [tf.float32] * 4
    # Half a unit in the last place.
    unit = float(ml_dtypes.finfo(HALF[policy]).eps) / 2
    close(got[0], y, unit)
    bessel = 96 / 95 if len(shape) == 4 else 1.0
    close(ours.get_weights()[2:], [mean, variance * bessel], 1e-6)
    # The stock layer sums in float32: gradients by x are a unit apart, of gamma's cancelling sum 1e-3.
    close(got[1], expected[1], 8 * unit)
    close(got[2:], expected[2:], 2e-3)
    close(ours(x), stock(x), 4 * unit)


@pytest.mark.parametrize("mode", MODES)
def test_float16_does_not_overflow(mode: str) -> None:
    """Squares near float16's largest number, 65504."""
    x = np.float16([[-6e4, 6e4], [6e4, -6e4]])
    layer = BatchNormalization(dtype="mixed_float16", momentum=0.0, epsilon=0.0)
    y = MODES[mode](lambda: layer(x, training=True))()
    close(y, np.sign(x.astype(np.float64)), 0.0)
    close(layer.moving_variance, np.full(2, 3.6e9), 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_float64(mode: str) -> None:
    """Not through float32, on JAX's own setting, which has none: at mean/deviation = 1e8."""
    x, upstream = normal(64, 3, mean=1e8, dtype=np.float64), normal(64, 3, dtype=np.float64)
    layer = randomised(BatchNormalization(dtype="float64", momentum=0.0), x.shape)
    y, mean, variance = BatchNormTraining(1e-3, 1).reference(x, layer.gamma.numpy(), layer.beta.numpy())
    got = MODES[mode](lambda: step(layer, x, upstream, training=True))()
    assert {value.dtype for value in [*got, *layer.weights]} == {tf.float64}
    # The oracle's own mean is rounded to 1e8 * 1e-16.
    close([got[0], *layer.get_weights()[2:]], [y, mean, variance], 1e-7)


@pytest.mark.parametrize(
    ("given", "policy"), [(np.float64, "float32"), (np.float16, "float32"), (np.float32, "float64")]
)
def test_inputs_are_cast_as_in_the_stock_layer(given: Any, policy: str) -> None:
    x = normal(8, 3).astype(given)
    ours, stock = pair(x.shape, dtype=policy)
    got, expected = (
        step(ours, x, np.ones(x.shape, policy), training=True),
        step(stock, x, np.ones(x.shape, policy), training=True),
    )
    assert [value.dtype for value in got] == [value.dtype for value in expected]
    close(got[0], expected[0])


def test_autocast_can_be_off() -> None:
    x = tf.constant(normal(8, 3).astype(np.float16))
    ours, stock = pair(x.shape, autocast=False)
    got, expected = ours(x, training=True), stock(x, training=True)
    assert got.dtype == expected.dtype == tf.float32
    close(got, expected)


def test_a_global_policy() -> None:
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = BatchNormalization()
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    assert layer(normal(4, 3)).dtype == tf.bfloat16
    assert layer.gamma.dtype == tf.float32
    policy = tf_keras.mixed_precision.Policy("mixed_float16")
    assert BatchNormalization(dtype=policy)(normal(4, 3)).dtype == tf.float16


def test_float32_near_its_limits() -> None:
    """The variance of 1e15 is 1e30; denormal distances have the variance 0, and no NaN."""
    for size in (1e15, 1e-42):
        x = np.float32([[-size], [size], [size], [-size]])
        layer = BatchNormalization(momentum=0.0)
        y = layer(x, training=True)
        _, mean, variance = BatchNormTraining(1e-3, 1).reference(x, np.ones(1), np.zeros(1))
        assert np.isfinite(y).all()
        np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-6, atol=1e-45)
        np.testing.assert_allclose(layer.moving_mean, mean, atol=1e-6 * size)
