"""``stablenorm`` at the shell: what each command prints and writes, and one line for everything that is wrong."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras

from stablenorm.compiler import cli, demo, opt

layers = tf_keras.layers


def normal(*shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(5).normal(size=shape).astype(dtype)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, arrays and what is none of these."""
    place = tmp_path_factory.mktemp("files")
    image = tf_keras.Input((None, None, 3), name="image")
    open_sizes = tf_keras.Model(image, layers.BatchNormalization()(layers.Conv2D(4, 3)(image)))
    vector, other = tf_keras.Input((5,), name="vector"), tf_keras.Input((2,), name="other")
    first = layers.BatchNormalization(name="norm")(layers.Dense(3, name="dense")(vector))
    model = tf_keras.Model([vector, other], {"first": first, "second": layers.Dense(2, name="plain")(other)})
    for name, each in (("open", open_sizes), ("model", model)):
        demo.randomize(each)
        each.save(place / f"{name}.keras")
    np.save(place / "vector.npy", normal(1, 5))
    np.save(place / "other.npy", normal(1, 2))
    np.save(place / "wide.npy", normal(1, 5, dtype=np.float64))
    np.save(place / "batch.npy", normal(3, 5))
    np.save(place / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (place / "text.keras").write_text("hello")
    (place / "text.mlir").write_text("hello")
    (place / "wrong.mlir").write_text("func.func @main() -> tensor<2xf32> { return }")
    (place / "bytes.bin").write_bytes(b"\x00\xff\x80")
    (place / "empty.mlir").write_text("")
    assert cli.main(["compile", f"{place}/model.keras", "-o", f"{place}/out"]) == 0
    artifact = (place / "out" / "module.mlirbc").read_bytes()
    (place / "cut.mlirbc").write_bytes(artifact[: len(artifact) // 2])
    return place


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_compile_prints_the_report_and_writes_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compile", "model.keras", "-o", "here"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "norm   folded   dense" in printed.out
    assert "1 of 1 batch norms folded" in printed.out
    assert "takes (vector: float32[1,5], other: float32[1,2])" in printed.out
    assert {entry.name for entry in Path("here").iterdir()} == {"module.mlirbc", "weights.safetensors", "report.json"}


def test_compile_takes_shapes_pipelines_and_no_fold(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compile", "open.keras", "-o", "shaped", "--input-shape", "2,9,8,3", "--target", "cpu"]) == 0
    assert "takes (image: float32[2,9,8,3])" in capsys.readouterr().out
    assert cli.main(["compile", "open.keras", "-o", "shaped", "--input-shape", "image=1,9,8,3", "--no-fold"]) == 0
    printed = capsys.readouterr().out
    assert "no pass folded it" in printed
    assert "takes (image: float32[1,9,8,3])" in printed
    assert cli.main(["compile", "model.keras", "-o", "piped", "--passes", "import-cleanup,lower-batch-norm"]) == 0
    assert "0 of" in capsys.readouterr().out


def test_run_reads_and_writes_arrays(capsys: pytest.CaptureFixture[str]) -> None:
    inputs = ["--input", "vector.npy", "--input", "other.npy"]
    assert cli.main(["run", "out", *inputs, "--output", "y.npz"]) == 0
    assert capsys.readouterr() == ("", "")
    model = tf_keras.models.load_model("model.keras")
    expected = model([normal(1, 5), normal(1, 2)], training=False)
    with np.load("y.npz") as outputs:
        assert set(outputs) == {"first", "second"}
        for name, value in outputs.items():
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-5)  # float32, values near one


def test_check_compares_with_the_framework(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "model.keras"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("ok") == 2
    assert "1 of 1 batch norms folded" in printed


def test_check_exits_1_on_a_mismatch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stablenorm.compiler.check.TOLERANCES", dict.fromkeys(["float64", "float32"], -1.0))
    assert cli.main(["check", "model.keras"]) == 1
    assert "MISMATCH" in capsys.readouterr().out


BAD_INPUT = {
    "compile": [
        ("a missing file", "nothing.keras"),
        ("text that is no model", "text.keras"),
        ("text that is no IR", "text.mlir"),
        ("invalid IR", "wrong.mlir"),
        ("truncated bytecode", "cut.mlirbc"),
        ("an empty file", "empty.mlir"),
        ("bytes", "bytes.bin"),
        ("a folder that is no model", "."),
        ("a compiled module", "out/module.mlirbc"),
        ("an open size", "open.keras"),
        ("no numbers", "open.keras --input-shape 1,a"),
        ("a wrong rank", "open.keras --input-shape 1,9,9"),
        ("another size", "open.keras --input-shape 1,9,9,4"),
        ("an unknown input", "open.keras --input-shape picture=1,9,9,3"),
        ("an unknown pass", "model.keras --passes fold-batch-norms"),
        ("an unknown option of a pass", "model.keras --passes fold-batch-norm{hard=true}"),
        ("an unknown option of MLIR's pass", "model.keras --passes canonicalize{hard=true}"),
        ("brackets that do not match", "model.keras --passes canonicalize{"),
        ("an unknown target", "model.keras --target abacus"),
        ("an unknown argument", "model.keras --hard"),
        ("missing weights", "model.keras --weights nothing.safetensors"),
        ("weights that are none", "model.keras --weights text.mlir"),
    ],
    "run": [
        ("a missing folder", "nothing --input vector.npy"),
        ("a folder that is none", ". --input vector.npy"),
        ("a missing input", "out --input nothing.npy"),
        ("an input too few", "out --input vector.npy"),
        ("an input too many", "out --input vector.npy --input other.npy --input other.npy"),
        ("a wrong shape", "out --input batch.npy --input other.npy"),
        ("a wrong type", "out --input wide.npy --input other.npy"),
        ("pickled objects", "out --input objects.npy --input other.npy"),
        ("an archive", "out --input model.keras --input other.npy"),
        ("text", "out --input text.mlir --input other.npy"),
        ("no input", "out"),
    ],
    "demo": [("an unknown model", "--model Nothing"), ("a size too small", "--size 8")],
    "check": [
        ("a missing file", "nothing.keras"),
        ("an unknown seed", "model.keras --seed x"),
        ("a negative seed", "model.keras --seed -1"),
    ],
    "": [("no command", ""), ("an unknown command", "destroy")],
}
CASES = [(command, what, rest) for command, cases in BAD_INPUT.items() for what, rest in cases]
NEEDED = {"compile": ["-o", "new"], "run": ["--output", "new.npz"]}


def outcome(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as exit_:
        return int(exit_.code or 0)


@pytest.mark.parametrize(("command", "what", "rest"), CASES, ids=[f"{command}: {what}" for command, what, _ in CASES])
def test_bad_input_is_one_line_and_code_2(
    command: str, what: str, rest: str, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [*command.split(), *rest.split(), *NEEDED.get(command, [])]
    assert outcome(cli.main, arguments) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    assert not Path("new").exists()
    assert not Path("new.npz").exists()


@pytest.mark.parametrize("file", ["nothing.mlir", "text.mlir", "wrong.mlir", "cut.mlirbc", "empty.mlir", "bytes.bin"])
def test_opt_tells_bad_files_in_one_line(file: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert outcome(opt.main, [file]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {file}: ")
    assert printed.err.count("\n") == 1


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stablenorm.compiler.cli", *arguments]
    return subprocess.run(command, text=True, check=False, timeout=120, **options)


def test_a_pipe_gets_no_progress() -> None:
    done = run("check", "model.keras", capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout


def test_a_terminal_gets_progress() -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm"}
    done = run("run", "out", "--input", "vector.npy", "--input", "other.npy", "--output", "y.npz", env=environment,
               stdout=subprocess.PIPE, stderr=theirs)  # fmt: skip
    os.close(theirs)
    seen = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, "")
    assert "compiling with XLA" in seen or "running" in seen
