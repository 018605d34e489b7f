"""The protocol of an operation: a frozen value that says which types it takes, what it computes, and how to emit it."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
from jax.extend.mlir import ir
from numpy.typing import NDArray

Array = NDArray[Any]


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


def check_features(x: TensorType, feature_index: int, **parameters: TensorType) -> None:
    """C1 to C3 of every batch norm: the feature is a dimension of x, and each parameter has one number for each.

    Raises:
        ValueError: one of them does not hold.
    """
    check("C1", 0 <= feature_index < len(x.shape), f"got feature_index {feature_index} of {x}")
    features = TensorType((x.shape[feature_index],), x.dtype)
    for name, parameter in parameters.items():
        check("C2", parameter.shape == features.shape, f"got {name} {parameter}, allowed: {features}")
        check("C3", parameter.dtype == x.dtype, f"got {name} {parameter} for an operand {x}")


def check_epsilon(epsilon: float) -> None:
    """Raises ValueError where epsilon is not a float32, as StableHLO's attribute is."""
    check("C5", epsilon == float(np.float32(epsilon)), f"got epsilon {epsilon}, allowed: a float32")


def other_axes(rank: int, feature_index: int) -> tuple[int, ...]:
    """All dimensions but the feature's."""
    return tuple(axis for axis in range(rank) if axis != feature_index)


def along_feature(vector: Array, rank: int, feature_index: int) -> Array:
    """A vector shaped so that it broadcasts along the feature's dimension."""
    return vector.reshape([-1 if axis == feature_index else 1 for axis in range(rank)])
