"""Mean and variance by sums of x and of its square that float64 holds exactly where they would cancel.

For x of 24 digits or fewer, ``x * x = p + e``, p of 24 digits and e of as many, both exact. Where the mean is large
beside the deviation, all x have one exponent, or two; then float64's 53 digits hold ``sum(x)`` and ``sum(p)`` of
2 ** 28 elements without rounding. Where it is not, nothing cancels. So no shift is needed, and parts of a batch simply
add up. With t the rounded mean, and t * sum(x) taken exactly::

    count * variance = sum(p) - t * sum(x) + sum(e) - t * (sum(x) - count * t)

Half types have squares of 22 digits: e is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.block_sums import Axes
from stablenorm.passes.building import splat_like, tensor_type, widen


def has_exact_squares(x: ir.Value) -> bool:
    """Whether float64 holds the square of each element: of anything but float64."""
    return not isinstance(tensor_type(x).element_type, ir.F64Type)


def square_terms(slices: Sequence[ir.Value], _: Axes) -> list[ir.Value]:
    """``x, p, e`` of each element, in float64; without e where it is 0."""
    x = widen(slices[0])
    square = hlo.multiply(x, x)
    if not isinstance(tensor_type(slices[0]).element_type, ir.F32Type):
        return [x, square]
    head = _head(square, 24)
    return [x, head, hlo.subtract(square, head)]


def mean_and_variance(sums: Sequence[ir.Value], count: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Mean and biased variance of the sums of `square_terms`, in float64."""
    first, second, *rest = sums
    mean = hlo.divide(first, count)
    # XLA multiplies by the inverse of a constant count; but where x is constant, its mean must be x.
    mean = hlo.add(mean, hlo.divide(_left(first, mean, count), count))
    high, low = _product(mean, first)
    total = hlo.subtract(second, high)
    for each in rest:  # before `low`, which is smaller: then nothing is left of a constant
        total = hlo.add(total, each)
    total = hlo.subtract(hlo.subtract(total, low), hlo.multiply(mean, _left(first, mean, count)))
    return mean, hlo.maximum(hlo.divide(total, count), splat_like(0.0, mean))


def _left(first: ir.Value, mean: ir.Value, count: ir.Value) -> ir.Value:
    """``first - mean * count``"""
    near, error = _product(mean, count)
    return hlo.subtract(hlo.subtract(first, near), error)


def _product(a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
    """``a * b`` rounded, and the rest: Dekker, 1971.

    Rounded to one digit less than float64 has, since a compiler that fuses a product with the subtraction behind it
    would not round it at all.
    """
    a_high, b_high = _head(a, 26), _head(b, 26)
    a_low, b_low = hlo.subtract(a, a_high), hlo.subtract(b, b_high)
    rounded = _head(hlo.multiply(a, b), 52)
    rest = hlo.subtract(hlo.multiply(a_high, b_high), rounded)
    for factors in ((a_high, b_low), (a_low, b_high), (a_low, b_low)):
        rest = hlo.add(rest, hlo.multiply(*factors))
    return rounded, rest


def _head(x: ir.Value, digits: int) -> ir.Value:
    """The leading digits of a float64."""
    i32 = ir.IntegerType.get_signless(32)
    return hlo.reduce_precision(x, ir.IntegerAttr.get(i32, 11), ir.IntegerAttr.get(i32, digits - 1))
