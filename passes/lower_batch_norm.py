"""lower-batch-norm: batch norm becomes arithmetic that XLA fuses, and that does not cancel.

Inference, in float32 at least, rounded once to the operand's type::

    y = (x - mean) * (scale * rsqrt(variance + epsilon)) + offset

Subtracting the mean first is exact where x is near it; ``x * s + (offset - mean * s)`` would cancel instead. The
per-channel factor depends on weights alone, so `hoist-weights` computes it once.

Training and its gradient sum in float64 (`batch_statistics.py`) and round each result once::

    y = (x - mean(x)) * (scale * rsqrt(variance(x) + epsilon)) + offset

    h = (x - mean) * rsqrt(variance + epsilon)
    grad_operand = scale * rsqrt(variance + epsilon) * (grad_output - mean(grad_output) - h * mean(grad_output * h))
    grad_scale, grad_offset = sum(grad_output * h), sum(grad_output)

A gradient whose mean and variance are those of a training operation in the same function reads them before they were
rounded: at mean/deviation = 1e6 the rounded mean would be off by a thirtieth of the deviation.

Before::

    %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
        <{epsilon = 1.0e-03 : f32, feature_index = 1 : i64}>

After::

    %s = stablehlo.multiply %scale, rsqrt(%variance + 1.0e-03)
    %y = (%x - broadcast(%mean)) * broadcast(%s) + broadcast(%offset)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Pass, PassContext, Remark
from stablenorm.passes.batch_statistics import Axes, element_count, quotient, statistics, sum_features
from stablenorm.passes.building import along, arithmetic_type, convert, splat, tensor_type
from stablenorm.passes.contracts import no_batch_norm
from stablenorm.passes.matching import layer_name, where
from stablenorm.passes.rewriting import functions, operations_of, rewrite, sweep
from stablenorm.passes.weights import Weights


@dataclasses.dataclass(frozen=True)
class LowerBatchNorm(Pass):
    """Writes inference, training and gradient of batch norm out in arithmetic that does not cancel."""

    name: ClassVar[str] = "lower-batch-norm"
    ensures = (no_batch_norm,)

    def run(self, module: ir.Module, context: PassContext) -> None:
        for function in functions(module):
            weights = Weights(function, context.weights)
            for op in operations_of(function, hlo.BatchNormInferenceOp):
                context.remarks.append(
                    _remark(op, (op.mean, op.variance, op.scale, op.offset), weights, "no pass folded it")
                )
                rewrite(op, normalize)
            exact: dict[ir.Value, ir.Value] = {}
            for training in operations_of(function, hlo.BatchNormTrainingOp):
                if weights.is_parameter(training.scale) or weights.is_parameter(training.offset):
                    reason = "it normalizes with the statistics of its batch"
                    context.remarks.append(_remark(training, (training.scale, training.offset), weights, reason))
                exact |= _replace_training(training)
            for grad in operations_of(function, hlo.BatchNormGradOp):
                _replace_gradient(grad, exact)
        sweep(module)


def _remark(op: ir.OpView, parameters: Sequence[ir.Value], weights: Weights, detail: str) -> Remark:
    return Remark("lower-batch-norm", "lowered", layer_name(op, weights, *parameters), detail, where(op))


def normalize(op: hlo.BatchNormInferenceOp) -> ir.Value:
    """``(x - mean) * (scale * rsqrt(variance + epsilon)) + offset``"""
    arithmetic, axis = arithmetic_type(op.operand), op.feature_index.value
    x, scale, offset, mean = (convert(value, arithmetic) for value in (op.operand, op.scale, op.offset, op.mean))
    factor = hlo.multiply(scale, inverse_deviation(op))
    return convert(scale_and_shift(x, axis, mean, factor, offset), tensor_type(op.operand).element_type)


def scale_and_shift(x: ir.Value, axis: int | Axes, mean: ir.Value, factor: ir.Value, offset: ir.Value) -> ir.Value:
    """``(x - mean) * factor + offset``, the vectors along ``axis``."""
    centered = hlo.subtract(x, along(mean, axis, x))
    return hlo.add(hlo.multiply(centered, along(factor, axis, x)), along(offset, axis, x))


def inverse_deviation(op: hlo.BatchNormInferenceOp) -> ir.Value:
    """``rsqrt(variance + epsilon)`` per channel, in float32 at least."""
    return rsqrt_above(convert(op.variance, arithmetic_type(op.operand)), op.epsilon.value)


def rsqrt_above(variance: ir.Value, epsilon: float) -> ir.Value:
    """``rsqrt(variance + epsilon)``"""
    type_ = tensor_type(variance)
    return hlo.rsqrt(hlo.add(variance, splat(epsilon, type_.shape, type_.element_type)))


def _replace_training(op: hlo.BatchNormTrainingOp) -> dict[ir.Value, ir.Value]:
    """Replaces the three results; the new mean and variance, with what they were before they were rounded."""
    with ir.InsertionPoint(op), op.location:
        wide, axis = ir.F64Type.get(), op.feature_index.value
        x, scale, offset = (convert(value, wide) for value in (op.operand, op.scale, op.offset))
        batch = statistics(x, [axis])
        factor = hlo.multiply(scale, rsqrt_above(batch.variance, op.epsilon.value))
        results = [scale_and_shift(x, axis, batch.mean, factor, offset), batch.mean, batch.variance]
        rounded = [convert(value, tensor_type(op.operand).element_type) for value in results]
    for old, new in zip(op.results, rounded, strict=True):
        old.replace_all_uses_with(new)
    return dict(zip(rounded[1:], results[1:], strict=True))


def _replace_gradient(op: hlo.BatchNormGradOp, exact: dict[ir.Value, ir.Value]) -> None:
    with ir.InsertionPoint(op), op.location:
        wide, axes = ir.F64Type.get(), [op.feature_index.value]
        x, scale, grad_output = (convert(value, wide) for value in (op.operand, op.scale, op.grad_output))
        mean, variance = (exact.get(value) or convert(value, wide) for value in (op.mean, op.variance))
        centered = hlo.subtract(x, along(mean, axes, x))
        inverse = rsqrt_above(variance, op.epsilon.value)
        gradients = gradient(centered, inverse, scale, element_count(x, axes), grad_output, axes)
        rounded = [convert(value, tensor_type(op.operand).element_type) for value in gradients]
    for old, new in zip(op.results, rounded, strict=True):
        old.replace_all_uses_with(new)


def gradient(
    centered: ir.Value,
    inverse: ir.Value,
    scale: ir.Value,
    count: ir.Value,
    grad_output: ir.Value,
    axes: Axes,
    weight: ir.Value | None = None,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """``grad_operand``, ``grad_scale``, ``grad_offset`` in float64; ``centered`` is ``x - mean``.

    Where the statistics counted each element ``weight`` times, so does what they pass on.
    """
    h = hlo.multiply(centered, along(inverse, axes, centered))
    grad_offset, grad_scale = sum_features(grad_output, axes), sum_features(hlo.multiply(grad_output, h), axes)
    mean, slope = (along(quotient(total, count), axes, h) for total in (grad_offset, grad_scale))
    through_statistics = hlo.add(mean, hlo.multiply(h, slope))
    if weight is not None:
        through_statistics = hlo.multiply(weight, through_statistics)
    inner = hlo.subtract(grad_output, through_statistics)
    return hlo.multiply(inner, along(hlo.multiply(scale, inverse), axes, h)), grad_scale, grad_offset
