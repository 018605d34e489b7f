"""The gradient of batch norm with the statistics of its own batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.ops import op
from stablenorm.ops.composites import emit_composite
from stablenorm.ops.op import Array, FeatureIndex, TensorType
from stablenorm.passes.batch_norm_arithmetic import gradient_from, rounded
from stablenorm.passes.building import tensor_type
from stablenorm.passes.collectives import ReplicaGroups
from stablenorm.passes.named_forms import OPERANDS


@dataclasses.dataclass(frozen=True)
class BatchNormGrad:
    """The derivatives of ``sum(grad_output * y)``, y of `BatchNormTraining`, by its operands.

    With ``r = 1 / sqrt(variance + epsilon)``, ``h = (x - mean) * r``, sums over all dimensions but the features', and
    ``count`` the number of summed elements, or the sum of their weights::

        grad_offset = sum(grad_output)
        grad_scale = sum(grad_output * h)
        grad_operand = scale * r * (grad_output - weight * (grad_offset + h * grad_scale) / count)

    Operands: ``operand`` x, ``scale``, ``mean``, ``variance`` (of x), ``grad_output``, of x's type; ``weight``, where
    `BatchNormTraining` had one. Results: ``grad_operand``, of x's type, ``grad_scale``, ``grad_offset``. Where nothing
    counts, nothing passes through the statistics: ``grad_operand = scale * r * grad_output``. With ``replica_groups``,
    sums and counts are those of all replicas of a group: no other sum of ``grad_scale`` and ``grad_offset`` is due.

    Constraints:
        C1: ``feature_index`` is a dimension of x, or a tuple of some in ascending order
        C2: ``scale``, ``mean`` and ``variance`` have the shape ``[dim(operand, axis) for axis in feature_index]``
        C3: all operands have the same floating-point type
        C4: ``grad_output`` and ``weight`` have the shape of ``operand``

    Source: StableHLO's ``batch_norm_grad``, which it emits where that can say it; else the composite
    ``stablenorm.batch_norm_grad``.

    >>> op = BatchNormGrad(epsilon=0.0, feature_index=1)
    >>> x, grad_output = np.array([[1.0], [3.0]]), np.array([[5.0], [7.0]])
    >>> [result.tolist() for result in op.reference(x, np.ones(1), np.array([2.0]), np.ones(1), grad_output)]
    [[[0.0], [0.0]], [2.0], [12.0]]
    """

    epsilon: float
    feature_index: FeatureIndex
    replica_groups: ReplicaGroups | None = None

    def signature(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The types of the three gradients.

        Raises:
            ValueError: a constraint is broken.
        """
        x, scale, mean, variance, grad_output, *weight = operands
        op.check_features(x, self.feature_index, scale=scale, mean=mean, variance=variance)
        op.check_like("C4", x, grad_output=grad_output, **dict(zip(["weight"], weight, strict=False)))
        features = op.features_of(x, self.feature_index)
        return x, features, features

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        """The three formulas in float64."""
        x, scale, mean, variance, grad_output, *weights = (np.asarray(operand, np.float64) for operand in operands)
        axes = op.other_axes(x.ndim, self.feature_index)
        weight = weights[0] if weights else np.ones_like(x)
        with np.errstate(all="ignore"):
            count = weight.sum(axes, keepdims=True)
            scale, mean, variance = (op.along_features(v, x.ndim, self.feature_index) for v in (scale, mean, variance))
            r = 1 / np.sqrt(variance + self.epsilon)
            h = (x - mean) * r
            grad_offset, grad_scale = (total.sum(axes, keepdims=True) for total in (grad_output, grad_output * h))
            passed = (grad_offset + h * grad_scale) / np.where(count == 0, 1, count)
            grad_operand = scale * r * (grad_output - np.where(weight == 0, 0, weight * passed))
        return grad_operand, grad_scale.squeeze(axes), grad_offset.squeeze(axes)

    def emit(self, *operands: ir.Value) -> tuple[ir.Value, ...]:
        """``stablehlo.batch_norm_grad``, or the composite."""
        x, scale, mean, variance, grad_output, *weight = operands
        axis = op.native_index(self.feature_index, self.epsilon)
        if axis is not None and not weight and self.replica_groups is None:
            return tuple(hlo.batch_norm_grad(x, scale, mean, variance, grad_output, self.epsilon, axis))
        named = dict(zip(OPERANDS["grad"], operands, strict=False))
        types = [x.type, scale.type, scale.type]
        axes = op.feature_axes(self.feature_index)
        return emit_composite("grad", named, types, self.epsilon, axes, self._decomposition, self.replica_groups)

    def _decomposition(self, operands: Mapping[str, ir.Value]) -> list[ir.Value]:
        axes = op.feature_axes(self.feature_index)
        gradients = gradient_from(operands, None, self.epsilon, axes, self.replica_groups)
        return rounded(gradients, tensor_type(operands["operand"]).element_type)
