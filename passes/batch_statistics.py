"""Statistics of a batch per feature, in arithmetic that does not cancel.

Sums (`block_sums.py`) run over float64 numbers, whatever the operand's type, and over distances from a shift near the
data. So one pass gives both moments: with k the feature's first element, ``(mean - k) ** 2 <= count * variance``, and
the subtraction in ``mean((x - k) ** 2) - mean(x - k) ** 2`` loses ``count`` of float64's 9e15 steps at most.

Where a batch is spread over devices, no one number is near to all without asking: each part takes its own shift, and
moves its sums to 0 before they are added (`Sums`). That loses ``(mean / deviation) ** 2`` of the 9e15 steps.

Features lie along one dimension, or several; a vector then has a dimension for each of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.block_sums import Axes, Terms, sum_over, sums, sums_at_once
from stablenorm.passes.building import along, convert, product, reshape, shape_of, splat, splat_like, tensor_type, widen
from stablenorm.passes.exact_squares import has_exact_squares, mean_and_variance, square_terms
from stablenorm.passes.platforms import Platform
from stablenorm.passes.window_sums import window_sums


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and biased variance of each feature, in float64, and the number (or weight) of its elements."""

    mean: ir.Value
    variance: ir.Value
    count: ir.Value


@dataclasses.dataclass(frozen=True)
class Sums:
    """``count``, ``sum(x)`` and ``sum(x ** 2)`` of each feature, in float64: what parts of a batch add up."""

    count: ir.Value
    first: ir.Value
    second: ir.Value


def statistics(
    x: ir.Value, axes: Axes, weight: ir.Value | None = None, parts: int = 1, platform: Platform = Platform.CPU
) -> Statistics:
    """The statistics of ``x`` over all dimensions but ``axes``, each element counted ``weight`` times.

    ``x`` and ``weight`` are tensors of one shape. What has the weight 0 is not read, were it NaN. Where
    nothing has a weight, mean and variance are 0.

    ``parts``: over how many devices the batch, the first dimension that is no feature's, may be spread. Each part is
    summed alone, and what they add up is one array, so that a partitioner makes one all-reduce of it.
    """
    if platform is Platform.CUDA and weight is None and has_exact_squares(x):
        each, count = sum_together([x], axes, square_terms, parts, ir.F64Type.get(), platform), element_count(x, axes)
        return Statistics(*mean_and_variance(each, count), count)
    place = _cut(x, axes, parts)
    if place is not None:
        return statistics_of(_sums_of_parts(x, axes, weight, parts, place, platform))
    shift, count = _shift_and_count(x, axes, weight, platform)
    divide = hlo.divide if weight is None else quotient
    mean, square = (divide(total, count) for total in _moments(x, shift, axes, weight, platform))
    # Rounding may leave less than nothing; a NaN must stay one, and maximum keeps it.
    variance = hlo.maximum(hlo.subtract(square, hlo.multiply(mean, mean)), splat_like(0.0, mean))
    return Statistics(hlo.add(shift, mean), variance, count)


def local_sums(x: ir.Value, axes: Axes, weight: ir.Value | None = None, platform: Platform = Platform.CPU) -> Sums:
    """The sums of ``x`` and ``weight`` as in `statistics`: about a shift nearby, then moved to 0, or about 0."""
    if platform is Platform.CUDA and weight is None and has_exact_squares(x):
        first, *squares = sums_on(platform)([x], axes, square_terms)
        return Sums(element_count(x, axes), first, functools.reduce(hlo.add, squares))
    shift, count = _shift_and_count(x, axes, weight, platform)
    first, second = _moments(x, shift, axes, weight, platform)
    # sum(w x) = first + count k; sum(w x x) = second + k (2 first + count k)
    moved = hlo.multiply(count, shift)
    twice = hlo.add(hlo.add(first, first), moved)
    return Sums(count, hlo.add(first, moved), hlo.add(second, hlo.multiply(shift, twice)))


def statistics_of(sums: Sums) -> Statistics:
    """Mean and variance of sums; a variance that float64 cannot tell from 0 beside the squared mean is 0."""
    mean, square = quotient(sums.first, sums.count), quotient(sums.second, sums.count)
    variance = hlo.subtract(square, hlo.multiply(mean, mean))
    zero, noise = splat_like(0.0, mean), hlo.multiply(square, splat_like(2.0**-50, mean))
    # Not so with NaN: it is not less than anything.
    return Statistics(mean, hlo.select(hlo.compare(variance, noise, _comparison("LT")), zero, variance), sums.count)


def sum_together(
    operands: Sequence[ir.Value], axes: Axes, terms: Terms, parts: int, sent: ir.Type, platform: Platform = Platform.CPU
) -> list[ir.Value]:
    """`sums_on` a platform, of terms that are float64; ``parts`` as in `statistics`.

    Where there are parts, what they add up has the type ``sent``: sums that nothing is subtracted from need no float64.
    """
    place = _cut(operands[0], axes, parts)
    if place is None:
        return sums_on(platform)(operands, axes, terms)
    inner = _cut_axes(axes, place)
    part = inner.index(place)

    def terms_of_part(slices: Sequence[ir.Value], axes: Axes) -> Sequence[ir.Value]:
        return terms(slices, [axis for number, axis in enumerate(axes) if number != part])

    each = sums_on(platform)([_in_parts(operand, parts, place) for operand in operands], inner, terms_of_part)
    return [widen(total) for total in _add_parts([convert(total, sent) for total in each], part)]


def sums_on(platform: Platform) -> Callable[[Sequence[ir.Value], Axes, Terms], list[ir.Value]]:
    """What makes sums per feature one pass over the operands there."""
    return {Platform.CPU: sums, Platform.CUDA: window_sums, Platform.TPU: sums_at_once}[platform]


def _sums_of_parts(
    x: ir.Value, axes: Axes, weight: ir.Value | None, parts: int, place: int, platform: Platform
) -> Sums:
    """The part is one more feature until all are added."""
    inner = _cut_axes(axes, place)
    cut_weight = None if weight is None else _in_parts(weight, parts, place)
    each, part = local_sums(_in_parts(x, parts, place), inner, cut_weight, platform), inner.index(place)
    if weight is None:  # the count is known to all
        return Sums(element_count(x, axes), *_add_parts([each.first, each.second], part))
    return Sums(*_add_parts([each.count, each.first, each.second], part))


def _cut(x: ir.Value, axes: Axes, parts: int) -> int | None:
    """The batch: the first dimension that is no feature's, where it can be cut into parts."""
    place = next((place for place in range(len(shape_of(x))) if place not in axes), None)
    fits = parts > 1 and place is not None and shape_of(x)[place] > 0 and shape_of(x)[place] % parts == 0
    return place if fits else None


def _in_parts(x: ir.Value, parts: int, place: int) -> ir.Value:
    shape = shape_of(x)
    return reshape(x, [*shape[:place], parts, shape[place] // parts, *shape[place + 1 :]])


def _cut_axes(axes: Axes, place: int) -> list[int]:
    """The features of `_in_parts`, with the part."""
    return sorted([place, *(axis if axis < place else axis + 1 for axis in axes)])


def _add_parts(values: Sequence[ir.Value], part: int) -> list[ir.Value]:
    """Sums along dimension ``part`` of each value, in one array."""
    stack = hlo.concatenate([reshape(value, [1, *shape_of(value)]) for value in values], 0)
    total = sum_over(stack, [part + 1])
    return [_row(total, number) for number in range(len(values))]


def _row(stack: ir.Value, number: int) -> ir.Value:
    shape = shape_of(stack)
    start, limit = [number, *[0] * (len(shape) - 1)], [number + 1, *shape[1:]]
    return reshape(hlo.slice(stack, start, limit, [1] * len(shape)), shape[1:])


def _shift_and_count(x: ir.Value, axes: Axes, weight: ir.Value | None, platform: Platform) -> tuple[ir.Value, ir.Value]:
    """A number near the data, and the count."""
    if weight is None:
        count = element_count(x, axes)
        return _shift(x, axes), count

    def terms(slices: Sequence[ir.Value], _: Axes) -> list[ir.Value]:
        x, weight = _counted(*slices)
        return [weight, hlo.multiply(weight, x)]

    count, total = sums_on(platform)([x, weight], axes, terms)
    return _near(total, count), count


def _moments(x: ir.Value, shift: ir.Value, axes: Axes, weight: ir.Value | None, platform: Platform) -> list[ir.Value]:
    """``sum(w d), sum(w d d)``, with d the distance from ``shift``."""

    def terms(slices: Sequence[ir.Value], axes: Axes) -> list[ir.Value]:
        if weight is None:
            distance = hlo.subtract(widen(slices[0]), along(shift, axes, slices[0]))
            return [distance, hlo.multiply(distance, distance)]
        x, counts = _counted(*slices)
        distance = hlo.subtract(x, along(shift, axes, x))
        weighted = hlo.multiply(counts, distance)
        return [weighted, hlo.multiply(weighted, distance)]

    return sums_on(platform)([x] if weight is None else [x, weight], axes, terms)


def _counted(x: ir.Value, weight: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Both in float64; x is 0 where its weight is."""
    x, weight = widen(x), widen(weight)
    zero = splat_like(0.0, weight)
    return hlo.select(hlo.compare(weight, zero, _comparison("EQ")), zero, x), weight


def element_count(x: ir.Value, axes: Axes) -> ir.Value:
    """How many elements of ``x`` each feature has, in float64."""
    others = _others(x, axes)
    features = ir.RankedTensorType.get([shape_of(x)[axis] for axis in axes], ir.F64Type.get())
    if not any(tensor_type(x).is_dynamic_dim(place) for place in others):
        return splat(product([shape_of(x)[place] for place in others]), features.shape, ir.F64Type.get())
    total = splat(1.0, [], ir.F64Type.get())
    for place in others:
        total = hlo.multiply(total, convert(hlo.get_dimension_size(x, place), ir.F64Type.get()))
    return hlo.broadcast_in_dim(features, total, [])


def _shift(x: ir.Value, axes: Axes) -> ir.Value:
    """A number near each feature's data: its first element; 0 where there is none."""
    type_, rank = tensor_type(x), len(shape_of(x))
    more = [
        int(place not in axes and (type_.is_dynamic_dim(place) or size == 0)) for place, size in enumerate(shape_of(x))
    ]
    zeros = [0] * rank
    if any(more):
        x = hlo.pad(x, splat(0.0, [], type_.element_type), zeros, more, zeros)
    limits = [size if place in axes else 1 for place, size in enumerate(shape_of(x))]
    first = hlo.slice(x, zeros, limits, [1] * rank)
    return widen(reshape(first, [limits[axis] for axis in axes]))


def _near(total: ir.Value, count: ir.Value) -> ir.Value:
    """The mean in float32's digits: where x is a constant of these, it is that constant, and the variance exactly 0."""
    i32 = ir.IntegerType.get_signless(32)
    digits = (ir.IntegerAttr.get(i32, 11), ir.IntegerAttr.get(i32, 23))
    return hlo.reduce_precision(quotient(total, count), *digits)


def quotient(total: ir.Value, count: ir.Value) -> ir.Value:
    """``total / count``; 0 where nothing was counted."""
    zero = splat_like(0.0, count)
    return hlo.select(hlo.compare(count, zero, _comparison("EQ")), zero, hlo.divide(total, count))


def _comparison(direction: str) -> ir.Attribute:
    return hlo.ComparisonDirectionAttr.get(direction)


def _others(x: ir.Value, axes: Axes) -> list[int]:
    return [place for place in range(len(shape_of(x))) if place not in axes]
