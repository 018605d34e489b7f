"""Sums that need no shift, compiled for TPUs on a machine without one."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from stablenorm.compiler.targets import find_target
from stablenorm.compiler.xla import compile_module
from tests.passes.test_exact_sums import module_of, ours


@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize(("dtype", "axis"), [("bfloat16", 3), ("bfloat16", 1), ("float32", 3), ("float32", 1)])
def test_a_tpu_reads_the_activation_once(dtype, axis):
    """More than 128 MB: smaller arrays are prefetched, and counted twice."""
    shape = [128, 56, 56]
    shape.insert(axis, 256 if dtype == "bfloat16" else 128)
    compiled = compile_module(module_of(ours(axis), shape, dtype=dtype), find_target("tpu", "v5e:2x2"))
    size = np.prod(shape) * np.dtype(getattr(ml_dtypes, dtype, dtype)).itemsize
    assert compiled.cost().bytes_accessed <= 1.001 * size
