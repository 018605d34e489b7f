"""Products of float32 numbers without rounding, sums rounded once, and powers of two as their bits.

Products of halves (12 digits each) are exact, and stay so where a compiler fuses them with an addition.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import shape_of
from stablenorm.passes.pairs import Pair, two_sum

_DIGITS = 23  # of a float32, after the point; its exponent stands above them, sign aside
_LARGEST = 254
BIAS = 127


def square(x: ir.Value) -> Pair:
    """``x * x``"""
    first, rest = _halves(x)
    crossed = hlo.multiply(first, rest)
    high, low = _ordered_sum(hlo.multiply(first, first), hlo.add(crossed, crossed))
    high, lower = _ordered_sum(high, hlo.multiply(rest, rest))
    return Pair(high, hlo.add(low, lower))


def products(a: ir.Value, b: ir.Value) -> list[ir.Value]:
    """Four numbers whose sum is ``a * b``."""
    return [hlo.multiply(left, right) for left in _halves(a) for right in _halves(b)]


def sum_of(values: Sequence[ir.Value], passes: int = 3) -> Pair:
    """Their sum as if with 24 * (passes + 1) digits, rounded to a pair: Ogita, Rump and Oishi, 2005."""
    values = list(values)
    for _ in range(passes):
        for place in range(1, len(values)):
            values[place], values[place - 1] = two_sum(values[place], values[place - 1])
    *small, high = values
    return two_sum(high, functools.reduce(hlo.add, small))


def digits_of(count: int) -> list[int]:
    """Numbers that float32 holds and that add up to ``count``, one of 48 digits at most."""
    low = count % (1 << 24)
    return [part for part in (count - low, low) if part]


def exponent(x: ir.Value) -> ir.Value:
    """The power of two at or below each number, as its bits; float32's smallest for 0, and its largest for infinity."""
    bits = hlo.bitcast_convert(ir.RankedTensorType.get(shape_of(x), _i32()), x)
    field = hlo.and_(bits, integers(_LARGEST + 1, bits))
    return hlo.clamp(integers(1, bits), field, integers(_LARGEST, bits))


def inverse_power(exponent: ir.Value) -> ir.Value:
    """What brings a number of this exponent between 2 and 4, as its bits; between 1 and 2, it may not be in range."""
    return hlo.subtract(integers(_LARGEST + 1, exponent), exponent)


def power_of(bits: ir.Value) -> ir.Value:
    """The power of two that these bits mean; 0 where it is below float32's range."""
    bits = hlo.maximum(bits, integers(0, bits))
    return hlo.bitcast_convert(ir.RankedTensorType.get(shape_of(bits), ir.F32Type.get()), bits)


def steps_of(bits: ir.Value, halved: bool = False) -> ir.Value:
    """An exponent as a number, or half of it: sums of these do not overflow."""
    return hlo.shift_right_logical(bits, _constant(_DIGITS + halved, bits))


def bits_of(steps: ir.Value, more: int, limit: int) -> ir.Value:
    """``steps + more``, between 1 and ``limit``, as bits."""
    within = hlo.clamp(_constant(1, steps), hlo.add(steps, _constant(more, steps)), _constant(limit, steps))
    return hlo.shift_left(within, _constant(_DIGITS, steps))


def integers(steps: int, like: ir.Value) -> ir.Value:
    """A constant of the shape of ``like`` that changes an exponent by ``steps``."""
    return _constant(steps << _DIGITS, like)


def _constant(number: int, like: ir.Value) -> ir.Value:
    type_ = ir.RankedTensorType.get(shape_of(like), _i32())
    return hlo.constant(ir.DenseElementsAttr.get_splat(type_, ir.IntegerAttr.get(_i32(), number)))


def _ordered_sum(a: ir.Value, b: ir.Value) -> Pair:
    """``a + b``, a the larger."""
    high = hlo.add(a, b)
    return Pair(high, hlo.subtract(b, hlo.subtract(high, a)))


def _halves(value: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Rounded to 12 digits, and the rest, which has 12 too."""
    first = hlo.reduce_precision(value, ir.IntegerAttr.get(_i32(), 8), ir.IntegerAttr.get(_i32(), 11))
    return first, hlo.subtract(value, first)


def _i32() -> ir.Type:
    return ir.IntegerType.get_signless(32)
