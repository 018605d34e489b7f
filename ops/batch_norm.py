"""Batch norm as a JAX function."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stablenorm.ops import jax_primitives, jax_synchronized

Array = jax.Array


def batch_norm(
    x: Array,
    scale: Array | None,
    offset: Array | None,
    moving_mean: Array,
    moving_variance: Array,
    *,
    training: bool,
    axis: int | Sequence[int] = -1,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    mask: Array | None = None,
    unbiased: bool = False,
    axis_name: str | Sequence[str] | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
) -> tuple[Array, Array, Array]:
    """``y = (x - mean) / sqrt(variance + epsilon) * scale + offset``, and the moving statistics after it.

    In training, mean and biased variance are those of x over all dimensions but ``axis``, and
    ``moving = moving * momentum + batch * (1 - momentum)``. In inference they are the moving ones, which stay.

    Sums are float64 on every setting of ``jax_enable_x64``, of distances from a number near the data: nothing cancels
    at any mean. Derivatives are exact to any order, in forward and reverse mode; reverse mode keeps x and values per
    feature only. Works under ``jit``, ``vmap``, ``grad``, ``checkpoint``, ``scan`` and with symbolic batch sizes.

    Args:
        x: float16, bfloat16, float32 or float64, of any rank from 1.
        scale, offset: one number for each feature, of the statistics' type: float32, float64 for a float64 x. A
            feature axis each, in the order of x's dimensions. None: 1 and 0.
        moving_mean, moving_variance: as scale.
        training: whether to normalize with the batch's own statistics. A Python bool.
        axis: the feature dimension, or several.
        momentum: the weight of the old moving value.
        epsilon: added to the variance inside the square root.
        mask: how often each element counts in the statistics: booleans, or weights that may be fractions; of x's
            rank, or without the feature dimensions; broadcast to x. What is masked is normalized all the same. Where
            nothing counts, moving statistics stay. It has no derivative.
        unbiased: whether the moving variance takes ``n / (n - 1)`` times the batch's (n = 1: once), as tf_keras does
            on its fused path.
        axis_name: axes of ``shard_map``, ``pmap`` or ``vmap`` over which the batch is spread: statistics are those of
            all replicas, weighted by what each one counts. Forward sends one array of two sums per feature and a count,
            backward one of two sums per feature. Without it, statistics are each replica's own; under plain ``jit``
            with a sharded batch there are no replicas, and statistics are those of the whole batch, by the same traffic.
        axis_index_groups: replicas that share statistics, as in `jax.lax.psum`; ``shard_map`` takes it only with
            ``check_vma=False``.

    Returns:
        y, of x's shape and type; the new moving mean and variance.

    Raises:
        TypeError: an argument is of the wrong kind; ValueError: of the wrong shape or value.

    Source: `tf_keras.layers.BatchNormalization`.
    """
    x = jnp.asarray(x)
    axes = _feature_axes(axis, x)
    statistics_type = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
    shape = tuple(x.shape[axis] for axis in axes)
    _check_kinds(training, momentum, epsilon)
    scale = jnp.ones(shape, statistics_type) if scale is None else _parameter("scale", scale, shape, statistics_type)
    offset = (
        jnp.zeros(shape, statistics_type) if offset is None else _parameter("offset", offset, shape, statistics_type)
    )
    old_mean = _parameter("moving_mean", moving_mean, shape, statistics_type)
    old_variance = _parameter("moving_variance", moving_variance, shape, statistics_type)
    weight = None if mask is None else _weight(mask, x, axes, statistics_type)
    if not training:
        return _infer(x, scale, offset, old_mean, old_variance, axes, epsilon), old_mean, old_variance
    if axis_name is None:
        results = jax_primitives.training(x, scale, offset, weight, axes, float(epsilon))
    else:
        replicas = _replicas(axis_name, axis_index_groups)
        one_count = mask is None or jnp.ndim(mask) == x.ndim - len(axes)
        results = jax_synchronized.training(x, scale, offset, weight, axes, float(epsilon), replicas, one_count)
    y, mean, _, variance, _, count = results
    if unbiased:
        variance = variance * jnp.where(count > 1, count / jnp.where(count > 1, count - 1, 1), 1)

    def updated(old: Array, batch: Array) -> Array:
        return jnp.where(count > 0, old * momentum + batch * (1 - momentum), old)

    return y, updated(old_mean, mean), updated(old_variance, variance)


def _infer(
    x: Array, scale: Array, offset: Array, mean: Array, variance: Array, axes: tuple[int, ...], epsilon: float
) -> Array:
    factor = scale * jax.lax.rsqrt(variance + jnp.asarray(epsilon, variance.dtype))
    wide = x.astype(mean.dtype)
    mean, factor, offset = (jax.lax.broadcast_in_dim(vector, x.shape, axes) for vector in (mean, factor, offset))
    return ((wide - mean) * factor + offset).astype(x.dtype)


def _feature_axes(axis: int | Sequence[int], x: Array) -> tuple[int, ...]:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x: got {x.dtype}, allowed: a real floating-point type; convert it first")
    given: Any = [axis] if isinstance(axis, numbers.Integral) else list(axis) if isinstance(axis, Sequence) else None
    if not given or not all(isinstance(entry, numbers.Integral) for entry in given):
        raise TypeError(f"axis: got {axis!r}, allowed: an int, or a sequence of ints")
    outside = [entry for entry in given if not -x.ndim <= entry < x.ndim]
    if outside:
        raise ValueError(f"axis: got {outside[0]} for x of shape {x.shape}, allowed: {-x.ndim} to {x.ndim - 1}")
    axes = tuple(sorted(int(entry) % x.ndim for entry in given))
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis: got {axis!r}, which names a dimension twice, for x of shape {x.shape}")
    return axes


def _check_kinds(training: Any, momentum: Any, epsilon: Any) -> None:
    if not isinstance(training, bool | np.bool_):
        raise TypeError(f"training: got {training!r}, allowed: True or False; branch on a traced value with lax.cond")
    for name, value in (("momentum", momentum), ("epsilon", epsilon)):
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name}: got {value!r}, allowed: a Python number")


def _parameter(name: str, value: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    value = jnp.asarray(value)
    if value.shape != shape:
        raise ValueError(f"{name}: got the shape {value.shape}, allowed: {shape}, one number for each feature of x")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{name}: got {value.dtype}, allowed: a real floating-point type")
    return value.astype(dtype)


def _replicas(axis_name: str | Sequence[str], groups: Sequence[Sequence[int]] | None) -> jax_synchronized.Replicas:
    names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
    return jax_synchronized.Replicas(names, None if groups is None else tuple(map(tuple, groups)))


def _weight(mask: Array, x: Array, axes: tuple[int, ...], dtype: Any) -> Array:
    mask = jnp.asarray(mask)
    full = jnp.expand_dims(mask, axes) if mask.ndim == x.ndim - len(axes) else mask
    fits = full.ndim == x.ndim and all(size in (1, whole) for size, whole in zip(full.shape, x.shape, strict=True))
    if not fits or not (mask.dtype == bool or jnp.issubdtype(mask.dtype, jnp.number)):
        raise ValueError(
            f"mask: got {mask.dtype} of shape {mask.shape} for x of shape {x.shape}, allowed: booleans or numbers "
            f"that broadcast to x, or to x without its feature dimensions {axes}"
        )
    return jax.lax.stop_gradient(jnp.broadcast_to(full.astype(dtype), x.shape))
