"""Operations between and around batch norms that TensorFlow writes in its own way."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from stablenorm import compiler
from stablenorm.compiler import demo
from tests.models.conftest import Check, eager, normal

layers = tf_keras.layers


def test_the_error_function(check: Check) -> None:
    x = tf_keras.Input((6,))
    y = layers.BatchNormalization()(layers.Dense(5)(x))
    check(tf_keras.Model(x, y * (1.0 + tf.math.erf(y))), normal(3, 6), folds=(1, 1))


def test_a_number_added_to_every_channel_alike(check: Check) -> None:
    x = tf_keras.Input((7, 7, 3))
    y = layers.Rescaling(1.0, offset=-2.0)(layers.Conv2D(4, 3, use_bias=False)(x))
    check(tf_keras.Model(x, layers.BatchNormalization()(y)), normal(1, 7, 7, 3), folds=(1, 1))
    y = layers.Conv2D(4, 3)(x) + 3.0
    check(tf_keras.Model(x, layers.BatchNormalization()(y)), normal(1, 7, 7, 3), folds=(1, 1))


class Signs(layers.Layer):
    """Asks of each weight whether it is positive: arithmetic on weights that does not end in floats."""

    def build(self, shape: Any) -> None:
        self.switch = self.add_weight(name="switch", shape=shape[-1:])

    def call(self, x: Any) -> Any:
        return tf.where(self.switch > 0, x, -x)


def test_comparisons_of_weights(check: Check) -> None:
    x = tf_keras.Input((6,))
    model = tf_keras.Model(x, Signs()(layers.BatchNormalization()(layers.Dense(8)(x))))
    executable = check(model, normal(1, 6), folds=(1, 1))
    signs = executable.weights["signs/switch"] > 0
    assert signs.any()
    assert not signs.all()


def test_random_numbers_are_drawn_at_each_call() -> None:
    x = tf_keras.Input((40,))
    kept = layers.BatchNormalization()(layers.Dense(50)(x))
    model = tf_keras.Model(x, layers.Dropout(0.5)(kept, training=True))
    demo.randomize(model)
    executable = compiler.compile(model)
    assert executable.report.folded == 1
    values = normal(1, 40)
    first, second = executable(values), executable(values)
    assert (first != second).any()
    expected = 2.0 * eager(tf_keras.Model(x, kept), values)
    for drawn in (first, second):
        assert 0 < np.count_nonzero(drawn) < drawn.size
        # A value is dropped, or doubled; float32 in another order of summation.
        np.testing.assert_allclose(drawn[drawn != 0], expected[drawn != 0], rtol=1e-4)
