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
        topology: the device to compile for, by name; None is one that is attached.
    """

    name: str
    pipeline: str
    compiler_options: Mapping[str, str | bool]
    topology: str | None = None

    def attached(self) -> Target:
        """The same for a device that is attached."""
        return dataclasses.replace(self, topology=None)


_FOLDED = "import-cleanup,raise-batch-norm,fold-batch-norm"
_FINISHED = "hoist-weights,canonicalize,cse"

_CPU = "lower-depthwise-convolution,lower-pointwise-convolution"
_CUDA = "skip-places,lower-depthwise-convolution{most_places=25},transpose-kernels"

# YNNPACK for matrix products alone. By default it takes convolutions too, and what that costs grows with the batch:
# processor time of one call at batch 8, two cores, against this option: InceptionV3 1.54 times, Xception 1.14. At batch
# 1, and without YNNPACK at all, the times differ by less than their noise.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}

TARGETS = {
    "cpu": Target("cpu", f"{_FOLDED},lower-batch-norm,{_CPU},{_FINISHED}", _CPU_OPTIONS),
    "tpu": Target("tpu", f"{_FOLDED},lower-batch-norm{{platform=tpu}},{_FINISHED}", {}),
    "cuda": Target("cuda", f"{_FOLDED},lower-batch-norm{{platform=cuda}},{_CUDA},{_FINISHED}", {}),
}


def find_target(name: str, topology: str | None = None) -> Target:
    """The target of that name, for devices of that topology.

    Raises:
        StablenormError: there is none, or it is no target with topologies.
    """
    if name not in TARGETS:
        raise StablenormError(f"got the target {name!r}, allowed: {', '.join(TARGETS)}")
    if topology is not None and name == "cpu":
        raise StablenormError(f"topology: got {topology!r} for the target cpu, allowed: none; it is this machine's")
    return dataclasses.replace(TARGETS[name], topology=topology)


def without_folding(pipeline: str) -> str:
    """The pipeline less its fold-batch-norm."""
    return ",".join(stage for stage in pipeline.split(",") if stage != "fold-batch-norm")
