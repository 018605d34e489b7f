"""What became of each per-channel map of a function: the remarks of fold-batch-norm."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Kind, Remark
from stablenorm.passes.matching import layer_name, where
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.weights import Weights


@dataclasses.dataclass(frozen=True)
class Fate:
    """A map is gone: into which layers, and how many elementwise operations on activations per call this saves."""

    into: tuple[str, ...]
    removed: int


class Fates:
    """The fates of a function's maps; what stands for a map, or is left of it, shares its fate."""

    def __init__(self) -> None:
        self._fates: dict[ir.Value, Fate | NoMatch] = {}  # by results: operations have no identity of their own
        self._origins: dict[ir.Value, ir.Value] = {}

    def note(self, op: ir.OpView, fate: Fate | NoMatch, left: Iterable[ir.Value] = ()) -> None:
        """``op`` went somewhere, or did not; in ``left``, additions of what is left of it."""
        origin = self._origin(op.results[0])
        self._origins.update(dict.fromkeys(left, origin))
        before = self._fates.get(origin)
        if isinstance(before, Fate) and isinstance(fate, Fate):  # what was left of it went on
            fate = Fate(before.into, before.removed + fate.removed)
        if not isinstance(before, Fate) or isinstance(fate, Fate):
            self._fates[origin] = fate

    def stands_for(self, value: ir.Value, op: ir.OpView) -> None:
        """``value`` is the result of a batch norm that was written for ``op``."""
        self._origins[value] = self._origin(op.results[0])

    def is_gone(self, op: ir.OpView) -> bool:
        return isinstance(self._fates.get(self._origin(op.results[0])), Fate)

    def _origin(self, value: ir.Value) -> ir.Value:
        return self._origins.get(value, value)

    def remarks(self, ops: Iterable[ir.OpView], weights: Weights) -> Iterator[Remark]:
        """In the order of ``ops``: of batch norms all, of other maps those that are gone into a layer."""
        for op in ops:
            fate = self._fates.get(op.results[0]) if op.results else None
            kind, parameters = _kind(op)
            if isinstance(fate, Fate):
                name, into = layer_name(op, weights, *parameters), ", ".join(dict.fromkeys(fate.into))
                yield Remark("fold-batch-norm", "folded", name, into, where(op), kind, fate.removed)
            elif fate is not None and kind == "batch norm":
                yield Remark(
                    "fold-batch-norm", "declined", layer_name(op, weights, *parameters), fate.reason, where(op)
                )


def _kind(op: ir.OpView) -> tuple[Kind, list[ir.Value]]:
    if isinstance(op, hlo.BatchNormInferenceOp):
        return "batch norm", [op.mean, op.variance, op.scale, op.offset]
    return "scale" if isinstance(op, hlo.MulOp | hlo.DivOp) else "shift", list(op.operands)
