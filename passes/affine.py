"""A per-channel affine map in the graph, ``y = (x - mean) * scale + offset``, whatever operation it is written as."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.batch_norm_arithmetic import rsqrt_above
from stablenorm.passes.building import arithmetic_type, convert, is_float, shape_of
from stablenorm.passes.compact import Compact, Dims, compact, filled, from_vector, join
from stablenorm.passes.matching import defining_op
from stablenorm.passes.readers import Readers
from stablenorm.passes.weights import Weights

Emit = Callable[[], ir.Value]


@dataclasses.dataclass(frozen=True)
class Affine:
    """A map of ``operand``.

    Attributes:
        dims, shift_dims: the dimensions along which its scale varies, and its mean or offset; None: it has none.
        scale: emits the factor, compact, in float32 at least; None: it is 1.
        mean, offset: as ``scale``; None: 0.
        costs: how many elementwise operations on activations it is.
        also: an operation that is a part of it, beside ``op``.
    """

    op: ir.OpView
    operand: ir.Value
    dims: Dims
    shift_dims: Dims | None
    scale: Emit | None
    mean: Emit | None
    offset: Emit | None
    costs: int
    also: tuple[ir.OpView, ...] = ()


def affine(op: ir.OpView, weights: Weights, readers: Readers) -> Affine | None:
    """The map that ``op`` is; None where it is none, or its parameters depend on the model's inputs."""
    if not op.results or not isinstance(op.results[0].type, ir.RankedTensorType) or not is_float(op.results[0]):
        return None
    if isinstance(op, hlo.BatchNormInferenceOp):
        return _batch_norm(op, weights)
    if isinstance(op, hlo.MulOp | hlo.DivOp):
        scaling = _scaling(op, weights)
        return scaling and _with_shift(scaling, weights, readers)
    if isinstance(op, hlo.AddOp | hlo.SubtractOp):
        return _shifting(op, weights)
    return None


def _batch_norm(op: hlo.BatchNormInferenceOp, weights: Weights) -> Affine | None:
    if not all(map(weights.is_weight, list(op.operands)[1:])):
        return None
    axis, rank, element_type = op.feature_index.value, len(shape_of(op.operand)), arithmetic_type(op.operand)

    def along_axis(vector: ir.Value) -> Emit:
        return lambda: from_vector(convert(vector, element_type), axis, rank)

    def scale() -> ir.Value:
        inverse = rsqrt_above(convert(op.variance, element_type), op.epsilon.value)
        return from_vector(hlo.multiply(convert(op.scale, element_type), inverse), axis, rank)

    dims = frozenset({axis})
    return Affine(op, op.operand, dims, dims, scale, along_axis(op.mean), along_axis(op.offset), 2)


def _scaling(op: hlo.MulOp | hlo.DivOp, weights: Weights) -> Affine | None:
    sides = ((0, op.rhs), (1, op.lhs)) if isinstance(op, hlo.MulOp) else ((0, op.rhs),)
    place, factor = _parameter(op, sides, weights)
    if factor is None:
        return None
    element_type, rank = arithmetic_type(op.operands[place]), len(shape_of(op.operands[place]))

    def scale() -> ir.Value:
        value = convert(factor.emit(), element_type)
        return value if isinstance(op, hlo.MulOp) else join(hlo.divide, filled(1.0, rank, element_type), value)

    return Affine(op, op.operands[place], factor.dims, None, scale, None, None, 1)


def _with_shift(scaling: Affine, weights: Weights, readers: Readers) -> Affine:
    """``(x - mean) * scale``, where only the product reads the difference: the scale tells how far the mean is."""
    op = defining_op(scaling.operand)
    if not isinstance(op, hlo.AddOp | hlo.SubtractOp) or not readers.single(scaling.operand):
        return scaling
    shifting = _shifting(op, weights)
    if shifting is None or shifting.offset is None or op.operation.block != scaling.op.operation.block:
        return scaling
    x, dims, offset = shifting.operand, shifting.shift_dims, shifting.offset

    def mean() -> ir.Value:
        return hlo.negate(offset())

    return dataclasses.replace(scaling, operand=x, shift_dims=dims, mean=mean, costs=2, also=(op,))


def _shifting(op: hlo.AddOp | hlo.SubtractOp, weights: Weights) -> Affine | None:
    sides = ((0, op.rhs), (1, op.lhs)) if isinstance(op, hlo.AddOp) else ((0, op.rhs),)
    place, bias = _parameter(op, sides, weights)
    if bias is None:
        return None
    element_type = arithmetic_type(op.operands[place])

    def offset() -> ir.Value:
        value = convert(bias.emit(), element_type)
        return value if isinstance(op, hlo.AddOp) else hlo.negate(value)

    return Affine(op, op.operands[place], frozenset(), bias.dims, None, None, offset, 1)


def _parameter(op: ir.OpView, sides: tuple[tuple[int, ir.Value], ...], weights: Weights) -> tuple[int, Compact | None]:
    if all(compact(operand, weights) is not None for operand in op.operands):
        return 0, None  # weight arithmetic
    return next(((place, found) for place, each in sides if (found := compact(each, weights)) is not None), (0, None))
