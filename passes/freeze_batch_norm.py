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
from collections.abc import Mapping
from typing import ClassVar, TypeGuard

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.ops.batch_norm_inference import BatchNormInference
from stablenorm.passes.base import Pass, PassContext, Remark
from stablenorm.passes.batch_norm_arithmetic import rounded, rsqrt_above, widen
from stablenorm.passes.batch_statistics import sum_features
from stablenorm.passes.building import (
    along,
    arithmetic_type,
    convert,
    is_float,
    product,
    reshape,
    shape_of,
    tensor_type,
)
from stablenorm.passes.matching import layer_name, location_name, where
from stablenorm.passes.moving_averages import Average, Statistic, find_average
from stablenorm.passes.rewriting import NoMatch, functions, operations, operations_of, sweep
from stablenorm.passes.weights import Weights


@dataclasses.dataclass(frozen=True)
class FreezeBatchNorm(Pass):
    """Makes training batch norms inference batch norms on their moving statistics."""

    name: ClassVar[str] = "freeze-batch-norm"
    layers: str = ".*"

    def run(self, module: ir.Module, context: PassContext) -> None:
        try:
            chosen = re.compile(self.layers)
        except re.error as error:
            raise ValueError(f"layers: got {self.layers!r} ({error}), allowed: a regular expression") from error
        for function in functions(module):
            weights = Weights(function, context.weights)
            sources = _sources(function, weights)
            for op in operations_of(function, hlo.BatchNormTrainingOp):
                subject = layer_name(op, weights, op.scale, op.offset)
                left_out = NoMatch(f"the option layers={self.layers} leaves it out")
                way = plan(op, weights, sources) if chosen.fullmatch(subject) else left_out
                # TensorFlow writes layer norm with constant parameters: no batch norm, nothing to be said.
                if not isinstance(way, NoMatch) or weights.is_parameter(op.scale) or weights.is_parameter(op.offset):
                    context.remarks.append(_remark(way, subject, where(op), weights))
                if isinstance(way, Plan):
                    freeze(op, way)
        sweep(module)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The moving statistics of a training batch norm, and the gradients that read the batch's."""

    mean: Average
    variance: Average
    gradients: tuple[hlo.BatchNormGradOp, ...]


# For each value, what it depends on: the function's inputs that are no weights, and outputs of training batch norms.
Sources = Mapping[ir.Value, frozenset[ir.Value]]


def plan(op: hlo.BatchNormTrainingOp, weights: Weights, sources: Sources) -> Plan | NoMatch:
    """Where the moving statistics of ``op`` are, or why it has to stay."""
    if not is_float(op.operand):
        return NoMatch(f"its type is not a real floating-point type: {op.operand.type}")
    if shape_of(op.operand)[op.feature_index.value] < 0:
        return NoMatch("its number of features is known only when the program runs; give it a static size")
    gradients = [use.owner for use in op.batch_mean.uses if _is_gradient(use.owner, op)]
    named = _named(op, weights)
    averages: list[Average] = []
    for place, (word, value) in enumerate((("mean", op.batch_mean), ("variance", op.batch_var))):
        statistic = Statistic(value, op.operand, op.feature_index.value, is_variance=word == "variance")
        found = find_average(statistic, gradients) or (named if isinstance(named, NoMatch) else named[place])
        average = found if isinstance(found, NoMatch) else _within_reach(found, op, sources)
        if isinstance(average, NoMatch):
            return NoMatch(f"its batch {word} {average.reason}")
        averages.append(average)
    mean, variance = averages
    return Plan(mean, variance, tuple(gradients))


def _is_gradient(user: ir.OpView, op: hlo.BatchNormTrainingOp) -> TypeGuard[hlo.BatchNormGradOp]:
    return isinstance(user, hlo.BatchNormGradOp) and [user.mean, user.variance] == [op.batch_mean, op.batch_var]


def _block(value: ir.Value) -> ir.Block:
    owner = value.owner
    return owner if isinstance(owner, ir.Block) else owner.operation.block


def _within_reach(average: Average, op: hlo.BatchNormTrainingOp, sources: Sources) -> Average | NoMatch:
    """``average``, where its old value can be computed before the batch norm."""
    if any(_block(value) != op.operation.block for value in average.updated):
        return NoMatch("is averaged inside a branch or a loop; average it outside")
    if sources.get(average.old, frozenset()) & (sources[op.operand] | {op.output}):
        return NoMatch("is averaged into what depends on the batch too; average it into a moving one")
    return average


_NAMES = (("moving_mean", "moving_variance"), ("running_mean", "running_var"))


def _named(op: hlo.BatchNormTrainingOp, weights: Weights) -> tuple[Average, Average] | NoMatch:
    """The weights that are called as the layer's moving statistics, by its parameters' names or else its location."""
    arguments = {name: value for value, name in weights.arguments.items()}
    names = [name for parameter in (op.scale, op.offset) for name in weights.names(parameter)]
    layers = dict.fromkeys(re.sub(r"[^/.]+$", "", name) for name in names) or _layers(op.location)
    pairs = [(layer + mean, layer + variance) for layer in layers for mean, variance in _NAMES]
    found = [pair for pair in pairs if all(_is_statistic(arguments.get(name), op) for name in pair)]
    if not found:
        wanted = f"no weights are called {' and '.join(pairs[0])}" if pairs else "it has no name"
        return NoMatch(f"is averaged into nothing, and {wanted}; return the new moving statistics too")
    ((mean, variance),) = found[:1]
    if len(found) > 1 or f"{mean}_1" in arguments:  # a frontend has made equal names unique
        return NoMatch(f"belongs to one of several layers with a {mean}; give each layer a name of its own")
    return Average(arguments[mean], ()), Average(arguments[variance], ())


def _layers(location: ir.Location) -> list[str]:
    """``model/block/``, ``block/`` for an operation at ``model/block/operation``."""
    name = location_name(location)
    parts = name.split("/") if name else []
    return ["/".join(parts[start:]) + "/" for start in range(len(parts))]


def _is_statistic(value: ir.Value | None, op: hlo.BatchNormTrainingOp) -> bool:
    return value is not None and is_float(value) and product(shape_of(value)) == product(shape_of(op.scale))


def _sources(function: func.FuncOp, weights: Weights) -> Sources:
    found: dict[ir.Value, frozenset[ir.Value]] = {}
    for op in operations(function):
        arguments = [value for region in op.regions for block in region for value in block.arguments]
        found |= {value: frozenset({value} - weights.arguments.keys()) for value in arguments}
        read = (found[operand] for inner in operations(op) for operand in inner.operands if operand in found)
        own = {op.output} if isinstance(op, hlo.BatchNormTrainingOp) else ()
        found |= dict.fromkeys(op.results, frozenset().union(*read, own))
    return found


def _remark(way: Plan | NoMatch, subject: str, location: str, weights: Weights) -> Remark:
    if isinstance(way, NoMatch):
        return Remark("freeze-batch-norm", "declined", subject, way.reason, location)
    names = [weights.arguments.get(value) or value.get_name() for value in (way.mean.old, way.variance.old)]
    return Remark("freeze-batch-norm", "frozen", subject, f"its statistics are {' and '.join(names)}", location)


def freeze(op: hlo.BatchNormTrainingOp, way: Plan) -> None:
    """Replaces what reads ``op`` by what reads the moving statistics."""
    for average in (way.mean, way.variance):
        _move_before(average.old, op)
        for value in average.updated:
            with ir.InsertionPoint(op), op.location:
                stays = convert(reshape(average.old, shape_of(value)), tensor_type(value).element_type)
            value.replace_all_uses_with(stays)
    with ir.InsertionPoint(op), op.location:
        op.output.replace_all_uses_with(_inference(op, way))
    for gradient in way.gradients:
        with ir.InsertionPoint(gradient), gradient.location:
            results = rounded(_gradient(gradient, way), tensor_type(gradient.operand).element_type)
        for old, new in zip(gradient.results, results, strict=True):
            old.replace_all_uses_with(new)


def _move_before(value: ir.Value, op: ir.OpView) -> None:
    """Moves what computes ``value`` from behind ``op``, where it stands there, to before it."""
    owner = value.owner
    if isinstance(owner, ir.Block) or _block(value) != op.operation.block:
        return
    if not owner.operation.is_before_in_block(op.operation):
        for operand in (operand for inner in operations(owner) for operand in inner.operands):
            _move_before(operand, op)
        owner.operation.move_before(op.operation)


def _vector(value: ir.Value, element_type: ir.Type) -> ir.Value:
    return convert(reshape(value, [product(shape_of(value))]), element_type)


def _inference(op: hlo.BatchNormTrainingOp, way: Plan) -> ir.Value:
    """Batch norm with the moving statistics, in float32 at least."""
    arithmetic = arithmetic_type(op.operand)
    x, scale, offset = (convert(value, arithmetic) for value in (op.operand, op.scale, op.offset))
    mean, variance = (_vector(average.old, arithmetic) for average in (way.mean, way.variance))
    (y,) = BatchNormInference(op.epsilon.value, op.feature_index.value).emit(x, scale, offset, mean, variance)
    return convert(y, tensor_type(op.operand).element_type)


def _gradient(op: hlo.BatchNormGradOp, way: Plan) -> tuple[ir.Value, ir.Value, ir.Value]:
    """``grad_operand``, ``grad_scale``, ``grad_offset`` of inference, in float64: its statistics do not follow x."""
    x, scale, grad_output = map(widen, (op.operand, op.scale, op.grad_output))
    mean, variance = (_vector(average.old, ir.F64Type.get()) for average in (way.mean, way.variance))
    axes, inverse = [op.feature_index.value], rsqrt_above(variance, op.epsilon.value)
    h = hlo.multiply(hlo.subtract(x, along(mean, axes, x)), along(inverse, axes, x))
    grad_operand = hlo.multiply(grad_output, along(hlo.multiply(scale, inverse), axes, x))
    return grad_operand, sum_features(hlo.multiply(grad_output, h), axes), sum_features(grad_output, axes)
