"""Where a model runs: which passes prepare it, and how XLA is asked to compile it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from stablenorm.compiler.diagnostics import StablenormError


@dataclasses.dataclass(frozen=True)
class Target:
    """A platform of XLA.

    Attributes:
        pipeline: the default pipeline, from what a frontend hands over to what XLA compiles.
        compiler_options: XLA's options by name.
    """

    name: str
    pipeline: str
    compiler_options: Mapping[str, str | bool]


_FOLDED = "import-cleanup,raise-batch-norm,fold-batch-norm,lower-batch-norm"
_FINISHED = "hoist-weights,canonicalize,cse"

_CPU = "lower-depthwise-convolution,lower-pointwise-convolution"

TARGETS = {"cpu": Target("cpu", f"{_FOLDED},{_CPU},{_FINISHED}", {})}


def find_target(name: str) -> Target:
    """The target of that name.

    Raises:
        StablenormError: there is none.
    """
    if name not in TARGETS:
        raise StablenormError(f"got the target {name!r}, allowed: {', '.join(TARGETS)}")
    return TARGETS[name]


def without_folding(pipeline: str) -> str:
    """The pipeline less its fold-batch-norm."""
    return ",".join(stage for stage in pipeline.split(",") if stage != "fold-batch-norm")
