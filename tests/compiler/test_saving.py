"""The folder of a compiled model: it comes back as it was, and is replaced only by a complete one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from stablenorm import compiler
from stablenorm.compiler import saving
from stablenorm.compiler.signature import TensorSpec

FILES = {"module.mlirbc", "weights.safetensors", "report.json"}


def normal(*shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(3).normal(size=shape).astype(dtype)


def network(dtype: Any = np.float32) -> compiler.Executable:
    names = ("w", "gamma", "beta", "mean", "variance")
    weights = {name: abs(normal(*shape, dtype=dtype)) for name, shape in zip(names, [(3, 4), *[(4,)] * 4], strict=True)}

    def function(p: Any, x: Any) -> Any:
        h = (x @ p["w"] - p["mean"]) * (jax.lax.rsqrt(p["variance"] + dtype(1e-3)) * p["gamma"]) + p["beta"]
        return {"logits": h, "parts": [h[:, :1], h.sum()]}

    return compiler.compile(function, weights, normal(2, 3, dtype=dtype), weight_argnums=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_a_loaded_executable_is_the_saved_one(dtype: Any, tmp_path: Path) -> None:
    with jax.enable_x64(True):
        saved = network(dtype)
    place = tmp_path / "deep" / "out"
    saved.save(place)
    assert {entry.name for entry in place.iterdir()} == FILES
    loaded = compiler.load(place)
    assert (loaded.signature, loaded.report) == (saved.signature, saved.report)
    assert loaded.stablehlo().count("stablehlo.") == saved.stablehlo().count("stablehlo.")
    jax.tree.map(np.testing.assert_array_equal, dict(loaded.weights), dict(saved.weights))
    x = normal(2, 3, dtype=dtype)
    jax.tree.map(np.testing.assert_array_equal, loaded(x), saved(x))
    assert set(loaded(x)) == {"logits", "parts"}
    assert json.loads((place / "report.json").read_text()) == {
        "cost": dataclasses.asdict(saved.cost()),
        "folded": 1,
        "total": 1,
        "removed": 1,
        "rows": [{"name": "mean", "kind": "batch norm", "status": "folded", "into": "w", "removed": 1, "reason": ""}],
    }
    loaded.save(place)  # onto itself
    jax.tree.map(np.testing.assert_array_equal, compiler.load(place)(x), saved(x))


@pytest.mark.parametrize("failing", ["write_weights", "_artifact", "_exchange"])
def test_a_failure_while_writing_leaves_the_old_folder(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    network().save(place)
    before = {entry.name: entry.read_bytes() for entry in place.iterdir()}

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, failing, fail)
    with pytest.raises(compiler.StablenormError, match="cannot be written: No space left on device"):
        network().save(place)
    assert {entry.name: entry.read_bytes() for entry in place.iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_failing_move_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "out"
    network().save(place)
    rename = Path.rename

    def fail_for_new(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(compiler.StablenormError, match="Input/output error"):
        network().save(place)
    assert {entry.name for entry in place.iterdir()} == FILES
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_other_peoples_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(compiler.StablenormError, match=r"other files \(notes.txt\); choose a new folder"):
        network().save(tmp_path)
    with pytest.raises(compiler.StablenormError, match="got a file"):
        network().save(tmp_path / "notes.txt")
    with pytest.raises(compiler.StablenormError, match="cannot be written"):
        network().save(tmp_path / "notes.txt" / "out")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    network().save(tmp_path / "empty")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        cut,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("[]"),
        lambda path: path.write_bytes(b"\x00\xff"),
        lambda path: path.write_text("[" * 100_000),
    ],
    ids=["missing", "truncated", "empty", "another json", "binary", "deep"],
)
def test_a_broken_folder_is_told_in_one_line(
    name: str, damage: Callable[[Path], Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "out"
    network().save(place)
    damage(place / name)
    with pytest.raises(compiler.StablenormError, match="got") as error:
        compiler.load(place)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"inputs": ()},
        {"outputs": ()},
        {"inputs": (TensorSpec("x", (2, 4), "float32"),)},
        {"inputs": (TensorSpec("x", (2, 3), "float64"),)},
        {"input_tree": (1,)},
        {"output_tree": 7},
        {"output_tree": "0"},
    ],
)
def test_a_signature_that_is_not_the_modules_is_told_in_one_line(wrong: dict[str, Any], tmp_path: Path) -> None:
    executable = network()
    executable.signature = dataclasses.replace(executable.signature, **wrong)
    executable.save(tmp_path / "out")
    with pytest.raises(compiler.StablenormError, match="got a broken folder"):
        compiler.load(tmp_path / "out")


def test_weights_that_do_not_belong_to_the_module_are_refused(tmp_path: Path) -> None:
    executable = network()
    executable.save(tmp_path / "out")
    weights = dict(executable.weights)
    for wrong in (
        {name: value for name, value in weights.items() if name != "gamma"},
        weights | {"gamma": normal(5)},
        weights | {"gamma": normal(4, dtype=np.float64)},
    ):
        saving.write_weights(tmp_path / "out" / "weights.safetensors", wrong)
        with pytest.raises(compiler.StablenormError, match="gamma"):
            compiler.load(tmp_path / "out")(normal(2, 3))


def test_scalars_booleans_and_empty_weights_survive(tmp_path: Path) -> None:
    weights = {
        "scalar": np.float32(2.0),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 3), np.int8),
        "wide": np.arange(3, dtype=np.uint64),
        "turned": np.asfortranarray(normal(2, 3)),
    }
    path = tmp_path / "weights.safetensors"
    saving.write_weights(path, {name: np.asarray(value) for name, value in weights.items()})
    for name, value in saving.read_weights(path).items():
        np.testing.assert_array_equal(value, weights[name], strict=True)
    assert jnp.asarray(saving.read_weights(path)["scalar"]).shape == ()


def test_a_link_keeps_pointing_to_the_folder(tmp_path: Path) -> None:
    executable = network()
    executable.save(tmp_path / "folder")
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "folder" / "report.json").write_text("{}")
    executable.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert compiler.load(tmp_path / "folder").report == executable.report
