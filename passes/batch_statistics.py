"""Statistics of a batch per feature, in arithmetic that does not cancel.

Sums run over float64 numbers, whatever the operand's type, and over distances from a shift near the data. So one pass
gives both moments: with k the feature's first element, ``(mean - k) ** 2 <= count * variance``, and the subtraction in
``mean((x - k) ** 2) - mean(x - k) ** 2`` loses ``count`` of float64's 9e15 steps at most.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import along, convert, product, reshape, shape_of, splat, tensor_type


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and biased variance of each feature, in float64, and the number of elements that each is taken over."""

    mean: ir.Value
    variance: ir.Value
    count: ir.Value


def statistics(x: ir.Value, axis: int) -> Statistics:
    """The statistics of ``x``, a float64 tensor, over all dimensions but ``axis``."""
    count = element_count(x, axis)
    shift = _shift(x, axis, count)
    distance = hlo.subtract(x, along(shift, axis, x))
    mean = hlo.divide(sum_features(distance, axis), count)
    square = hlo.divide(sum_features(hlo.multiply(distance, distance), axis), count)
    # Rounding may leave less than nothing; a NaN must stay one, and maximum keeps it.
    variance = hlo.maximum(hlo.subtract(square, hlo.multiply(mean, mean)), splat(0.0, shape_of(mean), _f64()))
    return Statistics(hlo.add(shift, mean), variance, count)


def element_count(x: ir.Value, axis: int) -> ir.Value:
    """How many elements of ``x`` each feature has, as a float64 vector."""
    sizes = [size for place, size in enumerate(shape_of(x)) if place != axis]
    if tensor_type(x).has_static_shape:
        return splat(product(sizes), [shape_of(x)[axis]], _f64())
    numbers = [convert(hlo.get_dimension_size(x, place), _f64()) for place in range(len(shape_of(x))) if place != axis]
    total = numbers[0]
    for number in numbers[1:]:
        total = hlo.multiply(total, number)
    return hlo.broadcast_in_dim(ir.RankedTensorType.get([shape_of(x)[axis]], _f64()), total, [])


def sum_features(x: ir.Value, axis: int) -> ir.Value:
    """The sum of a float64 tensor over all dimensions but ``axis``."""
    dimensions = [place for place in range(len(shape_of(x))) if place != axis]
    result = ir.RankedTensorType.get([shape_of(x)[axis]], _f64())
    op = hlo.ReduceOp([result], [x], [splat(0.0, [], _f64())], dimensions)
    scalar = ir.RankedTensorType.get([], _f64())
    block = op.body.blocks.append(scalar, scalar)
    with ir.InsertionPoint(block):
        hlo.ReturnOp([hlo.add(*block.arguments)])
    total: ir.Value = op.results[0]
    return total


def _shift(x: ir.Value, axis: int, count: ir.Value) -> ir.Value:
    """A number near each feature's data: its first element; where there may be none, its mean, by one more pass."""
    shape = shape_of(x)
    if not tensor_type(x).has_static_shape or product(shape) == 0:
        return hlo.divide(sum_features(x, axis), count)
    limits: Sequence[int] = [size if place == axis else 1 for place, size in enumerate(shape)]
    first = hlo.slice(x, [0] * len(shape), limits, [1] * len(shape))
    return reshape(first, [shape[axis]])


def _f64() -> ir.Type:
    return ir.F64Type.get()
