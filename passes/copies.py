"""Copies of an operation at the insertion point, with something exchanged."""

from __future__ import annotations

from jax.extend.mlir import ir

from stablenorm.passes.building import tensor_type


def with_operand(op: ir.OpView, place: int, value: ir.Value) -> ir.Value:
    """A copy of ``op`` with another operand of the same type."""
    return with_operands(op, {place: value})


def with_operands(op: ir.OpView, values: dict[int, ir.Value]) -> ir.Value:
    """A copy of ``op`` with other operands of the same types, by their places."""
    copy = op.operation.clone()
    for place, value in values.items():
        copy.operands[place] = value
    result: ir.Value = copy.results[0]
    return result


def written(op: ir.OpView, value: ir.Value, type_: ir.Type, second: ir.Value | None = None) -> ir.Value:
    """A copy of ``op`` on operands of other sizes and another element type, with a result of ``type_``."""
    copy = op.operation.clone()
    copy.operands[0] = value
    if second is not None:
        copy.operands[1] = second
    copy.results[0].set_type(type_)
    for block in (block for region in copy.regions for block in region):
        scalar = ir.RankedTensorType.get([], tensor_type(value).element_type)
        for inner in (*block.arguments, *(result for each in block.operations for result in each.results)):
            inner.set_type(scalar)
    result: ir.Value = copy.results[0]
    return result
