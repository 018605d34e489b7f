"""Kinds of networks whose batch norms stand elsewhere than behind a convolution: all that the laws allow is folded."""

from __future__ import annotations

import tf_keras

from tests.models.conftest import Check, normal

layers = tf_keras.layers


def test_mlp_with_a_batch_norm_before_and_after(check: Check) -> None:
    stack = [layers.BatchNormalization(input_shape=(6,)), layers.Dense(5), layers.BatchNormalization(), layers.ReLU()]
    check(tf_keras.Sequential([*stack, layers.BatchNormalization(), layers.Dense(3)]), normal(4, 6), folds=(3, 3))


def test_conv1d_stack(check: Check) -> None:
    stack = [layers.BatchNormalization(input_shape=(9, 3)), layers.Conv1D(4, 3, padding="same"), layers.ReLU()]
    stack += [layers.BatchNormalization(), layers.Conv1D(5, 3, strides=2, padding="same")]
    check(tf_keras.Sequential(stack), normal(2, 9, 3), folds=(2, 2))


def test_separable_blocks_as_mobilenet_has_them(check: Check) -> None:
    stack = [layers.Rescaling(1 / 127.5, offset=-1.0, input_shape=(8, 8, 3)), layers.Conv2D(4, 3, padding="same")]
    for _ in range(2):
        stack += [layers.BatchNormalization(), layers.ReLU(6.0), layers.DepthwiseConv2D(3, padding="same")]
        stack += [layers.BatchNormalization(), layers.ReLU(6.0), layers.Conv2D(6, 1)]
    check(tf_keras.Sequential(stack), normal(2, 8, 8, 3), folds=(4, 4))


def test_decoder_of_transposed_convolutions_joined_with_its_encoder(check: Check) -> None:
    x = tf_keras.Input((8, 8, 3))
    down = layers.Conv2D(4, 3, strides=2, padding="same")(x)
    up = layers.Conv2DTranspose(5, 2, strides=2, padding="same")(layers.ReLU()(layers.BatchNormalization()(down)))
    joined = layers.Concatenate()([up, layers.Conv2D(3, 1)(x)])
    y = layers.Conv2DTranspose(2, 3, padding="same")(layers.BatchNormalization()(joined))
    check(tf_keras.Model(x, y), normal(1, 8, 8, 3), folds=(2, 2))


def test_pre_activation_blocks_keep_only_what_a_relu_reads_behind_a_shared_sum(check: Check) -> None:
    x = tf_keras.Input((8, 8, 3))
    value = layers.Conv2D(4, 3, padding="same")(x)
    for _ in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(value))
        y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(y)))
        value = layers.Add()([value, layers.Conv2D(4, 3, padding="same")(y)])
    check(tf_keras.Model(x, value), normal(1, 8, 8, 3), folds=(2, 4))
