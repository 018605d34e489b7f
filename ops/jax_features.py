"""What the primitives of batch norm share: sums per feature, and how a primitive is declared.

All work along ``axes``, the sorted feature dimensions; ``features`` have one dimension for each. ``vmap`` makes the
mapped dimension one more of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.extend.mlir.dialects import stablehlo as hlo
from jax.interpreters import ad, batching, mlir

from stablenorm.passes.batch_statistics import sums_on
from stablenorm.passes.building import convert, widen
from stablenorm.passes.platforms import Platform

Array = jax.Array

# What the inverse of the deviation is multiplied with, and x divided by: the inverse of the largest deviation is less
# than a normal number, and the distance between the largest numbers is more than one.
RANGE = 16.0


@functools.cache
def _compiled(primitive: Primitive, **parameters: Any) -> Callable[..., Any]:
    return jax.jit(functools.partial(primitive.bind, **parameters))


def define(name: str, types: Any, lower: Any, jvp: Any, transpose: Any, several: bool) -> Primitive:
    primitive = Primitive(f"stablenorm_batch_norm_{name}")
    primitive.multiple_results = several
    primitive.def_abstract_eval(types)
    primitive.def_impl(lambda *operands, **parameters: _compiled(primitive, **parameters)(*operands))
    mlir.register_lowering(primitive, lower)
    if jvp is not None:
        ad.primitive_jvps[primitive] = jvp
    if transpose is not None:
        ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = _batched(primitive)
    return primitive


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


def varying_alike(operands: Sequence[Array], *more: str) -> list[Array]:
    """Inside ``shard_map``, operands that differ between devices where any one does, and over the axes ``more``.

    JAX then sums the derivative of a parameter that all devices share.
    """
    every = varying(*operands).union(more)
    missing = [tuple(every - varying(operand)) for operand in operands]
    return [jax.lax.pcast(o, axes, to="varying") if axes else o for o, axes in zip(operands, missing, strict=True)]


def varying(*operands: Array) -> frozenset[str]:
    """The mesh axes over which one of the operands differs, as far as JAX tracks it."""
    return frozenset[str]().union(*(jax.typeof(operand).manual_axis_type.varying for operand in operands))


def of_features(x: Any, axes: tuple[int, ...], dtype: Any) -> Any:
    return x.update(shape=tuple(x.shape[axis] for axis in axes), dtype=dtype, weak_type=False)


def spread(vector: Array, axes: tuple[int, ...], like: Array) -> Array:
    return jax.lax.broadcast_in_dim(vector, like.shape, axes)


def normalized(x: Array, mean: Array, rest: Array, inverse: Array, axes: tuple[int, ...]) -> Array:
    """``(x - mean) / deviation``; ``inverse`` as `RANGE` says."""
    x, mean, rest = (value.astype(mean.dtype) / RANGE for value in (x, mean, rest))
    centered = (x - spread(mean, axes, x)) - spread(rest, axes, x)
    return centered * spread(inverse, axes, x)


def per_count(total: Array, count: Array) -> Array:
    return jnp.where(count == 0, 0, total / jnp.where(count == 0, 1, count))


def inner(a: Array, b: Array, axes: tuple[int, ...], dtype: Any) -> Array:
    total: Array = inner_p.bind(a, b, axes=axes, dtype=jnp.dtype(dtype))
    return total


def _inner_jvp(primals: Sequence[Array], tangents: Sequence[Any], *, axes: tuple[int, ...], dtype: Any) -> Any:
    (a, b), (da, db) = primals, tangents
    terms = [(da, b), (a, db)]
    parts = [inner(u, v, axes, dtype) for u, v in terms if type(u) is not ad.Zero and type(v) is not ad.Zero]
    return inner(a, b, axes, dtype), functools.reduce(jnp.add, parts)


def _inner_transpose(ct: Any, a: Any, b: Any, *, axes: tuple[int, ...], dtype: Any) -> list[Any]:
    if type(ct) is ad.Zero:
        return [None, None]
    if ad.is_undefined_primal(a):
        return [(spread(ct, axes, b) * b).astype(a.aval.dtype), None]
    return [None, (spread(ct, axes, a) * a).astype(b.aval.dtype)]


def _inner_types(a: Any, b: Any, *, axes: tuple[int, ...], dtype: Any) -> Any:
    return of_features(a, axes, dtype)


def platform_of(ctx: Any) -> Platform:
    """What this is lowered for: the CPU, where that is several, or one that has no form of its own."""
    platforms = list(ctx.module_context.platforms)
    return Platform(platforms[0]) if platforms in ([each] for each in Platform) else Platform.CPU


def _lower_inner(ctx: Any, a: Any, b: Any, *, axes: tuple[int, ...], dtype: Any) -> list[Any]:
    sum_all = sums_on(platform_of(ctx))
    (total,) = sum_all([a, b], axes, lambda slices, _: [hlo.multiply(widen(slices[0]), widen(slices[1]))])
    return [convert(total, mlir.dtype_to_ir_type(dtype))]


inner_p = define("inner", _inner_types, _lower_inner, _inner_jvp, _inner_transpose, several=False)
