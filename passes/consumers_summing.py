"""What a map ``s*x + t`` becomes in a sum, s being constant over what is summed."""

from __future__ import annotations

import dataclasses

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import integers, product, reshape, shape_of, tensor_type
from stablenorm.passes.compact import (
    filled,
    spread,
)
from stablenorm.passes.consumers_rectifying import through_maximum_of, through_maximum_of_windows
from stablenorm.passes.copies import with_operand, written
from stablenorm.passes.matching import reducer, splat_number, windowed_dims
from stablenorm.passes.pending import Form, Pending, Step, dims_of
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.weights import Weights


def through_reduce(op: hlo.ReduceOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """``sum(s*x + t) = s*sum(x) + sum(t)``, s constant over what is summed"""
    dims = set(integers(op, "dimensions"))
    if len(op.operands) == 2 and reducer(op) == "stablehlo.maximum":
        return through_maximum_of(op, form)
    if len(op.operands) != 2 or not is_sum(op):
        return NoMatch("a reduction that is neither a sum nor a maximum")
    before = shape_of(op.operands[0])
    if form.scale is not None and form.scale & dims:
        return NoMatch("a sum over a dimension along which it scales")
    if any(before[d] < 0 for d in dims):
        return NoMatch("a sum over a dimension whose size is known only when the program runs")
    kept = [d for d in range(len(before)) if d not in dims]

    def summed(value: ir.Value) -> ir.Value:
        sizes, element_type = shape_of(value), tensor_type(value).element_type
        result = ir.RankedTensorType.get([sizes[d] for d in kept], element_type)
        count = product([before[d] for d in dims if sizes[d] == 1])
        total = written(op, value, result, filled(0.0, 0, element_type))
        return hlo.multiply(total, spread_scalar(float(count), total))

    def act(pending: Pending) -> Pending:
        scale = pending.scale and reshape(pending.scale, [shape_of(pending.scale)[d] for d in kept])
        value = with_operand(op, 0, pending.value)
        return Pending(value, scale, pending.shift and summed(pending.shift))

    after = dims_of(form, lambda each: frozenset(kept.index(d) for d in each if d in kept))
    return Step(dataclasses.replace(after, passes_maxima=False), act)  # the sum of shifts may be large


def through_reduce_window(op: hlo.ReduceWindowOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """As `through_reduce`, over windows. Padding adds zeros: the shift then varies near the border."""
    if len(op.operands) == 2 and reducer(op) == "stablehlo.maximum":
        return through_maximum_of_windows(op, form)
    if len(op.operands) != 2 or not is_sum(op):
        return NoMatch("a reduction over windows that is neither a sum nor a maximum")
    windowed = windowed_dims(op)
    if form.scale is not None and form.scale & windowed:
        return NoMatch("a sum over windows along a dimension along which it scales")
    before, after = shape_of(op.operands[0]), shape_of(op.results[0])
    if any(before[d] < 0 for d in windowed):
        return NoMatch("a sum over windows of a dimension whose size is known only when the program runs")

    def summed(value: ir.Value) -> ir.Value:
        sizes = [before[d] if d in windowed else size for d, size in enumerate(shape_of(value))]
        result = [after[d] if d in windowed else size for d, size in enumerate(sizes)]
        type_ = ir.RankedTensorType.get(result, tensor_type(value).element_type)
        return written(op, spread(value, sizes), type_, filled(0.0, 0, type_.element_type))

    def act(pending: Pending) -> Pending:
        return Pending(with_operand(op, 0, pending.value), pending.scale, pending.shift and summed(pending.shift))

    return Step(form.after(form.scale, None if form.shift is None else form.shift | windowed), act)


def is_sum(op: hlo.ReduceOp | hlo.ReduceWindowOp) -> bool:
    """Whether a reduction adds, from zero."""
    return reducer(op) == "stablehlo.add" and splat_number(op.operands[1]) == 0.0


def spread_scalar(number: float, like: ir.Value) -> ir.Value:
    return spread(filled(number, len(shape_of(like)), tensor_type(like).element_type), shape_of(like))
