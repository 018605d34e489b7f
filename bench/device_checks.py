"""Numbers of batch norm on a device against the float64 oracle: every type, means of 10^0 to 10^6 standard deviations.

For y, dx, dscale, doffset and y of inference: the largest error, over the largest true value. For mean and variance:
the largest relative error of a feature. Inputs are what is left of random numbers after rounding to the type.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from bench.accuracy import error, true_results
from bench.accuracy_cases import Case
from bench.device_timing import guarded
from bench.implementations import EPSILON, RESULTS
from stablenorm.ops import BatchNormInference, batch_norm

INFERENCE = "y, inference"
POWERS = range(7)
# Of y and dx in half types: half a unit in the last place, which is 2 ** -8 in bfloat16, 2 ** -11 in float16, and a bit
# for what was rounded before. Sums of float32 are float64, and some roundings follow: 8 times float32's 2 ** -23. Sums
# of float64 lose with the mean, TPUs have pairs of float32 for them, and the oracle itself is float64.
LIMITS = {"float32": 1e-6, "bfloat16": 4e-3, "float16": 5e-4, "float64": 1e-12}
STATISTICS = 1e-6
# The largest finite float16 is 65504.
_MOST = {"float16": 4}
_TYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float64": np.float64}


class Record(NamedTuple):
    """One number of the table: the error of a result, and what it may be."""

    dtype: str
    power: int
    result: str
    error: float
    limit: float

    @property
    def is_right(self) -> bool:
        return self.error <= self.limit  # NaN is not


def measure(n: int, left_out: Callable[[str, str], None]) -> Iterator[Record]:
    """Every type and every mean, of n values a feature; what the device cannot do is told to ``left_out``."""
    for dtype in _TYPES:
        found = guarded(lambda dtype=dtype: list(_of_type(dtype, n)))
        if isinstance(found, str):
            left_out(f"numbers in {dtype}", found)
        else:
            yield from found


def _of_type(dtype: str, n: int) -> Iterator[Record]:
    wide = jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext()
    with wide:
        training, inference = jax.jit(_training), jax.jit(_inference)
        for power in POWERS:
            if power > _MOST.get(dtype, power):
                continue
            case = Case("", lambda normal, power=power: normal + 10.0**power, _TYPES[dtype])
            x, *vectors, grad_output = case.operands(n + -n % 64)  # of images of 8 by 8
            scale, offset = (each.astype(np.float64 if dtype == "float64" else np.float32) for each in vectors)
            truth = true_results(x, scale, offset, grad_output)
            results = training(x, scale, offset, grad_output)
            for name, got, true in zip(RESULTS, results, truth, strict=True):
                yield Record(dtype, power, name, *_judged(name, got, true, dtype, power))
            mean, variance = (each.astype(scale.dtype) for each in truth[-2:])
            op = BatchNormInference(EPSILON, x.ndim - 1)
            (true,) = op.reference(x, scale, offset, mean, variance)
            got = inference(x, scale, offset, mean, variance)
            yield Record(dtype, power, INFERENCE, *_judged(INFERENCE, got, true, dtype, power))


def _judged(name: str, got: Any, true: Any, dtype: str, power: int) -> tuple[float, float]:
    if dtype == "float64":
        limit = LIMITS[dtype] * 10**power
    else:
        limit = LIMITS[dtype] if name in ("y", "dx", INFERENCE) else STATISTICS
    return error(np.asarray(got), true, each=name in ("mean", "variance")), limit


def _training(x: Any, scale: Any, offset: Any, grad_output: Any) -> Any:
    zeros = jnp.zeros_like(scale)

    def forward(x: Any, scale: Any, offset: Any) -> Any:
        y, *moving = batch_norm(x, scale, offset, zeros, zeros, training=True, momentum=0.0, epsilon=EPSILON)
        return y, moving

    y, pull, moving = jax.vjp(forward, x, scale, offset, has_aux=True)
    return [y, *pull(grad_output), *moving]


def _inference(x: Any, scale: Any, offset: Any, mean: Any, variance: Any) -> Any:
    return batch_norm(x, scale, offset, mean, variance, training=False, epsilon=EPSILON)[0]
