"""Where a per-channel scale can go: into the weights of the linear operations that its tensor comes from.

Each rule states one law for one operation. Given the scale it answers with a `Plan`, or with `NoMatch` and the reason;
nothing is emitted before the whole way up is known to be free, in every branch that it needs. A plan's act emits
``scale * value`` as a tensor that needs no multiplication, and the biases met on the way, which are still to be added,
once, at the end.

`PRODUCERS` is the table of what the fold understands. A new operation is a new function and a new row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Array
from stablenorm.passes.building import along, convert, integers, is_float, product, shape_of, splat, tensor_type
from stablenorm.passes.channels import channel_vector
from stablenorm.passes.matching import axis_before_reshape, defining_op, layer_name, splat_number
from stablenorm.passes.readers import Readers
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.weights import Weights

FARTHEST = 100  # operations between a map and the weights that take it


@dataclasses.dataclass(frozen=True)
class Factor:
    """A scale on its way up: along which dimension it lies, and its numbers, where the weights' are known."""

    axis: int
    numbers: Array | None
    weights: Weights
    readers: Readers
    steps: int = 0
    shared: bool = False  # whether the rule that asks knows all readers of the value


@dataclasses.dataclass(frozen=True)
class Scaled:
    """``scale`` times the original value is ``value + scale * bias``. ``bias`` has rank 1, or is zero: None.

    The bias is not scaled yet because it often is near a batch norm's mean: their difference is exact, while the
    difference of their multiples is not. ``taken`` are the weight tensors that took the scale.
    """

    value: ir.Value
    bias: ir.Value | None
    taken: tuple[ir.Value, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A way to absorb a scale.

    Attributes:
        into: the layers whose weights take it.
        act: emits, given the scale.
        has_bias: whether biases come along that are still to be added.
        saves: elementwise operations that go on the way, less those that come.
        axis: the dimension of the map's operand along which the scale lies.
    """

    into: tuple[str, ...]
    act: Callable[[ir.Value], Scaled]
    has_bias: bool = False
    saves: int = 0
    axis: int = -1


def plan(value: ir.Value, factor: Factor) -> Plan | NoMatch:
    """How ``scale * value`` is absorbed."""
    op = defining_op(value)
    if op is None:
        return NoMatch("its input is an argument of the function: no linear operation comes before it")
    if not factor.shared and not factor.readers.single(value):
        return NoMatch(f"the result of {op.operation.name} has another consumer")
    rule = PRODUCERS.get(type(op))
    if rule is None:
        return NoMatch(f"its input comes from {op.operation.name}, which a per-channel scale cannot pass")
    if factor.steps == FARTHEST:
        return NoMatch(f"no weight takes it within {FARTHEST} operations")
    return rule(op, dataclasses.replace(factor, steps=factor.steps + 1, shared=False))


def into_convolution(op: hlo.ConvolutionOp, factor: Factor) -> Plan | NoMatch:
    """``s * conv(x, W) = conv(x, s * W)``, s along the kernel's output-feature dimension.

    StableHLO orders that dimension by group, as it orders the result's features: grouped, depthwise and transposed
    convolutions are the same law.
    """
    numbers = hlo.ConvDimensionNumbers(op.dimension_numbers)
    if factor.axis != numbers.output_feature_dimension:
        return NoMatch("it normalizes along a dimension of the convolution that is not its output features")
    if not factor.weights.is_weight(op.rhs):
        return NoMatch("the convolution's kernel depends on the model's inputs")
    if not can_hold_a_scale(op.rhs):
        return NoMatch(f"the convolution's kernel is of a type that is too coarse to be scaled: {op.rhs.type}")

    def act(scale: ir.Value) -> Scaled:
        kernel = scaled_weight(op.rhs, scale, numbers.kernel_output_feature_dimension)
        return Scaled(with_operand(op, 1, kernel), None, (kernel,))

    return Plan((layer_name(op, factor.weights, op.rhs),), act)


def into_dot_general(op: hlo.DotGeneralOp, factor: Factor) -> Plan | NoMatch:
    """``s * dot(x, W) = dot(x, s * W)``, s along a free or a batching dimension of W, on either side."""
    weights = factor.weights
    side = next((side for side, operand in ((1, op.rhs), (0, op.lhs)) if weights.is_weight(operand)), None)
    if side is None:
        return NoMatch("neither operand of the dot_general is a weight")
    origins = _origins(op, side)
    if factor.axis not in origins:
        return NoMatch("it normalizes along a dimension of the dot_general that its weight does not have")
    weight = op.operands[side]
    if not can_hold_a_scale(weight):
        return NoMatch(f"the weight of the dot_general is of a type that is too coarse to be scaled: {weight.type}")

    def act(scale: ir.Value) -> Scaled:
        scaled = scaled_weight(weight, scale, origins[factor.axis])
        return Scaled(with_operand(op, side, scaled), None, (scaled,))

    return Plan((layer_name(op, weights, weight),), act)


def _origins(op: hlo.DotGeneralOp, side: int) -> dict[int, int]:
    """The dimensions of a dot_general's result that one operand has, and where they are in it."""
    numbers = hlo.DotDimensionNumbers(op.dot_dimension_numbers)
    batching = [list(numbers.lhs_batching_dimensions), list(numbers.rhs_batching_dimensions)]
    contracting = [list(numbers.lhs_contracting_dimensions), list(numbers.rhs_contracting_dimensions)]
    free = [
        [place for place in range(len(shape_of(operand))) if place not in batching[k] + contracting[k]]
        for k, operand in enumerate((op.lhs, op.rhs))
    ]
    before = len(batching[side]) + (len(free[0]) if side == 1 else 0)
    return dict(enumerate(batching[side])) | {before + place: dim for place, dim in enumerate(free[side])}


def through_add(op: hlo.AddOp, factor: Factor) -> Plan | NoMatch:
    """``s * (f + b) = s * f + s * b``, b a bias; ``s * (f + g) = s * f + s * g``, into both branches."""
    for linear, bias in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        vector = channel_vector(bias, factor.axis, factor.weights)
        if vector is not None:
            return _through_bias(plan(linear, factor), vector, hlo.add)
    return _through_branches(op, factor)


def through_subtract(op: hlo.SubtractOp, factor: Factor) -> Plan | NoMatch:
    """``s * (f - b) = s * f - s * b``; ``s * (f - g) = s * f - s * g``"""
    vector = channel_vector(op.rhs, factor.axis, factor.weights)
    if vector is not None:
        return _through_bias(plan(op.lhs, factor), vector, hlo.subtract)
    return _through_branches(op, factor)


def _through_bias(
    inner: Plan | NoMatch, bias: Callable[[], ir.Value], sign: Callable[[ir.Value, ir.Value], ir.Value]
) -> Plan | NoMatch:
    if isinstance(inner, NoMatch):
        return inner

    def act(scale: ir.Value) -> Scaled:
        scaled = inner.act(scale)
        vector = convert(bias(), tensor_type(scale).element_type)
        if scaled.bias is not None:
            vector = sign(scaled.bias, vector)
        elif sign is hlo.subtract:
            vector = hlo.negate(vector)
        return dataclasses.replace(scaled, bias=vector)

    return dataclasses.replace(inner, act=act, has_bias=True, saves=inner.saves + 1)


def _through_branches(op: hlo.AddOp | hlo.SubtractOp, factor: Factor) -> Plan | NoMatch:
    branches = [plan(operand, factor) for operand in op.operands]
    declined = next((branch for branch in branches if isinstance(branch, NoMatch)), None)
    if declined is not None:
        return NoMatch(f"its input is a sum, a branch of which cannot take the scale: {declined.reason}")
    first, second = (branch for branch in branches if isinstance(branch, Plan))
    sign = hlo.subtract if isinstance(op, hlo.SubtractOp) else hlo.add

    def act(scale: ir.Value) -> Scaled:
        a, b = first.act(scale), second.act(scale)
        return Scaled(sign(a.value, b.value), _joined(a.bias, b.bias, sign), a.taken + b.taken)

    return Plan(first.into + second.into, act, first.has_bias or second.has_bias, first.saves + second.saves)


def _joined(a: ir.Value | None, b: ir.Value | None, sign: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value | None:
    if b is None:
        return a
    if a is None:
        return hlo.negate(b) if sign is hlo.subtract else b
    return sign(a, b)


def through_multiply(op: hlo.MulOp, factor: Factor) -> Plan | NoMatch:
    """``s * (f * c) = (s * c) * f``, c a weight along the channels; at worst, that one multiplication stays."""
    for operand, other in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        vector = channel_vector(other, factor.axis, factor.weights)
        if vector is not None:
            return _through_scale(op, operand, vector, hlo.multiply, factor)
    return NoMatch("its input is a product of two tensors, neither of them a weight along the channels")


def through_divide(op: hlo.DivOp, factor: Factor) -> Plan | NoMatch:
    """``s * (f / c) = (s / c) * f``, c a weight along the channels."""
    vector = channel_vector(op.rhs, factor.axis, factor.weights)
    if vector is None:
        return NoMatch("its input is a quotient whose divisor is no weight along the channels")
    return _through_scale(op, op.lhs, vector, hlo.divide, factor)


def _through_scale(
    op: ir.OpView,
    operand: ir.Value,
    vector: Callable[[], ir.Value],
    operator: Callable[[ir.Value, ir.Value], ir.Value],
    factor: Factor,
) -> Plan | NoMatch:
    """The product of two scales goes on together; a bias under the first one is scaled by it."""
    inner = plan(operand, dataclasses.replace(factor, numbers=None))
    place = factor.axis

    def combined(scale: ir.Value) -> tuple[ir.Value, ir.Value]:
        other = convert(vector(), tensor_type(scale).element_type)
        return other, operator(scale, other)

    def act(scale: ir.Value) -> Scaled:
        other, both = combined(scale)
        assert isinstance(inner, Plan)
        scaled = inner.act(both)
        bias = scaled.bias and operator(scaled.bias, other)
        return dataclasses.replace(scaled, bias=bias)

    def merge(scale: ir.Value) -> Scaled:
        both = convert(combined(scale)[1], tensor_type(operand).element_type)
        return Scaled(hlo.multiply(operand, along(both, place, operand)), None, (both,))

    if isinstance(inner, NoMatch):
        return Plan((layer_name(op, factor.weights, *op.operands),), merge)
    return dataclasses.replace(inner, act=act, saves=inner.saves + 1)


def into_batch_norm(op: hlo.BatchNormInferenceOp, factor: Factor) -> Plan | NoMatch:
    """``s * batch_norm(f)`` is a batch norm with ``s * scale``; its offset is the next one's bias."""
    if factor.axis != op.feature_index.value or not all(map(factor.weights.is_weight, list(op.operands)[1:])):
        return NoMatch("another batch norm before it, along another dimension or with parameters that are no weights")

    def act(scale: ir.Value) -> Scaled:
        element_type = tensor_type(scale).element_type
        both = convert(hlo.multiply(convert(op.scale, element_type), scale), tensor_type(op.scale).element_type)
        offset = convert(op.offset, element_type)
        zero = hlo.subtract(op.offset, op.offset)
        copy = op.operation.clone()
        copy.operands[1], copy.operands[2] = both, zero
        return Scaled(copy.results[0], offset, (both,))

    name = layer_name(op, factor.weights, op.mean, op.variance, op.scale, op.offset)
    return Plan((name,), act, has_bias=True, saves=0)


def through_concatenate(op: hlo.ConcatenateOp, factor: Factor) -> Plan | NoMatch:
    """Each branch takes its slice of the scale; along another dimension than the channels', all of it."""
    axis = ir.IntegerAttr(op.attributes["dimension"]).value
    sizes = [shape_of(operand)[axis] for operand in op.operands]
    stops = np.cumsum(sizes).tolist()
    bounds: list[tuple[int, int | None]] = [(0, None)] * len(sizes)
    if axis == factor.axis:
        bounds = list(zip([0, *stops], stops, strict=False))
    branches: list[Plan] = []
    for operand, (start, stop) in zip(op.operands, bounds, strict=True):
        numbers = None if factor.numbers is None else factor.numbers[start:stop]
        branch = plan(operand, dataclasses.replace(factor, numbers=numbers))
        if isinstance(branch, NoMatch):
            return NoMatch(f"a branch of the concatenation before it cannot take the scale: {branch.reason}")
        branches.append(branch)
    return _together(op, axis, bounds, branches, factor)


def _together(
    op: hlo.ConcatenateOp, axis: int, bounds: list[tuple[int, int | None]], branches: list[Plan], factor: Factor
) -> Plan:
    settles = axis != factor.axis  # one vector cannot hold what differs along another dimension

    def part(vector: ir.Value, start: int, stop: int | None) -> ir.Value:
        return vector if stop is None else hlo.slice(vector, [start], [stop], [1])

    def act(scale: ir.Value) -> Scaled:
        scales = [part(scale, *bound) for bound in bounds]
        each = [branch.act(own) for branch, own in zip(branches, scales, strict=True)]
        if settles:
            each = [settled(scaled, own, factor.axis) for scaled, own in zip(each, scales, strict=True)]
        value = hlo.concatenate([scaled.value for scaled in each], axis)
        biases = [scaled.bias for scaled in each]
        bias = None
        if any(bias is not None for bias in biases):
            whole = [b if b is not None else hlo.subtract(own, own) for b, own in zip(biases, scales, strict=True)]
            bias = hlo.concatenate(whole, 0)
        return Scaled(value, bias, tuple(weight for scaled in each for weight in scaled.taken))

    into = tuple(name for branch in branches for name in branch.into)
    saves = sum(branch.saves - (branch.has_bias and settles) for branch in branches)
    # Their biases together cost one addition at the end, which `has_bias` tells; each saved its own.
    return Plan(into, act, not settles and any(branch.has_bias for branch in branches), saves)


def settled(scaled: Scaled, scale: ir.Value, axis: int) -> Scaled:
    """The bias added where it is, for an operation that it cannot pass."""
    if scaled.bias is None:
        return scaled
    shift = convert(hlo.multiply(scaled.bias, scale), tensor_type(scaled.value).element_type)
    value = hlo.add(scaled.value, along(shift, axis, scaled.value))
    return Scaled(value, None, (*scaled.taken, shift))


def _settling(inner: Plan, factor: Factor, emit: Callable[[ir.Value, ir.Value], ir.Value]) -> Plan:
    """For an operation that a scale passes and a bias does not: ``emit(value, scale)`` copies it."""

    def act(scale: ir.Value) -> Scaled:
        scaled = settled(inner.act(scale), scale, factor.axis)
        return dataclasses.replace(scaled, value=emit(scaled.value, scale))

    return dataclasses.replace(inner, act=act, has_bias=False, saves=inner.saves - inner.has_bias)


def through_pad(op: hlo.PadOp, factor: Factor) -> Plan | NoMatch:
    """``s * pad(f, 0) = pad(s * f, 0)``: zeros stay zeros. What is added comes before."""
    names = ("edge_padding_low", "edge_padding_high", "interior_padding")
    if any(integers(op, name)[factor.axis] for name in names):
        return NoMatch("a pad before it adds channels")
    if splat_number(op.padding_value) != 0.0:
        return NoMatch("a pad before it fills with a number that is not known to be zero")
    inner = plan(op.operand, factor)
    if isinstance(inner, NoMatch):
        return inner
    return _settling(inner, factor, lambda value, scale: with_operand(op, 0, value))


def through_maximum(op: hlo.MaxOp | hlo.MinOp, factor: Factor) -> Plan | NoMatch:
    """``s * max(f, c) = max(s * f, s * c)``, s not negative, c a weight along the channels: ReLU has c = 0."""
    if (leaky := _leaky(op)) is not None:
        return _through_leaky(op, leaky, factor)
    sides = ((place, channel_vector(op.operands[1 - place], factor.axis, factor.weights)) for place in (0, 1))
    place, bound = next(((place, vector) for place, vector in sides if vector is not None), (0, None))
    if bound is None:
        return NoMatch(f"its input comes from {op.operation.name} of two tensors")
    unfit = _not_positive(factor)
    if unfit is not None:
        return unfit
    inner = plan(op.operands[place], factor)
    if isinstance(inner, NoMatch):
        return inner
    is_zero = splat_number(op.operands[1 - place]) == 0.0

    def emit(value: ir.Value, scale: ir.Value) -> ir.Value:
        if is_zero:
            return with_operand(op, place, value)
        scaled = _scaled_along(bound(), scale, factor.axis, value)
        copy = op.operation.clone()
        copy.operands[place], copy.operands[1 - place] = value, scaled
        result: ir.Value = copy.results[0]
        return result

    return _settling(inner, factor, emit)


def _leaky(op: hlo.MaxOp | hlo.MinOp) -> tuple[int, hlo.MulOp] | None:
    """Where f stands in ``max(f, slope * f)``, and the product."""
    for place in (0, 1):
        product_ = defining_op(op.operands[1 - place])
        if isinstance(product_, hlo.MulOp) and op.operands[place] in (product_.lhs, product_.rhs):
            return place, product_
    return None


def _through_leaky(op: hlo.MaxOp | hlo.MinOp, leaky: tuple[int, hlo.MulOp], factor: Factor) -> Plan | NoMatch:
    """``s * max(f, slope * f) = max(s * f, slope * (s * f))``, s not negative, slope a number."""
    place, product_ = leaky
    f, readers = op.operands[place], factor.readers
    slope = product_.rhs if product_.lhs == f else product_.lhs
    unfit = _not_positive(factor)
    if unfit is not None:
        return unfit
    if splat_number(slope) is None or len(readers.of(f)) != 2 or not readers.single(product_.result):
        return NoMatch("a leaky ReLU before it has a slope that is no number, or another consumer")
    inner = plan(f, dataclasses.replace(factor, shared=True))
    if isinstance(inner, NoMatch):
        return inner

    def emit(value: ir.Value, scale: ir.Value) -> ir.Value:
        multiple = hlo.multiply(value, slope)
        copy = op.operation.clone()
        copy.operands[place], copy.operands[1 - place] = value, multiple
        result: ir.Value = copy.results[0]
        return result

    return _settling(inner, factor, emit)


def _scaled_along(vector: ir.Value, scale: ir.Value, axis: int, like: ir.Value) -> ir.Value:
    wide = hlo.multiply(convert(vector, tensor_type(scale).element_type), scale)
    return along(convert(wide, tensor_type(like).element_type), axis, like)


def through_clamp(op: hlo.ClampOp, factor: Factor) -> Plan | NoMatch:
    """``s * clamp(a, f, b) = clamp(s * a, s * f, s * b)``, s not negative: ReLU6 is one."""
    unfit = _not_positive(factor)
    if unfit is not None:
        return unfit
    bounds = [_bound(value, op, factor) for value in (op.min, op.max)]
    if any(bound is None for bound in bounds):
        return NoMatch("its input is clamped by what is no weight along the channels")
    inner = plan(op.operand, factor)
    if isinstance(inner, NoMatch):
        return inner

    def emit(value: ir.Value, scale: ir.Value) -> ir.Value:
        low, high = (_scaled_along(bound(), scale, factor.axis, value) for bound in bounds if bound is not None)
        return hlo.clamp(low, value, high)

    return _settling(inner, factor, emit)


def _bound(value: ir.Value, op: hlo.ClampOp, factor: Factor) -> Callable[[], ir.Value] | None:
    """A bound of a clamp as a vector along the channels; a number serves all of them."""
    if shape_of(value) or not factor.weights.is_weight(value):
        return channel_vector(value, factor.axis, factor.weights)
    size = shape_of(op.operand)[factor.axis]
    type_ = ir.RankedTensorType.get([size], tensor_type(value).element_type)
    return lambda: hlo.broadcast_in_dim(type_, value, [])


def _not_positive(factor: Factor) -> NoMatch | None:
    if factor.numbers is None:
        return NoMatch(
            "an activation or a maximum before it lets only a positive scale pass; its numbers are not known"
        )
    if not (factor.numbers >= 0).all():
        return NoMatch("an activation or a maximum before it lets only a positive scale pass, and it has negative ones")
    return None


def through_reduce_window(op: hlo.ReduceWindowOp, factor: Factor) -> Plan | NoMatch:
    """``s * pool(f) = pool(s * f)``: sums for any s, maxima for a positive one. What is added comes before."""
    body = [each.operation.name for block in op.regions[0] for each in block.operations]
    if len(op.operands) != 2 or len(body) != 2 or body[0] not in ("stablehlo.add", "stablehlo.maximum"):
        return NoMatch("a reduction over windows before it is neither a sum nor a maximum")
    if (
        integers(op, "window_dimensions")[factor.axis] != 1
        or shape_of(op.operands[0])[factor.axis] != shape_of(op.results[0])[factor.axis]
    ):
        return NoMatch("windows before it span channels")
    initial = splat_number(op.operands[1])
    if body[0] == "stablehlo.add" and initial != 0.0:
        return NoMatch("a sum over windows before it that does not begin at zero")
    if body[0] == "stablehlo.maximum":
        unfit = _not_positive(factor)
        if unfit is not None:
            return unfit
        if initial != float("-inf") or factor.numbers is None or bool((factor.numbers == 0).any()):
            return NoMatch("a maximum over windows before it that does not begin at -inf, or a scale of zero")
    inner = plan(op.operands[0], factor)
    if isinstance(inner, NoMatch):
        return inner
    return _settling(inner, factor, lambda value, scale: with_operand(op, 0, value))


def through_reduce(op: hlo.ReduceOp, factor: Factor) -> Plan | NoMatch:
    """``s * sum(f + b) = sum(s * f) + s * (n * b)``, n elements summed over other dimensions than the channels'."""
    body = [each.operation.name for block in op.regions[0] for each in block.operations]
    if len(op.operands) != 2 or body[:-1] != ["stablehlo.add"] or splat_number(op.operands[1]) != 0.0:
        return NoMatch("a reduction before it that is no sum")
    sizes, summed = shape_of(op.operands[0]), integers(op, "dimensions")
    kept = [dim for dim in range(len(sizes)) if dim not in summed]
    count = product([sizes[dim] for dim in summed])
    if any(sizes[dim] < 0 for dim in summed):
        return NoMatch("a sum before it over a dimension whose size is known only when the program runs")
    inner = plan(op.operands[0], dataclasses.replace(factor, axis=kept[factor.axis]))
    if isinstance(inner, NoMatch):
        return inner

    def act(scale: ir.Value) -> Scaled:
        scaled = inner.act(scale)
        bias = scaled.bias and hlo.multiply(scaled.bias, splat(float(count), *_like(scaled.bias)))
        return dataclasses.replace(scaled, value=with_operand(op, 0, scaled.value), bias=bias)

    return dataclasses.replace(inner, act=act)


def _like(value: ir.Value) -> tuple[tuple[int, ...], ir.Type]:
    return shape_of(value), tensor_type(value).element_type


def through_reshape(op: hlo.ReshapeOp, factor: Factor) -> Plan | NoMatch:
    """A reshape that keeps the channels' dimension whole moves it; the scale follows."""
    inner_axis = axis_before_reshape(shape_of(op.operand), shape_of(op.result), factor.axis)
    if inner_axis is None:
        return NoMatch("a reshape before it merges or splits the channels' dimension")
    return _through_move(op, inner_axis, factor)


def through_transpose(op: hlo.TransposeOp, factor: Factor) -> Plan | NoMatch:
    """A transpose moves the channels' dimension; the scale follows."""
    return _through_move(op, integers(op, "permutation")[factor.axis], factor)


def through_broadcast(op: hlo.BroadcastInDimOp, factor: Factor) -> Plan | NoMatch:
    """A broadcast that repeats along other dimensions than the channels' moves these."""
    places = integers(op, "broadcast_dimensions")
    inner_axis = places.index(factor.axis) if factor.axis in places else None
    if inner_axis is None or shape_of(op.operand)[inner_axis] != shape_of(op.result)[factor.axis]:
        return NoMatch("a broadcast before it repeats one channel")
    return _through_move(op, inner_axis, factor)


def through_slice(op: hlo.SliceOp, factor: Factor) -> Plan | NoMatch:
    """A slice of other dimensions than the channels' keeps the scale as it is."""
    if shape_of(op.operand)[factor.axis] != shape_of(op.result)[factor.axis]:
        return NoMatch("a slice before it takes a part of the channels")
    return _through_move(op, factor.axis, factor)


def through_reverse(op: hlo.ReverseOp, factor: Factor) -> Plan | NoMatch:
    """Reversing other dimensions than the channels' keeps the scale as it is."""
    if factor.axis in integers(op, "dimensions"):
        return NoMatch("the channels are reversed before it")
    return _through_move(op, factor.axis, factor)


def through_convert(op: hlo.ConvertOp, factor: Factor) -> Plan | NoMatch:
    """``s * convert(f) = convert(s * f)``, up to one rounding in the narrower type; floats only."""
    if not all(is_float(value) for value in (op.operand, op.result)):
        return NoMatch(f"a convert before it leaves the floats: {op.operand.type} to {op.result.type}")
    return _through_move(op, factor.axis, factor)


def _through_move(op: ir.OpView, inner_axis: int, factor: Factor) -> Plan | NoMatch:
    """For an operation on one tensor that commutes with the scale and lets the shift pass to its result."""
    inner = plan(op.operands[0], dataclasses.replace(factor, axis=inner_axis))
    if isinstance(inner, NoMatch):
        return inner

    def act(scale: ir.Value) -> Scaled:
        scaled = inner.act(scale)
        return dataclasses.replace(scaled, value=with_operand(op, 0, scaled.value))

    return dataclasses.replace(inner, act=act)


def can_hold_a_scale(weight: ir.Value) -> bool:
    """Integers and eight-bit floats are quantized: rounding a scaled one to its type again would lose digits."""
    return is_float(weight) and ir.FloatType(tensor_type(weight).element_type).width >= 16


def scaled_weight(weight: ir.Value, scale: ir.Value, axis: int) -> ir.Value:
    """``weight * scale`` along ``axis``: multiplied in the scale's type, rounded once to the weight's."""
    wide = unrounded(weight, tensor_type(scale).element_type)
    return convert(hlo.multiply(wide, along(scale, axis, wide)), tensor_type(weight).element_type)


def unrounded(weight: ir.Value, element_type: ir.Type) -> ir.Value:
    """A weight in a wider type: as it was before mixed precision rounded it, where it was."""
    op = defining_op(weight)
    if isinstance(op, hlo.ConvertOp) and tensor_type(op.operand).element_type == element_type:
        return op.operand
    return convert(weight, element_type)


def with_operand(op: ir.OpView, place: int, value: ir.Value) -> ir.Value:
    """A copy of ``op``, at the insertion point, with another operand of the same type."""
    copy = op.operation.clone()
    copy.operands[place] = value
    result: ir.Value = copy.results[0]
    return result


def written(op: ir.OpView, value: ir.Value, type_: ir.Type, second: ir.Value | None = None) -> ir.Value:
    """A copy of ``op`` on operands of other sizes and another element type, with a result of ``type_``."""
    copy = op.operation.clone()
    copy.operands[0] = value
    if second is not None:
        copy.operands[1] = second
    copy.results[0].set_type(type_)
    for block in (block for region in copy.regions for block in region):
        scalar = ir.RankedTensorType.get([], tensor_type(value).element_type)
        for inner in (*block.arguments, *(result for each in block.operations for result in each.results)):
            inner.set_type(scalar)
    result: ir.Value = copy.results[0]
    return result


PRODUCERS: dict[type[ir.OpView], Callable[..., Plan | NoMatch]] = {
    hlo.ConvolutionOp: into_convolution,
    hlo.DotGeneralOp: into_dot_general,
    hlo.AddOp: through_add,
    hlo.SubtractOp: through_subtract,
    hlo.MulOp: through_multiply,
    hlo.DivOp: through_divide,
    hlo.BatchNormInferenceOp: into_batch_norm,
    hlo.ConcatenateOp: through_concatenate,
    hlo.PadOp: through_pad,
    hlo.MaxOp: through_maximum,
    hlo.MinOp: through_maximum,
    hlo.ClampOp: through_clamp,
    hlo.ReduceOp: through_reduce,
    hlo.ReduceWindowOp: through_reduce_window,
    hlo.ReshapeOp: through_reshape,
    hlo.TransposeOp: through_transpose,
    hlo.BroadcastInDimOp: through_broadcast,
    hlo.SliceOp: through_slice,
    hlo.ReverseOp: through_reverse,
    hlo.ConvertOp: through_convert,
}
