"""Every linear layer of tf_keras takes the batch norm that follows it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from stablenorm import compiler
from stablenorm.compiler import demo
from tests.models.conftest import Check, assert_close, normal

layers = tf_keras.layers
LINE, IMAGE, VOLUME = (9, 4), (9, 9, 4), (5, 5, 5, 4)

LINEAR: dict[str, tuple[tuple[int, ...], Any]] = {
    "Conv1D": (LINE, lambda **o: layers.Conv1D(5, 3, strides=2, **o)),
    "Conv1D causal, dilated": (LINE, lambda **o: layers.Conv1D(5, 3, padding="causal", dilation_rate=2, **o)),
    "Conv1D grouped": (LINE, lambda **o: layers.Conv1D(6, 3, groups=2, **o)),
    "Conv2D": (IMAGE, lambda **o: layers.Conv2D(5, 3, strides=2, padding="same", **o)),
    "Conv2D of one point": (IMAGE, lambda **o: layers.Conv2D(5, 1, **o)),
    "Conv2D to one channel": (IMAGE, lambda **o: layers.Conv2D(1, 3, **o)),
    "Conv2D grouped": (IMAGE, lambda **o: layers.Conv2D(6, 3, groups=2, **o)),
    "Conv2D dilated": (IMAGE, lambda **o: layers.Conv2D(6, 3, dilation_rate=(2, 3), **o)),
    "Conv3D": (VOLUME, lambda **o: layers.Conv3D(5, 3, **o)),
    "Conv3D grouped": (VOLUME, lambda **o: layers.Conv3D(6, 3, groups=2, **o)),
    "Conv1DTranspose": (LINE, lambda **o: layers.Conv1DTranspose(5, 3, strides=2, **o)),
    "Conv2DTranspose": (IMAGE, lambda **o: layers.Conv2DTranspose(5, 3, strides=2, padding="same", **o)),
    "Conv2DTranspose dilated": (IMAGE, lambda **o: layers.Conv2DTranspose(5, 3, dilation_rate=2, **o)),
    "Conv3DTranspose": (VOLUME, lambda **o: layers.Conv3DTranspose(5, 3, strides=2, **o)),
    "DepthwiseConv1D": (LINE, lambda **o: layers.DepthwiseConv1D(3, depth_multiplier=2, **o)),
    "DepthwiseConv2D": (IMAGE, lambda **o: layers.DepthwiseConv2D(3, **o)),
    "DepthwiseConv2D times two": (IMAGE, lambda **o: layers.DepthwiseConv2D(3, depth_multiplier=2, **o)),
    "DepthwiseConv2D times two, dilated": (
        IMAGE,
        lambda **o: layers.DepthwiseConv2D(3, depth_multiplier=2, dilation_rate=2, **o),
    ),
    "SeparableConv1D": (LINE, lambda **o: layers.SeparableConv1D(6, 3, depth_multiplier=2, **o)),
    "SeparableConv2D": (IMAGE, lambda **o: layers.SeparableConv2D(6, 3, depth_multiplier=2, **o)),
    "Dense, rank 2": ((6,), lambda **o: layers.Dense(5, **o)),
    "Dense, rank 3": (LINE, lambda **o: layers.Dense(5, **o)),
    "Dense, rank 4": (IMAGE, lambda **o: layers.Dense(5, **o)),
    "TimeDistributed Dense": (LINE, lambda **o: layers.TimeDistributed(layers.Dense(5, **o))),
    "TimeDistributed Conv2D": ((3, *IMAGE), lambda **o: layers.TimeDistributed(layers.Conv2D(5, 3, **o))),
    "MultiHeadAttention": (LINE, lambda **o: Attention(2, 4, **o)),
}


class Attention(layers.MultiHeadAttention):
    """Its last step is a linear layer."""

    def call(self, x: Any, **options: Any) -> Any:
        return super().call(x, x, **options)

    def build(self, shape: Any) -> None:
        self._build_from_signature(tf.TensorSpec(shape), tf.TensorSpec(shape))
        super().build(shape)


@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_layer_takes_the_batch_norm(name: str, use_bias: bool, check: Check) -> None:
    shape, build = LINEAR[name]
    x = tf_keras.Input(shape)
    model = tf_keras.Model(x, layers.BatchNormalization()(build(use_bias=use_bias)(x)))
    check(model, normal(1, *shape), folds=(1, 1))


CHANNELS_FIRST = {
    "Conv1D": ((4, 9), lambda **o: layers.Conv1D(5, 3, **o)),
    "Conv2D": ((4, 9, 9), lambda **o: layers.Conv2D(5, 3, **o)),
    "Conv3D": ((4, 5, 5, 5), lambda **o: layers.Conv3D(5, 3, **o)),
    "Conv2DTranspose": ((4, 9, 9), lambda **o: layers.Conv2DTranspose(5, 3, strides=2, **o)),
    "DepthwiseConv2D": ((4, 9, 9), lambda **o: layers.DepthwiseConv2D(3, depth_multiplier=2, **o)),
    "SeparableConv2D": ((4, 9, 9), lambda **o: layers.SeparableConv2D(5, 3, **o)),
}


@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", CHANNELS_FIRST)
def test_channels_first(name: str, use_bias: bool) -> None:
    shape, build = CHANNELS_FIRST[name]
    x = tf_keras.Input(shape)
    linear = build(data_format="channels_first", use_bias=use_bias)(x)
    model = tf_keras.Model(x, layers.BatchNormalization(axis=1)(linear))
    demo.randomize(model)
    executable = compiler.compile(model)
    value = normal(1, *shape)
    # Eager TensorFlow has no channels-first convolutions on a CPU; its own use of XLA has.
    expected = tf.function(model, jit_compile=True)(tf.constant(value))
    assert_close(executable(value), jax.tree.map(np.asarray, expected))
    assert (executable.report.folded, executable.report.total) == (1, 1)


def test_one_convolution_called_twice_gets_two_folded_kernels(check: Check) -> None:
    x = tf_keras.Input(IMAGE)
    shared = layers.Conv2D(5, 3)
    outputs = [layers.BatchNormalization()(shared(value)) for value in (x, layers.ReLU()(x))]
    check(tf_keras.Model(x, outputs), normal(1, *IMAGE), folds=(2, 2))


def test_a_shared_result_keeps_both_batch_norms(check: Check) -> None:
    x = tf_keras.Input(IMAGE)
    shared = layers.Conv2D(5, 3)(x)
    outputs = [layers.BatchNormalization()(shared), layers.BatchNormalization()(shared)]
    check(tf_keras.Model(x, outputs), normal(1, *IMAGE), folds=(0, 2))
    check(tf_keras.Model(x, [shared, outputs[0]]), normal(1, *IMAGE), folds=(0, 1))
