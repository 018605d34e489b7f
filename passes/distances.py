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

# Each term of a sum may round so often, and partial sums of many terms are larger than their last one.
LARGEST_DISTANCE = 16.0  # 16 roundings of float32: 1e-6
LARGEST_DISTANCE_IN_HALF = 2.0  # where a rounding of bfloat16 is 4e-3, that of float16 5e-4


def largest_distance(value: ir.Value) -> float:
    """The largest that is allowed where a map passes what computes ``value``."""
    element_type = tensor_type(value).element_type
    return LARGEST_DISTANCE if ir.FloatType(element_type).width >= 32 else LARGEST_DISTANCE_IN_HALF


def of_shift(numbers: Array) -> float:
    """Of what is shifted by these numbers, if it then deviates from zero by about one: the farthest."""
    return float(np.abs(numbers.astype(np.float64)).max(initial=0.0))


def of_batch_norm(op: hlo.BatchNormInferenceOp, weights: Weights) -> float:
    """Of the farthest channel that a batch norm normalizes, against the size of all that it makes of them.

    Zero where its numbers are not known.
    """
    values = [weights.evaluate(each) for each in (op.scale, op.offset, op.mean, op.variance)]
    if any(value is None for value in values):
        return 0.0
    scale, offset, mean, variance = (np.asarray(value, np.float64) for value in values)
    with np.errstate(all="ignore"):
        farthest = np.abs(mean * scale / np.sqrt(variance + op.epsilon.value)).max(initial=0.0)
        return float(farthest / np.sqrt(np.mean(scale**2 + offset**2))) if farthest > 0 else 0.0
