"""What the tests of the tf_keras layer share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from stablenorm.ops.tf_keras import BatchNormalization

Stock = tf_keras.layers.BatchNormalization
GENERATOR = np.random.default_rng(0)

MODES: dict[str, Callable[..., Any]] = {
    "eager": lambda function: function,
    "function": lambda function: tf.function(function, autograph=False),
    "jit": lambda function: tf.function(function, autograph=False, jit_compile=True),
}


def normal(*shape: int, mean: float = 0.0, dtype: Any = np.float32) -> Any:
    return (GENERATOR.normal(size=shape) + mean).astype(dtype)


def randomised(layer: Any, shape: Any, generator: np.random.Generator = GENERATOR) -> Any:
    """Built for inputs of this shape, every weight random, variances positive."""
    layer.build(shape)
    for weight in layer.weights:
        low = 0.5 if weight.name.endswith(("variance:0", "stddev:0", "gamma:0")) else -1.0
        weight.assign(generator.uniform(low, 2.0, weight.shape).astype(weight.dtype.as_numpy_dtype))
    return layer


def pair(shape: Any, **arguments: Any) -> tuple[Any, Any]:
    """Ours and the stock layer, with the same random weights."""
    ours, stock = randomised(BatchNormalization(**arguments), shape), Stock(**arguments)
    stock.build(shape)
    stock.set_weights(ours.get_weights())
    return ours, stock


def step(layer: Any, x: Any, upstream: Any, **arguments: Any) -> list[Any]:
    """y, and the gradients of ``sum(y * upstream)`` by x and by the trainable weights."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, **arguments)
        loss = tf.reduce_sum(tf.cast(y, tf.float32 if y.dtype.size < 8 else y.dtype) * upstream)
    return [y, *tape.gradient(loss, [x, *layer.trainable_variables])]


def close(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Relative to the largest value of each array: float32 sums of a hundred terms in two orders, as a rule."""
    got, expected = tf.nest.flatten(got), tf.nest.flatten(expected)
    for a, b in zip(got, expected, strict=True):
        a, b = (np.asarray(value).astype(np.float64) for value in (a, b))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(initial=0.0))
