"""Is the compiled model the model? Its outputs beside the framework's own, on random inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import ml_dtypes
import numpy as np
from jax.extend.mlir import ir

from stablenorm.compiler.executable import Executable
from stablenorm.compiler.signature import Array, Signature, TensorSpec
from stablenorm.compiler.tables import text_table
from stablenorm.passes.dtypes import dtype_of
from stablenorm.passes.rewriting import functions, operations

# The largest difference that is rounding, relative to the largest output, by the narrowest type computed in: about 100
# roundings of float32, since each of many layers adds its own; 40 of float16, 25 of bfloat16, 5,000 of float64.
TOLERANCES = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One output: the largest value of the framework's, the largest difference, and how much is allowed, relative."""

    name: str
    largest: float
    difference: float
    tolerance: float

    @property
    def relative(self) -> float:
        """The difference relative to the largest output; absolute where all outputs are zero."""
        return self.difference / (self.largest or 1.0)

    @property
    def is_match(self) -> bool:
        return self.relative <= self.tolerance  # False for NaN


def compare(
    executable: Executable, reference: Callable[[Sequence[Array]], list[Array]], seed: int = 0
) -> list[Comparison]:
    """Runs both on the same random inputs."""
    inputs = random_inputs(executable.signature, seed)
    ours = jax.tree.leaves(executable(*inputs))
    theirs = reference(inputs)
    tolerance = TOLERANCES[_narrowest(executable)]
    return [
        _compare(spec, np.asarray(a), np.asarray(b), tolerance)
        for spec, a, b in zip(executable.signature.outputs, ours, theirs, strict=True)
    ]


def random_inputs(signature: Signature, seed: int) -> list[Array]:
    """Normally distributed floats; zeros and ones for integers, which every index and token range holds."""
    generator = np.random.default_rng(seed)
    return [_random(spec, generator) for spec in signature.inputs]


def table(comparisons: Sequence[Comparison]) -> str:
    """The comparisons as a table."""
    columns = ("output", "largest", "difference", "relative", "allowed", "verdict")
    return text_table(columns, [_cells(comparison) for comparison in comparisons])


def _cells(row: Comparison) -> list[str]:
    numbers = (row.largest, row.difference, row.relative, row.tolerance)
    return [row.name, *(f"{number:.3g}" for number in numbers), "ok" if row.is_match else "MISMATCH"]


def _random(spec: TensorSpec, generator: np.random.Generator) -> Array:
    dtype = np.dtype(getattr(ml_dtypes, spec.dtype, spec.dtype))
    if dtype.kind in "iub":
        return generator.integers(0, 2, spec.shape).astype(dtype)
    return generator.standard_normal(spec.shape).astype(dtype)


def _compare(spec: TensorSpec, ours: Array, theirs: Array, tolerance: float) -> Comparison:
    wide = np.complex128 if theirs.dtype.kind == "c" else np.float64
    a, b = ours.astype(wide), theirs.astype(wide)
    if a.shape != b.shape:
        return Comparison(spec.name, float("nan"), float("nan"), tolerance)
    difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    finite = np.abs(b[np.isfinite(b)])
    return Comparison(spec.name, float(finite.max(initial=0.0)), float(difference.max(initial=0.0)), tolerance)


def _narrowest(executable: Executable) -> str:
    """The narrowest floating-point type that anything is computed in."""
    types = {
        result.type for function in functions(executable.module) for op in operations(function) for result in op.results
    }
    dtypes = {dtype_of(type_) for type_ in types if isinstance(type_, ir.RankedTensorType)}
    names = {dtype.name for dtype in dtypes if dtype is not None}
    return next((name for name in reversed(TOLERANCES) if name in names), "float32")
