"""Sizes of tensors that may be known only when the program runs: numbers, or 32-bit scalars in the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

Size: TypeAlias = int | ir.Value


def sizes_of(value: ir.Value) -> list[Size]:
    """The shape of a tensor."""
    type_ = ir.RankedTensorType(value.type)
    return [
        hlo.get_dimension_size(value, place) if type_.is_dynamic_dim(place) else size
        for place, size in enumerate(type_.shape)
    ]


def product_of(sizes: Sequence[Size]) -> Size:
    """All multiplied; 1 where there is none."""
    total: Size = int(np.prod([size for size in sizes if isinstance(size, int)], dtype=np.int64))
    for size in sizes:
        total = total if isinstance(size, int) else _combined(hlo.multiply, total, size)
    return total


def quotient_of(size: Size, number: int) -> Size:
    """Divided, and rounded down."""
    return size // number if isinstance(size, int) else _combined(hlo.divide, size, number)


def in_shape(value: ir.Value, sizes: Sequence[Size]) -> ir.Value:
    """The tensor reshaped."""
    old = ir.RankedTensorType(value.type)
    if all(isinstance(size, int) for size in sizes) and list(old.shape) == list(sizes):
        return value
    type_ = ir.RankedTensorType.get([_static(size) for size in sizes], old.element_type)
    return hlo.reshape(type_, value) if type_.has_static_shape else hlo.dynamic_reshape(type_, value, vector_of(sizes))


def part_of(value: ir.Value, place: int, start: Size, limit: Size) -> ir.Value:
    """The tensor from ``start`` to ``limit`` along the dimension ``place``."""
    sizes = sizes_of(value)
    starts: list[Size] = [0] * len(sizes)
    starts[place], limits = start, [*sizes[:place], limit, *sizes[place + 1 :]]
    numbers = [size for size in (*starts, *limits) if isinstance(size, int)]
    if len(numbers) == 2 * len(sizes):
        return hlo.slice(value, numbers[: len(sizes)], numbers[len(sizes) :], [1] * len(sizes))
    shape = [_static(size) for size in sizes]
    shape[place] = (
        limit - start if isinstance(start, int) and isinstance(limit, int) else ir.ShapedType.get_dynamic_size()
    )
    type_ = ir.RankedTensorType.get(shape, ir.RankedTensorType(value.type).element_type)
    return hlo.real_dynamic_slice(type_, value, vector_of(starts), vector_of(limits), vector_of([1] * len(sizes)))


def vector_of(sizes: Sequence[Size]) -> ir.Value:
    """A vector of 32-bit integers."""
    one = ir.RankedTensorType.get([1], _i32())
    return hlo.concatenate([hlo.reshape(one, _scalar(size)) for size in sizes], 0)


def _combined(combine: Callable[..., ir.Value], *sizes: Size) -> ir.Value:
    return combine(*map(_scalar, sizes))


def _scalar(size: Size) -> ir.Value:
    if not isinstance(size, int):
        return size
    type_ = ir.RankedTensorType.get([], _i32())
    return hlo.constant(ir.DenseElementsAttr.get_splat(type_, ir.IntegerAttr.get(_i32(), size)))


def _static(size: Size) -> int:
    return size if isinstance(size, int) else ir.ShapedType.get_dynamic_size()


def _i32() -> ir.Type:
    return ir.IntegerType.get_signless(32)
