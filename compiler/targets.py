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

_CPU = (
    "skip-places,lower-depthwise-convolution,lower-pointwise-convolution,lower-pooling,"
    "hoist-weights,block-batch,canonicalize,cse"
)
_CUDA = "skip-places,lower-depthwise-convolution{most_places=25},transpose-kernels"

# No YNNPACK: matrix products and convolutions are Eigen's. By default YNNPACK takes both. Against YNNPACK for products
# alone, batch 1, two cores: MobileNetV2 0.90 of the time, EfficientNetB0 0.86, ResNet50 0.98: it packs a matrix at each
# call into memory of its own. Against its default, convolutions too, InceptionV3 at batch 8 takes 0.65.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}

TARGETS = {
    "cpu": Target("cpu", f"{_FOLDED},lower-batch-norm,{_CPU}", _CPU_OPTIONS),
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
