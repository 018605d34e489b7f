"""Numbers as the unevaluated sum of two float32: 48 bits where float64 is emulated, or there is none.

What a sum or product rounds off is itself a float32 number, and is kept beside it::

    high = a + b;  low = (a - (high - (high - a))) + (b - (high - a))        (Knuth)
    a * b = a' * b' + a' * (b - b') + (a - a') * b                           (a', b' hold 12 bits: a' * b' is exact)

A product that is exact stays one where a compiler fuses it with an addition, so fusing cannot break this. The range is
float32's: callers scale by powers of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import along, convert, shape_of, splat, tensor_type


class Pair(NamedTuple):
    """``high + low``, with ``low`` about 2**-24 of ``high``."""

    high: ir.Value
    low: ir.Value


def pair(value: ir.Value) -> Pair:
    """A tensor of float32 or less, exactly; of float64, in 48 bits."""
    high = convert(value, ir.F32Type.get())
    if not isinstance(tensor_type(value).element_type, ir.F64Type):
        return Pair(high, like(0.0, high))
    return Pair(high, convert(hlo.subtract(value, wide(high)), ir.F32Type.get()))


def plus(a: Pair, b: Pair) -> Pair:
    high, error = two_sum(a.high, b.high)
    return _renormalized(high, hlo.add(error, hlo.add(a.low, b.low)))


def minus(a: Pair, b: Pair) -> Pair:
    return plus(a, Pair(hlo.negate(b.high), hlo.negate(b.low)))


def times(a: Pair, b: Pair) -> Pair:
    left, right = _first_half(a.high), _first_half(b.high)
    rest = hlo.add(hlo.multiply(left, hlo.subtract(b.high, right)), hlo.multiply(hlo.subtract(a.high, left), b.high))
    crossed = hlo.add(hlo.multiply(a.high, b.low), hlo.multiply(a.low, b.high))
    return _renormalized(hlo.multiply(left, right), hlo.add(rest, crossed))


def scaled(a: Pair, power: ir.Value) -> Pair:
    """Times a power of two, which is exact."""
    return Pair(hlo.multiply(a.high, power), hlo.multiply(a.low, power))


def two_sum(a: ir.Value, b: ir.Value) -> Pair:
    """``a + b`` exactly."""
    high = hlo.add(a, b)
    taken = hlo.subtract(high, a)
    return Pair(high, hlo.add(hlo.subtract(a, hlo.subtract(high, taken)), hlo.subtract(b, taken)))


def total(a: Pair) -> ir.Value:
    """In float64."""
    return hlo.add(wide(a.high), wide(a.low))


def spread(a: Pair, axes: Sequence[int], x: ir.Value) -> Pair:
    """Vectors along ``axes``, in the shape of ``x``."""
    return Pair(along(a.high, axes, x), along(a.low, axes, x))


def sums_of_pairs(values: Sequence[Pair], axes: Sequence[int]) -> list[Pair]:
    """Each summed over all dimensions but ``axes``, in one reduction: XLA reads what they are computed from once."""
    flat = [half for value in values for half in value]
    shape, f32 = shape_of(flat[0]), ir.F32Type.get()
    dimensions = [place for place in range(len(shape)) if place not in axes]
    result = ir.RankedTensorType.get([size for place, size in enumerate(shape) if place not in dimensions], f32)
    op = hlo.ReduceOp([result] * len(flat), flat, [splat(0.0, [], f32)] * len(flat), dimensions)
    block = op.body.blocks.append(*[ir.RankedTensorType.get([], f32)] * (2 * len(flat)))
    with ir.InsertionPoint(block):
        each = [Pair(*block.arguments[start : start + 2]) for start in range(0, 2 * len(flat), 2)]
        added = [plus(*both) for both in zip(each[: len(values)], each[len(values) :], strict=True)]
        hlo.ReturnOp([half for value in added for half in value])
    return [Pair(*op.results[start : start + 2]) for start in range(0, len(flat), 2)]


def like(number: float, value: ir.Value) -> ir.Value:
    """A constant of the shape and type of ``value``."""
    return splat(number, shape_of(value), tensor_type(value).element_type)


def power_below(value: ir.Value) -> ir.Value:
    """The power of two at or below each number, in float32."""
    bits = ir.IntegerType.get_signless(32)
    narrow = convert(value, ir.F32Type.get())
    type_ = ir.RankedTensorType.get(shape_of(value), bits)
    mask = hlo.constant(ir.DenseElementsAttr.get_splat(type_, ir.IntegerAttr.get(bits, 0x7F800000)))
    return hlo.bitcast_convert(narrow.type, hlo.and_(hlo.bitcast_convert(type_, narrow), mask))


def wide(value: ir.Value) -> ir.Value:
    return convert(value, ir.F64Type.get())


def _renormalized(high: ir.Value, low: ir.Value) -> Pair:
    """The same sum, with ``low`` small again; ``high`` is the larger."""
    sum_ = hlo.add(high, low)
    return Pair(sum_, hlo.subtract(low, hlo.subtract(sum_, high)))


def _first_half(value: ir.Value) -> ir.Value:
    """Rounded to 12 bits; what is left has 12 too."""
    i32 = ir.IntegerType.get_signless(32)
    return hlo.reduce_precision(value, ir.IntegerAttr.get(i32, 8), ir.IntegerAttr.get(i32, 11))
