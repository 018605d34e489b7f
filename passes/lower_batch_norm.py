"""lower-batch-norm: what is left of batch norm becomes elementwise arithmetic that XLA fuses.

    y = (x - mean) * (scale * rsqrt(variance + epsilon)) + offset

Subtracting the mean first is exact where x is near it; ``x * s + (offset - mean * s)`` would cancel instead. The
per-channel factor depends on weights alone, so `hoist-weights` computes it once. The arithmetic is done in float32
at least, and the result is rounded once to the operand's type.

Before::

    %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
        <{epsilon = 1.0e-03 : f32, feature_index = 1 : i64}>

After::

    %s = stablehlo.multiply %scale, rsqrt(%variance + 1.0e-03)
    %y = (%x - broadcast(%mean)) * broadcast(%s) + broadcast(%offset)
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Pass, PassContext, Remark
from stablenorm.passes.building import along, arithmetic_type, convert, splat, tensor_type
from stablenorm.passes.contracts import no_batch_norm_inference
from stablenorm.passes.matching import layer_name, where
from stablenorm.passes.rewriting import functions, operations_of, rewrite, sweep
from stablenorm.passes.weights import Weights


@dataclasses.dataclass(frozen=True)
class LowerBatchNorm(Pass):
    """Writes ``stablehlo.batch_norm_inference`` out in arithmetic that does not cancel."""

    name: ClassVar[str] = "lower-batch-norm"
    ensures = (no_batch_norm_inference,)

    def run(self, module: ir.Module, context: PassContext) -> None:
        for function in functions(module):
            weights = Weights(function, context.weights)
            for op in operations_of(function, hlo.BatchNormInferenceOp):
                subject, location = layer_name(op, op.mean, weights), where(op)
                rewrite(op, normalize)
                context.remarks.append(Remark(self.name, "lowered", subject, "elementwise arithmetic", location))
        sweep(module)


def normalize(op: hlo.BatchNormInferenceOp) -> ir.Value:
    """``(x - mean) * (scale * rsqrt(variance + epsilon)) + offset``"""
    arithmetic, axis = arithmetic_type(op.operand), op.feature_index.value
    x, scale, offset, mean = (convert(value, arithmetic) for value in (op.operand, op.scale, op.offset, op.mean))
    centered = hlo.subtract(x, along(mean, axis, x))
    scaled = hlo.multiply(centered, along(hlo.multiply(scale, inverse_deviation(op)), axis, x))
    return convert(hlo.add(scaled, along(offset, axis, x)), tensor_type(op.operand).element_type)


def inverse_deviation(op: hlo.BatchNormInferenceOp) -> ir.Value:
    """``rsqrt(variance + epsilon)`` per channel, in float32 at least."""
    variance = convert(op.variance, arithmetic_type(op.operand))
    epsilon = splat(op.epsilon.value, tensor_type(variance).shape, tensor_type(variance).element_type)
    return hlo.rsqrt(hlo.add(variance, epsilon))
