"""Batch norm with the statistics of its own batch."""

from __future__ import annotations

import dataclasses

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.ops.op import Array, TensorType, along_feature, check_epsilon, check_features, other_axes


@dataclasses.dataclass(frozen=True)
class BatchNormTraining:
    """``y = (x - mean(x)) / sqrt(variance(x) + epsilon) * scale + offset``, per feature.

    Operands: ``operand`` x, of any rank from 1; ``scale``, ``offset``, one number for each feature. Results: y, of x's
    type; the mean and the biased variance, over all dimensions but the feature's, of x's element type. A feature that
    is constant has the variance 0 and the output ``offset``, both exactly. An infinity or NaN spoils its own feature
    only. Where x is empty, mean and variance are NaN.

    Constraints:
        C1: ``0 <= feature_index < rank(operand)``
        C2: ``scale`` and ``offset`` have the shape ``[dim(operand, feature_index)]``
        C3: all operands have the same floating-point type

    Source: StableHLO's ``batch_norm_training``, which it emits. The specification defines the variance by two passes,
    as here; XLA's own expansion takes ``mean(x * x) - mean(x) ** 2``, in x's type, which cancels.

    >>> op = BatchNormTraining(epsilon=0.0, feature_index=1)
    >>> [result.tolist() for result in op.reference(np.array([[1.0], [3.0]]), np.array([2.0]), np.array([10.0]))]
    [[[8.0], [12.0]], [2.0], [1.0]]
    """

    epsilon: float
    feature_index: int

    def signature(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The types of y, mean and variance.

        Raises:
            ValueError: a constraint is broken.
        """
        x, scale, offset = operands
        check_features(x, self.feature_index, scale=scale, offset=offset)
        features = TensorType((x.shape[self.feature_index],), x.dtype)
        return x, features, features

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        """Two passes in float64."""
        x, scale, offset = (np.asarray(operand, np.float64) for operand in operands)
        axes = other_axes(x.ndim, self.feature_index)
        with np.errstate(all="ignore"):
            count = np.float64(np.prod([x.shape[axis] for axis in axes]))
            mean = x.sum(axes) / count
            centered = x - along_feature(mean, x.ndim, self.feature_index)
            # The second term is what rounding left in the first pass's mean: it makes the variance's error quadratic.
            variance = (centered**2).sum(axes) / count - (centered.sum(axes) / count) ** 2
            inverse = along_feature(1 / np.sqrt(variance + self.epsilon), x.ndim, self.feature_index)
            scale, offset = (along_feature(vector, x.ndim, self.feature_index) for vector in (scale, offset))
            return centered * inverse * scale + offset, mean, variance

    def emit(self, *operands: ir.Value) -> tuple[ir.Value, ...]:
        """``stablehlo.batch_norm_training``, whose epsilon is a float32."""
        check_epsilon(self.epsilon)
        x, scale, offset = operands
        return tuple(hlo.batch_norm_training(x, scale, offset, self.epsilon, self.feature_index))
