"""Files of Keras 3: models load, and no code that the files hold or name runs."""

from __future__ import annotations

import base64
import json
import marshal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from stablenorm import compiler
from stablenorm.compiler import cli, demo
from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends import import_model

layers = keras.layers
Fixture = Callable[..., Any]
# Keras reads its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(autouse=True)
def _fresh_keras() -> None:
    keras.utils.clear_session()


def save(model: Any, path: Path) -> Path:
    model.save(path)
    return path


def dense_model() -> Any:
    return keras.Sequential([keras.Input((3,)), layers.Dense(2, activation="relu", name="dense")])


def edit_config(path: Path, edit: Callable[[Any], None]) -> Path:
    """Changes the configuration in a saved file, as an attacker would."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    edit(config)
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def attacked(path: Path, activation: dict[str, Any]) -> Path:
    """A file whose dense layer names something as its activation."""

    def attack(config: Any) -> None:
        config["config"]["layers"][1]["config"]["activation"] = activation

    return edit_config(save(dense_model(), path), attack)


def refused(path: Path) -> str:
    with pytest.raises(StablenormError) as caught:
        import_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith((f"{path}: got ", f"{path}: Keras cannot load"))
    return message


def test_a_file_gives_what_the_model_gives(tmp_path: Path) -> None:
    image = keras.Input((6, 6, 3), name="image")
    hidden = layers.Conv2D(4, 3, kernel_regularizer="l2", activation=keras.activations.relu6)(image)
    hidden = keras.ops.relu(layers.BatchNormalization(axis=-1, name="norm")(hidden))[:, 1:] + 1.0
    hidden = layers.LSTM(3, dropout=0.2)(layers.Reshape((-1, 4))(hidden))
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.Activation(keras.ops.silu)])
    inner.compile(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)), "mse", ["mae"])
    model = keras.Model(image, inner(hidden))
    demo.randomize(model)
    model.compile("sgd", loss="mse")
    executable = compiler.compile(save(model, tmp_path / "model.keras"))
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 3)).astype(np.float32)
    # Rounding of a few layers whose outputs are about 1.
    np.testing.assert_allclose(executable(x), model(x), rtol=0, atol=1e-5)
    assert [row.name for row in executable.report.rows] == ["norm"]


def test_the_command_line_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(dense_model(), tmp_path / "model.keras")
    assert cli.main(["check", str(path)]) == 0
    assert "ok" in capsys.readouterr().out


def test_a_registered_layer_is_the_callers_own_code(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("tests")
    class Twice(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x * 2.0

    executable = compiler.compile(save(keras.Sequential([keras.Input((3,)), Twice()]), tmp_path / "model.keras"))
    np.testing.assert_array_equal(executable(np.ones((1, 3), np.float32)), np.full((1, 3), 2.0))


def test_python_bytecode_is_refused(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    code = f"lambda x: [open({str(touched)!r}, 'w').close(), x][1]"
    path = save(keras.Sequential([keras.Input((3,)), layers.Lambda(eval(code))]), tmp_path / "model.keras")
    touched.unlink(missing_ok=True)
    message = refused(path)
    assert "a Lambda layer, which holds Python code" in message
    assert "load the model yourself" in message
    assert not touched.exists()


def test_a_python_lambda_as_an_argument_is_refused(tmp_path: Path) -> None:
    code = base64.b64encode(marshal.dumps((lambda x: x).__code__)).decode()
    activation = {"class_name": "__lambda__", "config": {"value": [code, None, None]}}
    assert "a Python lambda" in refused(attacked(tmp_path / "model.keras", activation))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "deserialize"),
        ("keras.utils", "get_file"),
        ("keras.models", "load_model"),
        ("keras.config", "enable_unsafe_deserialization"),
        ("keras.activations", "deserialize"),
        ("keras.src.utils.python_utils", "func_load"),
        ("tf_keras.utils", "get_file"),
    ],
)
def test_functions_that_are_no_part_of_models_are_refused(module: str, name: str, tmp_path: Path) -> None:
    for registered in (name, "relu", None):
        activation = {"class_name": "function", "config": name, "module": module, "registered_name": registered}
        assert f"the object {module}.{name}" in refused(attacked(tmp_path / "model.keras", activation))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.saving", "CustomObjectScope"),
        ("keras.src.saving.saving_lib", "DiskIOStore"),
        ("keras.callbacks", "ModelCheckpoint"),
        ("keras.layers", "os"),
        ("subprocess", "Popen"),
        ("tf_keras.layers", "Dense"),
        (None, "Dense"),
    ],
)
def test_classes_that_are_no_part_of_models_are_refused(module: str | None, name: str, tmp_path: Path) -> None:
    activation = {"class_name": name, "config": {}, "module": module, "registered_name": name}
    assert f"the object {module}.{name}" in refused(attacked(tmp_path / "model.keras", activation))


@pytest.mark.parametrize("name", ["TFSMLayer", "TorchModuleWrapper", "JaxLayer", "StringLookup", "IndexLookup"])
def test_layers_that_hold_programs_or_read_files_are_refused(name: str, tmp_path: Path) -> None:
    def attack(config: Any) -> None:
        config["config"]["layers"][1]["class_name"] = name

    assert f"the layer {name}" in refused(edit_config(save(dense_model(), tmp_path / "model.keras"), attack))


def test_naming_a_module_does_not_import_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)

    def attack(config: Any) -> None:
        config.update(module="planted", class_name="Thing", registered_name=None)

    message = refused(edit_config(save(dense_model(), tmp_path / "model.keras"), attack))
    assert "the object planted.Thing" in message
    assert "register_keras_serializable" in message
    assert "planted" not in sys.modules


def test_an_hdf5_file_of_keras_3_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    dense_model().save(path)
    assert f"got an HDF5 file that Keras {keras.__version__} wrote" in refused(path)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    path = save(dense_model(), tmp_path / "model.keras")
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for missing, message in (("config.json", "without config.json"), ("model.weights.h5", "Keras cannot load")):
        with zipfile.ZipFile(path, "w") as archive:
            for name in set(parts) - {missing}:
                archive.writestr(name, parts[name])
        assert message in refused(path)
    path.write_bytes(data[: len(data) // 2])
    assert "allowed: .keras and .h5 files written by model.save" in refused(path)


def test_another_backend_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(dense_model(), tmp_path / "model.keras")
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(StablenormError, match="set KERAS_BACKEND=jax"):
        import_model(path)


def test_a_missing_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(dense_model(), tmp_path / "model.keras")
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(
        StablenormError, match=r"'keras', which is not installed; run `pip install 'stablenorm\[keras\]'"
    ):
        import_model(path)
