"""compiler/frontends/saved_model.py: every signature gives what TensorFlow gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.python.trackable.resource import CapturableResource

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.main_function import find_main
from stablenorm.compiler.frontends.saved_model import from_saved_model
from stablenorm.passes.weights import weight_names

layers = tf_keras.layers
Fixture = Callable[..., Any]


@pytest.fixture(autouse=True)
def _fresh_keras() -> None:
    tf_keras.backend.clear_session()


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(StablenormError) as caught:
        from_saved_model(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Scaled(tf.Module):  # type: ignore[misc]
    """x * w, ten times as much under training; with a constant and a shape kept as tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable([1.5, -2.0], name="w")
        self.row = tf.constant([-1, 2])
        self.offset = tf.constant([3.0, 4.0])

    @tf.function  # type: ignore[untyped-decorator]
    def __call__(self, x: Any, training: bool = False) -> Any:
        value = tf.reshape(x, self.row) * self.w + self.offset
        return value * 10.0 if training else value

    @tf.function  # type: ignore[untyped-decorator]
    def pair(self, b: Any, a: Any) -> Any:
        return {"product": a * b, "scaled": self(b)}


def traced(*, training: bool = False) -> tuple[Any, Any]:
    model = Scaled()
    return model, model.__call__.get_concrete_function(tf.TensorSpec((None, 2), name="x"), training=training)


@pytest.mark.parametrize("writer", ["save", "export"])
def test_a_keras_model(writer: str, tmp_path: Path, assert_same: Fixture, randomised: Fixture) -> None:
    image = tf_keras.Input((6, 6, 3), name="image")
    hidden = layers.BatchNormalization()(layers.Conv2D(4, 3)(image))
    hidden = layers.Normalization(mean=[1.0] * 4, variance=[4.0] * 4)(hidden)
    model = randomised(tf_keras.Model(image, [hidden, layers.Flatten(name="flat")(hidden)]))
    path = tmp_path / "saved"
    if writer == "save":
        model.save(path, save_format="tf")
    else:
        model.export(path)
    imported = from_saved_model(path)
    assert str(imported.signature) == "image: float32[1,6,6,3]"
    assert imported.signature.input_tree == ({"image": 0},)
    assert set(imported.signature.output_tree) == (
        {"flat", "normalization"} if writer == "save" else {"output_0", "output_1"}
    )
    names = [weight.name.removesuffix(":0") for weight in model.weights]
    assert sorted(imported.weights) == sorted([*names, "constant", "constant_1"])
    assert weight_names(find_main(imported.module)) == [None, *imported.weights]
    assert imported.open_batch
    results = imported.signature.unflatten(assert_same(imported))
    inputs = np.random.default_rng(0).normal(size=(1, 6, 6, 3)).astype("f")
    flat = results["flat" if writer == "save" else "output_1"]
    np.testing.assert_allclose(flat, model(inputs)[1], atol=1e-5)


def test_signatures_are_chosen_by_name(tmp_path: Path, assert_same: Fixture) -> None:
    model, call = traced()
    spec = tf.TensorSpec((None, 2), name="b"), tf.TensorSpec((None, 2), name="a")
    signatures = {"one": call, "two": model.pair.get_concrete_function(*spec)}
    tf.saved_model.save(model, tmp_path, signatures=signatures)
    imported = from_saved_model(tmp_path, input_shape={"a": (3, 2), "b": (3, 2)}, signature="two")
    assert str(imported.signature) == "a: float32[3,2], b: float32[3,2]"
    assert imported.signature.output_tree == {"product": 0, "scaled": 1}
    assert_same(imported)
    assert "got the signature 'three', allowed: one, two" in refused(tmp_path, signature="three")
    assert "got the signature 'serving_default', allowed: one, two" in refused(tmp_path)


def test_the_only_signature_needs_no_name(tmp_path: Path, assert_same: Fixture) -> None:
    model, call = traced()
    tf.saved_model.save(model, tmp_path, signatures={"only": call})
    assert_same(from_saved_model(tmp_path, (4, 2)))


def test_a_model_without_signatures_is_called_for_inference(tmp_path: Path, assert_same: Fixture) -> None:
    model, _ = traced()
    model(tf.ones((3, 2)))
    model(tf.ones((3, 2)), training=True)
    tf.saved_model.save(model, tmp_path)
    imported = from_saved_model(tmp_path)
    assert str(imported.signature) == "x: float32[1,2]"
    assert imported.signature.input_tree == (0,)
    assert list(imported.weights) == ["w", "constant"]
    (result,) = assert_same(imported)
    inputs = np.random.default_rng(0).normal(size=(1, 2)).astype("f")
    np.testing.assert_allclose(result, inputs * [1.5, -2.0] + [3.0, 4.0], rtol=1e-6)


def test_a_model_with_nothing_to_call(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), tmp_path)
    assert "without signatures and without a traced __call__" in refused(tmp_path)


def test_folders_that_are_no_saved_models(tmp_path: Path) -> None:
    assert "got no saved_model.pb in it" in refused(tmp_path)
    assert "got no saved_model.pb in it" in refused(tmp_path / "none")
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff not a program")
    assert "got a damaged SavedModel" in refused(tmp_path)


def test_a_saved_model_without_its_variables(tmp_path: Path) -> None:
    model, call = traced()
    tf.saved_model.save(model, tmp_path, signatures=call)
    for part in (tmp_path / "variables").iterdir():
        part.unlink()
    assert "TensorFlow cannot load the SavedModel" in refused(tmp_path)


def test_graphs_that_write_files_are_refused_before_they_load(tmp_path: Path) -> None:
    def cache() -> None:
        numbers = tf.data.Dataset.range(3).cache(str(tmp_path / "written"))
        numbers.reduce(tf.constant(0, tf.int64), lambda a, b: a + b)

    def model(write: Callable[[], Any]) -> Any:
        def call(x: tf.Tensor) -> Any:
            write()
            return x * 2.0

        module = tf.Module()
        module.f = tf.function(call, input_signature=[tf.TensorSpec((2,), name="x")])
        return module

    writers = {"WriteFile": lambda: tf.io.write_file(str(tmp_path / "written"), "data"), "CacheDatasetV2": cache}
    for operation, write in writers.items():
        tf.saved_model.save(model(write), tmp_path / "saved")
        assert f"got the operations {operation}, allowed: operations that only compute" in refused(tmp_path / "saved")
    assert not list(tmp_path.glob("written*"))


@pytest.mark.parametrize("nested", [False, True])
def test_initializers_that_delete_checkpoints_are_refused_before_they_load(nested: bool, tmp_path: Path) -> None:
    prefix = str(tmp_path / "victim")

    def save() -> None:
        tf.raw_ops.SaveV2(prefix=prefix, tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant([1.0])])

    def merge() -> None:
        tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=[prefix], destination_prefix=prefix + "2")

    class Table(CapturableResource):  # type: ignore[misc]
        def _create_resource(self) -> Any:
            return tf.raw_ops.HashTableV2(key_dtype=tf.int64, value_dtype=tf.int64, shared_name="table")

        def _initialize(self) -> Any:
            assert self.resource_handle is not None
            (tf.function(merge) if nested else merge)()
            return tf.no_op()

    model = tf.Module()
    model.table, model.f = Table(), tf.function(lambda x: x, input_signature=[tf.TensorSpec([2])])
    tf.saved_model.save(model, tmp_path / "saved", signatures=model.f)
    save()
    assert "got the operations MergeV2Checkpoints, allowed" in refused(tmp_path / "saved")
    assert len(list(tmp_path.glob("victim*"))) == 2  # an index and its data, as before


def test_unknown_sizes_and_strings(tmp_path: Path) -> None:
    class Open(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec(None, name="x")])  # type: ignore[untyped-decorator]
        def any_rank(self, x: tf.Tensor) -> Any:
            return {"y": x * 2.0}

        @tf.function(input_signature=[tf.TensorSpec((2,), "string", name="x")])  # type: ignore[untyped-decorator]
        def text(self, x: tf.Tensor) -> Any:
            return {"y": tf.strings.length(x)}

    model = Open()
    tf.saved_model.save(model, tmp_path, signatures={"any": model.any_rank, "text": model.text})
    assert "input 'x': got float32 of unknown shape" in refused(tmp_path, signature="any")
    assert from_saved_model(tmp_path, (2, 3), "any").signature.inputs[0].shape == (2, 3)
    assert "input 'x': got strings" in refused(tmp_path, signature="text")
