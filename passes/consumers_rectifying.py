"""What a map ``s*x + t``, s positive, becomes behind a maximum, a minimum or a clamp.

The scale passes; the shift, divided by it, is added before. So where a map meets a ReLU, one addition is left of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import integers, reshape, shape_of, tensor_type
from stablenorm.passes.compact import apply, filled, join
from stablenorm.passes.copies import with_operand, with_operands
from stablenorm.passes.leaky_relu import LeakyRelu
from stablenorm.passes.matching import splat_number, windowed_dims
from stablenorm.passes.pending import Form, Pending, Step, dims_of, each
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.weights import Weights

LARGEST_BOUND = 64.0  # whose quotient with a scale that passes stays far from what any type holds at most


def through_maximum(op: hlo.MaxOp | hlo.MinOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """``max(s*x + t, c) = s * max(x + t/s, c/s)``, c a number; the same with a minimum"""
    return _through(op, place, (1 - place,), form)


def through_clamp(op: hlo.ClampOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """``clamp(a, s*x + t, b) = s * clamp(a/s, x + t/s, b/s)``, a and b numbers: ReLU6 is one"""
    return NoMatch("it is the bound of a clamp") if place != 1 else _through(op, 1, (0, 2), form)


def through_leaky_relu(leaky: LeakyRelu, form: Form) -> Step | NoMatch:
    """``leaky(s*x + t) = s * leaky(x + t/s)``"""
    return _passing(leaky.op, form, lambda value, scale: leaky.of(value))


def _through(op: ir.OpView, place: int, bounds: tuple[int, ...], form: Form) -> Step | NoMatch:
    numbers = [splat_number(op.operands[each]) for each in bounds]
    if any(number is None or not abs(number) <= LARGEST_BOUND for number in numbers):
        return NoMatch(f"{op.operation.name} with what is not a small number")

    def emit(value: ir.Value, scale: ir.Value) -> ir.Value:
        over = {each: _over(number, scale, value) for each, number in zip(bounds, numbers, strict=True) if number}
        return with_operands(op, {place: value, **over})

    return _passing(op, form, emit)


def _passing(op: ir.OpView, form: Form, emit: Callable[[ir.Value, ir.Value], ir.Value]) -> Step | NoMatch:
    """The scale passes ``op``, which ``emit(value, scale)`` copies; the shift, divided by it, is added before."""
    if form.scale is None or not form.passes_maxima:
        return NoMatch(f"{op.operation.name} lets only a scale pass that is known to be positive, and not near zero")

    def act(pending: Pending) -> Pending:
        value, scale = pending.value, pending.scale
        assert scale is not None
        if pending.shift is not None:
            value = apply(hlo.add, value, join(hlo.divide, pending.shift, scale))
        return Pending(emit(value, scale), scale, None)

    return Step(dataclasses.replace(form, shift=None, distance=0.0), act, saves=0 if form.shift is None else -1)


def _over(number: float, scale: ir.Value, like: ir.Value) -> ir.Value:
    quotient = join(hlo.divide, filled(number, len(shape_of(scale)), tensor_type(scale).element_type), scale)
    return apply(lambda value, wide: wide, like, quotient)


def through_maximum_of_windows(op: hlo.ReduceWindowOp, form: Form) -> Step | NoMatch:
    """``max(s*x + t) = s * max(x) + t``, s and t constant over each window"""
    windowed = windowed_dims(op)
    if splat_number(op.operands[1]) != -np.inf:
        return NoMatch("a maximum over windows that does not begin at -inf")
    if any(dims is not None and dims & windowed for dims in (form.scale, form.shift)):
        return NoMatch("a maximum over windows along a dimension along which it varies")
    if form.scale is not None and not form.passes_maxima:
        return NoMatch("a maximum over windows lets only a scale pass that is known to be positive, and not near zero")
    return Step(form, lambda pending: dataclasses.replace(pending, value=with_operand(op, 0, pending.value)))


def through_maximum_of(op: hlo.ReduceOp, form: Form) -> Step | NoMatch:
    """``max(s*x + t) = s * max(x) + t``, s and t constant over what is reduced"""
    dims = integers(op, "dimensions")
    varies = any(varying is not None and varying & set(dims) for varying in (form.scale, form.shift))
    if varies or splat_number(op.operands[1]) != -np.inf:
        return NoMatch("a maximum that does not begin at -inf, or over a dimension along which it varies")
    if form.scale is not None and not form.passes_maxima:
        return NoMatch("a maximum lets only a scale pass that is known to be positive, and not near zero")
    kept = [dim for dim in range(len(shape_of(op.operands[0]))) if dim not in dims]

    def part(value: ir.Value) -> ir.Value:
        return reshape(value, [shape_of(value)[dim] for dim in kept])

    after = dims_of(form, lambda each: frozenset(map(kept.index, each)))
    return Step(after, lambda pending: each(op, part, pending))
