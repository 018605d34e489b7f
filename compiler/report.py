"""What became of each batch norm of a model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Literal

from jax.extend.mlir import ir

from stablenorm.compiler.tables import text_table
from stablenorm.passes import Remark
from stablenorm.passes.matching import layer_name, where
from stablenorm.passes.rewriting import functions, operations
from stablenorm.passes.weights import Weights


@dataclasses.dataclass(frozen=True)
class Row:
    """One batch norm: ``into`` names the layer that it was folded into, ``reason`` says why it was kept."""

    name: str
    status: Literal["folded", "kept"]
    into: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Report:
    """The batch norms of a model, in the order of the program. ``print`` shows a table."""

    rows: tuple[Row, ...]

    @property
    def folded(self) -> int:
        return sum(row.status == "folded" for row in self.rows)

    @property
    def total(self) -> int:
        return len(self.rows)

    def to_json(self) -> str:
        """``{"folded": 1, "total": 2, "rows": [{"name", "status", "into", "reason"}, ...]}``"""
        rows = [dataclasses.asdict(row) for row in self.rows]
        return json.dumps({"folded": self.folded, "total": self.total, "rows": rows}, indent=2) + "\n"

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
        columns = [field.name for field in dataclasses.fields(Row)]
        return "\n".join([text_table(columns, [dataclasses.astuple(row) for row in self.rows]), summary])


def make_report(remarks: Sequence[Remark]) -> Report:
    """One row for each batch norm that the passes met, by what was first decided about it."""
    rows: dict[tuple[str, str, int], Row] = {}
    seen: dict[tuple[str, str, str], int] = {}
    for remark in remarks:
        if remark.verdict in ("raised", "frozen"):  # a later pass decides what becomes of it
            continue
        # A layer that is called twice is two batch norms: the n-th remark of one pass is about the n-th call.
        speaker = (remark.pass_name, remark.subject, remark.location)
        seen[speaker] = seen.get(speaker, 0) + 1
        rows.setdefault((remark.subject, remark.location, seen[speaker]), _row(remark))
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
        return Row(remark.subject, "folded", remark.detail, "")
    return Row(remark.subject, "kept", "", remark.detail)
