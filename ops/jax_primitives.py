"""Training batch norm as JAX primitives: exact derivatives of any order, forward and reverse, under every transform.

Four primitives. `training` is batch norm; `tangent` is its derivative, linear in ``dx, dscale, doffset``; `gradient`
is the transpose of that; `inner` sums products per feature, and the derivatives of the others are written with it.
Reverse mode keeps x and per-feature values only: `tangent` takes x, not the normalized x, and its transpose reads x
again. Each lowers to the arithmetic of `lower-batch-norm`, whose sums are float64 on any setting of ``jax_enable_x64``.

All work along ``axes``, the sorted feature dimensions; ``features`` have one dimension for each. ``vmap`` makes the
mapped dimension one more of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.mlir.dialects import stablehlo as hlo
from jax.interpreters import ad, mlir

from stablenorm.ops.jax_features import (
    RANGE,
    define,
    inner,
    normalized,
    of_features,
    per_count,
    platform_of,
    spread,
    varying_alike,
)
from stablenorm.passes import batch_norm_arithmetic, batch_statistics
from stablenorm.passes.batch_norm_arithmetic import Operands
from stablenorm.passes.batch_statistics import sum_together
from stablenorm.passes.building import convert, splat_like, tensor_type, widen
from stablenorm.passes.named_forms import OPERANDS
from stablenorm.passes.pair_batch_norm import gradient_in_pairs, is_possible, statistics_of_inverse, train_in_pairs
from stablenorm.passes.platforms import Platform

Array = jax.Array


def training(x: Array, scale: Array, offset: Array, weight: Array | None, axes: tuple[int, ...], epsilon: float) -> Any:
    """``y, mean, mean_rest, variance, inverse, count``: the mean is ``mean + mean_rest``, ``inverse`` RANGE / std."""
    operands = (x, scale, offset) if weight is None else (x, scale, offset, weight)
    return training_p.bind(*varying_alike(operands), axes=axes, epsilon=epsilon)


def _tangent(*operands: Array, axes: tuple[int, ...]) -> Array:
    """``r (dx - mean(dx) - h mean(dx h)) + h dscale + doffset``, ``r = scale / deviation``, h the normalized x."""
    x, scale, mean, rest, inverse, count, *weight, dx, dscale, doffset = operands
    h = normalized(x, mean, rest, inverse, axes)
    wide = dx.astype(h.dtype)
    counted = wide * weight[0] if weight else wide
    total, slope = inner(counted, jnp.ones_like(h), axes, h.dtype), inner(counted, h, axes, h.dtype)
    passed = spread(per_count(total, count), axes, h) + h * spread(per_count(slope, count), axes, h)
    through_x = spread(scale * inverse, axes, h) * ((wide - passed) / RANGE)
    dy = through_x + h * spread(dscale, axes, h) + spread(doffset, axes, h)
    return dy.astype(x.dtype)


def _gradient(*operands: Array, axes: tuple[int, ...]) -> list[Array]:
    """``r (ct - mean(ct) - h mean(ct h))``, ``sum(ct h)``, ``sum(ct)``: the transpose of `_tangent`."""
    x, scale, mean, rest, inverse, count, *weight, ct = operands
    h = normalized(x, mean, rest, inverse, axes)
    wide = ct.astype(h.dtype)
    doffset, dscale = inner(wide, jnp.ones_like(h), axes, h.dtype), inner(wide, h, axes, h.dtype)
    passed = spread(per_count(doffset, count), axes, h) + h * spread(per_count(dscale, count), axes, h)
    passed = passed * weight[0] if weight else passed
    dx = spread(scale * inverse, axes, h) * ((wide - passed) / RANGE)
    return [dx.astype(x.dtype), dscale, doffset]


def _training_jvp(primals: Sequence[Array], tangents: Sequence[Any], *, axes: tuple[int, ...], epsilon: float) -> Any:
    outputs = training_p.bind(*primals, axes=axes, epsilon=epsilon)
    x, scale, _, *weight = primals
    _, mean, rest, _, inverse, count = outputs
    dx, dscale, doffset = (ad.instantiate_zeros(tangent) for tangent in tangents[:3])
    dy = tangent_p.bind(x, scale, mean, rest, inverse, count, *weight, dx, dscale, doffset, axes=axes)
    wide = dx.astype(mean.dtype)
    counted = wide * weight[0] if weight else wide
    h = normalized(x, mean, rest, inverse, axes)
    dmean = per_count(inner(counted, jnp.ones_like(h), axes, h.dtype), count)
    slope = per_count(inner(counted, h, axes, h.dtype), count)
    none = jnp.zeros_like(mean)
    # variance = deviation ** 2 - epsilon, and d deviation = mean(h dx)
    through_variance = [2 * slope * (RANGE / inverse), -(inverse * (slope / RANGE)) * inverse]
    return outputs, [dy, dmean, none, *through_variance, none]


def _tangent_jvp(primals: Sequence[Array], tangents: Sequence[Any], *, axes: tuple[int, ...]) -> tuple[Array, Array]:
    function = functools.partial(_tangent, axes=axes)
    _, tangent = jax.jvp(function, tuple(primals), tuple(map(ad.instantiate_zeros, tangents)))
    return tangent_p.bind(*primals, axes=axes), tangent


def _gradient_jvp(primals: Sequence[Array], tangents: Sequence[Any], *, axes: tuple[int, ...]) -> Any:
    function = functools.partial(_gradient, axes=axes)
    _, tangent = jax.jvp(function, tuple(primals), tuple(map(ad.instantiate_zeros, tangents)))
    return gradient_p.bind(*primals, axes=axes), tangent


def _tangent_transpose(ct: Any, *operands: Any, axes: tuple[int, ...]) -> list[Any]:
    *known, dx, dscale, doffset = operands
    if type(ct) is ad.Zero:
        return [None] * len(operands)
    gradients = gradient_p.bind(*known, ct, axes=axes)
    linear = zip((dx, dscale, doffset), gradients, strict=True)
    return [None] * len(known) + [g if ad.is_undefined_primal(operand) else None for operand, g in linear]


def _gradient_transpose(cts: Sequence[Any], *operands: Any, axes: tuple[int, ...]) -> list[Any]:
    *known, _ = operands
    if all(type(ct) is ad.Zero for ct in cts):
        return [None] * len(operands)
    dual = tangent_p.bind(*known, *map(ad.instantiate_zeros, cts), axes=axes)
    return [None] * len(known) + [dual]


def _training_types(x: Any, scale: Any, *_: Any, axes: tuple[int, ...], epsilon: float) -> list[Any]:
    return [x, *[of_features(x, axes, scale.dtype)] * 5]


def _gradient_types(x: Any, scale: Any, *_: Any, axes: tuple[int, ...]) -> list[Any]:
    return [x, *[of_features(x, axes, scale.dtype)] * 2]


def _lower_training(ctx: Any, x: Any, scale: Any, offset: Any, *weight: Any, axes: Any, epsilon: float) -> list[Any]:
    operands = dict(zip(OPERANDS["training"], (x, scale, offset, *weight), strict=False))
    narrow = tensor_type(scale).element_type
    if _is_in_pairs(ctx, operands):
        y, pairs = train_in_pairs(operands, epsilon, axes)
        exact_mean, variance, inverse = pairs.mean, pairs.variance, pairs.inverse(RANGE)
        count = batch_statistics.element_count(x, axes)
    else:
        platform = platform_of(ctx)
        y, batch, inverse = batch_norm_arithmetic.train(operands, epsilon, axes, _devices(ctx), platform=platform)
        inverse = hlo.multiply(inverse, splat_like(RANGE, inverse))
        exact_mean, variance, count = batch.mean, batch.variance, batch.count
    mean = convert(exact_mean, narrow)
    rest = convert(hlo.subtract(exact_mean, widen(mean)), narrow)
    features = [convert(value, narrow) for value in (variance, inverse, count)]
    return [convert(y, tensor_type(x).element_type), mean, rest, *features]


def _lower_gradient(ctx: Any, *operands: Any, axes: tuple[int, ...]) -> list[Any]:
    x, *vectors, ct = operands[:6] + operands[-1:]
    weight, narrow = operands[6] if len(operands) > 7 else None, tensor_type(operands[1]).element_type
    types = [tensor_type(x).element_type, narrow, narrow]
    scale, mean, rest, inverse, count = map(widen, vectors)
    known = {"operand": x, "scale": vectors[0], "grad_output": ct}
    if weight is None and _is_in_pairs(ctx, known):
        batch = statistics_of_inverse(hlo.add(mean, rest), vectors[3], RANGE, x, axes)
        results = gradient_in_pairs(known, batch, axes)
        return [convert(value, type_) for value, type_ in zip(results, types, strict=True)]
    inverse = hlo.divide(inverse, splat_like(RANGE, inverse))
    sum_both = functools.partial(sum_together, parts=_devices(ctx), sent=narrow, platform=platform_of(ctx))
    mean = hlo.add(mean, rest)
    results = batch_norm_arithmetic.gradient(x, mean, inverse, scale, count, ct, axes, weight, sum_both)
    return [convert(value, type_) for value, type_ in zip(results, types, strict=True)]


def _is_in_pairs(ctx: Any, operands: Operands) -> bool:
    return platform_of(ctx) is Platform.TPU and _devices(ctx) == 1 and is_possible(operands)


def _devices(ctx: Any) -> int:
    """Over how many devices a partitioner may spread what is lowered here; not those of manual mesh axes."""
    context = ctx.module_context.axis_context
    if hasattr(context, "manual_axes"):
        automatic = set(context.mesh.axis_names) - set(context.manual_axes)
        return math.prod(context.mesh.shape[name] for name in automatic)
    return getattr(context, "num_devices", None) or 1


_lower_tangent = mlir.lower_fun(_tangent, multiple_results=False)
training_p = define("training", _training_types, _lower_training, _training_jvp, None, several=True)
tangent_p = define("tangent", lambda x, *_, axes: x, _lower_tangent, _tangent_jvp, _tangent_transpose, several=False)
gradient_p = define("gradient", _gradient_types, _lower_gradient, _gradient_jvp, _gradient_transpose, several=True)
