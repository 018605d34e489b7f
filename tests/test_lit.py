"""Every lit file, as a test of its own, and the lit files' spelling: FileCheck passes over what it cannot read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

LIT = Path(__file__).parent / "lit"
PATHS = [path for path in LIT.rglob("*") if path.suffix in {".mlir", ".test"} and path.parent.name != "inputs"]
FILES = sorted(str(path.relative_to(LIT)) for path in PATHS)

KINDS = "NEXT|SAME|DAG|NOT|LABEL|EMPTY|COUNT-[0-9]+"
# A word in capitals that stands first in a comment, or before a colon, is meant as a directive.
COMMENT = re.compile(r"^\s*(?://|#)\s*(?P<word>[A-Z][A-Z0-9_-]{2,})(?P<rest>.*)$")
TOOLS = ("stablenorm-opt", "filecheck", "%fails", "%python", "cat", "printf", "sh")


@pytest.mark.parametrize("name", FILES)
def test_lit(name: str, tmp_path: Path):
    command = [sys.executable, "-c", "from lit.main import main; main()", "--verbose", "--threads=1"]
    command += [f"--param=exec_root={tmp_path}", str(LIT / name)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"Passed: +1\b", result.stdout), result.stdout + result.stderr


def misspelt(text: str) -> list[str]:
    """The comments that look like directives but are none that FileCheck or lit would read."""
    prefixes = {
        "CHECK",
        *(prefix for group in re.findall(r"--check-prefix(?:es)?[= ](\S+)", text) for prefix in group.split(",")),
    }
    directive = re.compile(rf"(?:{'|'.join(map(re.escape, prefixes))})(?:-(?:{KINDS}))?")
    found = []
    for line in text.splitlines():
        match = COMMENT.match(line)
        known = match and (match["word"] in {"RUN", "COM"} or directive.fullmatch(match["word"]))
        if match and not (known and match["rest"].startswith(":") and match["rest"][1:].strip()):
            found.append(line.strip())
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_directive_is_spelt_right(name: str):
    assert misspelt((LIT / name).read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "// CHECK-LABLE: @f",
        "// CHEK: x",
        "// CHECK x",
        "//CHECK-NXT: x",
        "// CHECK-NOT:",
        "# RUNS: true",
        "// EXPLAIN: a prefix that no RUN line names",
        "// CHECK_NEXT: x",
    ],
)
def test_a_misspelt_directive_is_found(line: str):
    assert misspelt(line) == [line]


def test_a_prefix_that_a_run_line_names_is_known():
    assert misspelt("// RUN: filecheck %s --check-prefix=EXPLAIN\n// EXPLAIN-NEXT: x\n// CHECK-COUNT-2: y") == []


@pytest.mark.parametrize("name", FILES)
def test_every_prefix_that_is_asked_for_is_written(name: str):
    text = (LIT / name).read_text()
    for run in re.findall(r"filecheck .*", text):
        prefix = (re.findall(r"--check-prefix[= ](\S+)", run) or ["CHECK"])[0]
        assert re.search(rf"^(?://|#) {prefix}(?:-\w+)*:", text, re.MULTILINE), f"{run}: nothing to check"


@pytest.mark.parametrize("name", FILES)
def test_run_lines_use_known_tools(name: str):
    runs = re.findall(r"RUN: (.*)", (LIT / name).read_text())
    assert runs, "a lit file without a RUN line tests nothing"
    commands = [command.split() for run in runs for command in re.split(r"\s(?:\||&&|;)\s", run.removesuffix("\\"))]
    assert {words[0] for words in commands if words} <= set(TOOLS)
    for words in commands:
        if words and words[0] == "filecheck":
            unknown = [
                word
                for word in words[1:]
                if not re.match(r"%|-$|--(?:check-prefix|input-file|match-full-lines)\b", word)
            ]
            assert not unknown, f"this FileCheck ignores or lacks {unknown}"
