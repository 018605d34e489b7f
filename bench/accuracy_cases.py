"""Data on which batch norms are compared: any mean, and what is hard."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FEATURES = 4
SMALLEST, LARGEST = 1_024, 1_000_000


@dataclasses.dataclass(frozen=True)
class Case:
    """``make`` gets normal numbers of shape (n, FEATURES), and gives x in float64."""

    name: str
    make: Callable[[Array], Array]
    dtype: Any = np.float32
    sizes: tuple[int, ...] = (SMALLEST, LARGEST)

    def operands(self, n: int) -> tuple[Array, Array, Array, Array]:
        """``x, scale, offset, grad_output``: images of 8 by 8, channels last, of n pixels in all."""
        generator = np.random.default_rng(n)
        normal, grad_output = generator.normal(size=(2, n, FEATURES))
        scale, offset = generator.normal(size=(2, FEATURES)).astype(np.float32)
        x, grad_output = (a.astype(self.dtype).reshape(-1, 8, 8, FEATURES) for a in (self.make(normal), grad_output))
        return x, scale, offset, grad_output


def _first_row(x: Array, value: float) -> Array:
    return np.concatenate([np.full_like(x[:1], value), x[1:]])


def _uniform(x: Array, largest: float) -> Array:
    """Every place between ``-largest / 2`` and ``largest``, in random order."""
    return largest * (1.5 * np.argsort(np.argsort(x, 0), 0) / (len(x) - 1) - 0.5)


CASES = (
    *(
        Case(f"10^{power}", lambda x, power=power: x + 10.0**power, sizes=(SMALLEST, 32_768, LARGEST))
        for power in range(7)
    ),
    Case("first row is 1e6", lambda x: _first_row(x, 1e6)),
    Case("first row is 3e38", lambda x: _first_row(x, 3e38)),
    Case("two clusters, 1e5 apart", lambda x: np.concatenate([x[: len(x) // 2], x[len(x) // 2 :] + 1e5])),
    Case("drift from 0 to 1e6", lambda x: x + np.linspace(0, 1e6, len(x))[:, None]),
    Case("constant channels", lambda x: np.where([1, 1, 1, 0], [1234.567, 0.1, 0, 0], x)),
    Case("constant but one row", lambda x: _first_row(np.full_like(x, 0.1), 0.1001)),
    Case("x ~ 1e19", lambda x: x * 1e19),
    Case("x up to 3e38", lambda x: _uniform(x, 3e38)),
    Case("x ~ 1e-15", lambda x: x * 1e-15),
    Case("x ~ 1e-39, denormal", lambda x: x * 1e-39),
    Case("float16, mean/std = 100", lambda x: x + 100, np.float16),
    Case("float16, up to 65504", lambda x: _uniform(x, 65504), np.float16),
    Case("float16, denormal", lambda x: x * 1e-6, np.float16),
    Case("bfloat16, mean/std = 100", lambda x: x + 100, ml_dtypes.bfloat16),
)
HALF_PRECISION = frozenset(case.name for case in CASES if case.dtype is not np.float32)
