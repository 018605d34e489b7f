"""A scale passes sums and products with weights, and conversions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Array
from stablenorm.passes.building import along, convert, is_float, shape_of, tensor_type
from stablenorm.passes.channels import Vector, channel_vector
from stablenorm.passes.compact import Compact, compact, from_vector, join
from stablenorm.passes.copies import with_operand
from stablenorm.passes.matching import layer_name
from stablenorm.passes.pending import union
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.scaling import Factor, Plan, Scaled, adding_first, carried, plan

Operator = Callable[[ir.Value, ir.Value], ir.Value]


def through_add(op: hlo.AddOp, factor: Factor) -> Plan | NoMatch:
    """``s * (f + b) = s * f + s * b``, b a bias; ``s * (f + g) = s * f + s * g``, into both branches."""
    for linear, bias in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        found = compact(bias, factor.weights)
        if found is not None:
            return _through_bias(plan(linear, factor), found, hlo.add)
    return _through_branches(op, factor)


def through_subtract(op: hlo.SubtractOp, factor: Factor) -> Plan | NoMatch:
    """``s * (f - b) = s * f - s * b``; ``s * (f - g) = s * f - s * g``"""
    found = compact(op.rhs, factor.weights)
    if found is not None:
        return _through_bias(plan(op.lhs, factor), found, hlo.subtract)
    return _through_branches(op, factor)


def _through_bias(inner: Plan | NoMatch, bias: Compact, sign: Operator) -> Plan | NoMatch:
    if isinstance(inner, NoMatch):
        return inner

    def act(scale: ir.Value) -> Scaled:
        scaled = inner.act(scale)
        own = convert(bias.emit(), tensor_type(scale).element_type)
        return dataclasses.replace(scaled, bias=_joined(scaled.bias, own, sign))

    return dataclasses.replace(inner, act=act, bias=union(inner.bias, bias.dims), saves=inner.saves + 1)


def _through_branches(op: hlo.AddOp | hlo.SubtractOp, factor: Factor) -> Plan | NoMatch:
    branches = [plan(operand, factor) for operand in op.operands]
    declined = next((branch for branch in branches if isinstance(branch, NoMatch)), None)
    if declined is not None:
        return NoMatch(f"its input is a sum, a branch of which cannot take the scale: {declined.reason}")
    first, second = (branch for branch in branches if isinstance(branch, Plan))
    sign = hlo.subtract if isinstance(op, hlo.SubtractOp) else hlo.add

    def act(scale: ir.Value) -> Scaled:
        a, b = first.act(scale), second.act(scale)
        return Scaled(sign(a.value, b.value), _joined(a.bias, b.bias, sign), a.taken + b.taken, a.left + b.left)

    return Plan(first.into + second.into, act, union(first.bias, second.bias), first.saves + second.saves)


def _joined(a: ir.Value | None, b: ir.Value | None, sign: Operator) -> ir.Value | None:
    if b is None:
        return a
    if a is None:
        return hlo.negate(b) if sign is hlo.subtract else b
    return join(sign, a, b)


def through_multiply(op: hlo.MulOp, factor: Factor) -> Plan | NoMatch:
    """``s * (f * c) = (s * c) * f``, c a weight along the channels; ``(s * f) * c``, c any tensor."""
    for operand, other in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        vector = channel_vector(other, factor.axis, factor.weights)
        if vector is not None:
            return _through_scale(op, operand, other, vector, factor)
    ways = [_beside(op, place, factor) for place in (0, 1)]
    return next((way for way in ways if isinstance(way, Plan)), ways[0])


def through_divide(op: hlo.DivOp, factor: Factor) -> Plan | NoMatch:
    """``s * (f / c) = (s / c) * f``, c a weight along the channels; ``(s * f) / c``, c any tensor."""
    vector = channel_vector(op.rhs, factor.axis, factor.weights)
    if vector is not None:
        return _through_scale(op, op.lhs, op.rhs, vector, factor)
    return _beside(op, 0, factor)


def _beside(op: hlo.MulOp | hlo.DivOp, place: int, factor: Factor) -> Plan | NoMatch:
    """Into one operand of a product or quotient, the other staying as it is."""
    inner = plan(op.operands[place], factor)
    if isinstance(inner, NoMatch):
        return NoMatch(f"its input is a product or quotient, a factor of which cannot take the scale: {inner.reason}")
    if compact(op.operands[1 - place], factor.weights) is not None:
        return carried(op, inner, factor.axis, factor, place)
    return adding_first(inner, factor.axis, lambda value, scale: with_operand(op, place, value))


def _through_scale(
    op: hlo.MulOp | hlo.DivOp, operand: ir.Value, other: ir.Value, vector: Vector, factor: Factor
) -> Plan | NoMatch:
    """The product of two scales goes on together; a bias under the first one is scaled by it."""
    operator = hlo.multiply if isinstance(op, hlo.MulOp) else hlo.divide
    inner = plan(operand, dataclasses.replace(factor, numbers=_product(op, other, factor)))
    place = factor.axis

    def combined(scale: ir.Value) -> tuple[ir.Value, ir.Value]:
        other = convert(vector(), tensor_type(scale).element_type)
        return other, operator(scale, other)

    def act(scale: ir.Value) -> Scaled:
        other, both = combined(scale)
        assert isinstance(inner, Plan)
        scaled = inner.act(both)
        bias = scaled.bias and join(operator, scaled.bias, from_vector(other, place, len(shape_of(operand))))
        return dataclasses.replace(scaled, bias=bias)

    def merge(scale: ir.Value) -> Scaled:
        both = convert(combined(scale)[1], tensor_type(operand).element_type)
        return Scaled(hlo.multiply(operand, along(both, place, operand)), None, (both,))

    if isinstance(inner, NoMatch):
        return Plan((layer_name(op, factor.weights, *op.operands),), merge)
    return dataclasses.replace(inner, act=act, saves=inner.saves + 1)


def _product(op: ir.OpView, other: ir.Value, factor: Factor) -> Array | None:
    """The numbers of both scales together, where they are known."""
    found = compact(other, factor.weights)
    numbers = None if found is None else factor.weights.evaluate(found.source)
    if factor.numbers is None or numbers is None:
        return None
    operator = np.multiply if isinstance(op, hlo.MulOp) else np.divide
    with np.errstate(all="ignore"):
        return np.asarray(operator(factor.numbers, numbers.reshape(-1)[: factor.numbers.size]))


def through_convert(op: hlo.ConvertOp, factor: Factor) -> Plan | NoMatch:
    """``s * convert(f) = convert(s * f)``, up to one rounding in the narrower type; floats only."""
    if not all(is_float(value) for value in (op.operand, op.result)):
        return NoMatch(f"a convert before it leaves the floats: {op.operand.type} to {op.result.type}")
    return carried(op, plan(op.operand, factor), factor.axis, factor)
