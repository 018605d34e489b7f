"""Short forms for reading and emitting StableHLO. What emits does so at the current insertion point and location."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.sizes import sizes_of, vector_of


def tensor_type(value: ir.Value) -> ir.RankedTensorType:
    return ir.RankedTensorType(value.type)


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The shape, with a negative size where it is dynamic."""
    return tuple(tensor_type(value).shape)


def is_float(value: ir.Value) -> bool:
    """Whether a tensor holds real floating-point numbers: not integers, not complex or quantized ones."""
    return isinstance(tensor_type(value).element_type, ir.FloatType)


def arithmetic_type(value: ir.Value) -> ir.Type:
    """The type in which a batch norm of ``value`` is computed: float64 for float64, float32 for every other float."""
    element_type = tensor_type(value).element_type
    return element_type if isinstance(element_type, ir.F64Type) else ir.F32Type.get()


def convert(value: ir.Value, element_type: ir.Type) -> ir.Value:
    """``value`` in another element type.

    From float64 to half of float32 it goes by float32: for that XLA:CPU has vectors, for one step a call per element.
    """
    tensor = tensor_type(value)
    if tensor.element_type == element_type:
        return value
    if isinstance(tensor.element_type, ir.F64Type) and isinstance(element_type, ir.BF16Type | ir.F16Type):
        value = convert(value, ir.F32Type.get())
    return hlo.convert(ir.RankedTensorType.get(tensor.shape, element_type), value)


def reshape(value: ir.Value, shape: Sequence[int]) -> ir.Value:
    tensor = tensor_type(value)
    if tuple(tensor.shape) == tuple(shape):
        return value
    return hlo.reshape(ir.RankedTensorType.get(shape, tensor.element_type), value)


def splat(number: float, shape: Sequence[int], element_type: ir.Type) -> ir.Value:
    """A constant that holds one number everywhere."""
    attribute = ir.FloatAttr.get(element_type, number)
    return hlo.constant(ir.DenseElementsAttr.get_splat(ir.RankedTensorType.get(shape, element_type), attribute))


def widen(value: ir.Value) -> ir.Value:
    """``value`` in float64."""
    return convert(value, ir.F64Type.get())


def splat_like(number: float, like: ir.Value) -> ir.Value:
    """A float64 constant of the shape of ``like``, which may be dynamic."""
    return along(splat(number, [], ir.F64Type.get()), [], like)


def along(vector: ir.Value, axis: int | Sequence[int], like: ir.Value) -> ir.Value:
    """``vector`` broadcast to the shape of ``like``, its dimensions lying along ``axis``; dynamic sizes included."""
    result = ir.RankedTensorType.get(shape_of(like), tensor_type(vector).element_type)
    axes = [axis] if isinstance(axis, int) else list(axis)
    if result.has_static_shape:
        return hlo.broadcast_in_dim(result, vector, axes)
    return hlo.dynamic_broadcast_in_dim(result, vector, vector_of(sizes_of(like)), axes)


def integers(operation: ir.OpView, name: str) -> list[int]:
    """An attribute that is a list of integers, e.g. ``permutation``."""
    return list(ir.DenseI64ArrayAttr(operation.attributes[name]))


def product(sizes: Sequence[int]) -> int:
    return int(np.prod(sizes, dtype=np.int64)) if sizes else 1
