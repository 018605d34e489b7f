"""A tf_keras model from a ``.keras`` or ``.h5`` file that nobody vouches for."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.keras_config import check_config
from stablenorm.compiler.frontends.tensorflow_runtime import (
    first_useful_line,
    import_h5py,
    import_tf_keras,
    quiet_stderr,
)


def load_keras_file(path: str) -> Any:
    """The model in the file. Its configuration is checked before tf_keras sees it; nothing in it is executed.

    tf_keras's own safe mode stays on, but it covers less: in an ``.h5`` file it runs Python bytecode, and in a
    ``.keras`` file it imports whichever module is named and calls TensorFlow functions such as ``tf.io.write_file``.

    Raises:
        StablenormError: no such file, not a whole model, or one that holds or names foreign code.
    """
    if not Path(path).is_file():
        raise StablenormError(f"{path}: got no such file; pass a .keras or .h5 file, or a SavedModel folder")
    tf_keras = import_tf_keras()
    check_config(_read_config(path), path)
    try:
        with quiet_stderr():
            return tf_keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise StablenormError(
            f"{path}: tf_keras cannot load the model: {first_useful_line(error)}; save it again with tf_keras, or load "
            "it yourself and pass the model"
        ) from error


def archive_config(path: str) -> Any:
    """The configuration in a ``.keras`` archive, from where Keras will read it.

    Raises:
        StablenormError: there is none.
    """
    try:
        return _archive_config(path)
    except StablenormError:
        raise
    except Exception as error:
        raise _no_model(path, error) from error


def _read_config(path: str) -> Any:
    """The model's configuration, from where tf_keras will read it: a zip's ``config.json``, an HDF5 attribute."""
    if zipfile.is_zipfile(path):
        return archive_config(path)
    try:
        return _hdf5_config(path)
    except StablenormError:
        raise
    except Exception as error:
        raise _no_model(path, error) from error


def _no_model(path: str, error: Exception) -> StablenormError:
    return StablenormError(
        f"{path}: got a file that is no whole Keras model ({first_useful_line(error)}); "
        "allowed: .keras and .h5 files written by model.save"
    )


def _archive_config(path: str) -> Any:
    if not path.endswith(".keras"):
        raise StablenormError(f"{path}: got a zip archive, allowed: the ending .keras; rename it if it is a model")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "config.json" not in names:
            raise StablenormError(f"{path}: got a zip archive without config.json, allowed: what model.save writes")
        # compile=False makes Keras drop this part, the only one that may name the user's own losses.
        return {**json.loads(archive.read("config.json")), "compile_config": None}


def _hdf5_config(path: str) -> Any:
    with Path(path).open("rb") as head:
        magic = head.read(8)
    if magic != b"\x89HDF\r\n\x1a\n":
        raise StablenormError(
            f"{path}: got a file that is neither a zip archive nor HDF5 ({Path(path).stat().st_size} bytes), allowed: "
            ".keras and .h5 files written by model.save; a broken download looks like this too"
        )
    with import_h5py().File(path, "r") as file:
        config, version = file.attrs.get("model_config"), str(file.attrs.get("keras_version"))
    if config is None:
        raise StablenormError(
            f"{path}: got an HDF5 file with weights only, allowed: a whole model; build the model, call "
            "model.load_weights on this file, and pass the model"
        )
    if version.startswith("3."):
        raise StablenormError(
            f"{path}: got an HDF5 file that Keras {version} wrote, allowed: those of tf_keras; save it as .keras"
        )
    return json.loads(config)
