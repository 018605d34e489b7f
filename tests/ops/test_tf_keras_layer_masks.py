"""Masks of the tf_keras layer weigh the statistics, on every rank and axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from stablenorm.ops import BatchNormGrad, BatchNormTraining
from stablenorm.ops.tf_keras import BatchNormalization
from tests.ops.tf_keras_layers import GENERATOR, MODES, Stock, close, normal, pair, randomised, step


def booleans(*shape: int) -> Any:
    mask = GENERATOR.uniform(size=shape) > 0.4
    mask.flat[:2] = True, False
    return mask


def fractions(*shape: int) -> Any:
    return (GENERATOR.uniform(size=shape) * booleans(*shape)).astype(np.float32)


# Shape, axis, mask, and where the mask's dimensions stand in the shape.
MASKS: list[tuple[tuple[int, ...], Any, Any, Any]] = [
    ((8, 3), -1, booleans(8), np.s_[:, None]),
    ((6, 5, 3), -1, booleans(6, 5), np.s_[:, :, None]),
    ((6, 5, 3), -1, fractions(6, 5), np.s_[:, :, None]),
    ((6, 3, 5), 1, fractions(6, 5), np.s_[:, None, :]),
    ((4, 3, 3), 1, fractions(4, 3), np.s_[:, None, :]),
    ((4, 3, 2, 3), -1, fractions(4, 3, 2), np.s_[..., None]),
    ((4, 3, 2, 2), 1, booleans(4, 2, 2), np.s_[:, None]),
    ((4, 2, 2, 2, 3), -1, fractions(4, 2, 2, 2), np.s_[..., None]),
    ((6, 5, 3), -1, fractions(6, 1), np.s_[:, :, None]),
    ((6, 5, 3), -1, fractions(6, 5, 3), np.s_[...]),
    ((6, 5, 3), -1, fractions(1, 5, 1), np.s_[...]),
    ((6, 5, 3), (1, 2), fractions(6), np.s_[:, None, None]),
    ((6, 5, 3), (1, 2), fractions(6, 5), np.s_[:, :, None]),
    ((6, 5, 3), (0, 2), fractions(5), np.s_[None, :, None]),
]


@pytest.mark.parametrize(
    ("shape", "axis", "mask", "place"), MASKS, ids=lambda value: str(getattr(value, "shape", value))
)
def test_a_mask_weighs_the_statistics(shape: tuple[int, ...], axis: Any, mask: Any, place: Any) -> None:
    """Float64 is the judge: what has the weight 0 counts nothing; it is normalized all the same."""
    axes = tuple(sorted(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,))))
    x, upstream = normal(*shape, mean=3.0), normal(*shape)
    weight = np.broadcast_to(mask.astype(np.float64)[place], shape)
    layer = randomised(BatchNormalization(axis=axis, momentum=0.0, fused=False if len(shape) > 3 else None), shape)
    features = [shape[a] for a in axes]
    gamma, beta, old_mean, old_variance = (w.reshape(features) for w in layer.get_weights())
    y, mean, variance = BatchNormTraining(1e-3, axes).reference(x, gamma, beta, weight)
    gradients = BatchNormGrad(1e-3, axes).reference(x, gamma, mean, variance, upstream, weight)
    got = step(layer, x, upstream, training=True, mask=mask)
    reduced = [np.reshape(value, np.shape(e)) for value, e in zip(got, [y, *gradients], strict=True)]
    close(reduced, [y, *gradients])
    counted = weight.sum(tuple(a for a in range(len(shape)) if a not in axes)) > 0
    close(np.reshape(layer.moving_mean, features), np.where(counted, mean, old_mean))
    close(np.reshape(layer.moving_variance, features), np.where(counted, variance, old_variance))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["bool", "float32", "int32"])
def test_equals_the_stock_layer_where_that_honours_masks(kind: str, mode: str) -> None:
    x, upstream = normal(6, 5, 3, mean=1.0), normal(6, 5, 3)
    mask = tf.constant((fractions if kind == "float32" else booleans)(6, 5).astype(kind))
    ours, stock = pair(x.shape, momentum=0.5)
    got = MODES[mode](lambda: step(ours, x, upstream, training=True, mask=mask))()
    close(got, step(stock, x, upstream, training=True, mask=mask))
    close(ours.get_weights(), stock.get_weights())


def test_images_are_masked_too() -> None:
    """The stock layer, fused there, warns and ignores the mask."""
    x, mask = normal(2, 3, 1, 1, mean=2.0), np.float32([[[1], [0], [1]], [[0], [0], [1]]])
    ours, stock = pair(x.shape, momentum=0.0)
    ours(x, training=True, mask=mask)
    with pytest.warns(UserWarning, match="ignored"):
        stock(x, training=True, mask=mask)
    counted = x[mask > 0].astype(np.float64)
    close(ours.get_weights()[2:], [counted.mean(0)[0], counted.var(0, ddof=1)[0]])
    close(stock.get_weights()[2:], [x.mean((0, 1, 2)), x.reshape(6).var(ddof=1)])


def test_fractions_count_as_much_as_they_say() -> None:
    """Half of everything is the same batch. The stock layer under synchronized=True squares the weights."""
    x = normal(5, 4, 2)
    whole, half, stock = (
        layer(momentum=0.0, **arguments)
        for layer, arguments in (
            (BatchNormalization, {}),
            (BatchNormalization, {"synchronized": True}),
            (Stock, {"synchronized": True}),
        )
    )
    close(half(x, training=True, mask=np.full((5, 4), 0.5)), whole(x, training=True))
    close(half.get_weights(), whole.get_weights())
    stock(x, training=True, mask=np.full((5, 4), 0.5))
    assert np.abs(stock.moving_variance - whole.moving_variance).max() > 0.1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 2, 3)], ids=str)
def test_a_wholly_masked_batch_leaves_the_moving_statistics(shape: tuple[int, ...], mode: str) -> None:
    """In the stock layer they decay towards 0."""
    x, mask = normal(*shape), tf.zeros(shape[:-1], tf.bool)
    layer = randomised(BatchNormalization(), shape)
    before = layer.get_weights()
    y, dx, *_ = MODES[mode](lambda: step(layer, x, np.ones(shape, np.float32), training=True, mask=mask))()
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    close(layer.get_weights(), before, 0.0)


def test_what_is_masked_is_not_read() -> None:
    x = normal(6, 3)
    mask = np.arange(6) != 2
    layer = BatchNormalization(momentum=0.0)
    expected = x[mask].astype(np.float64)
    x[2] = np.nan
    layer(x, training=True, mask=mask)
    close(layer.get_weights()[2:], [expected.mean(0), expected.var(0)], 1e-6)


def test_inference_takes_no_notice() -> None:
    x = normal(6, 5, 3)
    layer = randomised(BatchNormalization(), x.shape)
    close(layer(x, mask=booleans(6, 5)), layer(x), 0.0)


def test_keras_hands_its_masks_on() -> None:
    """Masking makes one, the layer takes it and passes it on."""
    x = normal(4, 5, 3)
    x[1, 2:] = x[3, 4:] = 0.0
    inputs = tf_keras.Input((5, 3))
    layer, after = BatchNormalization(momentum=0.0), tf_keras.layers.LSTM(2)
    hidden = layer(tf_keras.layers.Masking()(inputs))
    model = tf_keras.Model(inputs, after(hidden))
    model(x, training=True)
    counted = x[np.abs(x).max(-1) > 0].astype(np.float64)
    close(layer.get_weights()[2:], [counted.mean(0), counted.var(0)])
    assert np.array_equal(np.asarray(hidden._keras_mask.shape), [None, 5])


@pytest.mark.parametrize("jit", [False, True])
def test_open_sizes(jit: bool) -> None:
    ours, stock = pair((None, None, 3), momentum=0.5)

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, 3]), tf.TensorSpec([None, None], tf.bool)],
        autograph=False,
        jit_compile=jit,
    )
    def graph(x: Any, mask: Any) -> Any:
        return step(ours, x, tf.ones_like(x), training=True, mask=mask)

    for rows, steps in ((3, 4), (5, 2)):
        x, mask = normal(rows, steps, 3), booleans(rows, steps)
        close(graph(x, mask)[0], stock(x, training=True, mask=mask))
        close(ours.get_weights(), stock.get_weights())
    with pytest.raises(tf.errors.InvalidArgumentError):
        graph(normal(3, 4, 3), booleans(3, 5))


def test_half_types_do_not_round_the_weights() -> None:
    """The stock layer casts them to float16: 0.0003 is off by 1e-4 there."""
    x, mask = normal(64, 3).astype(np.float16), GENERATOR.uniform(0.0003, 0.0009, 64).astype(np.float32)
    layer = BatchNormalization(momentum=0.0, dtype="mixed_float16")
    layer(x, training=True, mask=mask)
    _, mean, variance = BatchNormTraining(1e-3, 1).reference(
        x, np.ones(3), np.zeros(3), np.broadcast_to(mask[:, None], x.shape)
    )
    close(layer.get_weights()[2:], [mean, variance], 1e-6)


def test_a_mask_has_no_derivative() -> None:
    x, mask = tf.constant(normal(6, 3)), tf.constant(fractions(6))
    layer = BatchNormalization()
    with tf.GradientTape() as tape:
        tape.watch(mask)
        loss = tf.reduce_sum(layer(x, training=True, mask=mask) ** 3)
    assert not np.asarray(tape.gradient(loss, mask, unconnected_gradients="zero")).any()
