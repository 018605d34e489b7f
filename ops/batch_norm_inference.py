"""Batch norm with given statistics: a per-channel affine map."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.ops import op
from stablenorm.ops.composites import emit_composite
from stablenorm.ops.op import Array, FeatureIndex, TensorType
from stablenorm.passes.batch_norm_arithmetic import infer
from stablenorm.passes.named_forms import OPERANDS


@dataclasses.dataclass(frozen=True)
class BatchNormInference:
    """``y = (x - mean) / sqrt(variance + epsilon) * scale + offset``, per feature.

    Operands: ``operand`` x, of any rank from 1; ``scale``, ``offset``, ``mean``, ``variance``, one number for each
    feature. Result: y, of x's type. Where ``variance + epsilon`` is 0 or negative, y is what division and square root
    make of it: an infinity or NaN, in that feature only.

    Constraints:
        C1: ``feature_index`` is a dimension of x, or a tuple of some in ascending order
        C2: the other operands have the shape ``[dim(operand, axis) for axis in feature_index]``
        C3: all operands have the same floating-point type

    Source: StableHLO's ``batch_norm_inference``, which it emits for one feature dimension; for several, the composite
    ``stablenorm.batch_norm_inference``.

    >>> op = BatchNormInference(epsilon=0.0, feature_index=1)
    >>> op.reference(np.array([[3.0, 8.0]]), *map(np.array, ([2.0, 1.0], [5.0, 0.0], [1.0, 2.0], [4.0, 9.0])))[0]
    array([[7., 2.]])
    """

    epsilon: float
    feature_index: FeatureIndex

    def signature(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The type of y.

        Raises:
            ValueError: a constraint is broken.
        """
        x, scale, offset, mean, variance = operands
        op.check_features(x, self.feature_index, scale=scale, offset=offset, mean=mean, variance=variance)
        return (x,)

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        """``(x - mean) / sqrt(variance + epsilon) * scale + offset`` in float64."""
        x, scale, offset, mean, variance = (np.asarray(operand, np.float64) for operand in operands)
        vectors = (scale, offset, mean, variance)
        scale, offset, mean, variance = (op.along_features(v, x.ndim, self.feature_index) for v in vectors)
        with np.errstate(all="ignore"):
            return ((x - mean) / np.sqrt(variance + self.epsilon) * scale + offset,)

    def emit(self, *operands: ir.Value) -> tuple[ir.Value, ...]:
        """``stablehlo.batch_norm_inference``, or the composite.

        The operation's epsilon is a float32; what is left of a float64 epsilon is added to the variance.
        """
        x, scale, offset, mean, variance = operands
        if not isinstance(self.feature_index, int):
            named = dict(zip(OPERANDS["inference"], operands, strict=True))
            return emit_composite("inference", named, [x.type], self.epsilon, self.feature_index, self._decomposition)
        epsilon = float(np.float32(self.epsilon))
        if epsilon != self.epsilon:
            type_ = ir.RankedTensorType(variance.type)
            rest = ir.FloatAttr.get(type_.element_type, self.epsilon - epsilon)
            variance = hlo.add(variance, hlo.constant(ir.DenseElementsAttr.get_splat(type_, rest)))
        return (hlo.batch_norm_inference(x, scale, offset, mean, variance, epsilon, self.feature_index),)

    def _decomposition(self, operands: Mapping[str, ir.Value]) -> list[ir.Value]:
        return [infer(operands, self.epsilon, op.feature_axes(self.feature_index))]
