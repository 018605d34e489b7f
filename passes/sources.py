"""Tensors whose statistics over a batch a function may compute."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import integers, is_float, product, shape_of, tensor_type
from stablenorm.passes.leaves import is_rounding, is_sum
from stablenorm.passes.matching import defining_op
from stablenorm.passes.named_forms import view
from stablenorm.passes.rewriting import operations
from stablenorm.passes.weights import Weights


@dataclasses.dataclass(frozen=True)
class Source:
    """A tensor with features along ``axes``, and the block in which it is summed over its other dimensions."""

    x: ir.Value
    axes: tuple[int, ...]
    block: ir.Block

    @property
    def count(self) -> int:
        """How many elements each feature has."""
        return product([size for dimension, size in enumerate(shape_of(self.x)) if dimension not in self.axes])


def find_sources(function: func.FuncOp, weights: Weights) -> list[Source]:
    """What is summed over all dimensions but its features', and what has a named batch norm; no weights."""
    found = dict.fromkeys(source for op in operations(function) for source in _sources(op))
    fixed = (source for source in found if source.axes and tensor_type(source.x).has_static_shape)
    return [source for source in fixed if source.count > 1 and not weights.is_weight(source.x)]


def _sources(op: ir.OpView) -> Iterator[Source]:
    named = view(op)
    if named is not None and named.kind == "training":
        yield Source(_unrounded(named["operand"]), named.axes, op.operation.block)
    if isinstance(op, hlo.ReduceOp) and is_sum(op):
        dimensions = range(len(shape_of(op.inputs[0])))
        axes = tuple(sorted(set(dimensions) - set(integers(op, "dimensions"))))
        yield Source(_unrounded(op.inputs[0]), axes, op.operation.block)


def _unrounded(value: ir.Value) -> ir.Value:
    """What was converted to a wider type."""
    op = defining_op(value)
    while isinstance(op, hlo.ConvertOp) and is_float(op.operand) and not is_rounding(op):
        value = op.operand
        op = defining_op(value)
    return value
