"""Batch norm with given statistics: a per-channel affine map."""

from __future__ import annotations

import dataclasses

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.ops.op import Array, TensorType, along_feature, check_features


@dataclasses.dataclass(frozen=True)
class BatchNormInference:
    """``y = (x - mean) / sqrt(variance + epsilon) * scale + offset``, per feature.

    Operands: ``operand`` x, of any rank from 1; ``scale``, ``offset``, ``mean``, ``variance``, one number for each
    feature. Result: y, of x's type. Where ``variance + epsilon`` is 0 or negative, y is what division and square root
    make of it: an infinity or NaN, in that feature only.

    Constraints:
        C1: ``0 <= feature_index < rank(operand)``
        C2: ``scale``, ``offset``, ``mean`` and ``variance`` have the shape ``[dim(operand, feature_index)]``
        C3: all operands have the same floating-point type

    Source: StableHLO's ``batch_norm_inference``, which it emits.

    >>> op = BatchNormInference(epsilon=0.0, feature_index=1)
    >>> op.reference(np.array([[3.0, 8.0]]), *map(np.array, ([2.0, 1.0], [5.0, 0.0], [1.0, 2.0], [4.0, 9.0])))[0]
    array([[7., 2.]])
    """

    epsilon: float
    feature_index: int

    def signature(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The type of y.

        Raises:
            ValueError: a constraint is broken.
        """
        x, scale, offset, mean, variance = operands
        check_features(x, self.feature_index, scale=scale, offset=offset, mean=mean, variance=variance)
        return (x,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        """``(x - mean) / sqrt(variance + epsilon) * scale + offset`` in float64."""
        x, scale, offset, mean, variance = (np.asarray(operand, np.float64) for operand in operands)
        vectors = (scale, offset, mean, variance)
        scale, offset, mean, variance = (along_feature(vector, x.ndim, self.feature_index) for vector in vectors)
        with np.errstate(all="ignore"):
            return ((x - mean) / np.sqrt(variance + self.epsilon) * scale + offset,)

    def emit(self, *operands: ir.Value) -> tuple[ir.Value, ...]:
        """``stablehlo.batch_norm_inference``.

        Its epsilon is a float32; what is left of a float64 epsilon is added to the variance.
        """
        x, scale, offset, mean, variance = operands
        epsilon = float(np.float32(self.epsilon))
        if epsilon != self.epsilon:
            type_ = ir.RankedTensorType(variance.type)
            rest = ir.FloatAttr.get(type_.element_type, self.epsilon - epsilon)
            variance = hlo.add(variance, hlo.constant(ir.DenseElementsAttr.get_splat(type_, rest)))
        return (hlo.batch_norm_inference(x, scale, offset, mean, variance, epsilon, self.feature_index),)
