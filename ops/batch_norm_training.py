"""Batch norm with the statistics of its own batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.ops import op
from stablenorm.ops.composites import emit_composite
from stablenorm.ops.op import Array, FeatureIndex, TensorType
from stablenorm.passes.batch_norm_arithmetic import rounded, train
from stablenorm.passes.building import tensor_type
from stablenorm.passes.collectives import ReplicaGroups
from stablenorm.passes.named_forms import OPERANDS


@dataclasses.dataclass(frozen=True)
class BatchNormTraining:
    """``y = (x - mean(x)) / sqrt(variance(x) + epsilon) * scale + offset``, per feature.

    Operands: ``operand`` x, of any rank from 1; ``scale``, ``offset``, one number for each feature; optionally
    ``weight``, how often each element of x counts in the statistics. Results: y, of x's type; the mean and the biased
    variance, over all dimensions but the features', of x's element type. A feature that is constant has the variance 0
    and the output ``offset``, both exactly. An infinity or NaN spoils its own feature only, and nothing where its
    weight is 0. Where x is empty, mean and variance are NaN; where all weights are 0, they are 0. With
    ``replica_groups``, statistics are those of all replicas of a group, of what stands in their operands together.

    Constraints:
        C1: ``feature_index`` is a dimension of x, or a tuple of some in ascending order
        C2: ``scale`` and ``offset`` have the shape ``[dim(operand, axis) for axis in feature_index]``
        C3: all operands have the same floating-point type
        C4: ``weight`` has the shape of ``operand``

    Source: StableHLO's ``batch_norm_training``, which it emits where that can say it. The specification defines the
    variance by two passes, as here; XLA's own expansion takes ``mean(x * x) - mean(x) ** 2``, in x's type, which
    cancels. Several feature dimensions, weights, replica groups, or an epsilon that is no float32 make it the composite
    ``stablenorm.batch_norm_training``.

    >>> op = BatchNormTraining(epsilon=0.0, feature_index=1)
    >>> [result.tolist() for result in op.reference(np.array([[1.0], [3.0]]), np.array([2.0]), np.array([10.0]))]
    [[[8.0], [12.0]], [2.0], [1.0]]
    """

    epsilon: float
    feature_index: FeatureIndex
    replica_groups: ReplicaGroups | None = None

    def signature(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The types of y, mean and variance.

        Raises:
            ValueError: a constraint is broken.
        """
        x, scale, offset, *weight = operands
        op.check_features(x, self.feature_index, scale=scale, offset=offset)
        op.check_like("C4", x, **dict(zip(["weight"], weight, strict=False)))
        features = op.features_of(x, self.feature_index)
        return x, features, features

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        """Two passes in float64."""
        x, scale, offset, *weights = (np.asarray(operand, np.float64) for operand in operands)
        axes = op.other_axes(x.ndim, self.feature_index)
        weight = weights[0] if weights else np.ones_like(x)
        with np.errstate(all="ignore"):
            counted, count = np.where(weight == 0, 0, x), weight.sum(axes, keepdims=True)
            divisor = np.where((count == 0) & bool(weights), 1, count)
            mean = (weight * counted).sum(axes, keepdims=True) / divisor
            centered = np.where(weight == 0, 0, x - mean)
            # The second term is what rounding left in the first pass's mean: it makes the variance's error quadratic.
            rest = (weight * centered).sum(axes, keepdims=True) / divisor
            variance = (weight * centered**2).sum(axes, keepdims=True) / divisor - rest**2
            scale, offset = (op.along_features(vector, x.ndim, self.feature_index) for vector in (scale, offset))
            y = (x - mean) / np.sqrt(variance + self.epsilon) * scale + offset
        return y, mean.squeeze(axes), variance.squeeze(axes)

    def emit(self, *operands: ir.Value) -> tuple[ir.Value, ...]:
        """``stablehlo.batch_norm_training``, or the composite."""
        x, scale, offset, *weight = operands
        axis = op.native_index(self.feature_index, self.epsilon)
        if axis is not None and not weight and self.replica_groups is None:
            return tuple(hlo.batch_norm_training(x, scale, offset, self.epsilon, axis))
        named = dict(zip(OPERANDS["training"], operands, strict=False))
        types = [x.type, scale.type, scale.type]
        axes = op.feature_axes(self.feature_index)
        return emit_composite("training", named, types, self.epsilon, axes, self._decomposition, self.replica_groups)

    def _decomposition(self, operands: Mapping[str, ir.Value]) -> list[ir.Value]:
        y, batch, _ = train(operands, self.epsilon, op.feature_axes(self.feature_index), groups=self.replica_groups)
        return rounded((y, batch.mean, batch.variance), tensor_type(operands["operand"]).element_type)
