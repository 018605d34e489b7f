"""What the command-line tools say, and how they end, when nothing is wrong with the model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stablenorm.compiler import cli, opt
from stablenorm.passes import PASSES

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "conv_bn_relu.mlir"


def line_of(text: str, what: str) -> int:
    return text[: text.index(what)].count("\n") + 1


def test_a_reader_that_has_seen_enough_ends_the_tool_in_silence():
    """Like `stablenorm-opt ... | true`."""
    read, write = os.pipe()
    os.close(read)
    tool = [sys.executable, "-m", "stablenorm.compiler.opt", str(EXAMPLE)]
    result = subprocess.run(tool, stdout=write, stderr=subprocess.PIPE, timeout=120)
    os.close(write)
    assert result.stderr == b""
    assert result.returncode == 141  # what a shell reports of a program that SIGPIPE ended


def test_a_remark_names_the_file_and_the_line_of_the_operation(capsys: pytest.CaptureFixture[str]):
    assert opt.main([str(EXAMPLE), "--passes=fold-batch-norm", "--explain"]) == 0
    line = line_of(EXAMPLE.read_text(), '"stablehlo.batch_norm_inference"')
    assert f"{EXAMPLE}:{line}:8: remark: fold-batch-norm: bn: folded: conv" in capsys.readouterr().err


def test_lines_are_those_of_the_file_when_it_is_split(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    text = "func.func @f() { return }\n// -----\n" + EXAMPLE.read_text()
    twice = tmp_path / "twice.mlir"
    twice.write_text(text)
    assert opt.main([str(twice), "--passes=fold-batch-norm", "--explain", "--split-input-file"]) == 0
    line = line_of(text, '"stablehlo.batch_norm_inference"')
    assert f"{twice}:{line}:8: remark" in capsys.readouterr().err


def test_an_error_names_the_line_of_the_file_when_it_is_split(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    wrong = tmp_path / "wrong.mlir"
    wrong.write_text("func.func @f() { return }\n// -----\nfunc.func @f() {\n  stablehlo.nothing\n}\n")
    assert opt.main([str(wrong), "--split-input-file"]) == 2
    assert f"error: {wrong}: got no valid StableHLO module: line 4:3" in capsys.readouterr().err


def test_the_help_of_stablenorm_opt_says_what_every_pass_does(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        opt.main(["--help"])
    listed = capsys.readouterr().out.split("passes, in the order")[1].splitlines()[1:]
    assert [line.split()[0] for line in listed] == [each.name for each in PASSES]
    assert all(len(line.split()) > 3 for line in listed)


@pytest.mark.parametrize("command", ["compile", "run", "check", "demo"])
def test_every_command_says_what_it_does(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    usage, description = capsys.readouterr().out.split("\n\n")[:2]
    assert command in usage
    assert description.endswith(".")
