"""What a map ``s*x + t`` becomes where elements move: s and t move with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import convert, integers, product, reshape, shape_of, tensor_type
from stablenorm.passes.compact import (
    concatenated,
    dims_after_reshape,
    filled,
    reshaped,
    spread,
)
from stablenorm.passes.copies import with_operand, with_operands, written
from stablenorm.passes.matching import gathered_whole, splat_number
from stablenorm.passes.pending import Form, Pending, Step, dims_of, each, union
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.weights import Weights


def through_reshape(op: hlo.ReshapeOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """A reshape moves, merges or splits dimensions; so it does with what varies along them."""
    before, after = shape_of(op.operand), shape_of(op.result)
    if product(before) == 0:
        return NoMatch("a reshape of no elements")
    return Step(
        dims_of(form, lambda dims: dims_after_reshape(dims, before, after)),
        lambda pending: each(op, lambda value: reshaped(value, before, after), pending),
    )


def through_transpose(op: hlo.TransposeOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """A transpose moves dimensions."""
    order = integers(op, "permutation")
    return Step(
        dims_of(form, lambda dims: frozenset(order.index(dim) for dim in dims)),
        lambda pending: each(op, lambda value: hlo.transpose(value, order), pending),
    )


def through_broadcast(op: hlo.BroadcastInDimOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """A shift moves with the dimensions, and is not repeated; a scale would be for each repetition."""
    if form.scale is not None:
        return NoMatch("a broadcast, behind which the scale would be computed for each repetition")
    places, rank = integers(op, "broadcast_dimensions"), len(shape_of(op.result))

    def part(value: ir.Value) -> ir.Value:
        sizes = dict(zip(places, shape_of(value), strict=True))
        target = [sizes.get(dim, 1) for dim in range(rank)]
        type_ = ir.RankedTensorType.get(target, tensor_type(value).element_type)
        return hlo.broadcast_in_dim(type_, value, places)

    return Step(
        dims_of(form, lambda dims: frozenset(places[dim] for dim in dims)), lambda pending: each(op, part, pending)
    )


def through_gather(op: hlo.GatherOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """A gather of whole channels, as a resizing makes, moves their dimension."""
    places, rank = gathered_whole(op), len(shape_of(op.result))
    if place != 0 or not all(dims is None or dims <= set(places) for dims in (form.scale, form.shift)):
        return NoMatch("a gather takes a part of a dimension along which it varies")

    def part(value: ir.Value) -> ir.Value:
        sizes = {places[dim]: size for dim, size in enumerate(shape_of(value)) if size != 1}
        return reshape(value, [sizes.get(dim, 1) for dim in range(rank)])

    return Step(
        dims_of(form, lambda dims: frozenset(places[dim] for dim in dims)), lambda pending: each(op, part, pending)
    )


def through_slice(op: hlo.SliceOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """A slice of x takes the slice of s and t."""
    start, limit, stride = (integers(op, name) for name in ("start_indices", "limit_indices", "strides"))

    def part(value: ir.Value) -> ir.Value:
        sizes = shape_of(value)
        bounds = zip(start, limit, stride, strict=True)
        first, last, step = zip(
            *(b if size != 1 else (0, 1, 1) for b, size in zip(bounds, sizes, strict=True)), strict=True
        )
        return hlo.slice(value, first, last, step)

    return Step(form, lambda pending: each(op, part, pending))


def through_reverse(op: hlo.ReverseOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """Reversed x takes s and t reversed."""
    return Step(form, lambda pending: each(op, lambda value: written(op, value, value.type), pending))


def through_pad(op: hlo.PadOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """``pad(s*x + t, p) = s*pad(x, 0) + pad(t, p)``, any p"""
    names = ("edge_padding_low", "edge_padding_high", "interior_padding")
    sizes_added = zip(*(integers(op, name) for name in names), strict=True)
    padded = frozenset(dim for dim, sizes in enumerate(sizes_added) if any(sizes))
    if place == 1 or not weights.is_weight(op.padding_value):
        return NoMatch("a pad with a value that depends on the model's inputs")
    if form.scale is not None and form.scale & padded:
        return NoMatch("a pad of a dimension along which it scales")
    is_zero = splat_number(op.padding_value) == 0.0
    if form.shift is None and is_zero:
        return Step(form, lambda pending: dataclasses.replace(pending, value=with_operand(op, 0, pending.value)))
    before, after = shape_of(op.operand), shape_of(op.result)
    if any(before[d] < 0 for d in padded):
        return NoMatch("a pad of a dimension whose size is known only when the program runs")

    def act(pending: Pending) -> Pending:
        known = pending.scale if pending.shift is None else pending.shift
        assert known is not None
        element_type = tensor_type(known).element_type
        shift = filled(0.0, len(before), element_type) if pending.shift is None else pending.shift
        sizes = [before[d] if d in padded else size for d, size in enumerate(shape_of(shift))]
        result = [after[d] if d in padded else size for d, size in enumerate(sizes)]
        fill = convert(op.padding_value, element_type)
        border = written(op, spread(shift, sizes), ir.RankedTensorType.get(result, element_type), fill)
        zero = filled(0.0, 0, tensor_type(pending.value).element_type)
        value = op.operation.clone()
        value.operands[0], value.operands[1] = pending.value, zero
        return Pending(value.results[0], pending.scale, border)

    return Step(form.after(form.scale, union(form.shift, padded)), act)


def through_concatenate(op: hlo.ConcatenateOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """``concat(s*x + t, z) = concat(s, 1) * concat(x, z) + concat(t, 0)``"""
    joined = concatenated_form(op, {place: form})
    if isinstance(joined, NoMatch):
        return joined
    return Step(joined, lambda pending: concatenated_pending(op, {place: pending}))


def concatenated_form(op: hlo.ConcatenateOp, forms: Mapping[int, Form]) -> Form | NoMatch:
    """What is known of the map behind a concatenation, of those of its operands that have one, by their places."""
    axis = _axis(op)
    if any(shape_of(operand)[axis] < 0 for operand in op.operands):
        return NoMatch("a concatenation along a dimension whose size is known only when the program runs")
    scale, shift = (
        frozenset({axis}).union(*dims) if dims else None
        for dims in (
            [form.scale for form in forms.values() if form.scale is not None],
            [form.shift for form in forms.values() if form.shift is not None],
        )
    )
    return Form(
        scale,
        shift,
        passes_maxima=all(form.passes_maxima for form in forms.values()),
        distance=max(form.distance for form in forms.values()),
        is_half=all(form.is_half for form in forms.values()),
    )


def concatenated_pending(op: hlo.ConcatenateOp, pendings: Mapping[int, Pending]) -> Pending:
    """The concatenation of the values, and what stands beside it."""
    axis, places = _axis(op), range(len(op.operands))
    sizes = [shape_of(operand)[axis] for operand in op.operands]
    scales = [pendings[place].scale if place in pendings else None for place in places]
    shifts = [pendings[place].shift if place in pendings else None for place in places]
    value = with_operands(op, {place: pending.value for place, pending in pendings.items()})
    taken = tuple(weight for pending in pendings.values() for weight in pending.taken)
    return Pending(value, concatenated(scales, sizes, axis, 1.0), concatenated(shifts, sizes, axis, 0.0), taken)


def _axis(op: hlo.ConcatenateOp) -> int:
    axis: int = ir.IntegerAttr(op.attributes["dimension"]).value
    return axis
