"""compiler/frontends/keras_file.py and keras_config.py: files load, and no code that they hold or name runs."""

from __future__ import annotations

import base64
import json
import marshal
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.tf_keras import from_file

layers = tf_keras.layers
Fixture = Callable[..., Any]
ENDINGS = ("keras", "h5")


@pytest.fixture(autouse=True)
def _fresh_keras() -> None:
    tf_keras.backend.clear_session()


def save(model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # HDF5 is called legacy
        model.save(path)
    return path


def dense_model() -> Any:
    return tf_keras.Sequential([layers.Dense(2, activation="relu", input_shape=(3,), name="dense")])


def edit_config(path: Path, edit: Callable[[Any], None]) -> Path:
    """Changes the configuration in a saved file, as an attacker would."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            edit(config)
            file.attrs["model_config"] = json.dumps(config)
        return path
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    edit(config)
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def refused(path: Path, shape: Any = None) -> str:
    with pytest.raises(StablenormError) as caught:
        from_file(path, shape)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith((f"{path}: got ", f"{path}: tf_keras cannot load"))
    return message


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_gives_what_the_model_gives(
    ending: str, tmp_path: Path, assert_same: Fixture, randomised: Fixture
) -> None:
    image = tf_keras.Input((6, 6, 3), name="image")
    hidden = layers.BatchNormalization()(layers.Conv2D(4, 3, kernel_regularizer="l2", activation="relu")(image))
    hidden = tf.nn.relu6(hidden)[:, 1:] + 1.0
    hidden = tf_keras.Sequential([layers.Dense(3), layers.Activation(tf.nn.silu)])(tf.reduce_mean(hidden, axis=[1, 2]))
    model = randomised(tf_keras.Model(image, hidden))
    model.compile("sgd", loss="mse")
    imported = from_file(save(model, tmp_path / f"model.{ending}"))
    (result,) = assert_same(imported)
    inputs = np.random.default_rng(0).normal(size=(1, 6, 6, 3)).astype("f")
    np.testing.assert_allclose(result, model(inputs), atol=1e-6)


def test_a_registered_layer_is_the_callers_own_code(tmp_path: Path, assert_same: Fixture) -> None:
    @tf_keras.saving.register_keras_serializable("tests")
    class Twice(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x * 2.0

    assert_same(from_file(save(tf_keras.Sequential([Twice(input_shape=(3,))]), tmp_path / "model.keras")))


@pytest.mark.parametrize("ending", ENDINGS)
def test_python_bytecode_is_refused(ending: str, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    code = f"lambda x: [open({str(touched)!r}, 'w').close(), x][1]"
    path = save(tf_keras.Sequential([layers.Lambda(eval(code), input_shape=(3,))]), tmp_path / f"model.{ending}")
    touched.unlink(missing_ok=True)
    message = refused(path)
    assert "a Lambda layer, which holds Python code" in message
    assert "load the model yourself" in message
    assert not touched.exists()


def test_a_python_lambda_as_an_argument_is_refused(tmp_path: Path) -> None:
    def attack(config: Any) -> None:
        code = base64.b64encode(marshal.dumps((lambda x: x).__code__)).decode()
        config["config"]["layers"][1]["config"]["activation"] = {
            "class_name": "__lambda__",
            "config": {"value": [code, None, None]},
        }

    assert "a Python lambda" in refused(edit_config(save(dense_model(), tmp_path / "model.keras"), attack))


@pytest.mark.parametrize("module", ["os", "builtins", "tf_keras.utils", "tf_keras.src.utils.generic_utils"])
def test_functions_named_by_module_are_refused(module: str, tmp_path: Path) -> None:
    name = {"os": "system", "builtins": "eval", "tf_keras.utils": "get_file"}.get(module, "func_load")

    def attack(config: Any) -> None:
        config["config"]["layers"][1]["config"]["activation"] = {
            "class_name": "function",
            "config": name,
            "module": module,
            "registered_name": name,
        }

    path = edit_config(save(dense_model(), tmp_path / "model.keras"), attack)
    assert f"the object {module}.{name}" in refused(path)


def test_naming_a_module_does_not_import_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)

    def attack(config: Any) -> None:
        config.update(module="planted", class_name="Thing", registered_name=None)

    message = refused(edit_config(save(dense_model(), tmp_path / "model.keras"), attack))
    assert "the object planted.Thing" in message
    assert "register_keras_serializable" in message
    assert "planted" not in sys.modules


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "operation", ["io.write_file", "keras.models.load_model", "raw_ops.WriteFile", "py_function", "load_op_library"]
)
def test_operations_beyond_arrays_are_refused(operation: str, ending: str, tmp_path: Path) -> None:
    value = tf_keras.Input((3,))
    path = save(tf_keras.Model(value, tf.nn.relu(value)), tmp_path / f"model.{ending}")

    def attack(config: Any) -> None:
        config["config"]["layers"][1]["config"]["function"] = operation

    assert f"the operation {operation!r}, allowed: TensorFlow's array operations" in refused(edit_config(path, attack))


def test_an_operation_that_would_run_while_the_model_is_built_is_refused(tmp_path: Path) -> None:
    value = tf_keras.Input((3,))
    path = save(tf_keras.Model(value, tf.nn.relu(value)), tmp_path / "model.keras")
    written = tmp_path / "written"

    def attack(config: Any) -> None:
        layer = json.loads(json.dumps(config["config"]["layers"][1]))
        layer["name"] = layer["config"]["name"] = "writer"
        layer["config"]["function"] = "io.write_file"
        layer["inbound_nodes"] = [["_CONSTANT_VALUE", -1, str(written), {"contents": "data"}]]
        config["config"]["layers"].append(layer)

    refused(edit_config(path, attack))
    assert not written.exists()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["TensorFlowOpLayer", "ClassMethod", "TFSMLayer"])
def test_layers_that_rebuild_programs_are_refused(name: str, ending: str, tmp_path: Path) -> None:
    def attack(config: Any) -> None:
        config["config"]["layers"][1]["class_name"] = name

    path = edit_config(save(dense_model(), tmp_path / f"model.{ending}"), attack)
    assert f"the object {name}" in refused(path)


def test_a_missing_file(tmp_path: Path) -> None:
    assert "got no such file" in refused(tmp_path / "none.keras")


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_that_are_no_models(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"model.{ending}"
    for data in (b"", b"# not a model\n", b"PK\x03\x04broken", b"\x89HDF\r\n\x1a\nbroken"):
        path.write_bytes(data)
        assert "allowed: .keras and .h5 files written by model.save" in refused(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_truncated_files(ending: str, tmp_path: Path) -> None:
    path = save(dense_model(), tmp_path / f"model.{ending}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path)


def test_weights_without_a_model(tmp_path: Path) -> None:
    path = tmp_path / "only.weights.h5"
    dense_model().save_weights(path)
    assert "weights only" in refused(path)
    assert "model.load_weights" in refused(path)


def test_a_zip_archive_that_is_no_model(tmp_path: Path) -> None:
    for name, message in (("model.keras", "without config.json"), ("model.zip", "allowed: the ending .keras")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("readme.txt", "hello")
        assert message in refused(tmp_path / name)


def test_a_model_without_its_weights(tmp_path: Path) -> None:
    path = save(dense_model(), tmp_path / "model.keras")
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
    assert "tf_keras cannot load the model: Expected a model.weights.h5" in refused(path)
