"""What `batch_norm` takes: each argument checked while a program is traced, brought into one form."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stablenorm.ops.jax_synchronized import Replicas

Array = jax.Array


def feature_axes(axis: int | Sequence[int], x: Array) -> tuple[int, ...]:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x: got {x.dtype}, allowed: a real floating-point type; convert it first")
    if x.ndim == 0:
        raise ValueError("x: got a scalar, allowed: rank 1 or more")
    given: Any = [axis] if isinstance(axis, numbers.Integral) else list(axis) if isinstance(axis, Sequence) else None
    if not given or not all(isinstance(entry, numbers.Integral) and not isinstance(entry, bool) for entry in given):
        raise TypeError(f"axis: got {axis!r}, allowed: an int, or a sequence of ints")
    outside = [entry for entry in given if not -x.ndim <= entry < x.ndim]
    if outside:
        raise ValueError(f"axis: got {outside[0]} for x of shape {x.shape}, allowed: {-x.ndim} to {x.ndim - 1}")
    axes = tuple(sorted(int(entry) % x.ndim for entry in given))
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis: got {axis!r}, which names a dimension twice, for x of shape {x.shape}")
    return axes


def check_kinds(training: Any, unbiased: Any, momentum: Any, epsilon: Any) -> None:
    for name, value in (("training", training), ("unbiased", unbiased)):
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name}: got {value!r}, allowed: True or False; branch on a traced value with lax.cond")
    for name, value in (("momentum", momentum), ("epsilon", epsilon)):
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name}: got {value!r}, allowed: a Python number")


def check_groups(groups: Any, axis_name: Any, index_groups: Any, axes: tuple[int, ...], x: Array) -> None:
    if index_groups is not None and axis_name is None:
        raise ValueError("axis_index_groups: got some without axis_name, allowed: None; name the axis they divide")
    if isinstance(groups, bool) or not isinstance(groups, numbers.Integral):
        raise TypeError(f"groups: got {groups!r}, allowed: an int")
    if groups == 1:
        return
    if axis_name is not None:
        raise ValueError(f"groups: got {groups} with axis_name={axis_name!r}, allowed: 1; replicas are the groups")
    if groups < 1 or 0 in axes or x.shape[0] % int(groups) != 0:
        raise ValueError(
            f"groups: got {groups} for x of shape {x.shape} with features along {axes}, allowed: a divisor of the "
            "first dimension, where that is no feature's"
        )


def parameter(name: str, value: Array, dtype: Any, *shapes: tuple[int, ...]) -> Array:
    if value is None:
        raise TypeError(f"{name}: got None, allowed: an array of shape {shapes[0]}")
    value = jnp.asarray(value)
    if value.shape not in shapes:
        allowed = " or ".join(map(str, shapes))
        raise ValueError(f"{name}: got the shape {value.shape}, allowed: {allowed}, one number for each feature of x")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{name}: got {value.dtype}, allowed: a real floating-point type")
    return value.astype(dtype)


def replicas(axis_name: str | Sequence[str], groups: Sequence[Sequence[int]] | None) -> Replicas:
    names = tuple(axis_name) if isinstance(axis_name, tuple | list) else (axis_name,)
    try:
        jax.lax.axis_size(names)
    except (NameError, ValueError):
        raise ValueError(
            f"axis_name: got {axis_name!r}, allowed: an axis of the shard_map, pmap or vmap around, or several"
        ) from None
    return Replicas(names, None if groups is None else tuple(map(tuple, groups)))


def weight(mask: Array, x: Array, axes: tuple[int, ...], dtype: Any) -> Array:
    mask = jnp.asarray(mask)
    full = jnp.expand_dims(mask, axes) if mask.ndim == x.ndim - len(axes) else mask
    fits = full.ndim == x.ndim and all(size in (1, whole) for size, whole in zip(full.shape, x.shape, strict=True))
    real = jnp.issubdtype(mask.dtype, jnp.number) and not jnp.issubdtype(mask.dtype, jnp.complexfloating)
    if not fits or not (mask.dtype == bool or real):
        raise ValueError(
            f"mask: got {mask.dtype} of shape {mask.shape} for x of shape {x.shape}, allowed: booleans or numbers "
            f"that broadcast to x, or to x without its feature dimensions {axes}"
        )
    return jax.lax.stop_gradient(jnp.broadcast_to(full.astype(dtype), x.shape))
