"""One view of a batch norm for every pass, whichever of two ways the IR names it.

StableHLO has operations for one feature dimension without weights: ``stablehlo.batch_norm_{inference,training,grad}``.
What they cannot say is a ``stablehlo.composite`` named ``stablenorm.batch_norm_*``, whose decomposition is plain
StableHLO, so that a consumer that does not know the name still runs it. Its attributes are those of the operation,
``epsilon`` and ``feature_indices``; ``operands``, the names of its operands in their order; and ``replica_groups``,
where its sums are those of all replicas of a group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Literal

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.collectives import ReplicaGroups
from stablenorm.passes.rewriting import operations

Kind = Literal["inference", "training", "grad"]

OPERANDS: Mapping[Kind, tuple[str, ...]] = {
    "inference": ("operand", "scale", "offset", "mean", "variance"),
    "training": ("operand", "scale", "offset", "weight"),
    "grad": ("operand", "scale", "mean", "variance", "grad_output", "weight"),
}


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """A batch norm in the IR.

    Attributes:
        operands: by name. ``weight``, where there is one, says how often each element counts.
        axes: the feature dimensions, ascending.
        groups: replicas that share statistics; None: each has its own.
    """

    kind: Kind
    op: ir.OpView
    operands: Mapping[str, ir.Value]
    epsilon: float
    axes: tuple[int, ...]
    groups: ReplicaGroups | None = None

    def __getitem__(self, name: str) -> ir.Value:
        return self.operands[name]


def composite_name(kind: Kind) -> str:
    return f"stablenorm.batch_norm_{kind}"


def batch_norms(root: ir.OpView) -> Iterator[BatchNorm]:
    """Those inside ``root``, in program order, each seen as it is when its turn comes."""
    return (named for op in operations(root) if (named := view(op)) is not None)


def view(op: ir.OpView) -> BatchNorm | None:
    """The batch norm that ``op`` is; None where it is none."""
    kind = _kind(op)
    if kind is None:
        return None
    if op.operation.name != hlo.CompositeOp.OPERATION_NAME:
        operands = dict(zip(OPERANDS[kind], op.operands, strict=False))
        axis = ir.IntegerAttr(op.attributes["feature_index"]).value
        return BatchNorm(kind, op, operands, ir.FloatAttr(op.attributes["epsilon"]).value, (axis,))
    attributes = ir.DictAttr(op.attributes["composite_attributes"])
    names = [ir.StringAttr(name).value for name in ir.ArrayAttr(attributes["operands"])]
    axes = tuple(ir.DenseI64ArrayAttr(attributes["feature_indices"]))
    epsilon = ir.FloatAttr(attributes["epsilon"]).value
    groups = ReplicaGroups.of(attributes["replica_groups"]) if "replica_groups" in attributes else None
    return BatchNorm(kind, op, dict(zip(names, op.operands, strict=True)), epsilon, axes, groups)


def _kind(op: ir.OpView) -> Kind | None:
    name = op.operation.name
    if name == hlo.CompositeOp.OPERATION_NAME:
        name = ir.StringAttr(op.attributes["name"]).value.replace("stablenorm.", "stablehlo.", 1)
    return _KINDS.get(name)


_KINDS: Mapping[str, Kind] = {
    hlo.BatchNormInferenceOp.OPERATION_NAME: "inference",
    hlo.BatchNormTrainingOp.OPERATION_NAME: "training",
    hlo.BatchNormGradOp.OPERATION_NAME: "grad",
}
