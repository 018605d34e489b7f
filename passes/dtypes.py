"""MLIR element types and the NumPy dtypes that hold the same numbers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from jax.extend.mlir import ir

DTYPES: dict[str, np.dtype[Any]] = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f8E4M3FN": np.dtype(ml_dtypes.float8_e4m3fn),
    "f8E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "complex<f32>": np.dtype(np.complex64),
    "complex<f64>": np.dtype(np.complex128),
    "i1": np.dtype(np.bool_),
    **{f"i{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"ui{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
}


def dtype_of(type_: ir.Type) -> np.dtype[Any] | None:
    """The NumPy dtype of a tensor type's elements; None where NumPy has none (quantized types, four-bit integers)."""
    return DTYPES.get(str(ir.RankedTensorType(type_).element_type))
