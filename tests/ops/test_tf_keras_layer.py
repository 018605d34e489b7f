"""The tf_keras layer computes what the stock layer does where that is right, and what float64 says elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from stablenorm.ops import BatchNormGrad, BatchNormTraining
from stablenorm.ops.tf_keras import BatchNormalization
from tests.ops.tf_keras_layers import MODES, Stock, close, normal, pair, randomised, step

# Shape, and the axis that the stock layer's fused operation takes, or does not.
LAYOUTS: list[tuple[tuple[int, ...], Any]] = [
    ((7,), -1),
    ((8, 3), -1),
    ((8, 3), 0),
    ((4, 5, 3), -2),
    ((4, 5, 3), (0, 2)),
    ((4, 5, 3), [-1, 1]),
    ((2, 3, 2), (0, 1, 2)),
    ((4, 5, 5, 3), -1),
    ((4, 3, 5, 5), 1),
    ((4, 3, 5, 5), [1]),
    ((4, 3, 5, 5), 0),
    ((4, 5, 3, 5), 2),
    ((4, 3, 5, 2), (1, 3)),
    ((2, 3, 2, 3, 4), -1),
    ((2, 3, 2, 3, 4), 1),
    ((2, 3, 2, 3, 4), 3),
    ((2, 2, 3, 2, 2, 3), -1),
]


@pytest.mark.parametrize(("shape", "axis"), LAYOUTS, ids=str)
def test_equals_the_stock_layer(shape: tuple[int, ...], axis: Any) -> None:
    """Output, gradients, and steps of moving statistics: times n / (n - 1) where the stock layer is fused, not else."""
    x, upstream = normal(*shape, mean=0.5), normal(*shape)
    ours, stock = pair(shape, axis=axis, momentum=0.4, epsilon=0.02)
    for _ in range(2):
        close(step(ours, x, upstream, training=True), step(stock, x, upstream, training=True))
    close(ours.get_weights(), stock.get_weights())
    close(ours(x), stock(x))


@pytest.mark.parametrize(
    ("arguments", "factor"),
    [({}, 1.5), ({"fused": True}, 1.5), ({"fused": False}, 1.0), ({"dtype": "float64"}, 1.0)],
    ids=str,
)
@pytest.mark.parametrize("shape", [(3, 1, 1, 2), (3, 1, 1, 1, 2)], ids=str)
def test_the_moving_variance_is_unbiased_where_it_is_fused(
    shape: tuple[int, ...], arguments: dict[str, Any], factor: float
) -> None:
    """Of three elements: 3 / 2."""
    x = normal(*shape, dtype=np.float64)
    for layer in (BatchNormalization(momentum=0.0, **arguments), Stock(momentum=0.0, **arguments)):
        layer(x, training=True)
        close(layer.moving_variance, x.reshape(3, 2).var(0) * factor, 1e-6)


@pytest.mark.parametrize("rank", range(1, 7))
def test_it_is_fused_where_the_stock_layer_is(rank: int) -> None:
    """However the axis is spelled. The stock layer refuses -4 of rank 4, where it takes 0."""
    for axis in range(-rank, rank):
        if (rank, axis) == (4, -4):
            continue
        for arguments in ({}, {"fused": False}, {"dtype": "float64"}, {"dtype": "mixed_float16"}, {"renorm": True}):
            for spelled in (axis, [axis]):
                ours, stock = (layer(axis=spelled, **arguments) for layer in (BatchNormalization, Stock))
                for layer in (ours, stock):
                    layer.build((2,) * rank)
                assert ours._unbiased == ours.fused == stock.fused


def test_the_first_of_four_dimensions_is_an_axis_however_spelled() -> None:
    """The stock layer refuses -4 where it takes 0."""
    x = normal(3, 2, 2, 4)
    first, second = BatchNormalization(axis=0, momentum=0.5), BatchNormalization(axis=-4, momentum=0.5)
    close(first(x, training=True), second(x, training=True), 0.0)
    close(first.get_weights(), second.get_weights(), 0.0)
    with pytest.raises(ValueError, match="Unsupported axis"):
        Stock(axis=-4)(x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(64, 3), (16, 2, 2, 3)])
def test_is_right_at_any_mean(shape: tuple[int, ...], mode: str) -> None:
    """Float64 is the judge, at mean/deviation = 1e4, where the fused stock layer under jit_compile gives NaN."""
    x, upstream = normal(*shape, mean=1e4), normal(*shape)
    layer = randomised(BatchNormalization(momentum=0.0), shape)
    gamma, beta = layer.gamma.numpy(), layer.beta.numpy()
    axis = len(shape) - 1
    y, mean, variance = BatchNormTraining(1e-3, axis).reference(x, gamma, beta)
    gradients = BatchNormGrad(1e-3, axis).reference(x, gamma, mean, variance, upstream)
    got = MODES[mode](lambda: step(layer, x, upstream, training=True))()
    # A few roundings to float32.
    close(got, [y, *gradients], 1e-6)
    n = x.size // 3
    close(layer.get_weights()[2:], [mean, variance * (n / (n - 1) if len(shape) == 4 else 1)], 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_inference_is_right_at_any_mean(mode: str) -> None:
    x = normal(64, 2, 2, 3, mean=1e4)
    layer = randomised(BatchNormalization(), x.shape)
    layer.moving_mean.assign(layer.moving_mean + 1e4)
    gamma, beta, mean, variance = (weight.astype(np.float64) for weight in layer.get_weights())
    expected = (x.astype(np.float64) - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    close(MODES[mode](lambda: layer(x, training=False))(), expected, 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_constant_channel_has_no_variance(mode: str) -> None:
    """Not negative, not NaN: the output is beta, exactly."""
    x = np.full((16, 2, 2, 3), 1234.567, np.float32)
    layer = randomised(BatchNormalization(momentum=0.0), x.shape)
    y = MODES[mode](lambda: layer(x, training=True))()
    assert np.array_equal(y, np.broadcast_to(layer.beta, x.shape))
    assert not layer.moving_variance.numpy().any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(0, 3), (0, 4, 4, 3), (5, 0, 2, 3)], ids=str)
def test_an_empty_batch_leaves_the_moving_statistics(shape: tuple[int, ...], mode: str) -> None:
    """In the stock layer they become NaN."""
    layer = randomised(BatchNormalization(), (None, *shape[1:]))
    before = layer.get_weights()
    spec = tf.TensorSpec([None] * (len(shape) - 1) + [3])
    call = MODES[mode](lambda x: layer(x, training=True))
    for function in (call, tf.function(call, input_signature=[spec])):
        assert function(tf.zeros(shape)).shape == shape
    close(layer.get_weights(), before, 0.0)


def test_no_channels() -> None:
    assert BatchNormalization()(tf.zeros((4, 0)), training=True).shape == (4, 0)


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 1, 3)], ids=str)
def test_one_element_gives_beta(shape: tuple[int, ...]) -> None:
    layer = randomised(BatchNormalization(momentum=0.0), shape)
    y = layer(normal(*shape), training=True)
    assert np.array_equal(np.reshape(y, 3), layer.beta)
    assert not layer.moving_variance.numpy().any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_spoils_its_own_channel(value: float) -> None:
    x = normal(6, 3)
    clean = x.copy()
    x[2, 1] = value
    layer = randomised(BatchNormalization(momentum=0.5), x.shape)
    again = BatchNormalization(momentum=0.5)
    again.build(x.shape)
    again.set_weights(layer.get_weights())
    y, expected = np.asarray(layer(x, training=True)), np.asarray(again(clean, training=True))
    assert np.isnan(y[:, 1]).all()
    close(y[:, ::2], expected[:, ::2], 0.0)
    close([w[::2] for w in layer.get_weights()], [w[::2] for w in again.get_weights()], 0.0)


def test_twice_in_a_step_updates_twice() -> None:
    layer = BatchNormalization(momentum=0.5)
    for _ in range(2):
        layer(np.full((4, 1), 1.0, np.float32), training=True)
    close(layer.moving_mean, [0.75], 1e-6)


@pytest.mark.parametrize("momentum", [0, 0.0, 1, 1.0, 0.3, np.float32(0.25), 2.0, -1])
def test_momentum_is_the_weight_of_the_old_value(momentum: Any) -> None:
    x = normal(6, 3)
    layer = randomised(BatchNormalization(momentum=momentum), x.shape)
    _, _, mean, variance = layer.get_weights()
    layer(x, training=True)
    m = float(momentum)
    expected = [mean * m + x.mean(0, dtype=np.float64) * (1 - m), variance * m + x.astype(np.float64).var(0) * (1 - m)]
    close(layer.get_weights()[2:], expected, 1e-6)


def test_momentum_may_be_set_later() -> None:
    layer = BatchNormalization()
    layer(normal(4, 3), training=True)
    layer.momentum = 0.0
    x = normal(4, 3)
    layer(x, training=True)
    close(layer.moving_mean, x.mean(0), 1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 1e-12, 1, 0.5, np.float64(1e-3)])
def test_epsilon_is_inside_of_the_root(epsilon: Any) -> None:
    x = normal(6, 3)
    expected = (x - x.mean(0)) / np.sqrt(x.var(0) + float(epsilon))
    close(BatchNormalization(epsilon=epsilon)(x, training=True), expected)


@pytest.mark.parametrize(("center", "scale"), [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("shape", [(6, 3), (6, 2, 2, 3)], ids=str)
def test_without_center_or_scale(shape: tuple[int, ...], center: bool, scale: bool) -> None:
    x, upstream = normal(*shape), normal(*shape)
    ours, stock = pair(shape, center=center, scale=scale)
    assert (ours.beta is None, ours.gamma is None) == (not center, not scale)
    assert [w.name for w in ours.weights] == [w.name for w in stock.weights]
    close(step(ours, x, upstream, training=True), step(stock, x, upstream, training=True))
    close(step(ours, x, upstream), step(stock, x, upstream))


TRAINING: list[tuple[Any, bool]] = [
    (True, True),
    (False, False),
    (1, True),
    (0, False),
    (2, True),
    (1.0, True),
    (np.bool_(True), True),
    (np.int32(1), True),
    (None, False),
    (tf.constant(True), True),
    (tf.constant(False), False),
    (tf.constant(1), True),
]


@pytest.mark.parametrize(("training", "trains"), TRAINING, ids=str)
def test_training_argument(training: Any, trains: bool) -> None:
    x = normal(6, 3)
    ours, stock = pair(x.shape)
    before = ours.moving_mean.numpy()
    close(ours(x, training=training), stock(x, training=training))
    close(ours.get_weights(), stock.get_weights())
    assert np.array_equal(ours.moving_mean, before) is not trains


@pytest.mark.parametrize("dtype", [tf.bool, tf.int32])
@pytest.mark.parametrize("mode", ["function", "jit"])
@pytest.mark.parametrize("shape", [(6, 3), (6, 2, 2, 3)], ids=str)
def test_symbolic_training(shape: tuple[int, ...], mode: str, dtype: tf.DType) -> None:
    """In a graph that is traced once for both. Integers, which the stock layer refuses there, too."""
    x, upstream = normal(*shape), normal(*shape)
    ours, stock = pair(shape)
    graph = MODES[mode](lambda training: step(ours, x, upstream, training=training))
    for training in (True, False, True):
        close(graph(tf.cast(training, dtype)), step(stock, x, upstream, training=training))
        close(ours.get_weights(), stock.get_weights())
    ours.trainable = False
    frozen = MODES[mode](lambda training: ours(x, training=training))
    close(frozen(tf.constant(True)), stock(x, training=False))


def test_a_variable_says_whether_to_train() -> None:
    """The stock layer cannot hash it."""
    x, flag = normal(6, 3), tf.Variable(True)
    ours, stock = pair(x.shape)
    close(ours(x, training=flag), stock(x, training=True))
    flag.assign(False)
    close(ours(x, training=flag), stock(x, training=False))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("open_sizes", ["batch", "all"])
def test_open_sizes(open_sizes: str, jit: bool) -> None:
    """One graph for all sizes, n / (n - 1) of each."""
    ours, stock = pair((None, None, None, 3), momentum=0.5)
    sizes = [None, 4, 4, 3] if open_sizes == "batch" else [None, None, None, 3]

    @tf.function(input_signature=[tf.TensorSpec(sizes)] * 2, autograph=False, jit_compile=jit)
    def graph(x: Any, upstream: Any) -> Any:
        y, *gradients = step(ours, x, upstream, training=True)
        assert y.shape.as_list() == sizes
        return y, *gradients

    for rows, width in ((2, 4), (5, 4), (1, 4)) if open_sizes == "batch" else ((2, 4), (3, 1), (1, 5)):
        x, upstream = normal(rows, 4, width, 3), normal(rows, 4, width, 3)
        close(graph(x, upstream), step(stock, x, upstream, training=True))
        close(ours.get_weights(), stock.get_weights())


def test_the_mean_of_a_large_batch_is_right() -> None:
    """200,000 rows, the first an outlier."""
    x = normal(200_000, 2, mean=100.0)
    x[0] = 1e5
    layer = BatchNormalization(momentum=0.0)
    layer(x, training=True)
    wide = x.astype(np.float64)
    close(layer.get_weights()[2:], [wide.mean(0), wide.var(0)], 1e-6)
