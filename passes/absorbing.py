"""Where a per-channel scale can go: into the weights of the linear operation that its tensor comes from.

Each rule states one law for one operation. Given the channels' dimension it answers with a `Plan`, or with `NoMatch`
and the reason; nothing is emitted before the whole way down is known to be free. A plan's act emits ``scale * value``
as a tensor that needs no multiplication, and the biases met on the way, which are still to be added, once, at the end.

`RULES` is the table of what the fold understands. A new operation is a new function and a new row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import along, convert, integers, is_float, shape_of, tensor_type
from stablenorm.passes.channels import channel_vector
from stablenorm.passes.matching import axis_before_reshape, defining_op, layer_name, single_use
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.weights import Weights


@dataclasses.dataclass(frozen=True)
class Scaled:
    """``scale`` times the original value is ``value + scale * bias``. ``bias`` has rank 1, or is zero: None.

    The bias is not scaled yet because it often is near a batch norm's mean: their difference is exact, while the
    difference of their multiples is not. ``weight`` is the weight tensor that took the scale.
    """

    value: ir.Value
    bias: ir.Value | None
    weight: ir.Value


@dataclasses.dataclass(frozen=True)
class Plan:
    """A way to absorb a scale. ``into`` names the layer whose weights take it; ``act`` emits, given the scale."""

    into: str
    act: Callable[[ir.Value], Scaled]


def plan(value: ir.Value, axis: int, weights: Weights) -> Plan | NoMatch:
    """How ``scale * value`` is absorbed, ``scale`` varying along dimension ``axis`` of ``value``."""
    op = defining_op(value)
    if op is None:
        return NoMatch("its input is an argument of the function: no linear operation comes before it")
    if not single_use(value):
        return NoMatch(f"the result of {op.operation.name} has another consumer")
    rule = RULES.get(type(op))
    if rule is None:
        return NoMatch(f"its input comes from {op.operation.name}, which a per-channel scale cannot pass")
    return rule(op, axis, weights)


def into_convolution(op: hlo.ConvolutionOp, axis: int, weights: Weights) -> Plan | NoMatch:
    """``s * conv(x, W) = conv(x, s * W)``, s along the kernel's output-feature dimension.

    StableHLO orders that dimension by group, as it orders the result's features: grouped, depthwise and transposed
    convolutions are the same law.
    """
    numbers = hlo.ConvDimensionNumbers(op.dimension_numbers)
    if axis != numbers.output_feature_dimension:
        return NoMatch("it normalizes along a dimension of the convolution that is not its output features")
    if not weights.is_weight(op.rhs):
        return NoMatch("the convolution's kernel depends on the model's inputs")
    if not _can_hold_a_scale(op.rhs):
        return NoMatch(f"the convolution's kernel is of a type that is too coarse to be scaled: {op.rhs.type}")

    def act(scale: ir.Value) -> Scaled:
        kernel = scaled_weight(op.rhs, scale, numbers.kernel_output_feature_dimension)
        return Scaled(_with_operand(op, 1, kernel), None, kernel)

    return Plan(layer_name(op, weights, op.rhs), act)


def into_dot_general(op: hlo.DotGeneralOp, axis: int, weights: Weights) -> Plan | NoMatch:
    """``s * dot(x, W) = dot(x, s * W)``, s along a free or a batching dimension of W, on either side."""
    numbers = hlo.DotDimensionNumbers(op.dot_dimension_numbers)
    batching = [list(numbers.lhs_batching_dimensions), list(numbers.rhs_batching_dimensions)]
    contracting = [list(numbers.lhs_contracting_dimensions), list(numbers.rhs_contracting_dimensions)]
    free = [
        [place for place in range(len(shape_of(operand))) if place not in batching[side] + contracting[side]]
        for side, operand in enumerate((op.lhs, op.rhs))
    ]
    side = next((side for side, operand in ((1, op.rhs), (0, op.lhs)) if weights.is_weight(operand)), None)
    if side is None:
        return NoMatch("neither operand of the dot_general is a weight")
    origins = dict(enumerate(batching[side]))
    before = len(batching[side]) + (len(free[0]) if side == 1 else 0)
    origins |= {before + place: dimension for place, dimension in enumerate(free[side])}
    if axis not in origins:
        return NoMatch("it normalizes along a dimension of the dot_general that its weight does not have")
    weight = op.operands[side]
    if not _can_hold_a_scale(weight):
        return NoMatch(f"the weight of the dot_general is of a type that is too coarse to be scaled: {weight.type}")

    def act(scale: ir.Value) -> Scaled:
        scaled = scaled_weight(weight, scale, origins[axis])
        return Scaled(_with_operand(op, side, scaled), None, scaled)

    return Plan(layer_name(op, weights, weight), act)


def through_add(op: hlo.AddOp, axis: int, weights: Weights) -> Plan | NoMatch:
    """``s * (f + b) = s * f + s * b``, b a per-channel weight: a bias."""
    for linear, bias in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        vector = channel_vector(bias, axis) if weights.is_weight(bias) else None
        if vector is not None:
            return _through_bias(plan(linear, axis, weights), vector)
    return NoMatch("its input is a sum of two tensors, neither of them a bias along the channels that it normalizes")


def _through_bias(inner: Plan | NoMatch, bias: Callable[[], ir.Value]) -> Plan | NoMatch:
    if isinstance(inner, NoMatch):
        return inner

    def act(scale: ir.Value) -> Scaled:
        scaled = inner.act(scale)
        vector = convert(bias(), tensor_type(scale).element_type)
        return dataclasses.replace(scaled, bias=vector if scaled.bias is None else hlo.add(scaled.bias, vector))

    return Plan(inner.into, act)


def through_reshape(op: hlo.ReshapeOp, axis: int, weights: Weights) -> Plan | NoMatch:
    """A reshape that keeps the channels' dimension whole moves it; the scale follows."""
    inner_axis = axis_before_reshape(shape_of(op.operand), shape_of(op.result), axis)
    if inner_axis is None:
        return NoMatch("a reshape before it merges or splits the channels' dimension")
    return _through_move(op, inner_axis, weights)


def through_transpose(op: hlo.TransposeOp, axis: int, weights: Weights) -> Plan | NoMatch:
    """A transpose moves the channels' dimension; the scale follows."""
    return _through_move(op, integers(op, "permutation")[axis], weights)


def through_slice(op: hlo.SliceOp, axis: int, weights: Weights) -> Plan | NoMatch:
    """A slice of other dimensions than the channels' keeps the scale as it is."""
    if shape_of(op.operand)[axis] != shape_of(op.result)[axis]:
        return NoMatch("a slice before it takes a part of the channels")
    return _through_move(op, axis, weights)


def through_convert(op: hlo.ConvertOp, axis: int, weights: Weights) -> Plan | NoMatch:
    """``s * convert(f) = convert(s * f)``, up to one rounding in the narrower type; floats only."""
    if not all(is_float(value) for value in (op.operand, op.result)):
        return NoMatch(f"a convert before it leaves the floats: {op.operand.type} to {op.result.type}")
    return _through_move(op, axis, weights)


def _through_move(op: ir.OpView, inner_axis: int, weights: Weights) -> Plan | NoMatch:
    """For an operation on one tensor that commutes with the scale and lets the shift pass to its result."""
    inner = plan(op.operands[0], inner_axis, weights)
    if isinstance(inner, NoMatch):
        return inner

    def act(scale: ir.Value) -> Scaled:
        scaled = inner.act(scale)
        return dataclasses.replace(scaled, value=_with_operand(op, 0, scaled.value))

    return Plan(inner.into, act)


def _can_hold_a_scale(weight: ir.Value) -> bool:
    """Integers and eight-bit floats are quantized: rounding a scaled one to its type again would lose digits."""
    return is_float(weight) and ir.FloatType(tensor_type(weight).element_type).width >= 16


def scaled_weight(weight: ir.Value, scale: ir.Value, axis: int) -> ir.Value:
    """``weight * scale`` along ``axis``: multiplied in the scale's type, rounded once to the weight's."""
    arithmetic = tensor_type(scale).element_type
    op = defining_op(weight)
    source = weight
    if isinstance(op, hlo.ConvertOp) and tensor_type(op.operand).element_type == arithmetic:
        source = op.operand  # the weight before it was rounded to the compute type
    wide = convert(source, arithmetic)
    return convert(hlo.multiply(wide, along(scale, axis, wide)), tensor_type(weight).element_type)


def _with_operand(op: ir.OpView, place: int, value: ir.Value) -> ir.Value:
    """A copy of ``op``, at the insertion point, with another operand."""
    copy = op.operation.clone()
    copy.operands[place] = value
    result: ir.Value = copy.results[0]
    return result


RULES: dict[type[ir.OpView], Callable[..., Plan | NoMatch]] = {
    hlo.ConvolutionOp: into_convolution,
    hlo.DotGeneralOp: into_dot_general,
    hlo.AddOp: through_add,
    hlo.ReshapeOp: through_reshape,
    hlo.TransposeOp: through_transpose,
    hlo.SliceOp: through_slice,
    hlo.ConvertOp: through_convert,
}
