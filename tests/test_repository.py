"""The tree keeps its own rules: no loose ends, nothing of one machine, and a lit file for each pass."""

from __future__ import annotations

import inspect
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from stablenorm.passes import PASSES

ROOT = Path(__file__).resolve().parents[1]

LOOSE_ENDS = re.compile(r"\b(?:TODO|FIXME|XXX)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.:/<{}$-])/(?:home|mnt|opt|root|tmp|Users|work)/\w")


@cache
def tracked() -> tuple[Path, ...]:
    """The files that git tracks or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return tuple(path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file())


def lines() -> Iterator[tuple[str, str]]:
    """Every line of text in the tree, with its place; not this file, which has to name what it looks for."""
    for path in tracked():
        content = path.read_bytes()
        if b"\0" in content or path == Path(__file__).resolve():
            continue
        for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", line


@pytest.mark.parametrize("forbidden", [LOOSE_ENDS, MACHINE_PATHS], ids=["loose-ends", "machine-paths"])
def test_tree_is_free_of(forbidden: re.Pattern[str]):
    found = [f"{place}: {line.strip()}" for place, line in lines() if forbidden.search(line)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cd /home/someone/x", True),
        ("'/tmp/x'", True),
        ("%{tmp}/work/x", False),
        ("a/tmp/x", False),
        ("./opt/x", False),
    ],
)
def test_machine_paths_are_recognised(text: str, found: bool):
    assert bool(MACHINE_PATHS.search(text)) is found


def test_pass_names_are_unique():
    names = [each.name for each in PASSES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("each", PASSES, ids=lambda each: each.name)
def test_pass_is_named_after_its_file(each):
    cls = each if inspect.isclass(each) else type(each)
    assert Path(inspect.getfile(cls)).stem == each.name.replace("-", "_")


@pytest.mark.parametrize("each", PASSES, ids=lambda each: each.name)
def test_pass_has_a_lit_file(each):
    """A file of the pass's name, or a folder of that name with files in it."""
    lit = ROOT / "tests" / "lit"
    tested = {path.relative_to(lit).parts[0].removesuffix(".mlir").replace("_", "-") for path in lit.rglob("*.mlir")}
    assert each.name in tested, f"write tests/lit/{each.name.replace('-', '_')}.mlir"


def test_every_pass_file_is_listed():
    defined = re.compile(r"^class \w+\(Pass\):", re.MULTILINE)
    files = {path.stem for path in (ROOT / "passes").glob("*.py") if defined.search(path.read_text())}
    assert files <= {each.name.replace("-", "_") for each in PASSES}, "add it to PASSES in passes/__init__.py"
