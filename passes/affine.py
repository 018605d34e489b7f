"""A per-channel affine map in the graph, ``y = (x - mean) * scale + offset``, whatever operation it is written as."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.batch_norm_arithmetic import rsqrt_above
from stablenorm.passes.building import arithmetic_type, convert, is_float, shape_of
from stablenorm.passes.compact import Compact, Dims, compact, filled, from_vector, join
from stablenorm.passes.weights import Weights


@dataclasses.dataclass(frozen=True)
class Affine:
    """A map of ``operand``.

    Attributes:
        dims: the dimensions along which its scale varies.
        scale: emits the factor, compact, in float32 at least; None: it is 1.
        mean, offset: as ``scale``; None: 0.
        costs: how many elementwise operations on activations it is.
    """

    op: ir.OpView
    operand: ir.Value
    dims: Dims
    scale: Callable[[], ir.Value] | None
    mean: Callable[[], ir.Value] | None
    offset: Callable[[], ir.Value] | None
    costs: int


def affine(op: ir.OpView, weights: Weights) -> Affine | None:
    """The map that ``op`` is; None where it is none, or its parameters depend on the model's inputs."""
    if not op.results or not isinstance(op.results[0].type, ir.RankedTensorType) or not is_float(op.results[0]):
        return None
    if isinstance(op, hlo.BatchNormInferenceOp):
        return _batch_norm(op, weights)
    if isinstance(op, hlo.MulOp | hlo.DivOp):
        return _scaling(op, weights)
    if isinstance(op, hlo.AddOp | hlo.SubtractOp):
        return _shifting(op, weights)
    return None


def _batch_norm(op: hlo.BatchNormInferenceOp, weights: Weights) -> Affine | None:
    if not all(map(weights.is_weight, list(op.operands)[1:])):
        return None
    axis, rank, element_type = op.feature_index.value, len(shape_of(op.operand)), arithmetic_type(op.operand)

    def along_axis(vector: ir.Value) -> Callable[[], ir.Value]:
        return lambda: from_vector(convert(vector, element_type), axis, rank)

    def scale() -> ir.Value:
        inverse = rsqrt_above(convert(op.variance, element_type), op.epsilon.value)
        return from_vector(hlo.multiply(convert(op.scale, element_type), inverse), axis, rank)

    return Affine(op, op.operand, frozenset({axis}), scale, along_axis(op.mean), along_axis(op.offset), 2)


def _scaling(op: hlo.MulOp | hlo.DivOp, weights: Weights) -> Affine | None:
    sides = ((0, op.rhs), (1, op.lhs)) if isinstance(op, hlo.MulOp) else ((0, op.rhs),)
    place, factor = _parameter(op, sides, weights)
    if factor is None:
        return None
    element_type, rank = arithmetic_type(op.operands[place]), len(shape_of(op.operands[place]))

    def scale() -> ir.Value:
        value = convert(factor.emit(), element_type)
        return value if isinstance(op, hlo.MulOp) else join(hlo.divide, filled(1.0, rank, element_type), value)

    return Affine(op, op.operands[place], factor.dims, scale, None, None, 1)


def _shifting(op: hlo.AddOp | hlo.SubtractOp, weights: Weights) -> Affine | None:
    sides = ((0, op.rhs), (1, op.lhs)) if isinstance(op, hlo.AddOp) else ((0, op.rhs),)
    place, bias = _parameter(op, sides, weights)
    if bias is None:
        return None
    element_type = arithmetic_type(op.operands[place])

    def offset() -> ir.Value:
        value = convert(bias.emit(), element_type)
        return value if isinstance(op, hlo.AddOp) else hlo.negate(value)

    return Affine(op, op.operands[place], bias.dims, None, None, offset, 1)


def _parameter(op: ir.OpView, sides: tuple[tuple[int, ir.Value], ...], weights: Weights) -> tuple[int, Compact | None]:
    if all(compact(operand, weights) is not None for operand in op.operands):
        return 0, None  # weight arithmetic
    return next(((place, found) for place, each in sides if (found := compact(each, weights)) is not None), (0, None))
