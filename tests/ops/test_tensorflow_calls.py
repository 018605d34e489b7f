"""JAX functions in TensorFlow's graphs: what is exported, how often, and what is kept for reverse mode."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from stablenorm.ops import tensorflow_calls
from stablenorm.ops.tensorflow_calls import Type, call
from stablenorm.ops.tf_keras import BatchNormalization
from tests.ops.tf_keras_layers import MODES, close, normal, step


@dataclasses.dataclass(frozen=True)
class Product:
    """``sin(x) * y`` and ``sum(y)``."""

    def __call__(self, x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
        return jnp.sin(x) * y, y.sum()


def test_results_and_their_types() -> None:
    x, y = normal(3, 2), normal(3, 2)
    types = [Type(("n", 2), "float32")] * 2
    for mode in MODES.values():
        product, total = mode(lambda: call(Product(), [tf.constant(x), tf.constant(y)], types))()
        close([product, total], [np.sin(x) * y, y.sum()], 1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("keep", [None, lambda primitive, *_, **__: primitive.name == "cos"], ids=["nothing", "cosine"])
def test_kept_or_not_the_derivatives_are_the_same(keep: Any, mode: str) -> None:
    x, y = (tf.constant(normal(3, 2, dtype=np.float64)) for _ in range(2))
    types = [Type((3, 2), "float64")] * 2

    def value(x: Any) -> Any:
        product, total = call(Product(), [x, y], types, keep=keep)
        return tf.reduce_sum(product**2) * total

    def second(x: Any) -> Any:
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                result = value(x)
            first = inner.gradient(result, x)
        return first, outer.gradient(first, x)

    factor = y**2 * tf.reduce_sum(y)
    close(MODES[mode](second)(x), [tf.sin(2 * x) * factor, 2 * tf.cos(2 * x) * factor], 1e-12)


def test_reverse_mode_keeps_x_and_vectors_only() -> None:
    """What a step keeps between forward and backward: x, and the statistics of each feature. No mask of x's size."""
    layer = BatchNormalization()
    layer.build((None, 5, 3))

    @tf.function(autograph=False)
    def forward(x: Any, mask: Any) -> Any:
        return layer(x, training=True, mask=mask)

    operations = {
        operation.type: operation
        for operation in forward.get_concrete_function(
            tf.TensorSpec((8, 5, 3)), tf.TensorSpec((8, 5), tf.bool)
        ).graph.get_operations()
    }
    shapes = [output.shape.as_list() for output in operations["XlaCallModule"].outputs]
    assert shapes[:3] == [[8, 5, 3], [3], [3]]
    assert 3 < len(shapes) < 10
    assert all(shape in ([3], []) for shape in shapes[3:])


def test_a_module_is_exported_once() -> None:
    """An eager step of a size that was there before exports nothing."""
    first, second = BatchNormalization(momentum=0.123), BatchNormalization(momentum=0.123)
    x, upstream = normal(4, 3), normal(4, 3)
    step(first, x, upstream, training=True)
    exported = tensorflow_calls._module.cache_info().misses
    for layer in (first, second):
        for _ in range(3):
            step(layer, x, upstream, training=True)
    assert tensorflow_calls._module.cache_info().misses == exported
    step(first, x[:3], upstream[:3], training=True)
    assert tensorflow_calls._module.cache_info().misses == exported + 2


def test_open_sizes_share_one_module() -> None:
    layer = BatchNormalization(momentum=0.321)
    layer.build((None, None, 3))
    exported = tensorflow_calls._module.cache_info().misses
    for shape in ((None, 4, 3), (None, 7, 3), (5, None, 3), (None, None, 3)):
        graph = tf.function(lambda x: layer(x, training=True), autograph=False)
        graph.get_concrete_function(tf.TensorSpec(shape))
    assert tensorflow_calls._module.cache_info().misses == exported + 1


def test_the_number_of_modules_is_bounded() -> None:
    assert tensorflow_calls._module.cache_info().maxsize == 4096


def test_what_is_tensorflows_own_is_there() -> None:
    """What has no public name, and what of it is used."""
    exported = jax.export.export(jax.jit(lambda x: x + 1))(jax.ShapeDtypeStruct((2,), np.float32))
    results = tensorflow_calls.call_module(
        [tf.constant([1.0, 2.0])],
        version=exported.calling_convention_version,
        module=exported.mlir_module_serialized,
        Tout=[tf.float32],
        Sout=[[2]],
        platforms=["CPU"],
    )
    close(results[0], np.float32([2, 3]), 0.0)
    x = tf.constant(2.0)
    with tf.GradientTape() as tape, tf.autodiff.ForwardAccumulator(x, tf.constant(1.0)) as accumulator:
        tape.watch(x)
        with tensorflow_calls.stop_recording():
            y = x * x
        tensorflow_calls.record_operation("Test", [y], [x], lambda ct: [ct * 5.0], lambda t: [t * 7.0])
    assert float(tape.gradient(y, x)) == 5.0
    assert float(accumulator.jvp(y)) == 7.0
    with tf.Graph().as_default(), tensorflow_calls._graph_gradient(lambda op, ct: 3.0 * ct):
        pass
