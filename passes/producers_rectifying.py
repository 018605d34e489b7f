"""A scale that is not negative passes maxima, minima and clamps, whose bounds it scales."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import along, convert, shape_of, tensor_type
from stablenorm.passes.channels import channel_vector
from stablenorm.passes.copies import with_operand, with_operands
from stablenorm.passes.leaky_relu import LeakyRelu, leaky_relu
from stablenorm.passes.matching import splat_number
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.scaling import Factor, Plan, adding_first, plan


def through_maximum(op: hlo.MaxOp | hlo.MinOp, factor: Factor) -> Plan | NoMatch:
    """``s * max(f, c) = max(s * f, s * c)``, s not negative, c a weight along the channels: ReLU has c = 0."""
    if (leaky := leaky_relu(op)) is not None:
        return _through_leaky(leaky, factor)
    sides = ((place, channel_vector(op.operands[1 - place], factor.axis, factor.weights)) for place in (0, 1))
    place, bound = next(((place, vector) for place, vector in sides if vector is not None), (0, None))
    if bound is None:
        return NoMatch(f"its input comes from {op.operation.name} of two tensors")
    unfit = not_positive(factor)
    if unfit is not None:
        return unfit
    if (endless := _endless(factor, op.operands[1 - place])) is not None:
        return endless
    inner = plan(op.operands[place], factor)
    if isinstance(inner, NoMatch):
        return inner
    is_zero = splat_number(op.operands[1 - place]) == 0.0

    def emit(value: ir.Value, scale: ir.Value) -> ir.Value:
        if is_zero:
            return with_operand(op, place, value)
        scaled = _scaled_along(bound(), scale, factor.axis, value)
        return with_operands(op, {place: value, 1 - place: scaled})

    return adding_first(inner, factor.axis, emit)


def through_select(op: hlo.SelectOp, factor: Factor) -> Plan | NoMatch:
    """A leaky ReLU, as frameworks write it."""
    leaky = leaky_relu(op)
    return NoMatch("a selection before it that is no leaky ReLU") if leaky is None else _through_leaky(leaky, factor)


def _through_leaky(leaky: LeakyRelu, factor: Factor) -> Plan | NoMatch:
    """``s * leaky(f) = leaky(s * f)``, s not negative"""
    unfit = not_positive(factor)
    if unfit is not None:
        return unfit
    if not leaky.is_all_that_reads(factor.readers):
        return NoMatch("something else than the leaky ReLU before it reads what that reads")
    inner = plan(leaky.operand, dataclasses.replace(factor, shared=True))
    if isinstance(inner, NoMatch):
        return inner
    return adding_first(inner, factor.axis, lambda value, scale: leaky.of(value))


def _scaled_along(vector: ir.Value, scale: ir.Value, axis: int, like: ir.Value) -> ir.Value:
    wide = hlo.multiply(convert(vector, tensor_type(scale).element_type), scale)
    return along(convert(wide, tensor_type(like).element_type), axis, like)


def through_clamp(op: hlo.ClampOp, factor: Factor) -> Plan | NoMatch:
    """``s * clamp(a, f, b) = clamp(s * a, s * f, s * b)``, s not negative: ReLU6 is one."""
    unfit = not_positive(factor)
    if unfit is not None:
        return unfit
    bounds = [_bound(value, op, factor) for value in (op.min, op.max)]
    if any(bound is None for bound in bounds):
        return NoMatch("its input is clamped by what is no weight along the channels")
    if (endless := _endless(factor, op.min, op.max)) is not None:
        return endless
    inner = plan(op.operand, factor)
    if isinstance(inner, NoMatch):
        return inner

    def emit(value: ir.Value, scale: ir.Value) -> ir.Value:
        low, high = (_scaled_along(bound(), scale, factor.axis, value) for bound in bounds if bound is not None)
        return hlo.clamp(low, value, high)

    return adding_first(inner, factor.axis, emit)


def _bound(value: ir.Value, op: hlo.ClampOp, factor: Factor) -> Callable[[], ir.Value] | None:
    """A bound of a clamp as a vector along the channels; a number serves all of them."""
    if shape_of(value) or not factor.weights.is_weight(value):
        return channel_vector(value, factor.axis, factor.weights)
    size = shape_of(op.operand)[factor.axis]
    type_ = ir.RankedTensorType.get([size], tensor_type(value).element_type)
    return lambda: hlo.broadcast_in_dim(type_, value, [])


def _endless(factor: Factor, *bounds: ir.Value) -> NoMatch | None:
    """Why a bound cannot be scaled, if it cannot: zero times infinity is NaN."""
    numbers = [factor.weights.evaluate(bound) for bound in bounds]
    is_finite = all(each is not None and np.isfinite(each).all() for each in numbers)
    if is_finite or factor.numbers is None or (factor.numbers != 0).all():
        return None
    return NoMatch("a bound before it is not finite, or not known, and the scale has a zero")


def not_positive(factor: Factor) -> NoMatch | None:
    """Why a maximum does not let the scale pass, if it does not."""
    if factor.numbers is None:
        return NoMatch(
            "an activation or a maximum before it lets only a positive scale pass; its numbers are not known"
        )
    if not (factor.numbers >= 0).all():
        return NoMatch("an activation or a maximum before it lets only a positive scale pass, and it has negative ones")
    return None
