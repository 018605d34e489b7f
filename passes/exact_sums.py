"""Sums of x and of its square that need no shift and no float64.

XLA:TPU makes float64 a pair of float32: 48 bits, float32's range, and a pass over x for each sum. One reduction of
several values, whose body adds pairs (`pairs.py`), is one pass, whatever the layout. A number of 24 digits has a
square of 48, which is two numbers (one, of a half type)::

    x * x = head + tail
    count * variance = sum(head) + sum(tail) - t * sum(x) - t * (sum(x) - count * t)        (t: the mean, rounded)

Where the mean is large beside the deviation, all x have one exponent, or two, and pairs hold the sums of 2**22 elements
exactly; where it is not, little cancels. The last line is not rounded until its end.

Squares leave float32's range. So each sum is of ``x * power``, with the power of two that its largest element asks for:
the body of the reduction knows the exponents of what it adds, and brings both to the larger.

Bytes accessed on a v5e: 1.00 of x for all sums, channels first and last, bfloat16 and float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes import exact_arithmetic as exact
from stablenorm.passes.building import convert, shape_of, splat, tensor_type
from stablenorm.passes.pairs import Pair, like, plus, scaled, total, wide

Axes = Sequence[int]


class ScaledSums(NamedTuple):
    """Sums of ``x * power``, and of the parts of its square; the power is ``inverse_power(exponent)``."""

    exponent: ir.Value
    first: Pair
    squares: tuple[Pair, ...]


class Moments(NamedTuple):
    """``power`` in float32; mean and biased variance of ``x * power`` and ``epsilon * power ** 2`` in float64.

    The sum of variance and epsilon is of order one.
    """

    power: ir.Value
    mean: ir.Value
    variance: ir.Value
    epsilon: ir.Value


def scaled_sums(x: ir.Value, axes: Axes) -> ScaledSums:
    """The sums of ``x``, of float32 or less, over all dimensions but ``axes``."""
    is_half = not isinstance(tensor_type(x).element_type, ir.F32Type)
    x = convert(x, ir.F32Type.get())
    exponent = exact.exponent(x)
    x = hlo.multiply(x, exact.power_of(exact.inverse_power(exponent)))
    zero = like(0.0, x)
    squares = [hlo.multiply(x, x)] if is_half else exact.square(x)
    return _reduced(ScaledSums(exponent, Pair(x, zero), tuple(Pair(square, zero) for square in squares)), axes)


def moments(sums: ScaledSums, count: int, epsilon: float) -> Moments:
    """Mean and variance of all ``count`` elements of each feature, brought to order one."""
    mean, variance = _mean_and_variance(sums, count)
    half, power = math.frexp(epsilon)[1] // 2, exact.inverse_power(sums.exponent)
    kept = _for_deviation(power, variance, half)
    less = wide(exact.power_of(_times(kept, hlo.negate(power), exact.BIAS)))
    root = wide(exact.power_of(hlo.add(kept, exact.integers(half, kept))))
    rest = hlo.multiply(hlo.multiply(like(epsilon / 4.0**half, root), root), root)
    mean, variance = hlo.multiply(mean, less), hlo.multiply(hlo.multiply(variance, less), less)
    return Moments(exact.power_of(kept), mean, variance, rest)


def _for_deviation(power: ir.Value, variance: ir.Value, half: int) -> ir.Value:
    """The power, all as bits, that brings the deviation to order one, or 2 ** half where that is larger."""
    root = exact.exponent(convert(variance, ir.F32Type.get()))
    steps = hlo.subtract(exact.steps_of(power), exact.steps_of(root, halved=True))
    return exact.bits_of(steps, exact.BIAS // 2, max(min(exact.BIAS - half, 254), 1))


def _mean_and_variance(sums: ScaledSums, count: int) -> tuple[ir.Value, ir.Value]:
    first = total(sums.first)
    share = like(1 / count, first)
    # Where x is constant, this is x: nothing is left, and the variance is 0.
    near = convert(hlo.divide(first, like(count, first)), ir.F32Type.get())
    most = [piece for digits in exact.digits_of(count) for piece in exact.products(near, like(digits, near))]
    left = exact.sum_of([*sums.first, *map(hlo.negate, most)])
    squared = [piece for half in (*sums.first, *left) for piece in exact.products(near, half)]
    halves = [half for square in sums.squares for half in square]
    square = total(exact.sum_of([*halves, *map(hlo.negate, squared)]))
    rest = hlo.multiply(total(left), share)
    variance = hlo.subtract(hlo.multiply(square, share), hlo.multiply(rest, rest))
    return hlo.add(wide(near), rest), hlo.maximum(variance, like(0.0, variance))


def _reduced(values: ScaledSums, axes: Axes) -> ScaledSums:
    """Each added over all dimensions but ``axes``, in one reduction."""
    flat = _flat(values)
    shape = shape_of(flat[0])
    dimensions = [place for place in range(len(shape)) if place not in axes]
    kept = [size for place, size in enumerate(shape) if place not in dimensions]
    elements = [tensor_type(value).element_type for value in flat]
    scalars = [ir.RankedTensorType.get([], element) for element in elements]
    zero = splat(0.0, [], ir.F32Type.get())
    start = [exact.integers(1, zero), *[zero] * (len(flat) - 1)]
    op = hlo.ReduceOp([ir.RankedTensorType.get(kept, element) for element in elements], flat, start, dimensions)
    block = op.body.blocks.append(*scalars, *scalars)
    with ir.InsertionPoint(block):
        hlo.ReturnOp(_flat(_added(_grouped(block.arguments[: len(flat)]), _grouped(block.arguments[len(flat) :]))))
    return _grouped(op.results)


def _added(a: ScaledSums, b: ScaledSums) -> ScaledSums:
    exponent = hlo.maximum(a.exponent, b.exponent)
    a, b = _brought_to(exponent, a), _brought_to(exponent, b)
    squares = (plus(*both) for both in zip(a.squares, b.squares, strict=True))
    return ScaledSums(exponent, plus(a.first, b.first), tuple(squares))


def _brought_to(exponent: ir.Value, sums: ScaledSums) -> ScaledSums:
    """The same sums times the power of a larger exponent; what float32 is too small for beside it is 0."""
    once = exact.power_of(_times(sums.exponent, hlo.negate(exponent), exact.BIAS))
    twice = hlo.multiply(once, once)
    return ScaledSums(exponent, scaled(sums.first, once), tuple(scaled(square, twice) for square in sums.squares))


def _times(a: ir.Value, b: ir.Value, more: int) -> ir.Value:
    return hlo.add(hlo.add(a, b), exact.integers(more, a))


def _flat(sums: ScaledSums) -> list[ir.Value]:
    return [sums.exponent, *sums.first, *(half for square in sums.squares for half in square)]


def _grouped(values: Sequence[ir.Value]) -> ScaledSums:
    exponent, *halves = values
    first, *squares = (Pair(*halves[start : start + 2]) for start in range(0, len(halves), 2))
    return ScaledSums(exponent, first, tuple(squares))
