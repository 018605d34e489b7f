"""Training and its gradient without float64 on activations: sums in pairs of float32 (`pairs.py`), one pass each.

XLA:TPU has no float64, and emulates it in the same way with float32's range. Its cost analysis counts each read of an
array beyond 128 MB, of a blocked view too. So there is one reduction, over all rows, without a view and without a shift
(`exact_sums.py`), and a feature's vectors are those of ``x * power``, with the power of two that brings its deviation,
or the root of epsilon where that is larger, to order one. With ``unit`` the power of two at or below
``rsqrt(variance)``, all that follows stays in float32's range::

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

from stablenorm.passes.building import along, convert, product, shape_of, tensor_type
from stablenorm.passes.exact_sums import Moments, moments, scaled_sums
from stablenorm.passes.pairs import (
    Pair,
    like,
    minus,
    pair,
    plus,
    power_below,
    scaled,
    spread,
    sums_of_pairs,
    times,
    total,
    wide,
)

Axes = Sequence[int]
Operands = Mapping[str, ir.Value]

# Of a mean and a variance that are given, the scale; half of a finite number's distance from another is finite.
_HALF = 0.5
# Lest `unit` be infinite.
_LEAST = 2.0**-120


@dataclasses.dataclass(frozen=True)
class PairStatistics:
    """Of each feature: ``mean`` and ``variance`` of x in float64; what `_normalized` and the gradient work with.

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
    return _statistics(moments(scaled_sums(x, axes), count, epsilon), count)


def statistics_from(mean: ir.Value, variance: ir.Value, x: ir.Value, epsilon: float, axes: Axes) -> PairStatistics:
    """What `gradient_in_pairs` needs, of a mean and a variance that are given."""
    power = like(_HALF, convert(mean, ir.F32Type.get()))
    half = like(_HALF, wide(mean))
    center, quarter = hlo.multiply(wide(mean), half), hlo.multiply(hlo.multiply(wide(variance), half), half)
    return _statistics(Moments(power, center, quarter, like(epsilon * _HALF**2, half)), _count(x, axes))


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


def _statistics(scaled: Moments, count: int) -> PairStatistics:
    power, center, variance, epsilon = scaled
    inverse = hlo.rsqrt(hlo.add(variance, epsilon))
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


def _once(vectors: Sequence[Pair]) -> list[Pair]:
    """The vectors, not to be computed again for each element."""
    flat = _barrier([half for vector in vectors for half in vector])
    return [Pair(*flat[start : start + 2]) for start in range(0, len(flat), 2)]


def _barrier(values: Sequence[ir.Value]) -> list[ir.Value]:
    return list(hlo.OptimizationBarrierOp(list(values)).results)


def _compare(a: ir.Value, direction: str, b: ir.Value) -> ir.Value:
    return hlo.compare(a, b, hlo.ComparisonDirectionAttr.get(direction))
