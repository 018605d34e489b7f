"""How far from zero lies what a map shifts, in deviations.

To subtract a mean only after a sum of products costs so many times the rounding of the type that is summed in; a batch
norm itself subtracts it first.
"""

from __future__ import annotations

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Array
from stablenorm.passes.building import tensor_type
from stablenorm.passes.weights import Weights

LARGEST_DISTANCE = 64.0  # 64 roundings of float32: 4e-6
LARGEST_DISTANCE_IN_HALF = 2.0  # where a rounding of bfloat16 is 4e-3, that of float16 5e-4


def largest_distance(value: ir.Value) -> float:
    """The largest that is allowed where a map passes what computes ``value``."""
    element_type = tensor_type(value).element_type
    return LARGEST_DISTANCE if ir.FloatType(element_type).width >= 32 else LARGEST_DISTANCE_IN_HALF


def of_shift(numbers: Array) -> float:
    """Of what is shifted by these numbers, if it then deviates from zero by about one."""
    return float(np.sqrt(np.mean(np.square(numbers, dtype=np.float64)))) if numbers.size else 0.0


def of_batch_norm(op: hlo.BatchNormInferenceOp, weights: Weights) -> float:
    """Of what a batch norm normalizes, against what it makes of it; zero where its numbers are not known."""
    values = [weights.evaluate(each) for each in (op.scale, op.offset, op.mean, op.variance)]
    if any(value is None for value in values):
        return 0.0
    scale, offset, mean, variance = (np.asarray(value, np.float64) for value in values)
    with np.errstate(all="ignore"):
        shifted = np.linalg.norm(mean * scale / np.sqrt(variance + op.epsilon.value))
        return float(shifted / np.linalg.norm([scale, offset])) if shifted > 0 else 0.0
