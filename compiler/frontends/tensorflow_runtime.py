"""TensorFlow and tf_keras, imported when a model needs them, and their errors in one line."""

from __future__ import annotations

import importlib
import os
import re
from typing import Any

from stablenorm.compiler.diagnostics import StablenormError

_LOCATION = re.compile(r"^(File \"|Traceback|Stack trace|\[\[|\[Op:|Detected at|Arguments received|Call arguments|•|\^|-+$)")


def import_tensorflow() -> Any:
    """The module ``tensorflow``, with its C++ log at errors only unless ``TF_CPP_MIN_LOG_LEVEL`` says otherwise.

    Raises:
        StablenormError: it is not installed.
    """
    return _import("tensorflow")


def import_tf_keras() -> Any:
    """The module ``tf_keras``. Raises as `import_tensorflow`."""
    import_tensorflow()
    return _import("tf_keras")


def first_useful_line(error: BaseException) -> str:
    """What an error says, without the locations around it: TensorFlow's messages run over many lines."""
    lines = [line.strip() for line in str(error).splitlines()]
    useful = [line for line in lines if line and not _LOCATION.match(line)]
    return useful[0].rstrip(".:") if useful else type(error).__name__


def _import(name: str) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise StablenormError(
            f"this model needs the Python package {error.name!r}, which is not installed; "
            "run `pip install 'stablenorm[tf]'`"
        ) from error
