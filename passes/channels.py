"""Per-channel vectors: tensors that vary along one dimension only."""

from __future__ import annotations

from collections.abc import Callable

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import convert, integers, reshape, shape_of, tensor_type
from stablenorm.passes.matching import defining_op

# Emits the vector, of rank 1, when called.
Vector = Callable[[], ir.Value]


def channel_vector(value: ir.Value, axis: int) -> Vector | None:
    """How to emit ``value`` as a rank-1 tensor along ``axis``; None where it varies along another dimension too."""
    shape = shape_of(value)
    if all(size == 1 for place, size in enumerate(shape) if place != axis):
        return lambda: reshape(value, [shape[axis]])
    op = defining_op(value)
    if isinstance(op, hlo.ConvertOp):
        inner = channel_vector(op.operand, axis)
        return inner and (lambda: convert(inner(), tensor_type(value).element_type))
    if isinstance(op, hlo.BroadcastInDimOp):
        return _through_broadcast(op, axis)
    if isinstance(op, hlo.ConstantOp) and _is_splat(op):
        return lambda: _filled(value, ir.DenseElementsAttr(op.attributes["value"]).get_splat_value(), shape[axis])
    return None


def _through_broadcast(op: hlo.BroadcastInDimOp, axis: int) -> Vector | None:
    size, inner_shape = shape_of(op.result)[axis], shape_of(op.operand)
    dimensions = integers(op, "broadcast_dimensions")
    if all(inner == 1 for inner in inner_shape):
        return lambda: hlo.broadcast_in_dim(_vector_type(op.result, size), reshape(op.operand, []), [])
    if axis in dimensions and inner_shape[dimensions.index(axis)] == size:
        return channel_vector(op.operand, dimensions.index(axis))
    return None


def _is_splat(op: hlo.ConstantOp) -> bool:
    attribute = op.attributes["value"]
    return isinstance(attribute, ir.DenseElementsAttr) and bool(ir.DenseElementsAttr(attribute).is_splat)


def _filled(value: ir.Value, number: ir.Attribute, size: int) -> ir.Value:
    return hlo.constant(ir.DenseElementsAttr.get_splat(_vector_type(value, size), number))


def _vector_type(value: ir.Value, size: int) -> ir.Type:
    return ir.RankedTensorType.get([size], tensor_type(value).element_type)
