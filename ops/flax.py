"""Batch norm as a Flax NNX module."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from stablenorm.ops.arguments import feature_axes
from stablenorm.ops.batch_norm import batch_norm

Array = jax.Array


class BatchNorm(nnx.BatchNorm):
    """``y = (x - mean) / sqrt(var + epsilon) * scale + bias``: `flax.nnx.BatchNorm`, right at any mean.

    Constructor, Variables and their paths are the stock module's, so a state of one is a state of the other;
    `stablenorm.ops.batch_norm` computes. So nothing cancels where the mean is large, and derivatives are exact to any
    order. Without ``use_running_average``, mean and biased variance are those of the batch over all dimensions but
    ``axis``, and ``running = momentum * running + (1 - momentum) * batch``. It differs from the stock module in these:

    - ``use_fast_variance`` is accepted and has no effect: the variance is always the exact one.
    - Of what ``promote_dtype`` returns, x is used as it is, the others for their types: parameters and statistics are
      read as they are stored, in float32 at least. The stock module rounds them to ``dtype``, the running mean too.
    - With ``axis_name``, replicas weigh what they count: where masks or batches differ between them, the stock module
      takes the mean of their means.
    - Where nothing counts, in an empty batch or under a mask of False alone, the running statistics stay.
    - ``mask`` may hold weights: how often each element counts. ``axis`` may name several dimensions also in training,
      with ``num_features`` the product of their sizes, though none twice.
    - Complex numbers are refused: of their running mean, the stock module keeps the real part only.

    Shapes: x and y have any rank from 1; ``mask`` broadcasts to x. The type of y is ``dtype``, or what JAX promotes x
    and the Variables to.

    Raises:
        TypeError: an argument is of the wrong kind; ValueError: of the wrong shape or value.

    Source: `flax.nnx.BatchNorm` of Flax 0.12.
    """

    def __call__(self, x: Any, use_running_average: bool | None = None, *, mask: Any = None) -> Array:
        """Normalizes x, and moves the running statistics where it uses the batch's own."""
        inference = self.use_running_average if use_running_average is None else use_running_average
        if inference is None:
            raise ValueError("use_running_average: got None, allowed: True or False, in the constructor or the call")
        x, dtype = self._promoted(x)
        axes = feature_axes(self.axis, x)
        features = self._features(x, axes)
        y, mean, var = batch_norm(
            x,
            *(_read(variable, features) for variable in self._variables()),
            training=not inference,
            axis=self.axis,
            momentum=self.momentum,
            epsilon=self.epsilon,
            mask=None if mask is None else _mask(mask, x, axes),
            axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups,
        )
        if not inference:
            for variable, value in ((self.mean, mean), (self.var, var)):
                variable[...] = jax.lax.stop_gradient(value).reshape(-1).astype(variable[...].dtype)
        return y.astype(dtype)

    def _variables(self) -> tuple[Any, ...]:
        return self.scale, self.bias, self.mean, self.var

    def _promoted(self, x: Any) -> tuple[Array, Any]:
        """X in the type in which it is normalized, and the type of the result."""
        scale, bias, mean, var = (None if variable is None else variable[...] for variable in self._variables())
        x, mean, var, scale, bias = self.promote_dtype((x, mean, var, scale, bias), dtype=self.dtype)
        parameters = [parameter for parameter in (scale, bias) if parameter is not None]
        dtype = jnp.result_type(x, *parameters) if self.dtype is None else self.dtype
        return x.astype(jnp.promote_types(x.dtype, dtype)), dtype

    def _features(self, x: Array, axes: tuple[int, ...]) -> tuple[int, ...]:
        features = tuple(x.shape[axis] for axis in axes)
        if math.prod(features) != self.num_features:
            raise ValueError(
                f"num_features: got {self.num_features} for x of shape {x.shape}, "
                f"allowed: {math.prod(features)}, with axis {self.axis}"
            )
        return features


def _read(variable: Any, shape: tuple[int, ...]) -> Any:
    return None if variable is None else variable[...].reshape(shape)


def _mask(mask: Any, x: Array, axes: tuple[int, ...]) -> Array:
    """A mask that broadcasts to x as arrays do, in a form of `batch_norm`: of x's rank, or without the features."""
    mask = jnp.asarray(mask)
    fits = mask.ndim <= x.ndim and all(a in (1, b) for a, b in zip(mask.shape[::-1], x.shape[::-1], strict=False))
    if not fits:
        raise ValueError(
            f"mask: got the shape {mask.shape} for x of shape {x.shape}, allowed: one that broadcasts to it"
        )
    whole: Array = jnp.expand_dims(mask, tuple(range(x.ndim - mask.ndim)))
    return whole.squeeze(axes) if all(whole.shape[axis] == 1 for axis in axes) else whole
