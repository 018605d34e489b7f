"""A scale passes sums over other dimensions than its own, and maxima over windows where it is positive."""

from __future__ import annotations

import dataclasses

import numpy as np
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import integers, shape_of
from stablenorm.passes.consumers_summing import is_sum
from stablenorm.passes.copies import with_operand
from stablenorm.passes.matching import reducer, splat_number, windowed_dims
from stablenorm.passes.producers_rectifying import not_positive
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.scaling import Factor, Plan, adding_first, carried, plan


def through_reduce(op: hlo.ReduceOp, factor: Factor) -> Plan | NoMatch:
    """``s * sum(f) = sum(s * f)``, over other dimensions than the channels'; the same of a maximum, s positive."""
    summed = integers(op, "dimensions")
    axis = [dim for dim in range(len(shape_of(op.operands[0]))) if dim not in summed][factor.axis]
    if len(op.operands) == 2 and reducer(op) == "stablehlo.maximum":
        return _through_maximum(op, axis, factor)
    if len(op.operands) != 2 or not is_sum(op):
        return NoMatch("a reduction before it that is neither a sum nor a maximum")
    return carried(op, plan(op.operands[0], dataclasses.replace(factor, axis=axis)), axis, factor)


def through_reduce_window(op: hlo.ReduceWindowOp, factor: Factor) -> Plan | NoMatch:
    """``s * pool(f) = pool(s * f)``: sums for any s, maxima for a positive one."""
    if len(op.operands) != 2 or reducer(op) not in ("stablehlo.add", "stablehlo.maximum"):
        return NoMatch("a reduction over windows before it is neither a sum nor a maximum")
    if factor.axis in windowed_dims(op):
        return NoMatch("windows before it span channels")
    if reducer(op) == "stablehlo.maximum":
        return _through_maximum(op, factor.axis, factor)
    if not is_sum(op):
        return NoMatch("a sum over windows before it that does not begin at zero")
    return carried(op, plan(op.operands[0], factor), factor.axis, factor)


def _through_maximum(op: hlo.ReduceOp | hlo.ReduceWindowOp, axis: int, factor: Factor) -> Plan | NoMatch:
    unfit = not_positive(factor)
    if unfit is not None:
        return unfit
    starts_low = splat_number(op.operands[1]) == -np.inf  # which zero times does not stay
    if not starts_low or factor.numbers is None or bool((factor.numbers == 0).any()):
        return NoMatch("a maximum before it that does not begin at -inf, or a scale of zero")
    inner = plan(op.operands[0], dataclasses.replace(factor, axis=axis))
    if isinstance(inner, NoMatch):
        return inner
    return adding_first(inner, axis, lambda value, scale: with_operand(op, 0, value))
