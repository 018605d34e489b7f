"""Files are data: nothing that the package reads can run code."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import numpy as np
import pytest

from stablenorm.compiler import StablenormError, arrays, load

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for folder in ("ops", "passes", "compiler") for path in (ROOT / folder).rglob("*.py"))
# Modules that turn data into code, and calls that do.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "runpy"}
CALLS = {"eval", "exec", "compile", "__import__"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_turns_data_into_code(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not {name.split(".")[0] for name in names} & MODULES
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in CALLS - {"compile"}
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return Path.touch, (self.path,)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    np.save(tmp_path / "x.npy", np.array([Trap(trace)], dtype=object), allow_pickle=True)
    (tmp_path / "y.npy").write_bytes(pickle.dumps(Trap(trace)))
    for name in ("x.npy", "y.npy"):
        with pytest.raises(StablenormError, match=r"got no \.npy file"):
            arrays.read(tmp_path / name)
    assert not trace.exists()


def test_a_saved_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for name in ("module.mlirbc", "weights.safetensors", "report.json"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap(trace)))
    with pytest.raises(StablenormError):
        load(tmp_path)
    assert not trace.exists()
