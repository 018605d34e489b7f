"""freeze-batch-norm: training batch norms become inference batch norms, on their moving statistics.

::

    batch_norm_training(x, scale, offset) -> batch_norm_inference(x, scale, offset, moving_mean, moving_variance)

The moving statistics of a layer are, in this order,

1. what the batch's own statistics are averaged into, in any spelling (`moving_averages.py`): a function's argument, or
   whatever does not depend on the batch;
2. weights that are called as the layer's scale and offset are: ``bn/moving_mean``, ``bn/moving_variance`` beside
   ``bn/gamma``; where the layer has neither scale nor offset, its location names it.

They stay as they are: what was their updated value is the old one. A ``batch_norm_grad`` that reads the statistics of
a frozen batch norm becomes the gradient of inference::

    grad_operand = grad_output * scale * rsqrt(variance + epsilon)
    grad_scale = sum(grad_output * (x - mean) * rsqrt(variance + epsilon))
    grad_offset = sum(grad_output)

A batch norm whose statistics have other readers stays in training mode, with the reason. So does one that the option
``layers``, a regular expression, does not match as a whole.

No default pipeline runs this pass: it changes what a model computes. Run it behind `import-cleanup`: helper functions
have no weights' names.

Before::

    %y, %mean, %variance = "stablehlo.batch_norm_training"(%x, %scale, %offset)
    %new_mean = %moving_mean * 0.99 + %mean * 0.01
    %new_variance = %moving_variance * 0.99 + %variance * 0.01
    return %y, %new_mean, %new_variance

After::

    %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %moving_mean, %moving_variance)
    return %y, %moving_mean, %moving_variance
"""

from __future__ import annotations

import dataclasses
import re
from typing import ClassVar

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.ops.batch_norm_inference import BatchNormInference
from stablenorm.passes.base import Pass, PassContext, Remark
from stablenorm.passes.batch_norm_arithmetic import rounded, rsqrt_above
from stablenorm.passes.block_sums import sum_features
from stablenorm.passes.building import along, arithmetic_type, convert, reshape, shape_of, tensor_type, widen
from stablenorm.passes.matching import layer_name, where
from stablenorm.passes.moving_statistics import MovingStatistics, block_of, find_moving_statistics, sources_of
from stablenorm.passes.named_forms import BatchNorm, batch_norms
from stablenorm.passes.rewriting import NoMatch, functions, operations, run_mlir, sweep
from stablenorm.passes.weights import Weights


@dataclasses.dataclass(frozen=True)
class FreezeBatchNorm(Pass):
    """Makes training batch norms inference batch norms on their moving statistics."""

    name: ClassVar[str] = "freeze-batch-norm"
    layers: str = ".*"

    def run(self, module: ir.Module, context: PassContext) -> None:
        chosen = self._chosen()
        frozen: list[BatchNorm] = []
        for function in functions(module):
            weights = Weights(function, context.weights)
            sources = sources_of(function, weights)
            for norm in batch_norms(function):
                if norm.kind != "training":
                    continue
                subject = layer_name(norm.op, weights, norm["scale"], norm["offset"])
                left_out = NoMatch(f"the option layers={self.layers} leaves it out")
                found = find_moving_statistics(norm, weights, sources) if chosen.fullmatch(subject) else left_out
                # TensorFlow writes layer norm with constant parameters: no batch norm, nothing to be said.
                has_parameters = weights.is_parameter(norm["scale"]) or weights.is_parameter(norm["offset"])
                if isinstance(found, MovingStatistics) or has_parameters:
                    context.remarks.append(_remark(found, subject, where(norm.op), weights))
                if isinstance(found, MovingStatistics):
                    freeze(norm, found)
                    frozen += [norm, *found.gradients]
        # Not before every function is done, since memos hold their results; composites outlive a sweep.
        for norm in frozen:
            norm.op.operation.erase()
        sweep(module)
        run_mlir(module, "symbol-dce")  # the decompositions of composites

    def _chosen(self) -> re.Pattern[str]:
        try:
            return re.compile(self.layers)
        except re.error as error:
            raise ValueError(f"layers: got {self.layers!r} ({error}), allowed: a regular expression") from error


def _remark(found: MovingStatistics | NoMatch, subject: str, location: str, weights: Weights) -> Remark:
    if isinstance(found, NoMatch):
        return Remark("freeze-batch-norm", "declined", subject, found.reason, location)
    names = [weights.arguments.get(value) or value.get_name() for value in (found.mean.old, found.variance.old)]
    return Remark("freeze-batch-norm", "frozen", subject, f"its statistics are {' and '.join(names)}", location)


def freeze(norm: BatchNorm, moving: MovingStatistics) -> None:
    """Replaces what reads ``norm``, its gradients and its updates by what reads the moving statistics."""
    averages = (moving.mean, moving.variance)
    for average in averages:
        _move_before(average.old, norm.op)
    with ir.InsertionPoint(norm.op), norm.op.location:
        replaced = [(value, _like(average.old, value)) for average in averages for value in average.updated]
        statistics = [_like(average.old, value) for average, value in zip(averages, norm.op.results[1:], strict=True)]
        replaced += zip(norm.op.results, [_inference(norm, moving), *statistics], strict=True)
    for gradient in moving.gradients:
        with ir.InsertionPoint(gradient.op), gradient.op.location:
            results = rounded(_gradient(gradient, moving), tensor_type(gradient["operand"]).element_type)
        replaced += zip(gradient.op.results, results, strict=True)
    for old, new in replaced:
        old.replace_all_uses_with(new)


def _like(value: ir.Value, other: ir.Value) -> ir.Value:
    return convert(reshape(value, shape_of(other)), tensor_type(other).element_type)


def _move_before(value: ir.Value, op: ir.OpView) -> None:
    """Moves what computes ``value`` from behind ``op``, where it stands there, to before it."""
    owner = value.owner
    if isinstance(owner, ir.Block) or block_of(value) != op.operation.block:
        return
    if not owner.operation.is_before_in_block(op.operation):
        for operand in (operand for inner in operations(owner) for operand in inner.operands):
            _move_before(operand, op)
        owner.operation.move_before(op.operation)


def _inference(norm: BatchNorm, moving: MovingStatistics) -> ir.Value:
    """Batch norm with the moving statistics, in float32 at least."""
    arithmetic = arithmetic_type(norm["operand"])
    x, scale, offset = (convert(norm[name], arithmetic) for name in ("operand", "scale", "offset"))
    mean, variance = (_like(average.old, scale) for average in (moving.mean, moving.variance))
    feature_index = norm.axes[0] if len(norm.axes) == 1 else norm.axes
    (y,) = BatchNormInference(norm.epsilon, feature_index).emit(x, scale, offset, mean, variance)
    return convert(y, tensor_type(norm["operand"]).element_type)


def _gradient(norm: BatchNorm, moving: MovingStatistics) -> tuple[ir.Value, ir.Value, ir.Value]:
    """``grad_operand``, ``grad_scale``, ``grad_offset`` of inference, in float64: its statistics do not follow x."""
    x, scale, grad_output = (widen(norm[name]) for name in ("operand", "scale", "grad_output"))
    mean, variance = (_like(average.old, scale) for average in (moving.mean, moving.variance))
    inverse = rsqrt_above(variance, norm.epsilon)
    h = hlo.multiply(hlo.subtract(x, along(mean, norm.axes, x)), along(inverse, norm.axes, x))
    grad_operand = hlo.multiply(grad_output, along(hlo.multiply(scale, inverse), norm.axes, x))
    grad_scale, grad_offset = (sum_features(each, norm.axes) for each in (hlo.multiply(grad_output, h), grad_output))
    return grad_operand, grad_scale, grad_offset
