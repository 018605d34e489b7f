"""Training batch norm over the replicas of a ``tf.distribute`` strategy.

Each replica sums its part of the batch to one array, ``sum(x), sum(x * x)`` per feature and a count; the strategy adds
these up, and each replica normalizes with the total::

    total = all_reduce(sums(x))                 y = normalize(x, total)

TensorFlow derives the backward pass: the derivative by ``total`` is one array as long, which the derivative of
`all_reduce` adds up once more. What each replica contributes to scale's and offset's derivatives stays with it; the
optimizer adds them up with those of all other variables. Sums are float64, about a number near the replica's data and
then moved to 0, as in `batch_statistics.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import tensorflow as tf

from stablenorm.ops.jax_features import spread
from stablenorm.ops.tensorflow_calls import Type, call

Tensor: TypeAlias = tf.Tensor
Axes: TypeAlias = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Normalize:
    """``y, mean, variance, count`` of x, the sums of all replicas, and the parameters that there are."""

    axes: Axes
    epsilon: float
    has_scale: bool
    has_offset: bool

    def __call__(self, x: jax.Array, total: jax.Array, *parameters: jax.Array) -> tuple[jax.Array, ...]:
        features = tuple(x.shape[axis] for axis in self.axes)
        size = math.prod(features)
        first, second, count = (total[start:end] for start, end in ((0, size), (size, 2 * size), (2 * size, None)))
        divisor = jnp.where(count == 0, 1, count)
        mean, square = first / divisor, second / divisor
        variance = square - mean * mean
        # What float64 cannot tell from 0 beside the squared mean is 0; not so with NaN.
        variance = jnp.where(variance < square * 2.0**-50, 0, variance)
        rest = iter(vector.astype(mean.dtype).reshape(-1) for vector in parameters)
        factor = jax.lax.rsqrt(variance + self.epsilon)
        factor = next(rest) * factor if self.has_scale else factor
        wide = x.astype(mean.dtype)
        mean_, factor = (spread(vector.reshape(features), self.axes, wide) for vector in (mean, factor))
        y = (wide - mean_) * factor
        y = y + spread(next(rest).reshape(features), self.axes, wide) if self.has_offset else y
        narrow = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
        statistics = (mean, variance, jnp.broadcast_to(count, mean.shape))
        return y.astype(x.dtype), *(value.reshape(features).astype(narrow) for value in statistics)


@dataclasses.dataclass(frozen=True)
class _Sums:
    """``sum(w x), sum(w x x)`` of each feature, and ``sum(w)``, once where it is the same for all features."""

    axes: Axes

    def __call__(self, x: jax.Array, *weights: jax.Array) -> tuple[jax.Array]:
        others = tuple(axis for axis in range(x.ndim) if axis not in self.axes)
        ones = jnp.ones([1 if axis in self.axes else size for axis, size in enumerate(x.shape)], jnp.float64)
        weight = weights[0].astype(jnp.float64) if weights else ones
        x = jnp.where(weight == 0, 0, x.astype(jnp.float64))
        count = weight.sum(others, keepdims=True)
        shift = jax.lax.stop_gradient((weight * x).sum(others, keepdims=True) / jnp.where(count == 0, 1, count))
        distance = x - shift
        first = (weight * distance).sum(others, keepdims=True)
        second = (weight * distance * distance).sum(others, keepdims=True)
        moved = [first + count * shift, second + shift * (2 * first + count * shift), count]
        return (jnp.concatenate([value.reshape(-1) for value in moved]),)


def train(
    normalize: Normalize, x: Tensor, parameters: Sequence[Tensor], weight: Tensor | None, types: Sequence[Type]
) -> list[Tensor]:
    """``y, mean, variance, count``, the statistics those of all replicas together.

    ``types`` are those of x, the parameters and the weight, as far as there are some.
    """
    x_type, *others = types
    own, weights = others[: len(parameters)], [] if weight is None else [weight]
    (sums,) = call(_Sums(normalize.axes), [x, *weights], [x_type, *others[len(parameters) :]])
    total = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, sums)
    (size,) = sums.shape
    total.set_shape([size])
    return call(normalize, [x, total, *parameters], [x_type, Type((size,), "float64"), *own])
