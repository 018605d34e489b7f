"""The lit files of targets run what targets run."""

from __future__ import annotations

from pathlib import Path

import pytest

from stablenorm.compiler.targets import TARGETS

FILES = sorted((Path(__file__).parents[1] / "lit" / "targets").glob("*.mlir"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_lit_file_of_a_target_runs_its_pipeline(path: Path) -> None:
    assert f"--passes='{TARGETS[path.stem].pipeline}' " in path.read_text()
