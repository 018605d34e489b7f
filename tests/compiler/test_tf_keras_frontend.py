"""compiler/frontends/tf_keras.py: what XLA computes from the imported module is what tf_keras computes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from jax.extend.mlir import ir

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.main_function import find_main
from stablenorm.compiler.frontends.tf_keras import from_model
from stablenorm.passes.weights import weight_names

layers = tf_keras.layers
Fixture = Callable[..., Any]


@pytest.fixture(autouse=True)
def _fresh_keras() -> Iterator[None]:
    tf_keras.backend.clear_session()
    yield
    tf_keras.mixed_precision.set_global_policy("float32")
    tf_keras.backend.set_floatx("float32")


def convolutional(**options: Any) -> Any:
    image = tf_keras.Input((6, 6, 3), name="image", **options)
    hidden = layers.BatchNormalization()(layers.Conv2D(4, 3, name="first")(image))
    hidden = layers.BatchNormalization(scale=False)(layers.DepthwiseConv2D(3, padding="same")(hidden))
    return tf_keras.Model(image, layers.Dense(2, name="scores")(layers.GlobalMaxPool2D()(hidden)))


def names_in(module: ir.Module) -> list[str | None]:
    return weight_names(find_main(module))


def test_a_functional_model(assert_same: Fixture, randomised: Fixture) -> None:
    model = randomised(convolutional())
    imported = from_model(model)
    assert str(imported.signature) == "image: float32[1,6,6,3]"
    assert (imported.signature.input_tree, imported.signature.output_tree) == ((0,), 0)
    assert [spec.name for spec in imported.signature.outputs] == ["scores"]
    assert str(imported.module).count("batch_norm_inference") == 2
    assert imported.open_batch
    (expected,) = assert_same(imported)
    assert np.abs(expected).max() > 0.1


def test_weights_are_named_arguments_in_order(randomised: Fixture) -> None:
    model = randomised(convolutional())
    imported = from_model(model)
    assert names_in(imported.module) == [None, *imported.weights]
    assert set(imported.weights) == {weight.name.removesuffix(":0") for weight in model.weights}
    for weight in model.weights:
        np.testing.assert_array_equal(imported.weights[weight.name.removesuffix(":0")], weight.numpy())


def test_equal_variable_names_get_suffixes_in_the_models_order(assert_same: Fixture, randomised: Fixture) -> None:
    first, second = (tf_keras.Sequential([layers.Dense(3, name="same", input_shape=(3,))]) for _ in range(2))
    value = tf_keras.Input((3,))
    model = randomised(tf_keras.Model(value, second(first(value))))
    imported = from_model(model)
    assert sorted(imported.weights) == ["same/bias", "same/bias_1", "same/kernel", "same/kernel_1"]
    np.testing.assert_array_equal(imported.weights["same/kernel_1"], second.layers[0].kernel.numpy())
    assert_same(imported)


def test_captured_constants_are_weights_named_after_their_layer(assert_same: Fixture, randomised: Fixture) -> None:
    value = tf_keras.Input((5,))
    model = tf_keras.Model(value, layers.Normalization(mean=[1.0] * 5, variance=[4.0] * 5)(value))
    imported = from_model(model)
    assert list(imported.weights) == ["normalization/mean", "normalization/variance"]
    assert_same(imported)


def test_a_sequential_model_nests_others(assert_same: Fixture, randomised: Fixture) -> None:
    inner = tf_keras.Sequential([layers.Conv1D(3, 2, input_shape=(7, 2)), layers.BatchNormalization()])
    model = tf_keras.Sequential([inner, layers.Bidirectional(layers.LSTM(2))])
    model.build((None, 7, 2))
    assert_same(from_model(randomised(model), (2, 7, 2)))


def test_several_inputs_integers_and_unused_ones(assert_same: Fixture, randomised: Fixture) -> None:
    words, unused = tf_keras.Input((4,), dtype="int32", name="words"), tf_keras.Input((2,), name="unused")
    hidden = layers.GRU(3)(layers.Embedding(3, 5, mask_zero=True)(words))
    model = randomised(tf_keras.Model([unused, words], [hidden, layers.Dense(1, name="score")(hidden)]))
    imported = from_model(model)
    assert str(imported.signature) == "unused: float32[1,2], words: int32[1,4]"
    assert (imported.signature.input_tree, imported.signature.output_tree) == (((0, 1),), (0, 1))
    assert [spec.name for spec in imported.signature.outputs] == ["gru", "score"]
    assert names_in(imported.module)[:2] == [None, None]
    assert_same(imported)


def test_dict_inputs_and_outputs(assert_same: Fixture, randomised: Fixture) -> None:
    left, right = tf_keras.Input((3,), name="b"), tf_keras.Input((2,), name="a")
    outputs = {"y": layers.Dense(2)(left), "x": layers.Dense(2)(right)}
    imported = from_model(randomised(tf_keras.Model({"b": left, "a": right}, outputs)))
    assert str(imported.signature) == "a: float32[1,2], b: float32[1,3]"
    assert imported.signature.input_tree == ({"a": 0, "b": 1},)
    assert imported.signature.output_tree == {"x": 0, "y": 1}
    expected = assert_same(imported)
    assert [spec.name for spec in imported.signature.outputs] == ["x", "y"]
    assert set(imported.signature.unflatten(expected)) == {"x", "y"}


class Two(tf_keras.Model):  # type: ignore[misc]
    """Takes a dict and a keyword, returns a nest; changes under training."""

    def __init__(self) -> None:
        super().__init__(name="two")
        self.norm = layers.BatchNormalization()
        self.dense = layers.Dense(3)
        self.shape_of_result = tf.constant([-1, 3])
        self.offset = tf.constant([1.0, 2.0, 3.0])

    def call(self, inputs: Any, extra: Any = None, training: bool = True) -> Any:
        value = self.dense(self.norm(inputs["a"], training=training)) + inputs["b"]
        if training:
            value = value * 100.0
        if extra is not None:
            value = value + extra
        return {"z": tf.reshape(value, self.shape_of_result), "a": [value + tf.cast(self.offset, value.dtype), None]}


def test_a_subclassed_model_that_was_called(assert_same: Fixture, randomised: Fixture) -> None:
    model = Two()
    model({"a": np.ones((2, 4), "f"), "b": np.ones((2, 3), "f")}, extra=np.ones((2, 3), "f"))
    imported = from_model(randomised(model))
    assert str(imported.signature) == "a: float32[1,4], b: float32[1,3], extra: float32[1,3]"
    assert imported.signature.input_tree == ({"a": 0, "b": 1}, 2)
    assert imported.signature.output_tree == {"a": (0, None), "z": 1}
    assert "two/offset" in imported.weights
    assert "two/shape_of_result" not in imported.weights
    assert_same(imported)


def test_a_subclassed_model_that_was_never_called(assert_same: Fixture) -> None:
    imported = from_model(Two(), {"a": (2, 4), "b": (2, 3)})
    assert str(imported.signature) == "a: float32[2,4], b: float32[2,3]"
    assert not imported.open_batch
    assert_same(imported)


def test_a_subclassed_model_without_a_training_argument(assert_same: Fixture) -> None:
    class Plain(tf_keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm = layers.BatchNormalization(moving_mean_initializer="ones")

        def call(self, x: Any) -> Any:
            return self.norm(x)

    model = Plain()
    model.build((None, 4))
    imported = from_model(model)
    assert str(imported.signature) == "input_1: float32[1,4]"
    assert_same(imported)


def test_an_unbuilt_sequential_model(assert_same: Fixture) -> None:
    model = tf_keras.Sequential([layers.Dense(3), layers.BatchNormalization()])
    with pytest.raises(StablenormError, match=r"never called.*--input-shape 1,224,224,3"):
        from_model(model)
    assert_same(from_model(model, (2, 4)))


def test_updated_variables_are_dropped_with_a_warning(assert_same: Fixture) -> None:
    class Counting(tf_keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="counting")
            self.count = tf.Variable(2.0, trainable=False, name="count")
            self.scale = tf.Variable(3.0, name="scale")

        def call(self, x: Any) -> Any:
            self.count.assign_add(1.0)
            return x * self.count * self.scale

    with pytest.warns(UserWarning, match="does not update these variables: count$"):
        imported = from_model(Counting(), (1, 2))
    assert sorted(imported.weights) == ["count", "scale"]
    assert_same(imported)


def test_channels_first_runs_although_eager_tensorflow_cannot(assert_same: Fixture, randomised: Fixture) -> None:
    image = tf_keras.Input((3, 6, 6))
    hidden = layers.Conv2D(2, 3, data_format="channels_first")(image)
    assert_same(from_model(randomised(tf_keras.Model(image, layers.BatchNormalization(axis=1)(hidden)))))


@pytest.mark.parametrize(
    ("policy", "taken", "returned", "tolerance"),
    [
        ("float64", "float64", "float64", 1e-13),
        ("float16", "float16", "float16", 1e-2),
        ("bfloat16", "bfloat16", "bfloat16", 1e-1),
        ("mixed_float16", "float32", "float16", 1e-2),
        ("mixed_bfloat16", "float32", "bfloat16", 1e-1),
    ],
)
def test_dtypes(
    policy: str, taken: str, returned: str, tolerance: float, assert_same: Fixture, randomised: Fixture
) -> None:
    tf_keras.mixed_precision.set_global_policy(policy)
    imported = from_model(randomised(convolutional(dtype=taken)))
    assert imported.signature.inputs[0].dtype == taken
    assert imported.signature.outputs[0].dtype == returned
    assert_same(imported, tolerance=tolerance)


def test_a_called_mixed_precision_model_takes_float32() -> None:
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = Two()
    model({"a": np.ones((2, 4), "f"), "b": np.ones((2, 3), "f")})
    assert str(from_model(model).signature) == "a: float32[1,4], b: float32[1,3]"


def open_model() -> Any:
    image = tf_keras.Input((None, None, 3), name="image")
    return tf_keras.Model(image, layers.GlobalMaxPool2D()(layers.Conv2D(2, 3)(image)))


def test_a_given_shape_fills_unknown_sizes(assert_same: Fixture, randomised: Fixture) -> None:
    model = randomised(open_model())
    for shape in ((2, 5, 6, 3), [(2, 5, 6, 3)], {"image": (2, 5, 6, 3)}):
        assert from_model(model, shape).signature.inputs[0].shape == (2, 5, 6, 3)
    assert_same(from_model(model, (2, 5, 6, 3)))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            None,
            r"input 'image': got float32\[\?,\?,\?,3\].*--input-shape 1,224,224,3 or input_shape=\(1, 224, 224, 3\)",
        ),
        ((1, 5, 5, 4), r"got the shape \(1, 5, 5, 4\), allowed: float32\[\?,\?,\?,3\]"),
        ((1, 5, 5), r"got the shape \(1, 5, 5\)"),
        ((1, 5, -1, 3), r"got the shape \(1, 5, -1, 3\).*positive"),
        ([(1, 5, 5, 3), (1, 2)], r"got 2 shapes for 1 inputs \(image\)"),
        ({"picture": (1, 5, 5, 3)}, r"got names picture, allowed: image"),
    ],
)
def test_shapes_that_do_not_fit(shape: Any, message: str) -> None:
    with pytest.raises(StablenormError, match=message):
        from_model(open_model(), shape)


def refused(model: Any, shape: Any = None) -> str:
    with pytest.raises(StablenormError) as caught:
        from_model(model, shape)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_models_that_xla_cannot_compile() -> None:
    text = tf_keras.Input((1,), dtype="string")
    assert "got strings" in refused(tf_keras.Model(text, layers.StringLookup(vocabulary=["a"])(text)))
    number = tf_keras.Input((1,), dtype="int64")
    assert "holds a table" in refused(tf_keras.Model(number, layers.IntegerLookup(vocabulary=[1, 2])(number)))
    sparse = tf_keras.Input((4,), sparse=True)
    assert "allowed: dense tensors" in refused(tf_keras.Model(sparse, layers.Dense(2)(sparse)))
    value = tf_keras.Input((4,))
    assert "XLA cannot compile the model: Detected unsupported operations" in refused(
        tf_keras.Model(value, tf.strings.as_string(value))
    )


def test_a_model_that_fails_while_it_is_traced() -> None:
    class Failing(tf_keras.Model):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            raise RuntimeError("first reason\nmore lines")

    assert "cannot trace the model for inputs (input_1: float32[1,2]): first reason;" in refused(Failing(), (1, 2))


def test_a_layers_own_reason_is_told() -> None:
    image = tf_keras.Input((None, None, 3))
    model = tf_keras.Model(image, layers.Conv2D(4, 3)(image))
    assert "Negative dimension size caused by subtracting 3 from 2" in refused(model, (1, 2, 2, 3))


def test_something_else() -> None:
    assert refused(3).startswith("got builtins.int, allowed: a tf_keras model")


def test_a_missing_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    assert "'tf_keras', which is not installed; run `pip install 'stablenorm[tf]'`" in refused(3)


def test_the_import_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_model(convolutional())
    assert capfd.readouterr().err == ""
