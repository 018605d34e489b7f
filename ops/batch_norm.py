"""Batch norm as a JAX function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stablenorm.ops import arguments, jax_primitives, jax_synchronized

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
    groups: int = 1,
) -> tuple[Array, Array, Array]:
    """``y = (x - mean) / sqrt(variance + epsilon) * scale + offset``, and the moving statistics after it.

    In training, mean and biased variance are those of x over all dimensions but ``axis``, and
    ``moving = moving * momentum + batch * (1 - momentum)``. In inference they are the moving ones, which stay.

    Sums are float64, or as good, on every platform and setting of ``jax_enable_x64``: nothing cancels at any mean.
    Derivatives are exact to any order, in forward and reverse mode; reverse mode keeps x and values per
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
            backward one of two sums per feature. Without it, statistics are each replica's own. Under plain ``jit``
            with a sharded batch there are no replicas: statistics are the whole batch's, by as much traffic.
        axis_index_groups: replicas that share statistics, as in `jax.lax.psum`; ``shard_map`` takes it only with
            ``check_vma=False``.
        groups: into how many parts of equal size the batch, the first dimension, is cut; each has statistics of its
            own. Under plain ``jit`` with the batch sharded over as many devices, or a divisor, nothing is sent between
            them. ``moving_mean`` and ``moving_variance`` may have one more dimension in front, a row for each group;
            else they take the mean over the groups that count anything.

    Returns:
        y, of x's shape and type; the new moving mean and variance.

    Raises:
        TypeError: an argument is of the wrong kind; ValueError: of the wrong shape or value.

    Source: `tf_keras.layers.BatchNormalization`.
    """
    x = jnp.asarray(x)
    axes = arguments.feature_axes(axis, x)
    arguments.check_kinds(training, unbiased, momentum, epsilon)
    arguments.check_groups(groups, axis_name, axis_index_groups, axes, x)
    shape = tuple(x.shape[axis] for axis in axes)
    statistics_type = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
    scale = jnp.ones(shape) if scale is None else scale
    offset = jnp.zeros(shape) if offset is None else offset
    scale, offset = (
        arguments.parameter(name, value, statistics_type, shape)
        for name, value in (("scale", scale), ("offset", offset))
    )
    shapes = [shape, (groups, *shape)] if training and groups > 1 else [shape]
    old_mean = arguments.parameter("moving_mean", moving_mean, statistics_type, *shapes)
    old_variance = arguments.parameter("moving_variance", moving_variance, statistics_type, *shapes)
    weight = None if mask is None else arguments.weight(mask, x, axes, statistics_type)
    if not training:
        return _infer(x, scale, offset, old_mean, old_variance, axes, epsilon), old_mean, old_variance
    if axis_name is not None:
        replicas = arguments.replicas(axis_name, axis_index_groups)
        one_count = mask is None or jnp.ndim(mask) == x.ndim - len(axes)
        results = jax_synchronized.training(x, scale, offset, weight, axes, float(epsilon), replicas, one_count)
    else:
        results = _train_groups(x, scale, offset, weight, axes, float(epsilon), groups)
    y, mean, _, variance, _, count = results
    if unbiased:
        variance = variance * jnp.where(count > 1, count / jnp.where(count > 1, count - 1, 1), 1)
    return y, _moved(old_mean, mean, count, momentum), _moved(old_variance, variance, count, momentum)


def _train_groups(
    x: Array, scale: Array, offset: Array, weight: Array | None, axes: tuple[int, ...], epsilon: float, groups: int
) -> Any:
    """Each group by itself; statistics have a dimension of groups in front where there are several."""

    def train(x: Array, weight: Array | None) -> Any:
        return jax_primitives.training(x, scale, offset, weight, axes, epsilon)

    if groups == 1:
        return train(x, weight)
    parts = jax.tree.map(lambda each: each.reshape(groups, -1, *each.shape[1:]), (x, weight))
    y, *statistics = jax.vmap(train)(*parts)
    return [y.reshape(x.shape), *statistics]


def _moved(old: Array, batch: Array, count: Array, momentum: float) -> Array:
    """``old * momentum + batch * (1 - momentum)`` where anything was counted; the mean over groups, if old has none."""
    if batch.ndim > old.ndim:
        counted = count > 0
        batch = jnp.where(counted, batch, 0).sum(0) / jnp.maximum(counted.sum(0), 1)
        count = counted.sum(0)
    return jnp.where(count > 0, old * momentum + batch * (1 - momentum), old)


def _infer(
    x: Array, scale: Array, offset: Array, mean: Array, variance: Array, axes: tuple[int, ...], epsilon: float
) -> Array:
    factor = scale * jax.lax.rsqrt(variance + jnp.asarray(epsilon, variance.dtype))
    wide = x.astype(mean.dtype)
    mean, factor, offset = (jax.lax.broadcast_in_dim(vector, x.shape, axes) for vector in (mean, factor, offset))
    return ((wide - mean) * factor + offset).astype(x.dtype)
