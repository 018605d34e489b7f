"""`batch_norm` as `tensorflow_calls.call` takes it: a function, the types of its operands, what reverse mode keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import tensorflow as tf

from stablenorm.ops import jax_primitives
from stablenorm.ops.batch_norm import batch_norm
from stablenorm.ops.tensorflow_calls import Type

Tensor: TypeAlias = tf.Tensor
Axes: TypeAlias = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """`batch_norm` of x, the parameters that there are, and a mask; in inference its first result."""

    training: bool
    axes: Axes
    momentum: float
    epsilon: float
    unbiased: bool
    has_scale: bool
    has_offset: bool

    def __call__(self, x: jax.Array, *others: jax.Array) -> tuple[jax.Array, ...]:
        rest = iter(others)
        results = batch_norm(
            x,
            next(rest) if self.has_scale else None,
            next(rest) if self.has_offset else None,
            next(rest),
            next(rest),
            training=self.training,
            axis=self.axes,
            momentum=self.momentum,
            epsilon=self.epsilon,
            mask=next(rest, None),
            unbiased=self.unbiased,
        )
        return results if self.training else results[:1]


def in_shape(vector: Tensor | tf.Variable, shape: Sequence[int] | tf.TensorShape) -> Tensor:
    """A tensor or variable in another shape; without an operation of TensorFlow where it has that shape."""
    value = tf.convert_to_tensor(vector)
    return value if value.shape == shape else tf.reshape(value, shape)


def operand_types(x: Tensor, vectors: Sequence[Tensor], weight: Tensor | None, axes: Axes) -> list[Type]:
    """The types of x, of its parameters, and of a weight that has the size 1 where all features count alike.

    Where one size of x is known only when the graph runs, all but the features' are taken so: fewer modules.
    """
    sizes: list[Any] = list(x.shape)
    if not x.shape.is_fully_defined():
        sizes = [size if place in axes else f"n{place} - 1" for place, size in enumerate(sizes)]
    types = [Type(tuple(sizes), x.dtype.name), *(Type(tuple(v.shape), v.dtype.name) for v in vectors)]
    if weight is not None:
        alike = [place in axes and size == 1 for place, size in enumerate(weight.shape)]
        shape = tuple(1 if one else size for one, size in zip(alike, sizes, strict=True))
        types.append(Type(shape, weight.dtype.name))
    return types


def is_statistics(primitive: Any, *_: Any, **__: Any) -> bool:
    """What reverse mode keeps, as a policy of `jax.checkpoint`: the statistics, a number for each feature."""
    return primitive is jax_primitives.training_p
