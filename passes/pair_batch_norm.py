"""Training and its gradient without float64 on activations: sums in pairs of float32 (`pairs.py`), one pass each.

XLA:TPU has no float64, and emulates it in the same way with float32's range. Its cost analysis counts each read of an
array beyond 128 MB, of a blocked view too. So there is one reduction, over all rows, and no view; with k the median of
three of the feature's elements, d = x - k, and both moments::

    first, second = sum(d), sum(d * d)
    variance = second / count - (first / count) ** 2

``(mean - k) ** 2 <= count * variance``, so the subtraction loses ``count`` of the 2**48 steps of a pair at most, and
next to none where k is no outlier. Squares
of float32 numbers leave its range: d is squared times a power of two, which depends on its own size, and each size has
a sum of its own (Blue). A feature's vectors are then those of ``x * power``, with the power that its largest distance
asks for. With ``unit`` the power of two at or below ``rsqrt(variance)``, all that follows stays in range::

    h = (x * power - mean) * unit;  ratio = rsqrt(variance + epsilon) / unit        (of x * power)
    y = h * (scale * ratio) + offset
    grad_offset, slope = sum(grad_output), sum(grad_output * h)
    grad_operand = (grad_output - grad_offset / count - h * (slope * ratio ** 2 / count)) * power * unit * scale * ratio

Bytes accessed on a v5e, in passes over x of 200 MB or more, channels first and last, bfloat16 and float32: forward
3.00, the step 7.00, since the second sum reads x together with what writes y; blocks and float64 take 10.1 and 23.5.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import along, convert, product, reshape, shape_of, tensor_type
from stablenorm.passes.pairs import (
    Pair,
    like,
    minus,
    pair,
    plus,
    power_below,
    scaled,
    select,
    spread,
    sums_of_pairs,
    times,
    total,
    two_sum,
    wide,
)

Axes = Sequence[int]
Operands = Mapping[str, ir.Value]

# Distances are halved first: the difference of two finite numbers may be infinite, half of it is not.
_HALF = 0.5
# Distances above _LARGE are squared times _SHRUNK; below _SMALL, times _GROWN. 2**24 squares of each stay in range.
_LARGE, _SHRUNK = 2.0**40, 2.0**-80
_SMALL, _GROWN = 2.0**-40, 2.0**90
# Variances that float32 has too few digits for, 2**-102 and less, are nothing beside an epsilon of this size.
_EPSILON = 1e-20
# Lest `unit` be infinite.
_LEAST = 2.0**-120


@dataclasses.dataclass(frozen=True)
class PairStatistics:
    """Of each feature: ``mean`` and ``variance`` of x in float64; what `normalized` and the gradient work with.

    ``power``, ``unit``: powers of two in float32; ``center``: the mean of ``x * power``; ``ratio``: in float64, 1 to 2.
    """

    mean: ir.Value
    variance: ir.Value
    power: ir.Value
    center: Pair
    unit: ir.Value
    ratio: ir.Value
    count: int

    def inverse(self, reach: float) -> ir.Value:
        """``reach * rsqrt(variance + epsilon)``, as `statistics_of_inverse` takes it, in float64."""
        near = hlo.multiply(hlo.multiply(self.ratio, wide(self.unit)), like(reach, self.ratio))
        return hlo.multiply(near, wide(self.power))


def is_possible(operands: Operands) -> bool:
    """Whether this has been worked out for such operands: sizes known, no weights, float32 or half of it."""
    types = [tensor_type(value) for value in operands.values()]
    narrow = not any(isinstance(type_.element_type, ir.F64Type) for type_ in types)
    sizes = all(type_.has_static_shape for type_ in types) and 0 not in tensor_type(operands["operand"]).shape
    return narrow and sizes and "weight" not in operands


def train_in_pairs(operands: Operands, epsilon: float, axes: Axes) -> tuple[ir.Value, PairStatistics]:
    """``(x - mean(x)) * (scale * rsqrt(variance(x) + epsilon)) + offset`` in x's type, and what is behind it."""
    x = operands["operand"]
    batch = pair_statistics(x, epsilon, axes)
    factor = pair(hlo.multiply(wide(operands["scale"]), batch.ratio))
    factor, offset = _once([factor, pair(operands["offset"])])
    y = plus(times(_normalized(x, axes, batch), spread(factor, axes, x)), spread(offset, axes, x))
    return convert(y.high, tensor_type(x).element_type), batch


def gradient_in_pairs(operands: Operands, batch: PairStatistics, axes: Axes) -> tuple[ir.Value, ir.Value, ir.Value]:
    """``grad_operand`` in x's type; ``grad_scale`` and ``grad_offset`` in float64."""
    x, grad_output = operands["operand"], pair(operands["grad_output"])
    h = _normalized(x, axes, batch)
    # mean(abs(h)) <= 1, so no sum of these is more than float32's largest number
    down = 2.0 ** -math.ceil(math.log2(batch.count) + 1)
    small = scaled(grad_output, like(down, grad_output.high))
    first, second = (total(each) for each in sums_of_pairs([small, times(small, h)], axes))
    share = like(1 / (down * batch.count), first)
    shift, slope = hlo.multiply(first, share), hlo.multiply(second, share)
    tilt = hlo.multiply(slope, hlo.multiply(batch.ratio, batch.ratio))
    factor = hlo.multiply(wide(operands["scale"]), batch.ratio)
    shifts, tilts, factors = _once([pair(shift), pair(tilt), pair(factor)])
    inner = minus(minus(grad_output, spread(shifts, axes, x)), times(h, spread(tilts, axes, x)))
    steep = times(inner, spread(factors, axes, x)).high
    # Last, one after the other: a factor, or its low half, may be less than float32's smallest normal number.
    grad_operand = hlo.multiply(hlo.multiply(steep, along(batch.power, axes, x)), along(batch.unit, axes, x))
    count = like(batch.count, shift)
    grad_scale = hlo.multiply(hlo.multiply(slope, batch.ratio), count)
    return convert(grad_operand, tensor_type(x).element_type), grad_scale, hlo.multiply(shift, count)


def pair_statistics(x: ir.Value, epsilon: float, axes: Axes) -> PairStatistics:
    """The statistics of ``x`` over all dimensions but ``axes``."""
    count = _count(x, axes)
    shift = _near(x, axes)
    power, first, second = _moments(x, shift, axes, has_small=epsilon < _EPSILON)
    wide_power, share = wide(power), like(1 / count, first)
    distance, square = hlo.multiply(first, share), hlo.multiply(second, share)
    variance = hlo.subtract(square, hlo.multiply(distance, distance))
    variance = hlo.maximum(variance, like(0.0, variance))
    center = hlo.add(hlo.multiply(wide(shift), wide_power), distance)
    return _statistics(power, center, variance, epsilon, count)


def statistics_from(mean: ir.Value, variance: ir.Value, x: ir.Value, epsilon: float, axes: Axes) -> PairStatistics:
    """What `gradient_in_pairs` needs, of a mean and a variance that are given."""
    half = like(_HALF, convert(mean, ir.F32Type.get()))
    center, quarter = hlo.multiply(wide(mean), wide(half)), hlo.multiply(wide(variance), wide(hlo.multiply(half, half)))
    return _statistics(half, center, quarter, epsilon, _count(x, axes))


def statistics_of_inverse(mean: ir.Value, inverse: ir.Value, reach: float, x: ir.Value, axes: Axes) -> PairStatistics:
    """What `gradient_in_pairs` needs, of the mean and of ``reach * rsqrt(variance + epsilon)``.

    ``reach`` is the power of two that keeps this a normal number of float32. Mean and variance are left out: 0.
    """
    most = power_below(inverse)
    is_small = _compare(most, "LT", like(1.0, most))
    large_unit = hlo.multiply(most, like(1 / (reach * _HALF), most))
    power, unit = (
        hlo.select(is_small, low, high)
        for low, high in [(like(1 / reach, most), like(_HALF, most)), (most, large_unit)]
    )
    powers, center = _once([Pair(power, unit), pair(hlo.multiply(wide(mean), wide(power)))])
    none = like(0.0, wide(mean))
    return PairStatistics(
        none, none, powers.high, center, powers.low, hlo.divide(wide(inverse), wide(most)), _count(x, axes)
    )


def _statistics(power: ir.Value, center: ir.Value, variance: ir.Value, epsilon: float, count: int) -> PairStatistics:
    """Of the mean and variance of ``x * power``."""
    inverse = hlo.rsqrt(hlo.add(variance, _scaled_epsilon(epsilon, power, variance)))
    unit = power_below(hlo.rsqrt(hlo.maximum(variance, like(_LEAST, variance))))
    ratio = hlo.divide(inverse, wide(unit))
    undone = hlo.divide(like(1.0, center), wide(power))
    mean, squared = hlo.multiply(center, undone), hlo.multiply(hlo.multiply(variance, undone), undone)
    ((power, unit), center_pair) = _once([Pair(power, unit), pair(center)])
    return PairStatistics(mean, squared, power, center_pair, unit, ratio, count)


def _count(x: ir.Value, axes: Axes) -> int:
    return product([size for place, size in enumerate(shape_of(x)) if place not in axes])


def _normalized(x: ir.Value, axes: Axes, batch: PairStatistics) -> Pair:
    """``(x * power - center) * unit``"""
    shrunk = scaled(pair(x), along(batch.power, axes, x))
    return scaled(minus(shrunk, spread(batch.center, axes, x)), along(batch.unit, axes, x))


def _moments(x: ir.Value, shift: ir.Value, axes: Axes, has_small: bool) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The power, in float32; ``sum(d * power)`` and ``sum((d * power) ** 2)``, d the distance from ``shift``."""
    exact = convert(x, ir.F32Type.get())
    half = hlo.multiply(exact, like(_HALF, exact))
    distance = two_sum(half, along(hlo.negate(hlo.multiply(shift, like(_HALF, shift))), axes, half))
    size, zero = hlo.abs(distance.high), pair(like(0.0, half))
    large = _compare(size, "GT", like(_LARGE, size))
    kept = select(large, zero, distance)
    apart = select(large, scaled(distance, like(_SHRUNK, size)), zero)
    terms = [kept, apart, _square(kept), _square(apart)]
    if has_small:
        small = _compare(size, "LT", like(_SMALL, size))
        grown = select(small, scaled(distance, like(_GROWN, size)), zero)
        terms = [kept, apart, _square(select(small, zero, kept)), _square(apart), _square(grown)]
    return _in_one_scale([total(each) for each in sums_of_pairs(terms, axes)])


def _in_one_scale(sums: list[ir.Value]) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Of each feature, the scale of its largest distances."""
    first, first_large, second, second_large, *small = sums
    power = like(1.0, first)
    if small:
        # TPUs have float32's range in float64 too, so the factor between the scales is applied in two steps.
        fewer = hlo.multiply(hlo.multiply(small[0], like(1 / _GROWN, first)), like(1 / _GROWN, first))
        only_small = _compare(second, "EQ", like(0.0, second))
        second = hlo.select(only_small, small[0], hlo.add(second, fewer))
        power = hlo.select(only_small, like(_GROWN, power), power)
        first = hlo.multiply(first, power)
    has_large = _compare(second_large, "NE", like(0.0, second_large))  # NaN is not 0
    shrink = like(_SHRUNK, first)
    first = hlo.select(has_large, hlo.add(first_large, hlo.multiply(first, shrink)), first)
    more = hlo.add(second_large, hlo.multiply(hlo.multiply(second, shrink), shrink))
    second = hlo.select(has_large, more, second)
    power = hlo.select(has_large, shrink, power)
    return convert(hlo.multiply(power, like(_HALF, power)), ir.F32Type.get()), first, second


def _scaled_epsilon(epsilon: float, power: ir.Value, variance: ir.Value) -> ir.Value:
    """``epsilon * power ** 2``; where that is nothing beside the variance, 0."""
    grown, same = epsilon * (_HALF * _GROWN) ** 2, epsilon * _HALF**2
    is_grown = _compare(power, "GT", like(1.0, power))
    is_same = _compare(power, "EQ", like(_HALF, power))
    large = like(grown if epsilon < _EPSILON else 0.0, variance)
    return hlo.select(is_grown, large, hlo.select(is_same, like(same, variance), like(0.0, variance)))


def _square(a: Pair) -> Pair:
    return times(a, a)


def _near(x: ir.Value, axes: Axes) -> ir.Value:
    """A number near each feature's data: the median of three elements, so that none is an outlier alone."""
    a, b, c = (_elements(x, axes, part) for part in (0.0, 0.5, 1.0))
    median = hlo.maximum(hlo.minimum(a, b), hlo.minimum(hlo.maximum(a, b), c))
    return _barrier([median])[0]


def _elements(x: ir.Value, axes: Axes, part: float) -> ir.Value:
    """Of each feature the element that lies this part of the way along all other dimensions."""
    sizes = shape_of(x)
    starts = [0 if place in axes else int((size - 1) * part) for place, size in enumerate(sizes)]
    limits = [size if place in axes else starts[place] + 1 for place, size in enumerate(sizes)]
    row = hlo.slice(x, starts, limits, [1] * len(sizes))
    return convert(reshape(row, [sizes[axis] for axis in axes]), ir.F32Type.get())


def _once(vectors: Sequence[Pair]) -> list[Pair]:
    """The vectors, not to be computed again for each element."""
    flat = _barrier([half for vector in vectors for half in vector])
    return [Pair(*flat[start : start + 2]) for start in range(0, len(flat), 2)]


def _barrier(values: Sequence[ir.Value]) -> list[ir.Value]:
    return list(hlo.OptimizationBarrierOp(list(values)).results)


def _compare(a: ir.Value, direction: str, b: ir.Value) -> ir.Value:
    return hlo.compare(a, b, hlo.ComparisonDirectionAttr.get(direction))
