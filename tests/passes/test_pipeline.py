"""Textual pipelines: what is read, in which order it runs, and one line for each mistake."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stablenorm.compiler import pipeline
from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.passes import PASSES, PassContext
from tests.passes.modules import parse


def texts(text: str) -> list[tuple[str, bool]]:
    """Each stage's text, and whether it is ours."""
    return [(stage.text, stage.ours is not None) for stage in pipeline.parse(text)]


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("", []),
        (" , ,", []),
        ("cse", [("cse", False)]),
        (" fold-batch-norm ,\n cse", [("fold-batch-norm", True), ("cse", False)]),
        ("fold-batch-norm{},cse", [("fold-batch-norm{}", True), ("cse", False)]),
        ("func.func(cse,canonicalize),cse", [("func.func(cse,canonicalize)", False), ("cse", False)]),
        ("canonicalize{max-iterations=2 top-down=false}", [("canonicalize{max-iterations=2 top-down=false}", False)]),
        ("builtin.module(lower-batch-norm,cse)", [("lower-batch-norm", True), ("cse", False)]),
    ],
)
def test_a_pipeline_is_read(text: str, stages: list[tuple[str, bool]]):
    assert texts(text) == stages


@pytest.mark.parametrize("each", PASSES, ids=lambda each: each.name)
def test_every_pass_is_found_by_its_name(each):
    options = "{replica_groups=[[0,1]]}" if each.name == "synchronize-batch-norm" else ""  # it needs some
    (stage,) = pipeline.parse(each.name + options)
    assert type(stage.ours) is each


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fold-batch-nrm", "got the unknown pass 'fold-batch-nrm', allowed: .*; did you mean fold-batch-norm\\?$"),
        ("cse,nothing-like-it", "got the unknown pass 'nothing-like-it', allowed: .*, and MLIR's own passes$"),
        ("fold-batch-norm{depth=3}", "fold-batch-norm: got the unknown option 'depth', allowed: "),
        ("canonicalize{depth=3}", "canonicalize"),
        ("func.func(cse", "brackets that do not match"),
        ("cse)", "brackets that do not match"),
        ("cse}{", "cse"),
        ("a)(b", "a\\)\\(b"),
    ],
)
def test_a_mistake_is_one_line(text: str, message: str):
    with pytest.raises(StablenormError, match=message) as caught:
        pipeline.parse(text)
    assert "\n" not in str(caught.value)


def test_stablehlos_passes_are_known_before_any_module_is_read():
    code = "from stablenorm.compiler import pipeline; pipeline.parse('stablehlo-refine-shapes')"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_runs_where_a_later_stage_is_unknown():
    module = parse("func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> { return %x : tensor<2xf32> }")
    started: list[str] = []
    with pytest.raises(StablenormError):
        pipeline.run(module, "cse,nothing-like-it", PassContext(), progress=started.append)
    assert started == []


def test_progress_names_the_stages_in_order():
    module = parse("func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> { return %x : tensor<2xf32> }")
    started: list[str] = []
    pipeline.run(module, "lower-batch-norm,func.func(cse)", PassContext(), progress=started.append)
    assert started == ["lower-batch-norm", "func.func(cse)"]
