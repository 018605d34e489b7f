"""The gradient of batch norm with the statistics of its own batch."""

from __future__ import annotations

import dataclasses

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.ops.op import Array, TensorType, along_feature, check_epsilon, check_features, other_axes


@dataclasses.dataclass(frozen=True)
class BatchNormGrad:
    """The derivatives of ``sum(grad_output * y)``, y of `BatchNormTraining`, by its operands.

    With ``r = 1 / sqrt(variance + epsilon)``, ``h = (x - mean) * r`` and means and sums over all dimensions but the
    feature's::

        grad_offset = sum(grad_output)
        grad_scale = sum(grad_output * h)
        grad_operand = scale * r * (grad_output - mean(grad_output) - h * mean(grad_output * h))

    Operands: ``operand`` x, ``scale``, ``mean``, ``variance`` (of x), ``grad_output``, of x's type. Results:
    ``grad_operand``, of x's type, ``grad_scale``, ``grad_offset``.

    Constraints:
        C1: ``0 <= feature_index < rank(operand)``
        C2: ``scale``, ``mean`` and ``variance`` have the shape ``[dim(operand, feature_index)]``
        C3: all operands have the same floating-point type
        C4: ``grad_output`` has the shape of ``operand``

    Source: StableHLO's ``batch_norm_grad``, which it emits.

    >>> op = BatchNormGrad(epsilon=0.0, feature_index=1)
    >>> x, grad_output = np.array([[1.0], [3.0]]), np.array([[5.0], [7.0]])
    >>> [result.tolist() for result in op.reference(x, np.ones(1), np.array([2.0]), np.ones(1), grad_output)]
    [[[0.0], [0.0]], [2.0], [12.0]]
    """

    epsilon: float
    feature_index: int

    def signature(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The types of the three gradients.

        Raises:
            ValueError: a constraint is broken.
        """
        x, scale, mean, variance, grad_output = operands
        check_features(x, self.feature_index, scale=scale, mean=mean, variance=variance)
        if grad_output != x:
            raise ValueError(f"C4: got grad_output {grad_output} for an operand {x}")
        features = TensorType((x.shape[self.feature_index],), x.dtype)
        return x, features, features

    def reference(self, *operands: Array) -> tuple[Array, ...]:
        """The three formulas in float64."""
        x, scale, mean, variance, grad_output = (np.asarray(operand, np.float64) for operand in operands)
        axes = other_axes(x.ndim, self.feature_index)
        with np.errstate(all="ignore"):
            count = np.float64(np.prod([x.shape[axis] for axis in axes]))
            scale, mean, variance = (along_feature(v, x.ndim, self.feature_index) for v in (scale, mean, variance))
            r = 1 / np.sqrt(variance + self.epsilon)
            h = (x - mean) * r
            grad_offset, grad_scale = (total.sum(axes, keepdims=True) for total in (grad_output, grad_output * h))
            grad_operand = scale * r * (grad_output - grad_offset / count - h * grad_scale / count)
            return grad_operand, grad_scale.reshape(-1), grad_offset.reshape(-1)

    def emit(self, *operands: ir.Value) -> tuple[ir.Value, ...]:
        """``stablehlo.batch_norm_grad``, whose epsilon is a float32."""
        check_epsilon(self.epsilon)
        x, scale, mean, variance, grad_output = operands
        return tuple(hlo.batch_norm_grad(x, scale, mean, variance, grad_output, self.epsilon, self.feature_index))
