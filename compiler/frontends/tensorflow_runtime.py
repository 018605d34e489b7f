"""TensorFlow and tf_keras, imported when a model needs them, and their errors in one line."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from stablenorm.compiler.diagnostics import StablenormError

# Lines of a TensorFlow message that say where, not what.
_LOCATION = re.compile(
    r"(File \"|Traceback|Stack trace|\[\[|\[Op:|Detected at|Arguments received|Call arguments|\(3\) "
    r"|Exception encountered|in user code|•|\^|-+$)"
)
_RAISED = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception): (.+)")
_PREFIX = re.compile(
    r"Failed getting HLO text: '?|Graph execution error:?|__inference_\w+\[\] ?"
    r"|\{\{node \S+?\}\}(?='?$)|\{\{node (\S+)\}\}",
    re.M,
)
# What TensorFlow writes without regard to its log level on a machine without its accelerators.
_NOISE = re.compile(
    rb"cudart_stub|before absl::InitializeLog|cuda drivers|cuInit|oneDNN|cpu_feature_guard|rebuild TensorF"
)


def import_tensorflow() -> Any:
    """The module ``tensorflow``, with its C++ log at errors only unless ``TF_CPP_MIN_LOG_LEVEL`` says otherwise.

    Raises:
        StablenormError: it is not installed.
    """
    return _import("tensorflow")


def import_tf_keras() -> Any:
    """The module ``tf_keras``. Raises as `import_tensorflow`."""
    return _import("tf_keras")


def import_h5py() -> Any:
    """The module ``h5py``, which TensorFlow brings along. Raises as `import_tensorflow`."""
    return _import("h5py")


def first_useful_line(error: BaseException) -> str:
    """What an error says, without the locations around it: TensorFlow's messages run over many lines."""
    lines = [line.strip() for line in _PREFIX.sub(r"\1", str(error)).splitlines()]
    raised = [(number, match[1]) for number, match in enumerate(map(_RAISED.match, lines)) if match]
    if "in user code:" in lines and raised:  # a traceback, with source lines, stands before the last of them
        number, message = raised[-1]
        lines = [message, *lines[number + 1 :]]
    useful = [line for line in lines if line and not _LOCATION.match(line)]
    return _without_stop(useful[0]) if useful else type(error).__name__


def _without_stop(line: str) -> str:
    """A line without the full stop, the colon and the closing quote of a message that `_PREFIX` opened."""
    line = line.rstrip(".:")
    quotes = len(re.findall(r"(?<!\w)'|'(?!\w)", line))  # apostrophes are none
    return _without_stop(line[:-1]) if line.endswith("'") and quotes % 2 else line


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Holds back what is written to stderr, by C++ too: `_NOISE` is dropped, and all of it where an error tells why."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
            sys.stderr.flush()
            held.seek(0)
            os.write(stderr, b"".join(line for line in held if not _NOISE.search(line)))
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _import(name: str) -> Any:
    if sys.modules.get(name) is not None:
        return sys.modules[name]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with quiet_stderr():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise StablenormError(
            f"this model needs the Python package {error.name!r}, which is not installed; "
            "run `pip install 'stablenorm[tf]'`"
        ) from error
