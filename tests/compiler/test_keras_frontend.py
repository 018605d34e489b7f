"""compiler/frontends/keras.py: what XLA computes from the imported module is what Keras 3 computes on JAX."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import keras
import numpy as np
import pytest

from stablenorm import compiler
from stablenorm.compiler import demo
from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.keras import from_model
from stablenorm.compiler.frontends.main_function import find_main
from stablenorm.passes.weights import weight_names

layers = keras.layers
Fixture = Callable[..., Any]
GENERATOR = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def _fresh_keras(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # JAX would compile a generator of random numbers for each shape, for numbers that are replaced anyway.
    zeros = lambda self, shape, dtype=None: np.zeros(shape, dtype)  # noqa: E731
    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", zeros)
    keras.utils.clear_session()
    yield
    keras.config.set_dtype_policy("float32")


def normal(*shape: int) -> Any:
    return GENERATOR.normal(size=shape).astype(np.float32)


def randomized(model: Any) -> Any:
    demo.randomize(model)
    return model


def convolutional(**options: Any) -> Any:
    image = keras.Input((6, 6, 3), name="image", **options)
    hidden = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="first")(image))
    hidden = layers.DepthwiseConv2D(3, padding="same")(layers.Dropout(0.3)(hidden))
    hidden = layers.BatchNormalization(scale=False)(hidden)
    return keras.Model(image, layers.Dense(2, name="scores")(layers.GlobalMaxPool2D()(hidden)))


def eager(model: Any, *inputs: Any) -> Any:
    return jax.tree.map(np.asarray, model(*inputs, training=False))


def assert_compiled(model: Any, *inputs: Any, tolerance: float = 1e-5) -> compiler.Executable:
    """The executable computes what eager Keras does, to rounding relative to the largest value."""
    executable = compiler.compile(model)
    ours, theirs = (jax.tree.leaves_with_path(each) for each in (executable(*inputs), eager(model, *inputs)))
    for (_, a), (_, b) in zip(ours, theirs, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        exact = b.astype(np.float64)
        np.testing.assert_allclose(a.astype(np.float64), exact, rtol=0, atol=tolerance * np.abs(exact).max())
    return executable


def test_a_functional_model(assert_same: Fixture) -> None:
    model = randomized(convolutional())
    imported = from_model(model)
    assert str(imported.signature) == "image: float32[1,6,6,3]"
    assert (imported.signature.input_tree, imported.signature.output_tree) == ((0,), 0)
    assert [spec.name for spec in imported.signature.outputs] == ["scores"]
    assert imported.open_batch
    (expected,) = assert_same(imported)
    assert np.abs(expected).max() > 0.1


def test_weights_are_named_arguments_that_hold_their_values() -> None:
    model = randomized(convolutional())
    imported = from_model(model)
    assert weight_names(find_main(imported.module)) == [None, *imported.weights]
    assert set(imported.weights) == {weight.path for weight in model.weights}
    for weight in model.weights:
        np.testing.assert_array_equal(imported.weights[weight.path], weight.value)


def test_it_folds_and_takes_any_batch() -> None:
    model = randomized(convolutional())
    executable = assert_compiled(model, normal(1, 6, 6, 3))
    assert [row.name for row in executable.report.rows] == ["norm", "batch_normalization"]
    assert {row.into for row in executable.report.rows} <= {"first", "depthwise_conv2d", "scores"}
    np.testing.assert_allclose(executable(image := normal(5, 6, 6, 3)), eager(model, image), rtol=0, atol=1e-5)


def test_several_inputs_integers_and_unused_ones(assert_same: Fixture) -> None:
    words, unused = keras.Input((4,), dtype="int32", name="words"), keras.Input((2,), name="unused")
    hidden = layers.GRU(3, name="gru")(layers.Embedding(3, 5, mask_zero=True)(words))
    imported = from_model(randomized(keras.Model([unused, words], [hidden, layers.Dense(1, name="score")(hidden)])))
    assert str(imported.signature) == "unused: float32[1,2], words: int32[1,4]"
    assert (imported.signature.input_tree, imported.signature.output_tree) == (((0, 1),), (0, 1))
    assert [spec.name for spec in imported.signature.outputs] == ["gru", "score"]
    assert_same(imported)


def test_dict_inputs_and_outputs(assert_same: Fixture) -> None:
    left, right = keras.Input((3,), name="b"), keras.Input((2,), name="a")
    model = keras.Model({"a": right, "b": left}, {"y": layers.Dense(2)(left), "x": layers.Dense(4)(right)})
    imported = from_model(randomized(model))
    assert str(imported.signature) == "a: float32[1,2], b: float32[1,3]"
    assert imported.signature.input_tree == ({"a": 0, "b": 1},)
    assert imported.signature.output_tree == {"x": 0, "y": 1}
    expected = assert_same(imported)
    assert imported.signature.unflatten(expected)["x"].shape == (1, 4)


def test_a_sequential_model_nests_others() -> None:
    inner = keras.Sequential([keras.Input((7, 2)), layers.Conv1D(3, 2), layers.BatchNormalization()], name="inner")
    model = keras.Sequential([keras.Input((7, 2)), inner, layers.Bidirectional(layers.LSTM(2))], name="outer")
    executable = assert_compiled(randomized(model), normal(2, 7, 2))
    assert [row.name for row in executable.report.rows] == ["inner/batch_normalization"]
    assert executable.report.folded == 1


def test_a_sequential_model_that_was_told_no_shape_takes_any_batch() -> None:
    model = keras.Sequential([layers.Dense(3), layers.BatchNormalization()])
    model(normal(2, 4))
    assert_compiled(randomized(model), normal(5, 4))


def test_a_shared_layer_and_layers_of_one_name(assert_same: Fixture) -> None:
    class Twins(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="twins")
            self.first, self.second, self.shared = (layers.Dense(3, name=name) for name in ("same", "same", "other"))

        def call(self, x: Any) -> Any:
            return self.second(self.shared(self.first(self.shared(x))))

    model = called(Twins(), normal(2, 3))
    imported = from_model(model)
    names = {f"twins/{name}" for name in ("same/kernel", "same/kernel_1", "other/kernel")}
    assert {name for name in imported.weights if "kernel" in name} == names
    np.testing.assert_array_equal(imported.weights["twins/same/kernel_1"], model.second.kernel.value)
    assert_same(imported)


class Two(keras.Model):  # type: ignore[misc]
    """Takes a dict and a keyword, returns a nest; changes under training; computes with its own dtype."""

    def __init__(self) -> None:
        super().__init__(name="two")
        self.norm = layers.BatchNormalization()
        self.dense = layers.Dense(3)
        self.dropout = layers.Dropout(0.5)
        self.offset = self.add_weight(shape=(3,), name="offset", initializer="ones")

    def call(self, inputs: Any, extra: Any = None, training: bool = True) -> Any:
        value = self.dense(self.norm(inputs["a"], training=training)) + inputs["b"] * self.offset
        value = self.dropout(value, training=training)
        if training:
            value = value * 100.0
        return {"z": value if extra is None else value + extra, "a": [value + self.offset, None]}


def called(model: Any, *inputs: Any) -> Any:
    model(*inputs)
    return randomized(model)


def test_a_subclassed_model_that_was_called(assert_same: Fixture) -> None:
    imported = from_model(called(Two(), {"a": normal(2, 4), "b": normal(2, 3)}))
    assert str(imported.signature) == "a: float32[1,4], b: float32[1,3]"
    assert imported.signature.output_tree == {"a": (0, None), "z": 1}
    assert {"two/offset", "two/dense/kernel"} <= set(imported.weights)
    assert not any("seed" in name for name in imported.weights)
    assert_same(imported)
    executable = assert_compiled(called(Two(), x := {"a": normal(3, 4), "b": normal(3, 3)}), x)
    assert executable.report.folded == 1


def test_examples_say_what_keras_does_not_know(assert_same: Fixture) -> None:
    x, extra = {"a": normal(2, 4), "b": normal(2, 3)}, jax.ShapeDtypeStruct((2, 3), np.int32)
    model = called(Two(), x)
    imported = from_model(model, arguments=(x, extra))
    assert [str(spec) for spec in imported.signature.inputs][2] == "input_3: int32[2,3]"
    assert imported.signature.input_tree == ({"a": 0, "b": 1}, 2)
    assert_same(imported)


class Plain(keras.Model):  # type: ignore[misc]
    """Knows nothing of training."""

    def __init__(self) -> None:
        super().__init__(name="plain")
        self.norm = layers.BatchNormalization()
        self.dense = layers.Dense(3)

    def call(self, x: Any) -> Any:
        return self.norm(self.dense(x))


def test_a_subclassed_model_without_a_training_argument() -> None:
    assert assert_compiled(called(Plain(), normal(2, 4)), normal(2, 4)).report.folded == 1


@pytest.mark.parametrize(
    ("policy", "taken", "returned", "tolerance"),
    [  # a few dozen roundings of the narrowest type
        ("float16", "float16", "float16", 2e-2),
        ("bfloat16", "bfloat16", "bfloat16", 1e-1),
        ("mixed_float16", "float32", "float16", 2e-2),
        ("mixed_bfloat16", "float32", "bfloat16", 1e-1),
    ],
)
def test_dtypes(policy: str, taken: str, returned: str, tolerance: float, assert_same: Fixture) -> None:
    keras.config.set_dtype_policy(policy)
    for model in (
        randomized(convolutional(dtype=taken)),
        called(Two(), {"a": normal(2, 4), "b": normal(2, 3)}),
    ):
        imported = from_model(model)
        assert {spec.dtype for spec in imported.signature.inputs} == {taken}
        assert {spec.dtype for spec in imported.signature.outputs} == {returned}
        assert_same(imported, tolerance=tolerance)


def test_updated_variables_are_dropped_with_a_warning(assert_same: Fixture) -> None:
    class Counting(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="counting")
            self.count = self.add_weight(shape=(), name="count", trainable=False)
            self.dense = layers.Dense(2)

        def call(self, x: Any) -> Any:
            self.count.assign_add(1.0)
            return self.dense(x) * self.count

    model = called(Counting(), normal(1, 3))
    before = float(model.count.value)
    with pytest.warns(UserWarning, match="does not update these variables: counting/count$"):
        imported = from_model(model)
    assert float(model.count.value) == before
    assert_same(imported)


def test_random_layers_are_off_and_their_state_is_no_weight() -> None:
    image = keras.Input((6, 6, 3))
    hidden = layers.SpatialDropout2D(0.5)(layers.GaussianNoise(1.0)(layers.RandomFlip()(image)))
    assert_compiled(randomized(keras.Model(image, layers.Conv2D(2, 3)(hidden))), normal(1, 6, 6, 3))


def test_the_reference_holds_the_weights_of_the_import(assert_same: Fixture) -> None:
    model = randomized(convolutional())
    imported = from_model(model)
    model.set_weights([np.zeros(weight.shape) for weight in model.weights])
    (expected,) = assert_same(imported)
    assert np.abs(expected).max() > 0.1


def open_model() -> Any:
    image = keras.Input((None, None, 3), name="image")
    return keras.Model(image, layers.GlobalMaxPool2D()(layers.Conv2D(2, 3)(image)))


def test_a_given_shape_fills_unknown_sizes(assert_same: Fixture) -> None:
    model = randomized(open_model())
    for shape in ((2, 5, 6, 3), [(2, 5, 6, 3)], {"image": (2, 5, 6, 3)}):
        imported = from_model(model, shape)
        assert imported.signature.inputs[0].shape == (2, 5, 6, 3)
        assert not imported.open_batch
    assert from_model(model, (None, 5, 6, 3)).open_batch
    assert_same(from_model(model, (2, 5, 6, 3)))


def refused(model: Any, shape: Any = None, arguments: Any = ()) -> str:
    with pytest.raises(StablenormError) as caught:
        compiler.compile(model, *arguments, input_shape=shape)
    assert not {"\n", "\x1b"} & set(str(caught.value))
    return str(caught.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (None, "input 'image': got float32[?,?,?,3], allowed: every size known"),
        ((1, 5, 5, 4), "got the shape (1, 5, 5, 4), allowed: float32[?,?,?,3]"),
        ([(1, 5, 5, 3), (1, 2)], "got 2 shapes for 1 inputs (image)"),
        ({"picture": (1, 5, 5, 3)}, "got names picture, allowed: image"),
        ((1, 2, 2, 3), "Keras cannot call the model with inputs (image: float32[1,2,2,3]): "),
    ],
)
def test_shapes_that_do_not_fit(shape: Any, message: str) -> None:
    assert message in refused(open_model(), shape)


def test_a_model_that_was_never_built() -> None:
    message = "model 'plain': got a Keras 3 model that has layers without weights yet; call it once on an input"
    assert message in refused(Plain())
    assert "layers without weights" in refused(keras.Sequential([layers.Dense(3)]))


@pytest.mark.filterwarnings("ignore:`build... was called on layer:UserWarning")
def test_a_model_that_is_half_built_is_not_harmed() -> None:
    model = Plain()
    model.build((None, 4))
    assert "layers without weights" in refused(model)
    assert assert_compiled(called(model, normal(2, 4)), normal(2, 4)).report.folded == 1


def test_a_model_that_fails_while_it_is_traced() -> None:
    class Failing(keras.Model):  # type: ignore[misc]
        broken = False

        def call(self, x: Any) -> Any:
            if self.broken:
                raise RuntimeError("first reason\nmore lines")
            return x

    model = called(Failing(), normal(1, 2))
    model.broken = True
    assert "Keras cannot call the model with inputs (input_1: float32[1,2]): first reason;" in refused(model)


def test_an_input_that_keras_does_not_know_of() -> None:
    class Sum(keras.Model):  # type: ignore[misc]
        def call(self, x: Any, y: Any) -> Any:
            return x + y

    model = called(Sum(), normal(2, 3), normal(2, 3))
    assert "missing a required argument: 'y'" in refused(model)
    executable = compiler.compile(model, x := normal(2, 3), y := normal(2, 3))
    np.testing.assert_array_equal(executable(x, y), x + y)


def test_another_backend_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    assert "on the backend 'torch', allowed: 'jax'; set KERAS_BACKEND=jax" in refused(convolutional())


def test_inputs_that_are_no_dense_numbers() -> None:
    text, sparse = keras.Input((1,), dtype="string", name="text"), keras.Input((4,), sparse=True)
    assert "input 'text': got strings, allowed: numbers" in refused(keras.Model(text, text))
    assert "allowed: dense tensors" in refused(keras.Model(sparse, layers.Dense(2)(sparse)))
