"""The commands where standard streams are closed, full or of a poor encoding, and where files may not be read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stablenorm.compiler import cli

MODEL = "func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> { return %x : tensor<2xf32> }"
OPT, CHECK = "-m stablenorm.compiler.opt", "-m stablenorm.compiler.cli check"


def shell(command: str, place: Path, **environment: str) -> tuple[int, str, str]:
    (place / "model.mlir").write_text(MODEL)
    done = subprocess.run(
        ["sh", "-c", command.replace("python", sys.executable, 1)],
        cwd=place,
        env=os.environ | environment,
        capture_output=True,
    )
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", [OPT, CHECK])
def test_closed_streams_change_no_exit_code(command: str, closed: str, tmp_path: Path) -> None:
    assert shell(f"python {command} model.mlir {closed}", tmp_path)[0] == 0


def test_a_closed_standard_input_is_empty(tmp_path: Path) -> None:
    code, _, told = shell(f"python {OPT} <&-", tmp_path)
    assert code == 2
    assert "empty" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("command", [OPT, CHECK])
def test_a_full_disk_is_one_line(command: str, tmp_path: Path) -> None:
    code, _, told = shell(f"python {command} model.mlir >/dev/full", tmp_path)
    assert (code, told) == (2, "error: standard output: No space left on device\n")


def test_a_poor_encoding_loses_characters_and_no_output(tmp_path: Path) -> None:
    code, printed, told = shell(f"python {CHECK} model.mlir", tmp_path, PYTHONIOENCODING="ascii")
    assert (code, told) == (0, "")
    assert "????" in printed
    assert "output0" in printed


def test_what_may_not_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)  # by hand: a test that runs as root may read everything
    assert cli.main(["check", "locked/model.keras"]) == 2
    assert capsys.readouterr().err == "error: locked/model.keras: Permission denied\n"
