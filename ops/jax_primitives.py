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
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo
from jax.interpreters import ad, batching, mlir

from stablenorm.passes import batch_norm_arithmetic, batch_statistics
from stablenorm.passes.building import along, convert, tensor_type
from stablenorm.passes.named_forms import OPERANDS

Array = jax.Array


def training(x: Array, scale: Array, offset: Array, weight: Array | None, axes: tuple[int, ...], epsilon: float) -> Any:
    """``y, mean, mean_rest, variance, inverse, count``: the mean is ``mean + mean_rest``, ``inverse`` 1/deviation."""
    operands = (x, scale, offset) if weight is None else (x, scale, offset, weight)
    return training_p.bind(*_varying_alike(operands), axes=axes, epsilon=epsilon)


def _varying_alike(operands: Sequence[Array]) -> list[Array]:
    """Inside ``shard_map``, operands that differ between devices where any one does.

    JAX then sums the derivative of a parameter that all devices share.
    """
    varying = [jax.typeof(operand).manual_axis_type.varying for operand in operands]
    every = frozenset[str]().union(*varying)
    missing = [tuple(every - own) for own in varying]
    return [jax.lax.pcast(o, axes, to="varying") if axes else o for o, axes in zip(operands, missing, strict=True)]


def _of_features(x: Any, axes: tuple[int, ...], dtype: Any) -> Any:
    return x.update(shape=tuple(x.shape[axis] for axis in axes), dtype=dtype, weak_type=False)


def _spread(vector: Array, axes: tuple[int, ...], like: Array) -> Array:
    return jax.lax.broadcast_in_dim(vector, like.shape, axes)


def _inner(a: Array, b: Array, axes: tuple[int, ...], dtype: Any) -> Array:
    total: Array = inner_p.bind(a, b, axes=axes, dtype=jnp.dtype(dtype))
    return total


def _normalized(x: Array, mean: Array, rest: Array, inverse: Array, axes: tuple[int, ...]) -> Array:
    wide = x.astype(mean.dtype)
    centered = (wide - _spread(mean, axes, wide)) - _spread(rest, axes, wide)
    return centered * _spread(inverse, axes, wide)


def _per_count(total: Array, count: Array) -> Array:
    return jnp.where(count == 0, 0, total / jnp.where(count == 0, 1, count))


def _tangent(*operands: Array, axes: tuple[int, ...]) -> Array:
    """``r (dx - mean(dx) - h mean(dx h)) + h dscale + doffset``, ``r = scale * inverse``, h the normalized x."""
    x, scale, mean, rest, inverse, count, *weight, dx, dscale, doffset = operands
    h = _normalized(x, mean, rest, inverse, axes)
    wide = dx.astype(h.dtype)
    counted = wide * weight[0] if weight else wide
    total, slope = _inner(counted, jnp.ones_like(h), axes, h.dtype), _inner(counted, h, axes, h.dtype)
    passed = _spread(_per_count(total, count), axes, h) + h * _spread(_per_count(slope, count), axes, h)
    dy = _spread(scale * inverse, axes, h) * (wide - passed) + h * _spread(dscale, axes, h) + _spread(doffset, axes, h)
    return dy.astype(x.dtype)


def _gradient(*operands: Array, axes: tuple[int, ...]) -> list[Array]:
    """``r (ct - mean(ct) - h mean(ct h))``, ``sum(ct h)``, ``sum(ct)``: the transpose of `_tangent`."""
    x, scale, mean, rest, inverse, count, *weight, ct = operands
    h = _normalized(x, mean, rest, inverse, axes)
    wide = ct.astype(h.dtype)
    doffset, dscale = _inner(wide, jnp.ones_like(h), axes, h.dtype), _inner(wide, h, axes, h.dtype)
    passed = _spread(_per_count(doffset, count), axes, h) + h * _spread(_per_count(dscale, count), axes, h)
    passed = passed * weight[0] if weight else passed
    dx = _spread(scale * inverse, axes, h) * (wide - passed)
    return [dx.astype(x.dtype), dscale, doffset]


def _training_jvp(primals: Sequence[Array], tangents: Sequence[Any], *, axes: tuple[int, ...], epsilon: float) -> Any:
    outputs = training_p.bind(*primals, axes=axes, epsilon=epsilon)
    x, scale, _, *weight = primals
    _, mean, rest, _, inverse, count = outputs
    dx, dscale, doffset = (ad.instantiate_zeros(tangent) for tangent in tangents[:3])
    dy = tangent_p.bind(x, scale, mean, rest, inverse, count, *weight, dx, dscale, doffset, axes=axes)
    wide = dx.astype(mean.dtype)
    counted = wide * weight[0] if weight else wide
    h = _normalized(x, mean, rest, inverse, axes)
    dmean = _per_count(_inner(counted, jnp.ones_like(h), axes, h.dtype), count)
    slope = _per_count(_inner(counted, h, axes, h.dtype), count)
    none = jnp.zeros_like(mean)
    # variance = 1 / inverse ** 2 - epsilon, and d inverse = -inverse ** 2 * mean(h dx)
    return outputs, [dy, dmean, none, 2 * slope / inverse, -(inverse * slope) * inverse, none]


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


def _inner_jvp(primals: Sequence[Array], tangents: Sequence[Any], *, axes: tuple[int, ...], dtype: Any) -> Any:
    (a, b), (da, db) = primals, tangents
    terms = [(da, b), (a, db)]
    parts = [_inner(u, v, axes, dtype) for u, v in terms if type(u) is not ad.Zero and type(v) is not ad.Zero]
    return _inner(a, b, axes, dtype), functools.reduce(jnp.add, parts)


def _inner_transpose(ct: Any, a: Any, b: Any, *, axes: tuple[int, ...], dtype: Any) -> list[Any]:
    if type(ct) is ad.Zero:
        return [None, None]
    if ad.is_undefined_primal(a):
        return [(_spread(ct, axes, b) * b).astype(a.aval.dtype), None]
    return [None, (_spread(ct, axes, a) * a).astype(b.aval.dtype)]


def _training_types(x: Any, scale: Any, *_: Any, axes: tuple[int, ...], epsilon: float) -> list[Any]:
    return [x, *[_of_features(x, axes, scale.dtype)] * 5]


def _gradient_types(x: Any, scale: Any, *_: Any, axes: tuple[int, ...]) -> list[Any]:
    return [x, *[_of_features(x, axes, scale.dtype)] * 2]


def _inner_types(a: Any, b: Any, *, axes: tuple[int, ...], dtype: Any) -> Any:
    return _of_features(a, axes, dtype)


def _lower_training(ctx: Any, x: Any, scale: Any, offset: Any, *weight: Any, axes: Any, epsilon: float) -> list[Any]:
    operands = dict(zip(OPERANDS["training"], (x, scale, offset, *weight), strict=False))
    y, batch, inverse = batch_norm_arithmetic.train(operands, epsilon, axes, _devices(ctx))
    narrow = tensor_type(scale).element_type
    mean = convert(batch.mean, narrow)
    rest = convert(hlo.subtract(batch.mean, batch_norm_arithmetic.widen(mean)), narrow)
    features = [convert(value, narrow) for value in (batch.variance, inverse, batch.count)]
    return [convert(y, tensor_type(x).element_type), mean, rest, *features]


def _lower_gradient(ctx: Any, *operands: Any, axes: tuple[int, ...]) -> list[Any]:
    f64 = ir.F64Type.get()
    x, scale, mean, rest, inverse, count, *weight, ct = (convert(operand, f64) for operand in operands)
    centered = hlo.subtract(x, along(hlo.add(mean, rest), axes, x))
    counts = weight[0] if weight else None
    narrow = tensor_type(operands[1]).element_type
    results = batch_norm_arithmetic.gradient(centered, inverse, scale, count, ct, axes, counts, _devices(ctx), narrow)
    types = [tensor_type(operands[0]).element_type, narrow, narrow]
    return [convert(value, type_) for value, type_ in zip(results, types, strict=True)]


def _devices(ctx: Any) -> int:
    """Over how many devices a partitioner may spread what is lowered here; not those of manual mesh axes."""
    context = ctx.module_context.axis_context
    if hasattr(context, "manual_axes"):
        automatic = set(context.mesh.axis_names) - set(context.manual_axes)
        return math.prod(context.mesh.shape[name] for name in automatic)
    return getattr(context, "num_devices", None) or 1


def _lower_inner(ctx: Any, a: Any, b: Any, *, axes: tuple[int, ...], dtype: Any) -> list[Any]:
    f64 = ir.F64Type.get()
    total = batch_statistics.sum_features(hlo.multiply(convert(a, f64), convert(b, f64)), axes)
    return [convert(total, mlir.dtype_to_ir_type(dtype))]


def _batched(primitive: Primitive) -> Callable[..., Any]:
    """The mapped dimension comes first everywhere, and is one more feature dimension."""

    def rule(operands: Sequence[Array], dimensions: Sequence[Any], *, axes: tuple[int, ...], **parameters: Any) -> Any:
        size = next(o.shape[d] for o, d in zip(operands, dimensions, strict=True) if d is not None)
        moved = [
            jnp.broadcast_to(operand, (size, *operand.shape))
            if dimension is None
            else jnp.moveaxis(operand, dimension, 0)
            for operand, dimension in zip(operands, dimensions, strict=True)
        ]
        results = primitive.bind(*moved, axes=(0, *(axis + 1 for axis in axes)), **parameters)
        return results, [0] * len(results) if primitive.multiple_results else 0

    return rule


@functools.cache
def _compiled(primitive: Primitive, **parameters: Any) -> Callable[..., Any]:
    return jax.jit(functools.partial(primitive.bind, **parameters))


def _define(name: str, types: Any, lower: Any, jvp: Any, transpose: Any, several: bool) -> Primitive:
    primitive = Primitive(f"stablenorm_batch_norm_{name}")
    primitive.multiple_results = several
    primitive.def_abstract_eval(types)
    primitive.def_impl(lambda *operands, **parameters: _compiled(primitive, **parameters)(*operands))
    mlir.register_lowering(primitive, lower)
    ad.primitive_jvps[primitive] = jvp
    if transpose is not None:
        ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = _batched(primitive)
    return primitive


_lower_tangent = mlir.lower_fun(_tangent, multiple_results=False)
training_p = _define("training", _training_types, _lower_training, _training_jvp, None, several=True)
tangent_p = _define("tangent", lambda x, *_, axes: x, _lower_tangent, _tangent_jvp, _tangent_transpose, several=False)
gradient_p = _define("gradient", _gradient_types, _lower_gradient, _gradient_jvp, _gradient_transpose, several=True)
inner_p = _define("inner", _inner_types, _lower_inner, _inner_jvp, _inner_transpose, several=False)
