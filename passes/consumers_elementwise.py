"""What a map ``s*x + t`` becomes behind another map, a sum or a conversion."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes import distances
from stablenorm.passes.batch_norm_arithmetic import rsqrt_above
from stablenorm.passes.building import convert, is_float, reshape, shape_of, tensor_type
from stablenorm.passes.compact import (
    Compact,
    compact,
    filled,
    from_vector,
    join,
    spread,
)
from stablenorm.passes.copies import with_operand
from stablenorm.passes.matching import layer_name
from stablenorm.passes.pending import Form, Pending, Step, each, union
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.weights import Weights

Operator = Callable[[ir.Value, ir.Value], ir.Value]


def through_multiply(op: hlo.MulOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """``(s*x + t) * c = (s*c)*x + t*c``; or ``s*(x*c) + t*c``; without a shift, any tensor may be c"""
    factor = compact(op.operands[1 - place], weights)
    if factor is None and form.shift is not None:
        return NoMatch("it is multiplied with a tensor that depends on the model's inputs")
    if factor is None:
        return Step(form, lambda pending: dataclasses.replace(pending, value=with_operand(op, place, pending.value)))
    return _through_factor(op, place, form, factor, hlo.multiply)


def through_divide(op: hlo.DivOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """``(s*x + t) / c = (s/c)*x + t/c``; or ``s*(x/c) + t/c``"""
    divisor = compact(op.rhs, weights)
    if divisor is None or place == 1:
        return NoMatch("it is divided by, or divides, what is no weight")
    return _through_factor(op, place, form, divisor, hlo.divide)


def _through_factor(op: ir.OpView, place: int, form: Form, factor: Compact, operator: Operator) -> Step:
    """Into the scale where both lie along one dimension; else the operation stays."""

    def times(value: ir.Value | None) -> ir.Value | None:
        return value and join(operator, value, convert(factor.emit(), tensor_type(value).element_type))

    shift = None if form.shift is None else form.shift | factor.dims
    if form.scale is None or len(form.scale | factor.dims) > 1:

        def stay(pending: Pending) -> Pending:
            return Pending(with_operand(op, place, pending.value), pending.scale, times(pending.shift))

        return Step(form.after(form.scale, shift), stay)

    def act(pending: Pending) -> Pending:
        return Pending(pending.value, times(pending.scale), times(pending.shift))

    return Step(form.after(form.scale | factor.dims, shift), act, saves=1)


def through_add(op: hlo.AddOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """``(s*x + t) + b = s*x + (t + b)``; a shift alone passes the sum with any tensor."""
    bias = compact(op.operands[1 - place], weights)
    if bias is None:
        return _through_sum(op, place, form)

    def act(pending: Pending) -> Pending:
        return dataclasses.replace(pending, shift=_plus(pending, bias.emit(), hlo.add))

    return Step(_shifted(form, bias, weights), act, _bias_name(op, form, weights), saves=1)


def through_subtract(op: hlo.SubtractOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """``(s*x + t) - b = s*x + (t - b)``"""
    bias = compact(op.operands[1 - place], weights)
    if place == 1:
        return NoMatch("it is subtracted from another tensor")
    if bias is None:
        return _through_sum(op, place, form)

    def act(pending: Pending) -> Pending:
        return dataclasses.replace(pending, shift=_plus(pending, bias.emit(), hlo.subtract))

    return Step(_shifted(form, bias, weights), act, _bias_name(op, form, weights), saves=1)


def _shifted(form: Form, bias: Compact, weights: Weights) -> Form:
    numbers = weights.evaluate(bias.source)
    distance = 0.0 if numbers is None else distances.of_shift(numbers)
    return form.after(form.scale, union(form.shift, bias.dims), distance)


def _bias_name(op: ir.OpView, form: Form, weights: Weights) -> str | None:
    """Where a shift that meets another one goes: a map that scales goes on."""
    return layer_name(op, weights, *op.operands) if form.scale is None else None


def _through_sum(op: ir.OpView, place: int, form: Form) -> Step | NoMatch:
    if form.scale is not None:
        return NoMatch("a sum with a tensor that does not have that scale")

    def act(pending: Pending) -> Pending:
        return dataclasses.replace(pending, value=with_operand(op, place, pending.value))

    return Step(form, act)


def _plus(pending: Pending, bias: ir.Value, op: Operator) -> ir.Value:
    known = pending.scale if pending.shift is None else pending.shift
    assert known is not None
    element_type = tensor_type(known).element_type
    shift = filled(0.0, len(shape_of(bias)), element_type) if pending.shift is None else pending.shift
    return join(op, shift, convert(bias, element_type))


def through_convert(op: hlo.ConvertOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """``convert(s*x + t) = s*convert(x) + t``, up to one rounding in the narrower type; floats only."""
    if not all(is_float(value) for value in (op.operand, op.result)):
        return NoMatch(f"a convert leaves the floats: {op.operand.type} to {op.result.type}")
    if form.scale is not None and isinstance(tensor_type(op.result).element_type, ir.F16Type) and not form.is_half:
        return NoMatch("float16 may not hold what it scales")
    widths = [ir.FloatType(tensor_type(value).element_type).width for value in (op.result, op.operand)]
    after = dataclasses.replace(form, passes_maxima=form.passes_maxima and widths[0] >= widths[1])
    return Step(after, lambda pending: each(op, lambda value: value, pending))


def through_batch_norm(op: hlo.BatchNormInferenceOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """``(s*x + t - mean) * r + offset = (s*r)*x + ((t - mean)*r + offset)``; a shift alone goes into the mean."""
    axis, rank = op.feature_index.value, len(shape_of(op.operand))
    if place != 0 or not all(map(weights.is_weight, list(op.operands)[1:])):
        return NoMatch("a batch norm whose parameters depend on the model's inputs")
    if form.scale is None:
        return _into_mean(op, form, weights)

    def act(pending: Pending) -> Pending:
        assert pending.scale is not None
        element_type = tensor_type(pending.scale).element_type
        mean, scale, offset, variance = (
            from_vector(convert(each, element_type), axis, rank) for each in (op.mean, op.scale, op.offset, op.variance)
        )
        factor = hlo.multiply(scale, rsqrt_above(variance, op.epsilon.value))
        distance = hlo.negate(mean) if pending.shift is None else join(hlo.subtract, pending.shift, mean)
        shift = join(hlo.add, join(hlo.multiply, distance, factor), offset)
        return Pending(pending.value, join(hlo.multiply, pending.scale, factor), shift)

    return Step(
        form.after(form.scale | {axis}, union(form.shift, frozenset({axis})), distances.of_batch_norm(op, weights)),
        act,
        saves=2,
    )


def _into_mean(op: hlo.BatchNormInferenceOp, form: Form, weights: Weights) -> Step | NoMatch:
    axis = op.feature_index.value
    if form.shift is None or not form.shift <= {axis}:
        return NoMatch("a batch norm along another dimension than the shift")

    def act(pending: Pending) -> Pending:
        assert pending.shift is not None
        size = shape_of(op.mean)[0]
        wide = convert(op.mean, tensor_type(pending.shift).element_type)
        sizes = [size if dim == axis else 1 for dim in range(len(shape_of(op.operand)))]
        shift = reshape(spread(pending.shift, sizes), [size])
        mean = convert(hlo.subtract(wide, shift), tensor_type(op.mean).element_type)
        copy = op.operation.clone()
        copy.operands[0], copy.operands[3] = pending.value, mean
        return Pending(copy.results[0], None, None, taken=(mean,))

    return Step(Form(None, None), act, layer_name(op, weights, op.mean, op.variance, op.scale, op.offset))
