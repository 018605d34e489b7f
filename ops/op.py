"""The protocol of an operation: a frozen value that says which types it takes, what it computes, and how to emit it."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
from jax.extend.mlir import ir
from numpy.typing import NDArray

Array = NDArray[Any]

# A dimension, or several in ascending order.
FeatureIndex = int | tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class TensorType:
    """A shape, with None for a size that is not known before the program runs, and a NumPy dtype."""

    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype.name}[{','.join('?' if size is None else str(size) for size in self.shape)}]"


class Op(Protocol):
    """An operation with its attributes. Operands and results have the order that the class's docstring gives."""

    def signature(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The types of the results.

        Raises:
            ValueError: the operands break one of the operation's constraints; the message names it.
        """

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        """The results in float64 by NumPy: the judge of every other implementation."""

    def emit(self, *operands: ir.Value) -> tuple[ir.Value, ...]:
        """The operation as StableHLO, at the current insertion point and location."""


def check(constraint: str, holds: bool, message: str) -> None:
    """Raises ValueError, naming the constraint, where it does not hold."""
    if not holds:
        raise ValueError(f"{constraint}: {message}")


def check_features(x: TensorType, feature_index: FeatureIndex, **parameters: TensorType) -> None:
    """C1 to C3 of every batch norm: features are dimensions of x, and each parameter has one number for each.

    Raises:
        ValueError: one of them does not hold.
    """
    axes = feature_axes(feature_index)
    inside = all(0 <= axis < len(x.shape) for axis in axes)
    check("C1", bool(axes) and inside and list(axes) == sorted(set(axes)), f"got feature_index {feature_index} of {x}")
    features = TensorType(tuple(x.shape[axis] for axis in axes), x.dtype)
    for name, parameter in parameters.items():
        check("C2", parameter.shape == features.shape, f"got {name} {parameter}, allowed: {features}")
        check("C3", parameter.dtype == x.dtype, f"got {name} {parameter} for an operand {x}")


def check_like(constraint: str, x: TensorType, **tensors: TensorType) -> None:
    """Raises ValueError where one of ``tensors`` has not the type of x."""
    for name, tensor in tensors.items():
        check(constraint, tensor == x, f"got {name} {tensor} for an operand {x}")


def feature_axes(feature_index: FeatureIndex) -> tuple[int, ...]:
    return feature_index if isinstance(feature_index, tuple) else (feature_index,)


def features_of(x: TensorType, feature_index: FeatureIndex) -> TensorType:
    """The type of a parameter: a dimension for each feature dimension of x."""
    return TensorType(tuple(x.shape[axis] for axis in feature_axes(feature_index)), x.dtype)


def other_axes(rank: int, feature_index: FeatureIndex) -> tuple[int, ...]:
    """All dimensions but the features'."""
    return tuple(axis for axis in range(rank) if axis not in feature_axes(feature_index))


def along_features(vector: Array, rank: int, feature_index: FeatureIndex) -> Array:
    """A parameter shaped so that it broadcasts along the features' dimensions."""
    return np.expand_dims(vector, other_axes(rank, feature_index))


def native_index(feature_index: FeatureIndex, epsilon: float) -> int | None:
    """The one feature dimension, where StableHLO's own operations can say it; their epsilon is a float32."""
    return feature_index if isinstance(feature_index, int) and epsilon == float(np.float32(epsilon)) else None
