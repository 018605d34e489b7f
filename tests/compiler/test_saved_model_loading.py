"""What TensorFlow runs while it loads a SavedModel fills tables and variables, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.trackable.resource import TrackableResource

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.saved_model import from_saved_model
from stablenorm.compiler.frontends.tensorflow_module import TensorFlowModel, import_model
from stablenorm.compiler.signature import TensorSpec

layers = tf_keras.layers
v1 = tf.compat.v1
Fixture = Callable[..., Any]


def refused(path: Path) -> str:
    with pytest.raises(StablenormError) as caught:
        from_saved_model(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Table(TrackableResource):  # type: ignore[misc]
    """A table, one method of which does something else first."""

    def __init__(self, method: str, act: Callable[[], Any]) -> None:
        super().__init__()
        self.method, self.act = method, act

    def _do(self, method: str) -> None:
        if method == self.method:
            self.act()

    def _create_resource(self) -> Any:
        self._do("_create_resource")
        return tf.raw_ops.HashTableV2(key_dtype=tf.int64, value_dtype=tf.int64, shared_name="table")

    def _initialize(self) -> Any:
        self._do("_initialize")
        return tf.no_op()

    def _destroy_resource(self) -> Any:
        self._do("_destroy_resource")

    def _serialize_to_tensors(self) -> Any:
        self._do("_serialize_to_tensors")
        return {"a": tf.constant(1.0)}

    def _restore_from_tensors(self, tensors: Any) -> Any:
        self._do("_restore_from_tensors")
        return tf.no_op()


def doubling(**parts: Any) -> Any:
    module = tf.Module()
    for name, part in parts.items():
        setattr(module, name, part)
    module.f = tf.function(lambda x: x * 2.0, input_signature=[tf.TensorSpec([2], name="x")])
    return module


METHODS = "_create_resource", "_initialize", "_destroy_resource", "_serialize_to_tensors", "_restore_from_tensors"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("operation", ["ReadFile", "MatchingFiles"])
def test_no_function_that_loading_runs_does_anything_else(method: str, operation: str, tmp_path: Path) -> None:
    act = {"ReadFile": tf.io.read_file, "MatchingFiles": tf.io.matching_files}[operation]
    (tmp_path / "file").touch()
    called = tf.function(lambda: act(str(tmp_path / "file")))
    model = doubling(table=Table(method, called))
    tf.saved_model.save(model, tmp_path, signatures=model.f)
    assert f"got the operations {operation}, allowed in what TensorFlow runs while it loads" in refused(tmp_path)


def test_no_function_takes_the_place_of_a_method_that_loading_calls(tmp_path: Path) -> None:
    model = doubling(read=tf.function(lambda: tf.io.read_file("a file"), input_signature=[]))
    tf.saved_model.save(model, tmp_path, signatures=model.f)
    from_saved_model(tmp_path)  # the function is not called
    program = SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    children = program.meta_graphs[0].object_graph_def.nodes[0].children
    (child,) = [child for child in children if child.local_name == "read"]
    child.local_name = "_trackable_children"
    (tmp_path / "saved_model.pb").write_bytes(program.SerializeToString())
    assert "got the operations ReadFile, allowed" in refused(tmp_path)


def test_tables_of_keras_layers(tmp_path: Path, assert_same: Fixture, randomised: Fixture) -> None:
    words, numbers = tf_keras.Input((3,), dtype="string"), tf_keras.Input((4,), name="numbers")
    (tmp_path / "words.txt").write_text("a\nb\n")
    adapted = layers.TextVectorization(split=None)
    adapted.adapt(["a", "b", "c"])
    read = layers.StringLookup(vocabulary=str(tmp_path / "words.txt"))
    known = layers.IntegerLookup(vocabulary=[1, 2])
    dense = randomised(tf_keras.Sequential([numbers, layers.Dense(3), layers.BatchNormalization()]))
    model = doubling(lookup=tf_keras.Model(words, [adapted(words[:, :1]), known(read(words))]), dense=dense)
    model.table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    model.table.insert(["a"], tf.constant([1], tf.int64))
    call = tf.function(lambda numbers: {"y": dense(numbers)})
    tf.saved_model.save(model, tmp_path / "saved", call.get_concrete_function(tf.TensorSpec((None, 4), name="numbers")))
    assert_same(from_saved_model(tmp_path / "saved"))


def save_tf1(path: Path, initializer: Callable[[Any], Any], *, main_op: bool) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 2), "x")
        w = v1.get_variable("w", initializer=tf.constant([1.5, -2.0]), use_resource=True)
        local = v1.get_variable(
            "local", initializer=initializer, collections=["local_variables"], shape=(), dtype=tf.float64
        )
        tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [1]), -1)
        session.run([w.initializer, local.initializer, v1.tables_initializer()])
        signature = {"serving_default": v1.saved_model.predict_signature_def({"x": x}, {"y": x * w})}
        builder = v1.saved_model.Builder(str(path))
        main = tf.group(v1.tables_initializer(), v1.local_variables_initializer()) if main_op else None
        builder.add_meta_graph_and_variables(session, ["serve"], signature, main_op=main)
        builder.save()


@pytest.mark.parametrize("main_op", [False, True])
def test_tf1_graphs(main_op: bool, tmp_path: Path, assert_same: Fixture) -> None:
    save_tf1(tmp_path / "good", lambda *_, **__: tf.constant(1.0, tf.float64), main_op=main_op)
    imported = from_saved_model(tmp_path / "good")
    (result,) = assert_same(imported)
    inputs = np.random.default_rng(0).normal(size=(1, 2)).astype("f")
    np.testing.assert_allclose(result, inputs * [1.5, -2.0], rtol=1e-6)  # float32, one multiplication
    save_tf1(tmp_path / "bad", lambda *_, **__: tf.timestamp(), main_op=main_op)
    assert "got the operations Timestamp, allowed" in refused(tmp_path / "bad")


@pytest.mark.parametrize("operation", ["WriteFile", "EagerPyFunc", "SaveV2"])
def test_xla_compiles_nothing_that_writes_files_or_runs_python(operation: str, tmp_path: Path) -> None:
    path = str(tmp_path / "written")
    actions = {
        "WriteFile": lambda: tf.io.write_file(path, "data"),
        "EagerPyFunc": lambda: tf.py_function(lambda: Path(path).touch(), [], []),
        "SaveV2": lambda: tf.raw_ops.SaveV2(
            prefix=path, tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant([1.0])]
        ),
    }

    def call(x: Any) -> Any:
        actions[operation]()
        return x * 2.0

    with pytest.raises(StablenormError, match=f"XLA cannot compile the model: .*{operation}"):
        import_model(TensorFlowModel(call, (TensorSpec("x", (2,), "float32"),), (0,)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("operation", ["SaveV2", "EagerPyFunc"])
def test_a_call_that_writes_files_or_runs_python_is_refused_before_the_file_is_loaded(
    operation: str, tmp_path: Path
) -> None:
    def call(x: Any) -> Any:
        if operation == "SaveV2":
            tf.raw_ops.SaveV2(prefix="a", tensor_names=["a"], shape_and_slices=[""], tensors=[x])
        else:
            tf.py_function(lambda: None, [], [])
        return x * 2.0

    model = tf.Module()
    model.f = tf.function(call, input_signature=[tf.TensorSpec([2], name="x")])
    tf.saved_model.save(model, tmp_path, signatures=model.f)
    assert f"got the operations {operation}, allowed: operations that only compute" in refused(tmp_path)
