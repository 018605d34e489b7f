"""A scale follows its dimension where elements move."""

from __future__ import annotations

import dataclasses

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import integers, shape_of, splat, tensor_type
from stablenorm.passes.compact import concatenated, filled
from stablenorm.passes.matching import axis_before_reshape, gathered_whole
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.scaling import Factor, Plan, Scaled, carried, plan


def through_concatenate(op: hlo.ConcatenateOp, factor: Factor) -> Plan | NoMatch:
    """Each branch takes its slice of the scale; along another dimension than the channels', all of it."""
    axis = ir.IntegerAttr(op.attributes["dimension"]).value
    sizes = [shape_of(operand)[axis] for operand in op.operands]
    stops = np.cumsum(sizes).tolist()
    bounds = list(zip([0, *stops], stops, strict=False)) if axis == factor.axis else [(0, None)] * len(sizes)
    branches: list[Plan] = []
    for operand, (start, stop) in zip(op.operands, bounds, strict=True):
        numbers = None if factor.numbers is None else factor.numbers[start:stop]
        branch = plan(operand, dataclasses.replace(factor, numbers=numbers))
        if isinstance(branch, NoMatch):
            return NoMatch(f"a branch of the concatenation before it cannot take the scale: {branch.reason}")
        branches.append(branch)
    biases = [branch.bias for branch in branches if branch.bias is not None]
    if biases and min(sizes) < 0:
        return NoMatch("a concatenation of biases along a dimension whose size is known only when the program runs")

    def act(scale: ir.Value) -> Scaled:
        scales = [scale if stop is None else hlo.slice(scale, [start], [stop], [1]) for start, stop in bounds]
        each = [branch.act(own) for branch, own in zip(branches, scales, strict=True)]
        value = hlo.concatenate([scaled.value for scaled in each], axis)
        bias = concatenated([scaled.bias for scaled in each], sizes, axis, 0.0)
        taken = tuple(weight for scaled in each for weight in scaled.taken)
        left = tuple(total for scaled in each for total in scaled.left)
        return Scaled(value, bias, taken, left)

    into = tuple(name for branch in branches for name in branch.into)
    bias = frozenset({axis}).union(*biases) if biases else None
    return Plan(into, act, bias, sum(branch.saves for branch in branches))


def through_pad(op: hlo.PadOp, factor: Factor) -> Plan | NoMatch:
    """``s * pad(f, p) = pad(s * f, 0) + s * pad(0, p)``"""
    names = ("edge_padding_low", "edge_padding_high", "interior_padding")
    if any(integers(op, name)[factor.axis] for name in names):
        return NoMatch("a pad before it adds channels")
    fill = factor.weights.evaluate(op.padding_value)
    if fill is None or not np.isfinite(fill):
        return NoMatch("a pad before it fills with a number that is not finite, or not known")
    inner = plan(op.operand, factor)
    if isinstance(inner, Plan) and fill != 0:
        inner = _with_a_bias(inner, len(shape_of(op.operand)))
    return carried(op, inner, factor.axis, factor)


def _with_a_bias(inner: Plan, rank: int) -> Plan:
    """The same with zero as its bias, where it has none."""

    def act(scale: ir.Value) -> Scaled:
        scaled = inner.act(scale)
        zero = filled(0.0, rank, tensor_type(scale).element_type)
        return scaled if scaled.bias is not None else dataclasses.replace(scaled, bias=zero)

    return dataclasses.replace(inner, act=act, bias=inner.bias or frozenset[int]())


def through_reshape(op: hlo.ReshapeOp, factor: Factor) -> Plan | NoMatch:
    """A reshape that keeps the channels' dimension whole moves it."""
    axis = axis_before_reshape(shape_of(op.operand), shape_of(op.result), factor.axis)
    if axis is None:
        return NoMatch("a reshape before it merges or splits the channels' dimension")
    return _moved(op, axis, factor)


def through_transpose(op: hlo.TransposeOp, factor: Factor) -> Plan | NoMatch:
    """A transpose moves the channels' dimension."""
    return _moved(op, integers(op, "permutation")[factor.axis], factor)


def through_broadcast(op: hlo.BroadcastInDimOp, factor: Factor) -> Plan | NoMatch:
    """A broadcast that repeats along other dimensions than the channels' moves these."""
    places = integers(op, "broadcast_dimensions")
    axis = places.index(factor.axis) if factor.axis in places else None
    if axis is None or shape_of(op.operand)[axis] != shape_of(op.result)[factor.axis]:
        return NoMatch("a broadcast before it repeats one channel")
    return _moved(op, axis, factor)


def through_reverse(op: hlo.ReverseOp, factor: Factor) -> Plan | NoMatch:
    """Reversing other dimensions than the channels' keeps the scale as it is."""
    if factor.axis in integers(op, "dimensions"):
        return NoMatch("the channels are reversed before it")
    return _moved(op, factor.axis, factor)


def through_gather(op: hlo.GatherOp, factor: Factor) -> Plan | NoMatch:
    """A gather of whole channels, as a resizing makes, moves their dimension."""
    axes = [dim for dim, place in gathered_whole(op).items() if place == factor.axis]
    return _moved(op, axes[0], factor) if axes else NoMatch("a gather before it takes a part of the channels")


def _moved(op: ir.OpView, axis: int, factor: Factor) -> Plan | NoMatch:
    return carried(op, plan(op.operands[0], dataclasses.replace(factor, axis=axis)), axis, factor)


def through_slice(op: hlo.SliceOp, factor: Factor) -> Plan | NoMatch:
    """``s * slice(f) = slice(S * f)``, S being s where the slice is, and 1 elsewhere."""
    bounds = [integers(op, name)[factor.axis] for name in ("start_indices", "limit_indices", "strides")]
    size, (start, limit, stride) = shape_of(op.operand)[factor.axis], bounds
    if (start, limit, stride) == (0, size, 1):
        return _moved(op, factor.axis, factor)
    kept = shape_of(op.result)[factor.axis]
    high, inside = size - start - (kept - 1) * stride - 1, stride - 1
    numbers = None
    if factor.numbers is not None:
        numbers = np.ones(size, factor.numbers.dtype)
        numbers[start:limit:stride] = factor.numbers
    inner = carried(op, plan(op.operand, dataclasses.replace(factor, numbers=numbers)), factor.axis, factor)
    if isinstance(inner, NoMatch):
        return inner

    def act(scale: ir.Value) -> Scaled:
        one = splat(1.0, [], tensor_type(scale).element_type)
        return inner.act(hlo.pad(scale, one, [start], [high], [inside]))

    return dataclasses.replace(inner, act=act)
