"""Training batch norm with the statistics of all replicas along named axes: ``shard_map``, ``pmap``, ``vmap``.

Forward, each replica sends one packed array, two sums per feature and a count; backward, one of two sums per feature.
The traffic is JAX's own ``psum``, and JAX derives the backward one: the derivative is written so that what depends on
other replicas, two numbers per feature, enters the elementwise part once, as one array.

    v = (doffset - r mean(dx), dscale - r mean(dx h))          two numbers per feature
    dy = r dx + v[0] + h v[1]                                  r = scale / deviation, h the normalized x

The transpose of ``v`` is the sum over replicas of ``(sum(ct), sum(ct h))``; ``doffset``, ``dscale`` and what passes
through the statistics all take it from there. Where JAX tracks which values vary over the axes (``shard_map`` with
``check_vma``), scale and offset do not, and their derivatives come out summed; elsewhere each replica's derivative of
its own scale and offset is what it contributed, as for every other parameter.

Sums are float64 on any setting of ``jax_enable_x64``; each replica sums distances from its own first element and moves
the sums to 0, so the variance loses ``(mean / deviation) ** 2`` of float64's 9e15 steps, from the first step on.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.extend.mlir import ir
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
from stablenorm.passes.batch_norm_arithmetic import normalize, rsqrt_above
from stablenorm.passes.batch_statistics import Sums, local_sums, statistics_of
from stablenorm.passes.building import convert, splat_like, tensor_type, widen

Array = jax.Array
Groups = tuple[tuple[int, ...], ...] | None


@dataclasses.dataclass(frozen=True)
class Replicas:
    """Who shares statistics: all along the named axes, or each group of ``axis_index_groups`` by itself."""

    axis_name: tuple[str, ...]
    groups: Groups = None

    def add(self, values: Sequence[Array]) -> list[Array]:
        """The sums over the replicas of several arrays, sent as one."""
        flat = [jax.lax.reshape(value, (value.size,)) for value in values]
        (packed,) = self.vary([jax.lax.concatenate(flat, 0)])
        total = jax.lax.psum(packed, self.axis_name, axis_index_groups=self.groups)
        ends = list(itertools.accumulate(value.size for value in values))
        cuts = zip([0, *ends], ends, values, strict=False)
        return [jax.lax.reshape(jax.lax.slice(total, (a,), (b,)), value.shape) for a, b, value in cuts]

    def vary(self, operands: Sequence[Array]) -> list[Array]:
        """Typed as differing between the replicas, as `psum` wants it; ``vmap`` has no such types."""
        manual = jax.sharding.get_abstract_mesh().manual_axes
        return varying_alike(operands, *(name for name in self.axis_name if name in manual))


def training(
    x: Array,
    scale: Array,
    offset: Array,
    weight: Array | None,
    axes: tuple[int, ...],
    epsilon: float,
    replicas: Replicas,
    one_count: bool,
) -> Any:
    """As `jax_primitives.training`, over all replicas; ``one_count``: every feature counts the same elements."""
    large = replicas.vary([x] if weight is None else [x, weight])
    return _training(_Static(axes, epsilon, replicas, one_count and x.size > 0), scale, offset, *large)


@dataclasses.dataclass(frozen=True)
class _Static:
    axes: tuple[int, ...]
    epsilon: float
    replicas: Replicas
    one_count: bool


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _training(static: _Static, scale: Array, offset: Array, x: Array, *weight: Array) -> list[Array]:
    *sums, count = local_p.bind(x, *weight, axes=static.axes)
    if static.one_count:
        count = jax.lax.slice(count, (0,) * count.ndim, (1,) * count.ndim)
    *sums, count = static.replicas.add([*sums, count])
    if static.one_count:
        count = jax.lax.broadcast_in_dim(jax.lax.reshape(count, ()), sums[0].shape, ())
    mean, rest, variance, inverse, count = total_p.bind(
        *sums, count, axes=static.axes, epsilon=static.epsilon, dtype=scale.dtype
    )
    y = normalize_p.bind(x, scale, offset, mean, rest, inverse, axes=static.axes)
    return [y, mean, rest, variance, inverse, count]


def _training_jvp(static: _Static, primals: Sequence[Array], tangents: Sequence[Any]) -> Any:
    outputs = _training(static, *primals)
    scale, _, x, *weight = primals
    _, mean, rest, _, inverse, count = outputs
    dscale, doffset = (jnp.zeros_like(scale) if type(t) is SymbolicZero else t for t in tangents[:2])
    dx, axes, known = tangents[2], static.axes, (x, mean, rest, inverse)
    v = [doffset, dscale]
    total = slope = jnp.zeros_like(mean)
    r = scale * inverse / RANGE
    if type(dx) is not SymbolicZero:
        dx = dx.astype(scale.dtype)
        sums = static.replicas.add(slopes_p.bind(dx, *known, *weight, axes=axes))
        total, slope = (per_count(value, count) for value in sums)
        v = [doffset - r * total, dscale - r * slope]
    # As one array, so that its transpose is one sum over the replicas.
    pair, _ = varying_alike([jnp.stack(v), x])
    dy = along_p.bind(pair[0], pair[1], *known, axes=axes)
    if type(dx) is not SymbolicZero:
        dy = dy + rescale_p.bind(dx, r, axes=axes)
    none = jnp.zeros_like(mean)
    # variance = deviation ** 2 - epsilon, and d deviation = mean(h dx)
    through_variance = [2 * slope * (RANGE / inverse), -(inverse * (slope / RANGE)) * inverse]
    return outputs, [dy.astype(x.dtype), total, none, *through_variance, none]


_training.defjvp(_training_jvp, symbolic_zeros=True)


def _slopes(u: Array, x: Array, mean: Array, rest: Array, inverse: Array, *weight: Array, axes: Any) -> list[Array]:
    """``sum(w u), sum(w u h)``: linear in u, the transpose of `_along`."""
    counted = u * weight[0] if weight else u
    h = normalized(x, mean, rest, inverse, axes)
    return [inner(counted, jnp.ones_like(h), axes, h.dtype), inner(counted, h, axes, h.dtype)]


def _along(a: Array, b: Array, x: Array, mean: Array, rest: Array, inverse: Array, *weight: Array, axes: Any) -> Array:
    """``w (a + b h)``: linear in a and b."""
    h = normalized(x, mean, rest, inverse, axes)
    result = spread(a, axes, h) + spread(b, axes, h) * h
    return result * weight[0] if weight else result


def _rescale(u: Array, r: Array, *, axes: tuple[int, ...]) -> Array:
    """``r u``: linear in u, its own transpose. It keeps r, not r spread out."""
    return spread(r, axes, u) * u


def _derivative_of(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(primals: Sequence[Array], tangents: Sequence[Any], *, axes: tuple[int, ...]) -> Any:
        return jax.jvp(
            functools.partial(function, axes=axes), tuple(primals), tuple(map(ad.instantiate_zeros, tangents))
        )

    return rule


def _slopes_transpose(cts: Sequence[Any], u: Any, *known: Array, axes: tuple[int, ...]) -> list[Any]:
    none = [None] * len(known)
    if all(type(ct) is ad.Zero for ct in cts):
        return [None, *none]
    return [along_p.bind(*map(ad.instantiate_zeros, cts), *known, axes=axes), *none]


def _along_transpose(ct: Any, a: Any, b: Any, *known: Array, axes: tuple[int, ...]) -> list[Any]:
    none = [None] * len(known)
    if type(ct) is ad.Zero:
        return [None, None, *none]
    gradients = slopes_p.bind(ct, *known, axes=axes)
    pairs = zip((a, b), gradients, strict=True)
    return [*(gradient if ad.is_undefined_primal(operand) else None for operand, gradient in pairs), *none]


def _rescale_transpose(ct: Any, u: Any, r: Array, *, axes: tuple[int, ...]) -> list[Any]:
    return [None if type(ct) is ad.Zero else rescale_p.bind(ct, r, axes=axes), None]


def _local_types(x: Any, *_: Any, axes: tuple[int, ...]) -> list[Any]:
    return [of_features(x, axes, np.dtype(np.float64))] * 3


def _total_types(first: Any, *_: Any, dtype: Any, **__: Any) -> list[Any]:
    return [first.update(dtype=dtype)] * 5


def _slopes_types(u: Any, *_: Any, axes: tuple[int, ...]) -> list[Any]:
    return [of_features(u, axes, u.dtype)] * 2


def _lower_local(ctx: Any, x: ir.Value, *weight: ir.Value, axes: tuple[int, ...]) -> list[ir.Value]:
    sums = local_sums(x, axes, weight[0] if weight else None, platform_of(ctx))
    return [sums.first, sums.second, sums.count]


def _lower_total(
    ctx: Any, first: ir.Value, second: ir.Value, count: ir.Value, *, axes: Any, epsilon: float, dtype: Any
) -> list[ir.Value]:
    batch, narrow = statistics_of(Sums(count, first, second)), mlir.dtype_to_ir_type(dtype)
    mean = convert(batch.mean, narrow)
    rest = hlo.subtract(batch.mean, widen(mean))
    inverse = rsqrt_above(batch.variance, epsilon)
    inverse = hlo.multiply(inverse, splat_like(RANGE, inverse))
    values = [rest, batch.variance, inverse, batch.count]
    return [mean, *(convert(value, narrow) for value in values)]


def _lower_normalize(ctx: Any, *operands: ir.Value, axes: tuple[int, ...]) -> list[ir.Value]:
    x, *vectors = operands
    scale, offset, mean, rest, inverse = map(widen, vectors)
    inverse = hlo.divide(inverse, splat_like(RANGE, inverse))
    y = normalize(x, axes, hlo.add(mean, rest), hlo.multiply(scale, inverse), offset)
    return [convert(y, tensor_type(x).element_type)]


_lower_slopes = mlir.lower_fun(_slopes, multiple_results=True)
_lower_along = mlir.lower_fun(_along, multiple_results=False)
_lower_rescale = mlir.lower_fun(_rescale, multiple_results=False)
local_p = define("local", _local_types, _lower_local, None, None, several=True)
total_p = define("total", _total_types, _lower_total, None, None, several=True)
normalize_p = define("normalize", lambda x, *_, axes: x, _lower_normalize, None, None, several=False)
slopes_p = define("slopes", _slopes_types, _lower_slopes, _derivative_of(_slopes), _slopes_transpose, several=True)
along_p = define(
    "along",
    lambda a, b, x, *_, axes: x.update(dtype=a.dtype),
    _lower_along,
    _derivative_of(_along),
    _along_transpose,
    several=False,
)
rescale_p = define(
    "rescale", lambda u, r, axes: u, _lower_rescale, _derivative_of(_rescale), _rescale_transpose, several=False
)
