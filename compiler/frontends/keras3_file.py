"""A Keras 3 model from a ``.keras`` file that nobody vouches for."""

from __future__ import annotations

import importlib
import json
import os
import sys
import zipfile
from typing import Any

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.keras import explain, require_jax
from stablenorm.compiler.frontends.keras3_config import check_config
from stablenorm.compiler.frontends.keras_file import archive_config
from stablenorm.compiler.frontends.tensorflow_runtime import quiet_stderr


def is_keras3_file(path: str) -> bool:
    """Whether the file says that a Keras of version 3 or above wrote it."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("metadata.json") as file:
            version = str(json.loads(file.read(4096))["keras_version"])
        return int(version.partition(".")[0]) >= 3
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        return False


def load_keras3_file(path: str) -> Any:
    """The model in the file, on JAX. Its configuration is checked before Keras sees it; nothing in it is executed.

    Keras's own safe mode stays on. Where Keras is not imported yet and KERAS_BACKEND not set, it is set to jax.

    Raises:
        StablenormError: no Keras on JAX; not a whole model, or one that holds or names foreign code.
    """
    keras = _import_keras()
    require_jax(keras)
    check_config(keras, archive_config(path), path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise StablenormError(
            f"{path}: Keras cannot load the model: {explain(error)}; save it again with Keras {keras.__version__}, or "
            "load it yourself and pass the model"
        ) from error


def _import_keras() -> Any:
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        with quiet_stderr():
            return importlib.import_module("keras")
    except ModuleNotFoundError as error:
        raise StablenormError(
            f"this model needs the Python package {error.name!r}, which is not installed; "
            "run `pip install 'stablenorm[keras]'`"
        ) from error
