"""What the tf_keras layer refuses, when it is made, built or called, and what it says."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from stablenorm.ops.tf_keras import BatchNormalization
from tests.ops.tf_keras_layers import Stock, normal


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"axis": 1.0}, TypeError, "axis: got 1.0, allowed: an int, or a list or tuple of ints"),
        ({"axis": None}, TypeError, "axis: got None, allowed: an int, or a list or tuple of ints"),
        ({"axis": "last"}, TypeError, "axis: got 'last', allowed: an int, or a list or tuple of ints"),
        ({"axis": []}, TypeError, "axis: got [], allowed: an int, or a list or tuple of ints"),
        ({"axis": [1, "2"]}, TypeError, "axis: got [1, '2'], allowed: an int, or a list or tuple of ints"),
        ({"axis": True}, TypeError, "axis: got True, allowed: an int, or a list or tuple of ints"),
        ({"momentum": None}, TypeError, "momentum: got None, allowed: a Python number"),
        ({"momentum": "0.9"}, TypeError, "momentum: got '0.9', allowed: a Python number"),
        ({"momentum": True}, TypeError, "momentum: got True, allowed: a Python number"),
        ({"epsilon": [1e-3]}, TypeError, "epsilon: got [0.001], allowed: a Python number"),
        ({"epsilon": None}, TypeError, "epsilon: got None, allowed: a Python number"),
        ({"epsilon": 1j}, TypeError, "epsilon: got 1j, allowed: a Python number"),
        ({"synchronized": True, "fused": True}, ValueError, "`fused=True` is not supported when `synchronized=True`"),
        ({"renorm": True, "fused": True}, ValueError, "fused=True"),
        ({"dtype": "float64", "fused": True}, ValueError, "fused=True"),
        ({"axis": 2, "fused": True}, ValueError, "fused=True"),
        ({"renorm": True, "renorm_clipping": {"max": 1.0}}, ValueError, "renorm_clipping"),
        ({"beta_initializer": "nonsense"}, ValueError, "nonsense"),
        ({"gamma_constraint": "nonsense"}, ValueError, "nonsense"),
        ({"frobnicate": 1}, TypeError, "frobnicate"),
    ],
    ids=str,
)
def test_the_constructor_refuses(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        BatchNormalization(**arguments)


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({"axis": 7}, (None, 3), "axis: got 7 for inputs of shape (None, 3), allowed: -2 to 1"),
        ({"axis": -3}, (2, 3), "axis: got -3 for inputs of shape (2, 3), allowed: -2 to 1"),
        ({"axis": (1, 4)}, (2, 3, 3), "axis: got 4 for inputs of shape (2, 3, 3), allowed: -3 to 2"),
        ({"axis": (1, -2)}, (2, 3, 3), "axis: got (1, -2), which names a dimension of inputs of shape (2, 3, 3) twice"),
        ({}, (2, None), "axis: got -1 for inputs of shape (2, None), allowed: dimensions whose size is known"),
        ({"axis": 0}, (None, 3), "axis: got 0 for inputs of shape (None, 3), allowed: dimensions whose size is known"),
        ({}, (), "inputs: got the shape (), allowed: rank 1 or more"),
        ({}, None, "inputs: got the shape <unknown>, allowed: rank 1 or more"),
        ({"fused": True}, (2, 3), "fused: got True for axis -1 of inputs of shape (2, 3), allowed: None or False"),
        ({"fused": True, "axis": 3}, (2, 3, 3, 3, 3), "fused: got True for axis 3 of inputs of shape (2, 3, 3, 3, 3)"),
    ],
    ids=str,
)
def test_build_refuses(arguments: dict[str, Any], shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        BatchNormalization(**arguments).build(shape)


def test_no_other_types() -> None:
    with pytest.raises(TypeError, match="dtype: got complex64, allowed: float16, bfloat16, float32, float64"):
        BatchNormalization(dtype="complex64").build((2, 3))


def test_a_model_refuses_while_it_is_made() -> None:
    with pytest.raises(ValueError, match=r"axis: got 3 for inputs of shape \(None, 5, 2\), allowed: -3 to 2"):
        BatchNormalization(axis=3)(tf_keras.Input((5, 2)))
    with pytest.raises(TypeError, match=r"inputs: got int32, allowed: float16, .*; cast them first"):
        BatchNormalization()(tf_keras.Input((5, 2), dtype="int32"))


@pytest.mark.parametrize("options", [{}, {"renorm": True}, {"virtual_batch_size": 2}], ids=str)
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, bool, np.complex64])
def test_inputs_that_are_no_real_numbers(dtype: Any, options: dict[str, Any]) -> None:
    """The stock layer rounds large integers, and drops imaginary parts."""
    name = np.dtype(dtype).name
    with pytest.raises(TypeError, match=f"inputs: got {name}, allowed: float16, bfloat16, float32, float64; cast them"):
        BatchNormalization(**options)(tf.constant(np.ones((4, 3), dtype)), training=True)


def test_inputs_that_are_not_dense() -> None:
    ragged = tf.RaggedTensor.from_row_lengths(tf.ones((4, 3)), [3, 1])
    with pytest.raises(TypeError, match="inputs: got a RaggedTensor, allowed: a dense tensor"):
        BatchNormalization()(ragged)
    with pytest.raises(TypeError, match="inputs: got a SparseTensor, allowed: a dense tensor"):
        BatchNormalization()(tf.sparse.eye(3))


def test_other_sizes_than_built_for() -> None:
    layer = BatchNormalization()
    layer.build((None, 3))
    for shape in ((2, 4), (2, 3, 3)):
        with pytest.raises(ValueError, match="incompatible with the layer"):
            layer(tf.zeros(shape))


@pytest.mark.parametrize(
    ("shape", "axis", "mask", "message"),
    [
        ((4, 5, 3), -1, (4, 4), "mask: got float32 of shape (4, 4) for inputs of shape (4, 5, 3), allowed: booleans"),
        ((4, 5, 3), -1, (4,), "mask: got float32 of shape (4,) for inputs of shape (4, 5, 3)"),
        ((4, 5, 3), -1, (5, 4), "broadcast to (4, 5), the inputs without axis [2], or to the inputs"),
        ((4, 5, 3), 1, (4, 5), "broadcast to (4, 3), the inputs without axis [1], or to the inputs"),
        ((4, 5, 3), (0, 1), (4, 5), "broadcast to (3,), the inputs without axis [0, 1], or to the inputs"),
        ((4, 5, 3), -1, (4, 5, 2), "mask: got float32 of shape (4, 5, 2)"),
        ((4, 5, 3), -1, (1, 4, 5, 3), "mask: got float32 of shape (1, 4, 5, 3)"),
        ((4, 2, 2, 3), -1, (4,), "mask: got float32 of shape (4,)"),
    ],
    ids=str,
)
def test_a_mask_of_the_wrong_shape(shape: tuple[int, ...], axis: Any, mask: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        BatchNormalization(axis=axis)(tf.zeros(shape), training=True, mask=tf.ones(mask))
    layer = BatchNormalization(axis=axis)
    layer.build(shape)
    graph = tf.function(lambda x, mask: layer(x, training=True, mask=mask), autograph=False)
    with pytest.raises(ValueError, match=re.escape(message)):
        graph.get_concrete_function(tf.TensorSpec(shape), tf.TensorSpec(mask))


@pytest.mark.parametrize("mask", [tf.zeros((4, 5), tf.complex64), tf.fill((4, 5), "yes")], ids=["complex", "text"])
def test_a_mask_of_the_wrong_kind(mask: Any) -> None:
    with pytest.raises(
        ValueError, match=r"mask: got (complex64|string) of shape .*, allowed: booleans or real numbers"
    ):
        BatchNormalization()(tf.zeros((4, 5, 3)), training=True, mask=mask)


@pytest.mark.parametrize("training", ["yes", [True], {}], ids=str)
def test_training_of_the_wrong_kind(training: Any) -> None:
    with pytest.raises(TypeError, match=r"training: got .*, allowed: True, False, None or a scalar tensor"):
        BatchNormalization()(tf.zeros((4, 3)), training=training)


@pytest.mark.parametrize("name", ["momentum", "epsilon"])
def test_an_argument_that_changes_its_kind_later(name: str) -> None:
    layer = BatchNormalization()
    setattr(layer, name, tf.Variable(0.5))
    with pytest.raises(TypeError, match=f"{name}: got <tf.Variable .*, allowed: a Python number"):
        layer(tf.zeros((4, 3)), training=True)


def test_weights_of_the_wrong_shape() -> None:
    layer = BatchNormalization()
    layer.build((None, 3))
    before = layer.get_weights()
    for place, name in enumerate(("gamma", "beta", "moving_mean", "moving_variance")):
        weights = [normal(4 if n == place else 3) for n in range(4)]
        with pytest.raises(ValueError, match=rf"{name}: got the shape \(4,\), allowed: \(3,\)"):
            layer.set_weights(weights)
    with pytest.raises(ValueError, match="expecting 4 weights"):
        layer.set_weights(before[:3])
    for got, expected in zip(layer.get_weights(), before, strict=True):
        assert np.array_equal(got, expected)


def test_what_the_stock_layer_makes_of_these() -> None:
    """Why ours is not the same: it takes an integer for another number, and names an axis that nobody gave."""
    stock = Stock(momentum=0.0)
    stock(tf.constant([[2**24 + 1]]), training=True)
    assert float(stock.moving_mean[0]) != 2**24 + 1
    with pytest.raises(ValueError, match=re.escape("axis=(-1,)")):
        Stock(axis=-3).build((2, 3))
