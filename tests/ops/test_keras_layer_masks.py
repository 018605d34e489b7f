"""The Keras 3 layer under masks, with nothing to count, and in inference."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import keras
import numpy as np
import pytest

from stablenorm.ops.keras import BatchNormalization

# Keras reads its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

Stock = keras.layers.BatchNormalization
GENERATOR = np.random.default_rng(0)


def normal(*shape: int, mean: float = 0.0) -> Any:
    return (GENERATOR.normal(size=shape) + mean).astype(np.float32)


def pair(shape: Any, **arguments: Any) -> tuple[Any, Any]:
    """Ours and the stock layer, with the same random weights."""
    ours, stock = BatchNormalization(**arguments), Stock(**arguments)
    ours.build(shape)
    stock.build(shape)
    ours.set_weights([GENERATOR.uniform(0.5, 2.0, weight.shape) for weight in ours.weights])
    stock.set_weights(ours.get_weights())
    return ours, stock


def expected(layer: Any, x: Any, mask: Any, axis: int = -1) -> tuple[Any, Any, Any]:
    """Output, mean and variance in float64, statistics where the mask is True; the mask has x's shape."""
    x = np.moveaxis(x.astype(np.float64), axis, -1)
    columns = [column[counts] for column, counts in zip(x.T, np.moveaxis(mask, axis, -1).T, strict=True)]
    mean, variance = (np.array([function(column) for column in columns]) for function in (np.mean, np.var))
    gamma, beta = (np.asarray(weight.value, np.float64) for weight in (layer.gamma, layer.beta))
    y = (x - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta
    return np.moveaxis(y, -1, axis), mean, variance


def moving(layer: Any) -> list[Any]:
    return [np.asarray(layer.moving_mean.value), np.asarray(layer.moving_variance.value)]


def close(got: Any, expected: Any, tolerance: float = 1e-6) -> None:
    """Relative to the largest value: a few roundings to float32."""
    expected = np.asarray(expected, np.float64)
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    ("shape", "axis", "mask"),
    [
        ((6, 5, 3), -1, (6, 5)),
        ((6, 5, 3), -1, (6, 1)),
        ((6, 5, 3), -1, (6, 5, 3)),
        ((6, 5, 3), -1, (1, 5, 1)),
        ((6, 3, 5), 1, (6, 5)),
        ((6, 3, 4, 5), 1, (6, 4, 5)),
        ((8, 3), 0, (3,)),
        ((8, 3), -1, (8,)),
        ((8, 4, 1), -1, (8, 4)),
    ],
)
def test_a_mask_says_what_counts(shape: Any, axis: int, mask: Any) -> None:
    """Of the shape of x without its feature axis, or of x's rank; one channel is as good as three."""
    x, kept = normal(*shape, mean=3.0), GENERATOR.uniform(size=mask) > 0.3
    full = np.broadcast_to(kept if kept.ndim == x.ndim else np.expand_dims(kept, axis), shape)
    layer, _ = pair(shape, axis=axis, momentum=0.0)
    y, mean, variance = expected(layer, x, full, axis)
    close(layer(x, training=True, mask=jnp.asarray(kept)), y)
    close(moving(layer), [mean, variance])


def test_one_element_is_its_own_mean() -> None:
    """The stock layer divides it by 1 + 1e-7."""
    x, mask = normal(5, 3, mean=1e6), jnp.arange(5) == 2
    layer, stock = pair(x.shape, momentum=0.0)
    y = layer(x, training=True, mask=mask)
    assert np.array_equal(y[2], layer.beta.value)
    assert np.array_equal(moving(layer), [x[2], np.zeros(3)])
    stock(x, training=True, mask=mask)
    assert (moving(stock)[1] > 0).all()


@pytest.mark.parametrize("dtype", [bool, np.int32, np.float32])
def test_what_is_not_zero_counts_once(dtype: Any) -> None:
    x, mask = normal(6, 5, 3), (3 * (GENERATOR.uniform(size=(6, 5)) > 0.3)).astype(dtype)
    ours, stock = pair(x.shape)
    close(ours(x, training=True, mask=jnp.asarray(mask)), stock(x, training=True, mask=jnp.asarray(mask)))
    close(moving(ours), moving(stock))


def test_a_mask_comes_from_the_layers_before() -> None:
    x = normal(6, 5, 3, mean=1.0)
    x[:, 3:] = 0
    layer, _ = pair(x.shape, momentum=0.0)
    model = keras.Sequential([keras.layers.Masking(0.0), layer])
    y, mean, variance = expected(layer, x, np.broadcast_to(np.arange(5)[:, None] < 3, x.shape))
    close(model(x, training=True), y)
    close(moving(layer), [mean, variance])


def test_masked_values_are_not_read() -> None:
    x = normal(6, 3)
    x[1], x[2] = np.nan, np.inf
    mask = np.arange(6) > 2
    layer, _ = pair(x.shape, momentum=0.0)
    y = layer(x, training=True, mask=jnp.asarray(mask))
    assert np.isfinite(np.asarray(y)[mask]).all()
    close(moving(layer)[0], x[mask].mean(0, dtype=np.float64))


@pytest.mark.parametrize("rows", [0, 4])
def test_nothing_to_count_leaves_the_moving_statistics(rows: int) -> None:
    """Of an empty batch the stock layer makes NaN, of a masked one zeros."""
    x, mask = normal(rows, 3), jnp.zeros(rows, bool) if rows else None
    ours, stock = pair((None, 3))
    before = moving(ours)
    assert ours(x, training=True, mask=mask).shape == x.shape
    stock(x, training=True, mask=mask)
    assert np.array_equal(moving(ours), before)
    assert not np.array_equal(moving(stock), before)


def test_a_mask_means_nothing_in_inference() -> None:
    x = normal(6, 3)
    layer, _ = pair(x.shape)
    assert np.array_equal(layer(x, mask=jnp.arange(6) > 2), layer(x))


def test_frozen_layers_infer() -> None:
    """``trainable=False``, of the layer or of a model around it, and back."""
    x = normal(6, 3)
    layer, stock = pair(x.shape)
    inferred, before = layer(x, training=False), moving(layer)
    for frozen in (layer, keras.Sequential([layer])):
        frozen.trainable = False
        assert layer.trainable_weights == []
        assert len(layer.non_trainable_weights) == 4
        assert np.array_equal(frozen(x, training=True), inferred)
        assert np.array_equal(moving(layer), before)
        frozen.trainable = True
    close(layer(x, training=True), stock(x, training=True), 1e-5)
    close(moving(layer), moving(stock))
