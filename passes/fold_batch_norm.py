"""fold-batch-norm: an inference batch norm disappears into the weights of the linear operation before it.

With ``s = scale / sqrt(variance + epsilon)``::

    s * (conv(x, W) + b - mean) + offset  =  conv(x, s * W) + (offset - (mean - b) * s)

Before::

    %c = stablehlo.convolution(%x, %w) ...
    %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance) <{feature_index = 3 : i64, ...}>

After::

    %s = scale * rsqrt(variance + epsilon)
    %c = stablehlo.convolution(%x, %w * %s) ...
    %y = stablehlo.add %c, broadcast(offset - mean * %s)

The arithmetic on weights is done in float32 at least. A batch norm stays, with a reason, where its input has another
consumer, comes from no linear operation, or where a folded weight would not be finite.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.absorbing import Plan, Scaled, plan
from stablenorm.passes.base import Pass, PassContext, Remark
from stablenorm.passes.batch_norm_arithmetic import rsqrt_above
from stablenorm.passes.building import along, arithmetic_type, convert, is_float, tensor_type
from stablenorm.passes.matching import layer_name, where
from stablenorm.passes.rewriting import NoMatch, functions, operations_of, rewrite, sweep
from stablenorm.passes.weights import Weights


@dataclasses.dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Folds ``stablehlo.batch_norm_inference`` into the convolution or dot_general that it follows."""

    name: ClassVar[str] = "fold-batch-norm"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for function in functions(module):
            weights = Weights(function, context.weights)
            for op in operations_of(function, hlo.BatchNormInferenceOp):
                context.remarks.append(_fold(op, weights))
        sweep(module)


def _fold(op: hlo.BatchNormInferenceOp, weights: Weights) -> Remark:
    subject, location = layer_name(op, weights, op.mean, op.variance, op.scale, op.offset), where(op)
    way = _guarded_plan(op, weights)
    if isinstance(way, NoMatch):
        return Remark("fold-batch-norm", "declined", subject, way.reason, location)
    declined = rewrite(op, lambda root: _act(root, way, weights))
    if declined is not None:
        return Remark("fold-batch-norm", "declined", subject, declined.reason, location)
    return Remark("fold-batch-norm", "folded", subject, way.into, location)


def _guarded_plan(op: hlo.BatchNormInferenceOp, weights: Weights) -> Plan | NoMatch:
    if not is_float(op.operand):
        return NoMatch(f"its type is not a real floating-point type: {op.operand.type}")
    for name, parameter in (("scale", op.scale), ("offset", op.offset), ("mean", op.mean), ("variance", op.variance)):
        if not weights.is_weight(parameter):
            return NoMatch(f"its {name} depends on the model's inputs")
    return plan(op.operand, op.feature_index.value, weights)


def _act(op: hlo.BatchNormInferenceOp, way: Plan, weights: Weights) -> ir.Value | NoMatch:
    """``s * (f + b)`` goes into f's weights; what is left to add is ``offset + s * (b - mean)``."""
    arithmetic = arithmetic_type(op.operand)
    scale, offset, mean = (convert(parameter, arithmetic) for parameter in (op.scale, op.offset, op.mean))
    s = hlo.multiply(scale, rsqrt_above(convert(op.variance, arithmetic), op.epsilon.value))
    scaled = way.act(s)
    distance = mean if scaled.bias is None else hlo.subtract(mean, scaled.bias)
    wide_shift = hlo.subtract(offset, hlo.multiply(distance, s))
    shift = convert(wide_shift, tensor_type(scaled.value).element_type)
    unfit = _not_finite(scaled, shift, weights)
    if unfit is not None:
        return unfit
    return hlo.add(scaled.value, along(shift, op.feature_index.value, scaled.value))


def _not_finite(scaled: Scaled, shift: ir.Value, weights: Weights) -> NoMatch | None:
    for what, value in (("weight", scaled.weight), ("bias", shift)):
        numbers = weights.evaluate(value)
        if numbers is not None and not np.isfinite(numbers).all():
            return NoMatch(f"a folded {what} would not be finite in {tensor_type(value).element_type}")
    return None
