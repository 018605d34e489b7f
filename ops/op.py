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
