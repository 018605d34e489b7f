"""Statistics of a batch per feature, in arithmetic that does not cancel.

Sums run over float64 numbers, whatever the operand's type, and over distances from a shift near the data. So one pass
gives both moments: with k the feature's first element, ``(mean - k) ** 2 <= count * variance``, and the subtraction in
``mean((x - k) ** 2) - mean(x - k) ** 2`` loses ``count`` of float64's 9e15 steps at most.

Features lie along one dimension, or several; a vector then has a dimension for each of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import along, convert, product, reshape, shape_of, splat, tensor_type

Axes = Sequence[int]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and biased variance of each feature, in float64, and the number (or weight) of its elements."""

    mean: ir.Value
    variance: ir.Value
    count: ir.Value


def statistics(x: ir.Value, axes: Axes, weight: ir.Value | None = None) -> Statistics:
    """The statistics of ``x`` over all dimensions but ``axes``, each element counted ``weight`` times.

    ``x`` and ``weight`` are float64 tensors of one shape. What has the weight 0 is not read, were it NaN. Where
    nothing has a weight, mean and variance are 0.
    """
    if weight is None:
        count = element_count(x, axes)
        shift = _shift(x, axes, count)
        return _about(shift, hlo.subtract(x, along(shift, axes, x)), axes, count, None)
    zero = splat_like(0.0, weight)
    x = hlo.select(hlo.compare(weight, zero, _comparison("EQ")), zero, x)
    count = sum_features(weight, axes)
    shift = quotient(sum_features(hlo.multiply(weight, x), axes), count)
    return _about(shift, hlo.subtract(x, along(shift, axes, x)), axes, count, weight)


def _about(shift: ir.Value, distance: ir.Value, axes: Axes, count: ir.Value, weight: ir.Value | None) -> Statistics:
    weighted = distance if weight is None else hlo.multiply(weight, distance)
    divide = hlo.divide if weight is None else quotient
    mean = divide(sum_features(weighted, axes), count)
    square = divide(sum_features(hlo.multiply(weighted, distance), axes), count)
    # Rounding may leave less than nothing; a NaN must stay one, and maximum keeps it.
    variance = hlo.maximum(hlo.subtract(square, hlo.multiply(mean, mean)), splat_like(0.0, mean))
    return Statistics(hlo.add(shift, mean), variance, count)


def element_count(x: ir.Value, axes: Axes) -> ir.Value:
    """How many elements of ``x`` each feature has, in float64."""
    others = _others(x, axes)
    features = ir.RankedTensorType.get([shape_of(x)[axis] for axis in axes], _f64())
    if not any(tensor_type(x).is_dynamic_dim(place) for place in others):
        return splat(product([shape_of(x)[place] for place in others]), features.shape, _f64())
    total = splat(1.0, [], _f64())
    for place in others:
        total = hlo.multiply(total, convert(hlo.get_dimension_size(x, place), _f64()))
    return hlo.broadcast_in_dim(features, total, [])


def sum_features(x: ir.Value, axes: Axes) -> ir.Value:
    """The sum of a float64 tensor over all dimensions but ``axes``."""
    result = ir.RankedTensorType.get([shape_of(x)[axis] for axis in axes], _f64())
    op = hlo.ReduceOp([result], [x], [splat(0.0, [], _f64())], _others(x, axes))
    scalar = ir.RankedTensorType.get([], _f64())
    block = op.body.blocks.append(scalar, scalar)
    with ir.InsertionPoint(block):
        hlo.ReturnOp([hlo.add(*block.arguments)])
    total: ir.Value = op.results[0]
    return total


def splat_like(number: float, like: ir.Value) -> ir.Value:
    """A float64 constant of the shape of ``like``, which may be dynamic."""
    return along(splat(number, [], _f64()), [], like)


def _shift(x: ir.Value, axes: Axes, count: ir.Value) -> ir.Value:
    """A number near each feature's data: its first element; where there may be none, its mean, by one more pass."""
    shape = shape_of(x)
    if not tensor_type(x).has_static_shape or product(shape) == 0:
        return quotient(sum_features(x, axes), count)
    limits = [size if place in axes else 1 for place, size in enumerate(shape)]
    return reshape(hlo.slice(x, [0] * len(shape), limits, [1] * len(shape)), [shape[axis] for axis in axes])


def quotient(total: ir.Value, count: ir.Value) -> ir.Value:
    """``total / count``; 0 where nothing was counted."""
    zero = splat_like(0.0, count)
    return hlo.select(hlo.compare(count, zero, _comparison("EQ")), zero, hlo.divide(total, count))


def _comparison(direction: str) -> ir.Attribute:
    return hlo.ComparisonDirectionAttr.get(direction)


def _others(x: ir.Value, axes: Axes) -> list[int]:
    return [place for place in range(len(shape_of(x))) if place not in axes]


def _f64() -> ir.Type:
    return ir.F64Type.get()
