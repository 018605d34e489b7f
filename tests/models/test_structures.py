"""Models of every structure: what a caller passes in and gets back, and batches of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras

from stablenorm import compiler
from stablenorm.compiler import demo
from tests.models.conftest import Check, assert_close, eager, normal

layers = tf_keras.layers
IMAGE = (7, 7, 3)


def block(value: Any, channels: int = 4) -> Any:
    return layers.BatchNormalization()(layers.Conv2D(channels, 3)(value))


@pytest.mark.parametrize("options", [{}, {"input_shape": (None, *IMAGE)}], ids=["nothing given", "None given"])
def test_one_executable_takes_batches_of_any_size(options: dict[str, Any]) -> None:
    x = tf_keras.Input((None, 7, 3) if options else IMAGE)
    model = tf_keras.Model(x, block(x))
    demo.randomize(model)
    executable = compiler.compile(model, **options)
    for batch in (1, 2, 5, 2, 1):
        assert_close(executable(normal(batch, *IMAGE)), eager(model, normal(batch, *IMAGE)))


def test_an_empty_batch_gives_an_empty_output(check: Check) -> None:
    x = tf_keras.Input(IMAGE)
    executable = check(tf_keras.Model(x, block(x)), normal(2, *IMAGE), folds=(1, 1))
    assert executable(normal(0, *IMAGE)).shape == (0, *executable.signature.outputs[0].shape[1:])


def test_a_given_batch_size_is_the_only_one() -> None:
    x = tf_keras.Input(IMAGE)
    model = tf_keras.Model(x, block(x))
    executable = compiler.compile(model, input_shape=(2, *IMAGE))
    assert_close(executable(normal(2, *IMAGE)), eager(model, normal(2, *IMAGE)))
    with pytest.raises(compiler.StablenormError, match=r"got float32\[3,7,7,3\], allowed float32\[2,7,7,3\]"):
        executable(normal(3, *IMAGE))


def test_several_inputs_and_outputs(check: Check) -> None:
    image, vector = tf_keras.Input(IMAGE, name="image"), tf_keras.Input((5,), name="vector")
    dense = layers.BatchNormalization()(layers.Dense(4)(vector))
    model = tf_keras.Model([image, vector], [block(image) + dense[:, None, None], dense])
    for batch in (1, 3):
        inputs = [normal(batch, *IMAGE), normal(batch, 5)]
        executable = check(model, inputs, folds=(2, 2))
        expected = eager(model, inputs)
        assert_close(executable(*inputs), expected)
        assert_close(executable(vector=inputs[1], image=inputs[0]), expected)
        assert_close(executable(dict(zip(["image", "vector"], inputs, strict=True))), expected)


def test_dicts_of_inputs_and_nested_outputs(check: Check) -> None:
    z, a = tf_keras.Input((4,), name="z"), tf_keras.Input((5,), name="a")
    left, right = (layers.BatchNormalization()(layers.Dense(3)(value)) for value in (z, a))
    model = tf_keras.Model({"z": z, "a": a}, {"scores": left, "more": [right, left + right]})
    inputs = {"z": normal(2, 4), "a": normal(2, 5)}
    executable = check(model, inputs, folds=(2, 2))
    outputs = executable(**inputs)
    assert set(outputs) == {"scores", "more"}
    np.testing.assert_array_equal(outputs["more"][1], outputs["scores"] + outputs["more"][0])


def test_integers_in(check: Check) -> None:
    tokens = tf_keras.Input((7,), dtype="int32")
    dense = layers.Dense(4)(layers.Embedding(11, 6)(tokens))
    model = tf_keras.Model(tokens, layers.BatchNormalization()(dense))
    values = np.random.default_rng(0).integers(0, 11, (3, 7)).astype(np.int32)
    executable = check(model, values, folds=(1, 1))
    with pytest.raises(compiler.StablenormError, match=r"got int64\[3,7\], allowed int32\[3,7\]"):
        executable(values.astype(np.int64))


class Network(tf_keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.stack = [layers.Conv2D(5, 3), layers.BatchNormalization(), layers.ReLU()]
        self.dense, self.norm = layers.Dense(3), layers.BatchNormalization()

    def call(self, x: Any, training: bool | None = None) -> Any:
        for layer in self.stack:
            x = layer(x, training=training) if isinstance(layer, layers.BatchNormalization) else layer(x)
        return self.norm(self.dense(x), training=training)


def test_a_subclassed_model_that_was_called_built_or_given_a_shape(check: Check) -> None:
    called, built = Network(), Network()
    called(normal(2, *IMAGE))
    built.build((None, *IMAGE))
    for model in (called, built):
        check(model, normal(3, *IMAGE), folds=(2, 2))
    model = Network()
    executable = compiler.compile(model, input_shape=(2, *IMAGE))
    assert_close(executable(normal(2, *IMAGE)), eager(model, normal(2, *IMAGE)))
    with pytest.raises(compiler.StablenormError, match="never called"):
        compiler.compile(Network())


def test_a_sequential_model_that_starts_with_a_batch_norm(check: Check) -> None:
    stack = [layers.BatchNormalization(input_shape=IMAGE), layers.Conv2D(5, 3), layers.BatchNormalization()]
    check(tf_keras.Sequential(stack), normal(3, *IMAGE), folds=(2, 2))


def test_a_sequential_model_keeps_no_batch_size_from_its_first_call(check: Check, tmp_path: Path) -> None:
    model = tf_keras.Sequential([layers.Conv2D(5, 3), layers.BatchNormalization()])
    model(normal(2, *IMAGE))
    check(model, normal(3, *IMAGE), folds=(1, 1))
    path = tmp_path / "model.keras"
    model.save(path)
    assert_close(compiler.compile(path)(normal(5, *IMAGE)), eager(model, normal(5, *IMAGE)))


def test_models_inside_models(check: Check) -> None:
    x = tf_keras.Input(IMAGE)
    first = tf_keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization()])
    inner = tf_keras.Input((5, 5, 4))
    second = tf_keras.Model(inner, block(inner))
    check(tf_keras.Model(x, second(layers.ReLU()(first(x)))), normal(2, *IMAGE), folds=(2, 2))


@pytest.mark.parametrize(
    "shape", ["7", 7, (1, 7.5, 7, 3), (1, "7", 7, 3), (1, 0, 7, 3), (1, 7, 7), (1, 7, 7, 4), {"other": (1, 7, 7, 3)}]
)
def test_a_shape_that_is_none_says_what_is_allowed(shape: Any) -> None:
    x = tf_keras.Input((None, None, 3))
    with pytest.raises(compiler.StablenormError, match=r"got .*allowed"):
        compiler.compile(tf_keras.Model(x, block(x)), input_shape=shape)
