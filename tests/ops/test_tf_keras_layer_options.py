"""Options of the tf_keras layer that the stock layer computes, ``synchronized``, and models through the compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from stablenorm import compiler
from stablenorm.ops.tf_keras import BatchNormalization, use_in
from tests.ops.tf_keras_layers import GENERATOR, MODES, Stock, close, normal, pair, step

layers = tf_keras.layers


@pytest.mark.parametrize(
    "options",
    [
        {"renorm": True},
        {"renorm": True, "renorm_clipping": {"rmax": 1.1, "rmin": 0.9, "dmax": 0.1}, "renorm_momentum": 0.3},
        {"virtual_batch_size": 2},
        {"adjustment": lambda shape: (tf.fill(shape[-1:], 1.3), tf.fill(shape[-1:], 0.2))},
    ],
    ids=["renorm", "renorm_clipping", "virtual_batch_size", "adjustment"],
)
@pytest.mark.parametrize(("shape", "mode"), [((6, 3), "eager"), ((6, 2, 2, 3), "jit")], ids=str)
def test_rare_options_are_the_stock_layers(options: dict[str, Any], shape: tuple[int, ...], mode: str) -> None:
    """To the bit."""
    ours, stock = pair(shape, momentum=0.6, **options)
    assert [w.name.rpartition("/")[2] for w in ours.weights] == [w.name.rpartition("/")[2] for w in stock.weights]
    x, upstream = normal(*shape), normal(*shape)
    for _ in range(2):
        for training in (True, False):
            got, expected = (
                MODES[mode](lambda layer=layer, training=training: step(layer, x, upstream, training=training))()
                for layer in (ours, stock)
            )
            close(got, expected, 0.0)
    close(ours.get_weights(), stock.get_weights(), 0.0)


def test_virtual_batches_of_any_size_in_inference() -> None:
    ours, stock = pair((None, 3), virtual_batch_size=2)
    x = normal(5, 3)
    close(ours(x), stock(x), 0.0)
    with pytest.raises(tf.errors.InvalidArgumentError):
        ours(x, training=True)
    with pytest.raises(ValueError, match="virtual_batch_size"):
        BatchNormalization(virtual_batch_size=0).build((4, 3))


@pytest.mark.parametrize(
    "options", [{}, {"renorm": True}, {"adjustment": lambda shape: (1.0, 0.0)}], ids=["", "renorm", "adjustment"]
)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(6, 3), (6, 2, 2, 3)], ids=str)
def test_synchronized_changes_nothing_without_a_strategy(
    shape: tuple[int, ...], mode: str, options: dict[str, Any]
) -> None:
    """As documented. At mean/deviation = 1e4 it spoils the stock layer's variance, and takes n / (n - 1) from it."""
    x, upstream = normal(*shape, mean=1e4), normal(*shape)
    results = []
    for synchronized in (True, False):
        layer = BatchNormalization(momentum=0.5, synchronized=synchronized, **options)
        layer.build(shape)
        layer.moving_mean.assign(tf.fill([3], 9e3))
        call = MODES[mode](lambda layer=layer: step(layer, x, upstream, training=True))
        results.append([call(), layer.get_weights()])
    close(results[0], results[1], 0.0)
    stock = [Stock(momentum=0.0, synchronized=synchronized) for synchronized in (True, False)]
    for layer in stock:
        layer(x, training=True)
    assert np.abs(stock[0].moving_variance - stock[1].moving_variance).max() > 0.1


def network(layer: type) -> Any:
    """Batch norms of every kind of place; every weight random."""
    inputs = tf_keras.Input((8, 8, 3))
    hidden = layers.ReLU()(layer(name="after_convolution")(layers.Conv2D(4, 3)(inputs)))
    hidden = layers.ReLU()(layer(scale=False, name="after_depthwise")(layers.DepthwiseConv2D(3)(hidden)))
    hidden = layer(axis=1, name="after_relu")(layers.Permute((3, 1, 2))(hidden))
    hidden = layers.ReLU()(layer(center=False, name="after_dense")(layers.Dense(5)(layers.Flatten()(hidden))))
    hidden = layer(name="rank_3")(layers.Conv1D(3, 2)(layers.Reshape((5, 1))(hidden)))
    return randomised(tf_keras.Model(inputs, hidden))


def randomised(model: Any) -> Any:
    for weight in model.weights:
        low = 0.5 if "variance" in weight.name else -0.7
        weight.assign(GENERATOR.uniform(low, 0.9, weight.shape).astype(weight.dtype.as_numpy_dtype))
    return model


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_compiler_folds_it_as_it_folds_the_stock_layer(policy: str) -> None:
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        ours, stock = network(BatchNormalization), network(Stock)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    stock.set_weights(ours.get_weights())
    x = normal(1, 8, 8, 3)
    compiled = [compiler.compile(model) for model in (ours, stock)]
    rows = [[(row.name, row.status) for row in executable.report.rows] for executable in compiled]
    assert rows[0] == rows[1]
    assert compiled[0].report.folded >= 4  # all that follow a linear layer
    # Rounding, of bfloat16 at each of five layers.
    tolerance = 1e-5 if policy == "float32" else 0.05
    close(compiled[0](x), ours(x), tolerance)
    close(compiled[0](x), stock(x), tolerance)


def test_the_compiler_reads_our_files(tmp_path: Path) -> None:
    model, x = network(BatchNormalization), normal(1, 8, 8, 3)
    for name in ("model.keras", "saved_model"):
        model.save(tmp_path / name)
        executable = compiler.compile(tmp_path / name)
        assert executable.report.folded >= 4
        close(tf.nest.flatten(executable(x)), [model(x)])


def test_a_whole_network_made_ours_is_folded() -> None:
    model = use_in(randomised(tf_keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=4)))
    assert sum(type(layer) is BatchNormalization for layer in model.layers) == 52
    executable, x = compiler.compile(model), normal(1, 32, 32, 3)
    assert executable.report.folded == 52
    close(executable(x), model(x, training=False))
