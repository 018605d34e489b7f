"""What the tf_keras layer takes: each check raises an error that says what was got and what is allowed."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

Tensor: TypeAlias = tf.Tensor
Axes: TypeAlias = tuple[int, ...]

FLOATING = ("float16", "bfloat16", "float32", "float64")


def checked_axis(axis: Any) -> int | list[int]:
    """The feature dimension as an int, or the feature dimensions as a list of ints."""
    given = list(axis) if isinstance(axis, Sequence) and not isinstance(axis, str) else [axis]
    if not given or not all(isinstance(each, numbers.Integral) and not isinstance(each, bool) for each in given):
        raise TypeError(f"axis: got {axis!r}, allowed: an int, or a list or tuple of ints")
    dimensions = [int(each) for each in given]
    return dimensions if isinstance(axis, Sequence) else dimensions[0]


def check_number(name: str, value: Any) -> None:
    """Raises TypeError for what is no Python number, tensors and variables too."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: got {value!r}, allowed: a Python number")


def feature_axes(axis: int | Sequence[int], shape: tf.TensorShape) -> Axes:
    """The feature dimensions of inputs of this shape, sorted."""
    if not shape.rank:
        raise ValueError(f"inputs: got the shape {shape}, allowed: rank 1 or more")
    given = [axis] if isinstance(axis, int) else list(axis)
    outside = [each for each in given if not -shape.rank <= each < shape.rank]
    if outside:
        raise ValueError(
            f"axis: got {outside[0]} for inputs of shape {shape}, allowed: {-shape.rank} to {shape.rank - 1}"
        )
    axes = tuple(sorted(each % shape.rank for each in given))
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis: got {axis!r}, which names a dimension of inputs of shape {shape} twice")
    unknown = [each for each in axes if shape[each] is None]
    if unknown:
        raise ValueError(
            f"axis: got {axis!r} for inputs of shape {shape}, allowed: dimensions whose size is known; "
            f"give dimension {unknown[0]} its size"
        )
    return axes


def checked_inputs(inputs: Any) -> Tensor:
    """A dense tensor of real floating-point numbers."""
    if isinstance(inputs, tf.RaggedTensor | tf.SparseTensor):
        raise TypeError(f"inputs: got a {type(inputs).__name__}, allowed: a dense tensor; convert it, and pass a mask")
    x = tf.convert_to_tensor(inputs)
    if x.dtype.name not in FLOATING:
        raise TypeError(f"inputs: got {x.dtype.name}, allowed: {', '.join(FLOATING)}; cast them first")
    return x


def checked_training(training: Any) -> bool | Tensor:
    """A bool where the value is known, else a boolean tensor."""
    if isinstance(training, tf.Tensor | tf.Variable):
        tensor = tf.cast(training, tf.bool)
        value = tf.get_static_value(tensor)
        return tensor if value is None else bool(value)
    if not isinstance(training, bool | np.bool_ | numbers.Real):
        raise TypeError(f"training: got {training!r}, allowed: True, False, None or a scalar tensor")
    return bool(training)


def checked_weight(mask: Any, x: Tensor, axes: Axes, dtype: tf.DType) -> Tensor:
    """How often each element of x counts, in x's rank, with the size 1 where it is the same for all features."""
    mask = tf.convert_to_tensor(mask)
    weight = _with_rank_of(x, mask, axes)
    if weight is None or not _broadcasts(weight.shape, x.shape) or not (mask.dtype.is_bool or _is_real(mask.dtype)):
        positions = [size for place, size in enumerate(x.shape) if place not in axes]
        raise ValueError(
            f"mask: got {mask.dtype.name} of shape {mask.shape} for inputs of shape {x.shape}, allowed: booleans or "
            f"real numbers that broadcast to {tf.TensorShape(positions)}, the inputs without axis {list(axes)}, or to "
            "the inputs"
        )
    sizes = tf.shape(x)
    shape = [1 if place in axes and weight.shape[place] == 1 else sizes[place] for place in range(x.shape.rank)]
    return tf.broadcast_to(tf.cast(weight, dtype), shape)


def _with_rank_of(x: Tensor, mask: Tensor, axes: Axes) -> Tensor | None:
    """The mask of positions with a dimension for each of x's; None where its rank fits nothing."""
    rank = x.shape.rank
    if mask.shape.rank == rank - len(axes):
        for axis in axes:
            mask = tf.expand_dims(mask, axis)
    elif mask.shape.rank == rank - 1 and rank - 1 in axes:  # as Keras hands masks on: without the last dimension
        mask = tf.expand_dims(mask, -1)
    return mask if mask.shape.rank == rank else None


def _broadcasts(shape: tf.TensorShape, to: tf.TensorShape) -> bool:
    return all(size in (1, None, whole) or whole is None for size, whole in zip(shape, to, strict=True))


def _is_real(dtype: tf.DType) -> bool:
    return bool(dtype.is_integer or dtype.is_floating)
