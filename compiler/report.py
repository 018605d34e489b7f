"""What became of each batch norm of a model, and which other per-channel maps folded."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Literal

from jax.extend.mlir import ir

from stablenorm.compiler.tables import text_table
from stablenorm.passes import Remark
from stablenorm.passes.base import Kind
from stablenorm.passes.matching import layer_name, where
from stablenorm.passes.rewriting import functions, operations
from stablenorm.passes.weights import Weights


@dataclasses.dataclass(frozen=True)
class Row:
    """A batch norm, or another per-channel map that was folded.

    Attributes:
        name: its layer.
        kind: a batch norm; or a multiplication or division by weights (a scale); or an addition of them (a shift).
        status: what became of it. Of other maps than batch norms, only those that folded have a row.
        into: the layers whose weights took it.
        removed: how many elementwise operations on activations each call saves by that: of a batch norm's two, and of
            the biases that it met, one addition stays where the shift has no other to go with.
        reason: why it was kept.
    """

    name: str
    kind: Kind
    status: Literal["folded", "kept"]
    into: str
    removed: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Report:
    """The batch norms of a model and what else folded, in the order of the program. ``print`` shows a table.

    Attributes:
        folded, total: of the batch norms.
        removed: how many elementwise operations on activations each call saves.
    """

    rows: tuple[Row, ...]

    @property
    def folded(self) -> int:
        return sum(row.status == "folded" for row in self._batch_norms)

    @property
    def total(self) -> int:
        return len(self._batch_norms)

    @property
    def removed(self) -> int:
        return sum(row.removed for row in self.rows)

    @property
    def _batch_norms(self) -> list[Row]:
        return [row for row in self.rows if row.kind == "batch norm"]

    def to_json(self, **more: Any) -> str:
        """``{"folded": 1, "total": 2, "removed": 1, "rows": [{"name": ..., "kind": ..., ...}, ...]}``, as in `Row`.

        ``more`` stands behind them.
        """
        rows = [dataclasses.asdict(row) for row in self.rows]
        counts = {"folded": self.folded, "total": self.total, "removed": self.removed}
        return json.dumps(counts | {"rows": rows} | more, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report written by `to_json`.

        Raises:
            ValueError, KeyError, TypeError: the text is not one.
        """
        return cls(tuple(Row(**row) for row in json.loads(text)["rows"]))

    def __str__(self) -> str:
        summary = f"{self.folded} of {self.total} batch norms folded"
        if not self.rows:
            return summary
        summary += f"; elementwise operations less per call: {self.removed}" if self.removed else ""
        columns = [field.name for field in dataclasses.fields(Row)]
        cells = [list(map(str, dataclasses.astuple(row))) for row in self.rows]
        return "\n".join([text_table(columns, cells), summary])


def make_report(remarks: Sequence[Remark]) -> Report:
    """One row for each map that the passes speak of, by what was first decided about it."""
    rows: dict[tuple[str, str, str, int], Row] = {}
    seen: dict[tuple[str, str, str, str], int] = {}
    for remark in remarks:
        if remark.verdict in ("raised", "frozen"):  # a later pass decides what becomes of it
            continue
        # A layer that is called twice is two batch norms: the n-th remark of one pass is about the n-th call.
        speaker = (remark.pass_name, remark.kind, remark.subject, remark.location)
        seen[speaker] = seen.get(speaker, 0) + 1
        rows.setdefault((remark.kind, remark.subject, remark.location, seen[speaker]), _row(remark))
    return Report(tuple(rows.values()))


def left_over(module: ir.Module) -> list[Remark]:
    """Batch norms that stand in the final module: no pass of the pipeline took them, XLA expands them.

    A normalization in training mode with constant scale and offset is not one: TensorFlow writes layer
    normalization so.
    """
    remarks = []
    for function in functions(module):
        weights = Weights(function, {})
        for op in operations(function):
            reason = _LEFT_OVER.get(op.operation.name)
            if reason and any(weights.is_parameter(operand) for operand in list(op.operands)[1:3]):
                remarks.append(
                    Remark("compile", "declined", layer_name(op, weights, *list(op.operands)[1:]), reason, where(op))
                )
    return remarks


_LEFT_OVER = {
    "stablehlo.batch_norm_inference": "no pass of the pipeline folds or lowers it",
    "stablehlo.batch_norm_training": "it normalizes with the statistics of its batch",
}


def _row(remark: Remark) -> Row:
    if remark.verdict == "folded":
        return Row(remark.subject, remark.kind, "folded", remark.detail, remark.removed, "")
    return Row(remark.subject, remark.kind, "kept", "", 0, remark.detail)
