"""The arithmetic that batch norm is lowered to; ``lower_batch_norm.py`` says why it has this form.

All of it works on values of any rank, along one feature dimension or several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.batch_statistics import (
    Statistics,
    Sums,
    element_count,
    local_sums,
    quotient,
    statistics,
    statistics_of,
    sums_on,
)
from stablenorm.passes.block_sums import Axes, Terms, computed_once, sums
from stablenorm.passes.building import along, arithmetic_type, convert, splat, splat_like, tensor_type, widen
from stablenorm.passes.collectives import ReplicaGroups, add_over_replicas
from stablenorm.passes.platforms import Platform

Operands = Mapping[str, ir.Value]


def infer(operands: Operands, epsilon: float, axes: Axes) -> ir.Value:
    """``(x - mean) * (scale * rsqrt(variance + epsilon)) + offset`` in float32 at least, rounded once."""
    element_type, arithmetic = tensor_type(operands["operand"]).element_type, arithmetic_type(operands["operand"])
    x, scale, offset, mean = (convert(operands[name], arithmetic) for name in ("operand", "scale", "offset", "mean"))
    factor = hlo.multiply(scale, rsqrt_above(convert(operands["variance"], arithmetic), epsilon))
    return convert(scale_and_shift(x, axes, mean, factor, offset), element_type)


def train(
    operands: Operands,
    epsilon: float,
    axes: Axes,
    parts: int = 1,
    groups: ReplicaGroups | None = None,
    platform: Platform = Platform.CPU,
) -> tuple[ir.Value, Statistics, ir.Value]:
    """``(x - mean(x)) * (scale * rsqrt(variance(x) + epsilon)) + offset``; what is behind it: statistics and rsqrt.

    In float64, not rounded. ``parts`` and ``platform`` as in `statistics`; with ``groups``, statistics are those of all
    replicas of one.
    """
    x, weight = operands["operand"], operands.get("weight")
    if groups is None:
        batch = statistics(x, axes, weight, parts, platform)
    else:
        batch = _over_replicas(x, axes, weight, groups, platform)
    inverse = rsqrt_above(batch.variance, epsilon)
    factor, offset = hlo.multiply(widen(operands["scale"]), inverse), widen(operands["offset"])
    if weight is None and groups is None and parts == 1 and has_digits_to_spare(x):
        return _normalize_all(x, axes, batch, factor, offset), batch, inverse
    return normalize(x, axes, batch.mean, factor, offset), batch, inverse


def has_digits_to_spare(x: ir.Value) -> bool:
    """Whether float64 holds products of such numbers, and the difference of two, as exactly as a result of their type.

    Where x is not constant, it is away from its mean by ``2 ** -24`` of that or more somewhere, and float64's steps are
    ``2 ** -53``: so ``x * a + b`` may take the place of ``(x - mean) * a + c``, at two vectors less work.
    """
    return not isinstance(tensor_type(x).element_type, ir.F64Type)


def _normalize_all(x: ir.Value, axes: Axes, batch: Statistics, factor: ir.Value, offset: ir.Value) -> ir.Value:
    """`normalize`, where the statistics are those of the elements of x and no others, and know a constant."""
    zero = splat_like(0.0, factor)
    is_constant = hlo.compare(batch.variance, zero, hlo.ComparisonDirectionAttr.get("EQ"))
    factor = hlo.select(is_constant, zero, factor)
    factor, offset = computed_once([factor, hlo.subtract(offset, hlo.multiply(batch.mean, factor))], x)
    return hlo.add(hlo.multiply(widen(x), along(factor, axes, x)), along(offset, axes, x))


def _over_replicas(
    x: ir.Value, axes: Axes, weight: ir.Value | None, groups: ReplicaGroups, platform: Platform
) -> Statistics:
    each = local_sums(x, axes, weight, platform)
    if weight is None and tensor_type(x).has_static_shape:  # each replica runs this program: all count as many
        first, second = add_over_replicas([each.first, each.second], groups)
        return statistics_of(Sums(_group_count(each.count, groups), first, second))
    first, second, count = add_over_replicas([each.first, each.second, each.count], groups)
    return statistics_of(Sums(count, first, second))


def _group_count(count: ir.Value, groups: ReplicaGroups) -> ir.Value:
    return hlo.multiply(count, splat_like(len(groups[0]), count))


def normalize(x: ir.Value, axes: Axes, mean: ir.Value, factor: ir.Value, offset: ir.Value) -> ir.Value:
    """`scale_and_shift` of a tensor of any type by float64 vectors that were computed just now."""
    return scale_and_shift(widen(x), axes, *computed_once([mean, factor, offset], x))


def scale_and_shift(x: ir.Value, axes: Axes, mean: ir.Value, factor: ir.Value, offset: ir.Value) -> ir.Value:
    """``(x - mean) * factor + offset``, the vectors along ``axes``."""
    centered = hlo.subtract(x, along(mean, axes, x))
    return hlo.add(hlo.multiply(centered, along(factor, axes, x)), along(offset, axes, x))


def rsqrt_above(variance: ir.Value, epsilon: float) -> ir.Value:
    """``rsqrt(variance + epsilon)``"""
    type_ = tensor_type(variance)
    return hlo.rsqrt(hlo.add(variance, splat(epsilon, type_.shape, type_.element_type)))


def gradient(
    x: ir.Value,
    mean: ir.Value,
    inverse: ir.Value,
    scale: ir.Value,
    count: ir.Value,
    grad_output: ir.Value,
    axes: Axes,
    weight: ir.Value | None,
    sum_both: Callable[[Sequence[ir.Value], Axes, Terms], Sequence[ir.Value]] = sums,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """``grad_operand``, ``grad_scale``, ``grad_offset`` in float64; vectors are that already.

    Where the statistics counted each element ``weight`` times, so does what they pass on. ``sum_both`` is `sums`, over
    more than this operand perhaps.
    """
    (mean,) = computed_once([mean], x)

    def terms(slices: Sequence[ir.Value], axes: Axes) -> list[ir.Value]:
        x, grad_output = map(widen, slices)
        return [grad_output, hlo.multiply(grad_output, hlo.subtract(x, along(mean, axes, x)))]

    grad_offset, slope = sum_both([x, grad_output], axes, terms)
    grad_scale = hlo.multiply(slope, inverse)
    # through the mean, and through the deviation by the distance from it
    shift, tilt = quotient(grad_offset, count), hlo.multiply(quotient(grad_scale, count), inverse)
    factor = hlo.multiply(scale, inverse)
    distance = widen(x)
    if weight is None and has_digits_to_spare(x):
        shift = hlo.subtract(shift, hlo.multiply(mean, tilt))
    else:
        distance = hlo.subtract(distance, along(mean, axes, x))
    vectors = [along(vector, axes, x) for vector in computed_once([shift, tilt, factor], x)]
    through_statistics = hlo.add(vectors[0], hlo.multiply(distance, vectors[1]))
    if weight is not None:
        through_statistics = hlo.multiply(widen(weight), through_statistics)
    inner = hlo.subtract(widen(grad_output), through_statistics)
    return hlo.multiply(inner, vectors[2]), grad_scale, grad_offset


def gradient_from(
    operands: Operands,
    batch: Statistics | None,
    epsilon: float,
    axes: Axes,
    groups: ReplicaGroups | None = None,
    platform: Platform = Platform.CPU,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """`gradient` by the names of its operands; ``batch`` holds the statistics unrounded, where they are known.

    With ``groups``, sums are those of all replicas of one, and so are ``grad_scale`` and ``grad_offset``.
    """
    x, weight = operands["operand"], operands.get("weight")
    narrow = arithmetic_type(x)

    def sum_both(operands: Sequence[ir.Value], axes: Axes, terms: Terms) -> list[ir.Value]:
        each = sums_on(platform)(operands, axes, terms)
        if groups is None:
            return each
        # Nothing is subtracted from these sums, so they need no float64 on their way.
        return [widen(total) for total in add_over_replicas(rounded(each, narrow), groups)]

    if batch is None:
        count = element_count(x, axes) if weight is None else _sum_of(weight, axes)
        if groups is not None:
            count = _group_count(count, groups) if weight is None else add_over_replicas([count], groups)[0]
        batch = Statistics(widen(operands["mean"]), widen(operands["variance"]), count)
    inverse, scale = rsqrt_above(batch.variance, epsilon), widen(operands["scale"])
    return gradient(x, batch.mean, inverse, scale, batch.count, operands["grad_output"], axes, weight, sum_both)


def _sum_of(x: ir.Value, axes: Axes) -> ir.Value:
    return sums([x], axes, lambda slices, _: [widen(slices[0])])[0]


def rounded(values: Sequence[ir.Value], element_type: ir.Type) -> list[ir.Value]:
    return [convert(value, element_type) for value in values]
