"""Five kinds of networks, as their papers and tutorials write them, small enough for tests."""

from __future__ import annotations

from typing import Any

import tf_keras

layers = tf_keras.layers


def mobilenet_v1() -> Any:
    """Howard et al., "MobileNets", 2017: images rescaled and normalized, then 13 separable convolutions."""
    image = tf_keras.Input((64, 64, 3))
    x = layers.Normalization(mean=[123.7, 116.3, 103.5], variance=[3411.0, 3263.0, 3298.0])(image)
    x = _after(layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x), layers.ReLU(6.0))
    for filters, strides in _SEPARABLE:
        if strides == 2:
            x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
        padding = "valid" if strides == 2 else "same"
        x = _after(layers.DepthwiseConv2D(3, strides=strides, padding=padding, use_bias=False)(x), layers.ReLU(6.0))
        x = _after(layers.Conv2D(filters, 1, use_bias=False)(x), layers.ReLU(6.0))
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return tf_keras.Model(image, layers.Reshape((10,))(layers.Conv2D(10, 1)(x)), name="mobilenet_v1")


_SEPARABLE = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)]


def resnet_v2() -> Any:
    """He et al., "Identity Mappings in Deep Residual Networks", 2016: batch norm and ReLU before each convolution."""
    image = tf_keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, padding="same")(image)
    for filters, strides in ((16, 1), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        x = _bottleneck(x, filters, strides)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
    return tf_keras.Model(image, layers.Dense(10)(x), name="resnet_v2")


def _bottleneck(x: Any, filters: int, strides: int) -> Any:
    before = layers.ReLU()(layers.BatchNormalization()(x))
    y = _after(layers.Conv2D(filters, 1, use_bias=False)(before), layers.ReLU())
    y = _after(layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(y), layers.ReLU())
    y = layers.Conv2D(4 * filters, 1)(y)
    if x.shape[1:] != y.shape[1:]:
        x = layers.Conv2D(4 * filters, 1, strides=strides)(before)
    return layers.Add()([x, y])


def unet() -> Any:
    """Ronneberger et al., "U-Net", 2015, with batch norm: up by transposed convolutions, joined with the way down."""
    image = tf_keras.Input((48, 48, 3))
    x, joints = image, []
    for filters in (8, 16, 32):
        x = _two_convolutions(x, filters)
        joints.append(x)
        x = layers.MaxPooling2D()(x)
    x = _two_convolutions(x, 64)
    for joint in reversed(joints):
        filters = joint.shape[-1]
        x = _after(layers.Conv2DTranspose(filters, 2, strides=2)(x), layers.ReLU())
        x = _two_convolutions(layers.Concatenate()([joint, x]), filters)
    return tf_keras.Model(image, layers.Conv2D(2, 1)(x), name="unet")


def _two_convolutions(x: Any, filters: int) -> Any:
    for _ in range(2):
        x = _after(layers.Conv2D(filters, 3, padding="same")(x), layers.ReLU())
    return x


def conv1d_stack() -> Any:
    """Bai et al., "temporal convolutional network", 2018: causal dilated convolutions; wide strides before them."""
    signal = tf_keras.Input((256, 2))
    x = layers.BatchNormalization()(signal)
    x = _after(layers.Conv1D(16, 9, strides=2, padding="same", use_bias=False)(x), layers.LeakyReLU(0.2))
    x = layers.AveragePooling1D()(x)
    for dilation in (1, 2, 4):
        y = _after(layers.Conv1D(16, 3, padding="causal", dilation_rate=dilation)(x), layers.ReLU())
        y = _after(layers.SeparableConv1D(16, 5, padding="same")(y), None)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.BatchNormalization()(x)
    x = layers.Flatten()(layers.MaxPooling1D(4)(layers.Conv1D(8, 5, activation="relu")(x)))
    return tf_keras.Model(signal, layers.Dense(5)(layers.BatchNormalization()(x)), name="conv1d_stack")


def mlp() -> Any:
    """Ioffe and Szegedy, "Batch Normalization", 2015: on the inputs, before the activation, and after it."""
    features = tf_keras.Input((20,))
    x = layers.BatchNormalization()(features)
    for units in (64, 48):
        x = _after(layers.Dense(units, use_bias=False)(x), layers.ReLU())
    for units in (32, 24):
        x = layers.BatchNormalization()(layers.Dense(units, activation="relu")(x))
    return tf_keras.Model(features, layers.Dense(3)(x), name="mlp")


def _after(x: Any, activation: Any) -> Any:
    x = layers.BatchNormalization()(x)
    return x if activation is None else activation(x)
