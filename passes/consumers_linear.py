"""A map ``s*x + t`` goes into the weight of a convolution or dot_general; what is left of it is a shift."""

from __future__ import annotations

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import along, convert, integers, reshape, shape_of, splat, tensor_type
from stablenorm.passes.compact import (
    spread,
)
from stablenorm.passes.copies import written
from stablenorm.passes.matching import layer_name
from stablenorm.passes.pending import Form, Pending, Step
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.scaled_weights import can_hold_a_scale, unrounded
from stablenorm.passes.weights import Weights


def into_convolution(op: hlo.ConvolutionOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """``conv(s*x + t, W) = conv(x, s*W) + conv(t, W)``, s along the kernel's input features"""
    numbers = hlo.ConvDimensionNumbers(op.dimension_numbers)
    if place == 1:
        return NoMatch("it is a convolution's kernel")
    if not weights.is_weight(op.rhs):
        return NoMatch("the convolution's kernel depends on the model's inputs")
    if not can_hold_a_scale(op.rhs):
        return NoMatch(f"the convolution's kernel is of a type that is too coarse to be scaled: {op.rhs.type}")
    if form.scale is not None and not form.scale <= {numbers.input_feature_dimension}:
        return NoMatch("it scales along a dimension of the convolution that is not its input features")
    along_batch = form.shift is not None and numbers.input_batch_dimension in form.shift
    if along_batch and shape_of(op.lhs)[numbers.input_batch_dimension] < 0:
        return NoMatch("it shifts along the batch of a convolution, whose size is known only when the program runs")
    spatial = set(numbers.input_spatial_dimensions)
    is_uniform = form.shift is not None and not form.shift & spatial and not _pads(op)
    if form.shift is not None and not is_uniform and any(shape_of(op.lhs)[d] < 0 for d in spatial):
        return NoMatch("a convolution pads a dimension whose size is known only when the program runs")
    after = {numbers.output_feature_dimension, *(() if is_uniform else numbers.output_spatial_dimensions)}
    after |= {numbers.output_batch_dimension} if along_batch else set()

    def act(pending: Pending) -> Pending:
        kernel = op.rhs if pending.scale is None else _scaled_kernel(op, pending.scale)
        value = op.operation.clone()
        value.operands[0], value.operands[1] = pending.value, kernel
        shift = pending.shift and _convolved(op, pending.shift, is_uniform)
        summed = [dim for dim in range(len(shape_of(op.rhs))) if dim != numbers.kernel_output_feature_dimension]
        return Pending(value.results[0], None, shift, taken=(kernel, *_bound(pending.shift, op.rhs, summed, weights)))

    return Step(
        form.after(None, None if form.shift is None else frozenset(after)), act, layer_name(op, weights, op.rhs)
    )


def _bound(shift: ir.Value | None, weight: ir.Value, summed: list[int], weights: Weights) -> list[ir.Value]:
    """What no element of ``L(t)`` exceeds: float16 must hold it. Other types hold what their factors are made of."""
    if shift is None or not isinstance(tensor_type(weight).element_type, ir.F16Type):
        return []
    factors = [weights.evaluate(value) for value in (shift, weight)]
    if any(each is None for each in factors):
        return []
    t, w = (np.abs(np.asarray(each, np.float64)) for each in factors)
    largest = t.max(initial=0.0) * w.sum(axis=tuple(summed)).max(initial=0.0)
    return [splat(float(largest), [], tensor_type(weight).element_type)]


def _pads(op: hlo.ConvolutionOp) -> bool:
    """Whether a window of the convolution can see anything but x."""
    dilation = integers(op, "lhs_dilation") if "lhs_dilation" in op.attributes else []
    is_padded = "padding" in op.attributes and bool(np.array(op.attributes["padding"]).any())
    return is_padded or any(size != 1 for size in dilation)


def _scaled_kernel(op: hlo.ConvolutionOp, scale: ir.Value) -> ir.Value:
    """W times s along its input features: those of a group are a slice of x's, and belong to a slice of the outputs."""
    numbers = hlo.ConvDimensionNumbers(op.dimension_numbers)
    groups = ir.IntegerAttr(op.attributes["feature_group_count"]).value
    i, o = numbers.kernel_input_feature_dimension, numbers.kernel_output_feature_dimension
    kernel, element_type = shape_of(op.rhs), tensor_type(scale).element_type
    wide = unrounded(op.rhs, element_type)
    features = kernel[i] * groups
    vector = reshape(
        spread(scale, [features if d == numbers.input_feature_dimension else 1 for d in range(len(shape_of(op.lhs)))]),
        [features],
    )
    if groups == 1:
        factor = along(vector, i, wide)
    else:
        table = ir.RankedTensorType.get([groups, kernel[o] // groups, kernel[i]], element_type)
        pairs = hlo.broadcast_in_dim(table, reshape(vector, [groups, kernel[i]]), [0, 2])
        factor = _along_two(reshape(pairs, [kernel[o], kernel[i]]), (o, i), wide)
    return convert(hlo.multiply(wide, factor), tensor_type(op.rhs).element_type)


def _along_two(table: ir.Value, dims: tuple[int, int], like: ir.Value) -> ir.Value:
    return hlo.broadcast_in_dim(like.type, table, list(dims))


def _convolved(op: hlo.ConvolutionOp, shift: ir.Value, is_uniform: bool) -> ir.Value:
    """``conv(t, W)``, for a batch of one where t is one; where no window sees padding, one window stands for all."""
    numbers = hlo.ConvDimensionNumbers(op.dimension_numbers)
    batches = ir.IntegerAttr(op.attributes["batch_group_count"]).value
    sizes, result = list(shape_of(op.lhs)), list(shape_of(op.result))
    if shape_of(shift)[numbers.input_batch_dimension] == 1:
        sizes[numbers.input_batch_dimension], result[numbers.output_batch_dimension] = batches, 1
    if is_uniform:
        dilation = integers(op, "rhs_dilation") if "rhs_dilation" in op.attributes else None
        for k, kernel_dim in enumerate(numbers.kernel_spatial_dimensions):
            reach = (shape_of(op.rhs)[kernel_dim] - 1) * (dilation[k] if dilation else 1) + 1
            sizes[numbers.input_spatial_dimensions[k]] = reach
            result[numbers.output_spatial_dimensions[k]] = 1
    element_type = tensor_type(shift).element_type
    type_ = ir.RankedTensorType.get(result, element_type)
    return _in_full(written(op, spread(shift, sizes), type_, convert(op.rhs, element_type)))


def _in_full(value: ir.Value) -> ir.Value:
    """The same operation, told not to round its operands, as accelerators do by default."""
    assert not isinstance(value.owner, ir.Block)
    attributes = value.owner.attributes
    attributes["precision_config"] = ir.ArrayAttr.get([hlo.PrecisionAttr.get("HIGHEST")] * 2)
    if "algorithm" in attributes:  # says how to round, too, and for which types
        del attributes["algorithm"]
    return value


def into_dot_general(op: hlo.DotGeneralOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """``dot(s*x + t, W) = dot(x, s*W) + dot(t, W)``, s along contracted or batching dimensions; else ``s*dot(x, W)``"""
    numbers = hlo.DotDimensionNumbers(op.dot_dimension_numbers)
    batching = [list(numbers.lhs_batching_dimensions), list(numbers.rhs_batching_dimensions)]
    contracting = [list(numbers.lhs_contracting_dimensions), list(numbers.rhs_contracting_dimensions)]
    side, other = place, 1 - place
    weight = op.operands[other]
    if not weights.is_weight(weight):
        return NoMatch("the other operand of the dot_general depends on the model's inputs")
    if not can_hold_a_scale(weight):
        return NoMatch(f"the weight of the dot_general is of a type that is too coarse to be scaled: {weight.type}")
    shared = dict(zip(batching[side] + contracting[side], batching[other] + contracting[other], strict=True))
    takes = form.scale is not None and form.scale <= set(shared)
    if form.scale is not None and not takes and form.scale & set(shared):
        return NoMatch("it scales along dimensions of the dot_general that its weight has, and along others")
    rank = [len(shape_of(operand)) for operand in op.operands]
    free = [[d for d in range(rank[k]) if d not in batching[k] + contracting[k]] for k in (0, 1)]
    order = [(side, d) for d in batching[side]] + [(k, d) for k in (0, 1) for d in free[k]]

    def sizes_of(shift: ir.Value) -> tuple[list[int], list[int]]:
        spread_to = [shape_of(weight)[shared[d]] if d in shared else n for d, n in enumerate(shape_of(shift))]
        result = [spread_to[d] if k == side else shape_of(weight)[d] for k, d in order]
        return spread_to, result

    def act(pending: Pending) -> Pending:
        matrix = _scaled_matrix(weight, pending.scale, shared) if takes and pending.scale is not None else weight
        value = op.operation.clone()
        value.operands[side], value.operands[other] = pending.value, matrix
        shift = pending.shift and dotted(pending.shift)
        summed = list(shared.values())
        scale = None if takes or pending.scale is None else moved(pending.scale)
        return Pending(value.results[0], scale, shift, taken=(matrix, *_bound(pending.shift, weight, summed, weights)))

    def moved(scale: ir.Value) -> ir.Value:  # its dimensions keep their order
        return reshape(scale, [shape_of(scale)[d] if k == side else 1 for k, d in order])

    def dotted(shift: ir.Value) -> ir.Value:
        element_type = tensor_type(shift).element_type
        spread_to, result = sizes_of(shift)
        row, matrix = spread(shift, spread_to), convert(weight, element_type)
        copy = op.operation.clone()
        copy.operands[side], copy.operands[other] = row, matrix
        copy.results[0].set_type(ir.RankedTensorType.get(result, element_type))
        return _in_full(copy.results[0])

    constant = [d for d in free[side] if d not in (form.shift or ())]
    after = frozenset(position for position, (k, d) in enumerate(order) if k != side or d not in constant)
    passed = None if takes or form.scale is None else frozenset(order.index((side, d)) for d in form.scale)
    into = layer_name(op, weights, weight) if passed is None else None
    return Step(form.after(passed, None if form.shift is None else after), act, into)


def _scaled_matrix(weight: ir.Value, scale: ir.Value, shared: dict[int, int]) -> ir.Value:
    element_type = tensor_type(scale).element_type
    wide = unrounded(weight, element_type)
    kept = [d for d, size in enumerate(shape_of(scale)) if size != 1]
    vector = reshape(scale, [shape_of(scale)[d] for d in kept])
    factor = hlo.broadcast_in_dim(wide.type, vector, [shared[d] for d in kept])
    return convert(hlo.multiply(wide, factor), tensor_type(weight).element_type)
