"""Compact weights: a tensor of as many dimensions as the one that it applies to, of size 1 where it does not vary.

A scale or a shift of an activation is kept so: it says along which dimensions it varies, costs little to compute with,
and does not hold the batch. What emits does so at the current insertion point.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import convert, integers, product, reshape, shape_of, splat, tensor_type
from stablenorm.passes.matching import defining_op
from stablenorm.passes.sizes import sizes_of, vector_of
from stablenorm.passes.weights import Weights

Dims = frozenset[int]


@dataclasses.dataclass(frozen=True)
class Compact:
    """A weight seen as compact: the dimensions along which it varies, how to emit it, and what it repeats."""

    dims: Dims
    emit: Callable[[], ir.Value]
    source: ir.Value


def compact(value: ir.Value, weights: Weights) -> Compact | None:
    """``value`` as compact; None where it depends on the model's inputs (a broadcast's sizes may)."""
    op = defining_op(value)
    if isinstance(op, hlo.BroadcastInDimOp | hlo.DynamicBroadcastInDimOp):
        return _broadcast(op, weights)
    if not weights.is_weight(value):
        return None
    if isinstance(op, hlo.ConvertOp):
        inner = compact(op.operand, weights)
        element_type = tensor_type(value).element_type
        return inner and Compact(inner.dims, lambda: convert(inner.emit(), element_type), inner.source)
    if isinstance(op, hlo.ConstantOp) and _is_splat(op):
        return Compact(frozenset(), lambda: _filled(op), value)
    sizes = shape_of(value)
    return Compact(frozenset(place for place, size in enumerate(sizes) if size != 1), lambda: value, value)


def _broadcast(op: hlo.BroadcastInDimOp | hlo.DynamicBroadcastInDimOp, weights: Weights) -> Compact | None:
    inner = compact(op.operands[0], weights)
    if inner is None:
        return None
    places, sizes = integers(op, "broadcast_dimensions"), shape_of(op.operands[0])
    target = [1] * len(shape_of(op.results[0]))
    for place in inner.dims:
        target[places[place]] = sizes[place]

    def emit() -> ir.Value:
        value = inner.emit()
        type_ = ir.RankedTensorType.get(target, tensor_type(value).element_type)
        return value if type_ == value.type else hlo.broadcast_in_dim(type_, value, places)

    return Compact(frozenset(places[place] for place in inner.dims), emit, inner.source)


def _is_splat(op: hlo.ConstantOp) -> bool:
    attribute = op.attributes["value"]
    return isinstance(attribute, ir.DenseElementsAttr) and bool(ir.DenseElementsAttr(attribute).is_splat)


def _filled(op: hlo.ConstantOp) -> ir.Value:
    type_ = tensor_type(op.result)
    number = ir.DenseElementsAttr(op.attributes["value"]).get_splat_value()
    one = ir.RankedTensorType.get([1] * type_.rank, type_.element_type)
    return hlo.constant(ir.DenseElementsAttr.get_splat(one, number))


def from_vector(vector: ir.Value, axis: int, rank: int) -> ir.Value:
    """A vector along ``axis`` of a tensor of ``rank`` dimensions."""
    size = shape_of(vector)[0]
    return reshape(vector, [size if place == axis else 1 for place in range(rank)])


def varies_only_along(value: ir.Value, axis: int) -> bool:
    """Whether a compact is of size 1 in all other dimensions."""
    return all(size == 1 for dim, size in enumerate(shape_of(value)) if dim != axis)


def vector_along(value: ir.Value, axis: int, size: int) -> ir.Value:
    """A compact that varies only along ``axis``, as a vector of ``size`` elements."""
    op = defining_op(value)
    if isinstance(op, hlo.ReshapeOp) and shape_of(op.operand) == (size,):  # it was one
        return op.operand
    return reshape(spread(value, [size if dim == axis else 1 for dim in range(len(shape_of(value)))]), [size])


def spread(value: ir.Value, sizes: Sequence[int]) -> ir.Value:
    """``value`` repeated to ``sizes``, which equal its own or meet a 1."""
    type_ = ir.RankedTensorType.get(list(sizes), tensor_type(value).element_type)
    return value if type_ == value.type else hlo.broadcast_in_dim(type_, value, list(range(type_.rank)))


def join(op: Callable[[ir.Value, ir.Value], ir.Value], a: ir.Value, b: ir.Value) -> ir.Value:
    """An elementwise operation on two compact tensors of one rank."""
    sizes = [max(pair) if 0 not in pair else 0 for pair in zip(shape_of(a), shape_of(b), strict=True)]
    return op(spread(a, sizes), spread(b, sizes))


def apply(op: Callable[[ir.Value, ir.Value], ir.Value], x: ir.Value, parameter: ir.Value) -> ir.Value:
    """An elementwise operation on a tensor and a compact one, in the tensor's type; dynamic sizes included."""
    narrow = convert(parameter, tensor_type(x).element_type)
    sizes = shape_of(narrow)
    kept = [place for place, size in enumerate(sizes) if size != 1]
    vector = reshape(narrow, [sizes[place] for place in kept])
    result = ir.RankedTensorType.get(list(shape_of(x)), tensor_type(x).element_type)
    if result.has_static_shape:
        return op(x, hlo.broadcast_in_dim(result, vector, kept))
    return op(x, hlo.dynamic_broadcast_in_dim(result, vector, vector_of(sizes_of(x)), kept))


def filled(number: float, rank: int, element_type: ir.Type) -> ir.Value:
    """One number, everywhere."""
    return splat(number, [1] * rank, element_type)


def concatenated(parts: Sequence[ir.Value | None], sizes: Sequence[int], axis: int, neutral: float) -> ir.Value | None:
    """Compacts side by side along ``axis``, ``neutral`` where there is none; None where there is none at all."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    one = filled(neutral, len(shape_of(known[0])), tensor_type(known[0]).element_type)
    shape = [max(dims) for dims in zip(*map(shape_of, known), strict=True)]
    shapes = [[size if dim == axis else n for dim, n in enumerate(shape)] for size in sizes]
    return hlo.concatenate([spread(part or one, own) for part, own in zip(parts, shapes, strict=True)], axis)


def reshape_groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """How a reshape maps dimensions: the finest runs of ``before`` and ``after`` that hold the same elements."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = ([i] if i < len(before) else []), ([j] if j < len(after) else [])
        while (a := product([before[p] for p in left])) != (b := product([after[p] for p in right])):
            grown = left if (a < b or not right or right[-1] + 1 >= len(after)) else right
            sizes = before if grown is left else after
            following = (grown[-1] + 1) if grown else (i if grown is left else j)
            if following >= len(sizes):
                return [(list(range(len(before))), list(range(len(after))))]
            grown.append(following)
        groups.append((left, right))
        i, j = (left[-1] + 1 if left else i), (right[-1] + 1 if right else j)
    return groups


def reshaped(value: ir.Value, before: Sequence[int], after: Sequence[int]) -> ir.Value:
    """A compact of a tensor of sizes ``before``, carried through its reshape to ``after``."""
    full, target = list(shape_of(value)), [1] * len(after)
    for left, right in reshape_groups(before, after):
        if any(full[place] != 1 for place in left):
            for place in left:
                full[place] = before[place]
            for place in right:
                target[place] = after[place]
    return reshape(spread(value, full), target)


def dims_after_reshape(dims: Dims, before: Sequence[int], after: Sequence[int]) -> Dims:
    groups = reshape_groups(before, after)
    return frozenset(place for left, right in groups if dims & set(left) for place in right if after[place] != 1)
