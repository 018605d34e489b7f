"""Every way to write a batch norm, and everything that may stand before it."""

from __future__ import annotations

from typing import Any

import pytest
import tf_keras

from tests.models.conftest import Check, normal

layers = tf_keras.layers
IMAGE = (7, 7, 3)


def norm(**options: Any) -> Any:
    return layers.BatchNormalization(**options)


def conv(**options: Any) -> Any:
    return layers.Conv2D(5, 3, **options)


def chain(*stack: Any, shape: tuple[int, ...] = IMAGE) -> Any:
    x = tf_keras.Input(shape)
    value = x
    for layer in stack:
        value = layer(value)
    return tf_keras.Model(x, value)


@pytest.mark.parametrize(
    "options",
    [
        {"scale": False},
        {"center": False},
        {"scale": False, "center": False},
        {"epsilon": 1e-7},
        {"epsilon": 3.0},
        {"fused": False},
        {"axis": [3]},
        {"axis": -1},
        {"synchronized": True},
        {"renorm": True},
    ],
    ids=str,
)
def test_every_option_folds(options: dict[str, Any], check: Check) -> None:
    check(chain(conv(), norm(**options)), normal(1, *IMAGE), folds=(1, 1))
    check(chain(layers.Dense(5), norm(**options | {"axis": -1})), normal(1, *IMAGE), folds=(1, 1))


@pytest.mark.parametrize("axis", [1, 2, [1, 2], [1, 3], [1, 2, 3]], ids=str)
def test_along_other_dimensions_than_the_channels_it_is_kept(axis: Any, check: Check) -> None:
    check(chain(conv(), norm(axis=axis)), normal(1, *IMAGE), folds=(0, 1))


@pytest.mark.parametrize("shape", [(4,), (6, 4), (6, 6, 4), (3, 3, 3, 4)], ids=str)
def test_with_nothing_before_it_is_kept(shape: tuple[int, ...], check: Check) -> None:
    check(chain(norm(), shape=shape), normal(2, *shape), folds=(0, 1))


def test_batch_norms_of_batch_norms_fold_into_the_same_layer(check: Check) -> None:
    executable = check(chain(conv(name="conv"), norm(), norm(), norm()), normal(1, *IMAGE), folds=(3, 3))
    assert {row.into for row in executable.report.rows} == {"conv"}
    check(chain(norm(), conv(), norm()), normal(1, *IMAGE), folds=(2, 2))


@pytest.mark.parametrize(
    "between",
    [
        lambda: layers.Dropout(0.5),
        lambda: layers.SpatialDropout2D(0.5),
        lambda: layers.GaussianNoise(0.5),
        lambda: layers.ActivityRegularization(0.1),
        lambda: layers.Cropping2D(1),
        lambda: layers.Reshape((25, 5)),
        lambda: layers.Activation("linear"),
        lambda: layers.ZeroPadding2D(),
        lambda: layers.GlobalAveragePooling2D(),
        lambda: layers.AveragePooling2D(),
        lambda: layers.AveragePooling2D(padding="same"),
        lambda: layers.LayerNormalization(),
        lambda: layers.UpSampling2D(),
        lambda: layers.UpSampling2D(interpolation="bilinear"),
        lambda: layers.Activation("gelu"),  # into its factor of a half
    ],
)
def test_what_does_nothing_at_inference_or_moves_values_is_passed(between: Any, check: Check) -> None:
    check(chain(conv(), between(), norm()), normal(1, *IMAGE), folds=(1, 1))


@pytest.mark.parametrize(
    "between",
    [
        lambda: layers.ReLU(),
        lambda: layers.LeakyReLU(),
        lambda: layers.Activation("swish"),
        lambda: layers.Flatten(),
        lambda: layers.MaxPooling2D(),
        lambda: layers.GlobalMaxPooling2D(),
    ],
)
def test_what_a_scale_of_both_signs_cannot_pass_keeps_it(between: Any, check: Check) -> None:
    check(chain(conv(), between(), norm()), normal(1, *IMAGE), folds=(0, 1))


def test_a_permutation_takes_the_channels_along(check: Check) -> None:
    check(chain(conv(), layers.Permute((3, 1, 2)), norm(axis=1)), normal(1, *IMAGE), folds=(1, 1))
    check(chain(conv(), layers.Permute((3, 1, 2)), norm()), normal(1, *IMAGE), folds=(0, 1))


def test_sums_and_concatenations_keep_it(check: Check) -> None:
    x = tf_keras.Input(IMAGE)
    left, right = conv()(x), conv()(x)
    joined = [layers.Add()([left, right]), layers.Concatenate()([left, right]), layers.Multiply()([left, right])]
    check(tf_keras.Model(x, [norm()(value) for value in joined]), normal(1, *IMAGE), folds=(0, 3))
    check(tf_keras.Model(x, norm()(layers.Add()([left, left]))), normal(1, *IMAGE), folds=(0, 1))


def test_recurrent_layers_keep_it(check: Check) -> None:
    check(chain(layers.LSTM(4, return_sequences=True), norm(), shape=(5, 3)), normal(2, 5, 3), folds=(0, 1))
    check(chain(layers.Bidirectional(layers.GRU(4)), norm(), shape=(5, 3)), normal(2, 5, 3), folds=(0, 1))


def test_one_layer_called_twice_is_two_batch_norms(check: Check) -> None:
    x = tf_keras.Input(IMAGE)
    shared = norm()
    check(tf_keras.Model(x, [shared(conv()(x)), shared(conv()(x))]), normal(1, *IMAGE), folds=(2, 2))
    square = layers.Conv2D(3, 3, padding="same")
    shared = norm()
    check(tf_keras.Model(x, shared(square(shared(square(x))))), normal(1, *IMAGE), folds=(2, 2))


@pytest.mark.filterwarnings("ignore:a compiled call does not update these variables")
def test_one_in_training_mode_is_kept_and_named(check: Check) -> None:
    x = tf_keras.Input(IMAGE)
    trained = norm(name="trained")(conv()(x), training=True)
    executable = check(tf_keras.Model(x, norm()(conv()(trained))), normal(2, *IMAGE), folds=(1, 2))
    (kept,) = (row for row in executable.report.rows if row.status == "kept")
    assert "trained" in kept.name
    assert "statistics of its batch" in kept.reason
