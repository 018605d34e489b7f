"""A scale goes into the weight of a convolution or dot_general, or into a batch norm."""

from __future__ import annotations

import dataclasses

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import convert, shape_of, tensor_type
from stablenorm.passes.compact import from_vector
from stablenorm.passes.copies import with_operand, with_operands
from stablenorm.passes.matching import layer_name
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.scaled_weights import can_hold_a_scale, scaled_weight
from stablenorm.passes.scaling import Factor, Plan, Scaled, carried, plan


def into_convolution(op: hlo.ConvolutionOp, factor: Factor) -> Plan | NoMatch:
    """``s * conv(x, W) = conv(x, s * W)``, s along the kernel's output-feature dimension.

    StableHLO orders that dimension by group, as it orders the result's features: grouped, depthwise and transposed
    convolutions are the same law.
    """
    numbers = hlo.ConvDimensionNumbers(op.dimension_numbers)
    if factor.axis != numbers.output_feature_dimension:
        return NoMatch("it normalizes along a dimension of the convolution that is not its output features")
    if not factor.weights.is_weight(op.rhs):
        return NoMatch("the convolution's kernel depends on the model's inputs")
    if not can_hold_a_scale(op.rhs):
        return NoMatch(f"the convolution's kernel is of a type that is too coarse to be scaled: {op.rhs.type}")

    def act(scale: ir.Value) -> Scaled:
        kernel = scaled_weight(op.rhs, scale, numbers.kernel_output_feature_dimension)
        return Scaled(with_operand(op, 1, kernel), None, (kernel,))

    return Plan((layer_name(op, factor.weights, op.rhs),), act)


def into_dot_general(op: hlo.DotGeneralOp, factor: Factor) -> Plan | NoMatch:
    """``s * dot(x, W) = dot(x, s * W)``, s along a free or batching dimension of W; along one of x, ``dot(s*x, W)``."""
    weights = factor.weights
    side = next((side for side, operand in ((1, op.rhs), (0, op.lhs)) if weights.is_weight(operand)), None)
    if side is None:
        return NoMatch("neither operand of the dot_general is a weight")
    places = origins(op, side)
    if factor.axis not in places:  # so the other side has it
        axis = origins(op, 1 - side)[factor.axis]
        inner = plan(op.operands[1 - side], dataclasses.replace(factor, axis=axis))
        return carried(op, inner, axis, factor, place=1 - side)
    weight = op.operands[side]
    if not can_hold_a_scale(weight):
        return NoMatch(f"the weight of the dot_general is of a type that is too coarse to be scaled: {weight.type}")

    def act(scale: ir.Value) -> Scaled:
        scaled = scaled_weight(weight, scale, places[factor.axis])
        return Scaled(with_operand(op, side, scaled), None, (scaled,))

    return Plan((layer_name(op, weights, weight),), act)


def origins(op: hlo.DotGeneralOp, side: int) -> dict[int, int]:
    """The dimensions of a dot_general's result that one operand has, and where they are in it."""
    numbers = hlo.DotDimensionNumbers(op.dot_dimension_numbers)
    batching = [list(numbers.lhs_batching_dimensions), list(numbers.rhs_batching_dimensions)]
    contracting = [list(numbers.lhs_contracting_dimensions), list(numbers.rhs_contracting_dimensions)]
    free = [
        [place for place in range(len(shape_of(operand))) if place not in batching[k] + contracting[k]]
        for k, operand in enumerate((op.lhs, op.rhs))
    ]
    before = len(batching[side]) + (len(free[0]) if side == 1 else 0)
    return dict(enumerate(batching[side])) | {before + place: dim for place, dim in enumerate(free[side])}


def into_batch_norm(op: hlo.BatchNormInferenceOp, factor: Factor) -> Plan | NoMatch:
    """``s * batch_norm(f)`` is a batch norm with ``s * scale``; its offset is the next one's bias."""
    if factor.axis != op.feature_index.value or not all(map(factor.weights.is_weight, list(op.operands)[1:])):
        return NoMatch("another batch norm before it, along another dimension or with parameters that are no weights")

    def act(scale: ir.Value) -> Scaled:
        element_type = tensor_type(scale).element_type
        both = convert(hlo.multiply(convert(op.scale, element_type), scale), tensor_type(op.scale).element_type)
        offset = from_vector(convert(op.offset, element_type), factor.axis, len(shape_of(op.operand)))
        zero = hlo.subtract(op.offset, op.offset)
        return Scaled(with_operands(op, {1: both, 2: zero}), offset, (both,))

    name = layer_name(op, factor.weights, op.mean, op.variance, op.scale, op.offset)
    return Plan((name,), act, bias=frozenset({factor.axis}))
