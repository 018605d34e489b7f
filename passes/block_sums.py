"""Several sums per feature in one pass over the operands: first over blocks of rows, then over blocks.

A sum of all rows at once is a loop over rows inside of a loop over features to XLA:CPU, which neither its vectors nor
its threads speed up; and two sums are two passes. So a block's rows are added in the graph, as a tree of slices, with
features and blocks as the elementwise loop around them, and the partial sums of all terms lie in one array, block by
block: XLA makes one parallel loop of it, in which the second term finds the block in the nearest cache.

Before::

    %first = reduce add f(%x), %second = reduce add g(%x) over rows

After, with ``size`` rows a block::

    %block = concatenate(tree add f(slice(%x, row :: size)), tree add g(slice(%x, row :: size)))
    %both = reduce add %block
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import product, reshape, shape_of, splat, tensor_type

Axes = Sequence[int]
# Of slices of the operands and their feature axes, the terms to sum.
Terms = Callable[[Sequence[ir.Value], Axes], Sequence[ir.Value]]

# More rows a block are less to write and read between the two steps; they are also more to compile.
_ROWS = 16
# The rows of a block stay in a cache of 32 KB; its 8 ways hold as many rows that lie a multiple of 4 KB apart.
_BLOCK_BYTES, _WAYS = 32768, 8
# Neighbours along the minor dimension are added where this many of them, a few vectors, are left side by side.
_SIDE_BY_SIDE = 16
# Less than this many elements are summed at once.
_SMALL = 16384


class _Blocks(NamedTuple):
    """A shape, its feature axes, and how many rows of each block lie along its dimension ``place``."""

    shape: list[int]
    axes: list[int]
    place: int
    rows: int
    is_minor: bool

    @property
    def length(self) -> int:
        return self.shape[self.place] // self.rows

    def row(self, x: ir.Value, number: int) -> ir.Value:
        """Row ``number`` of every block: its ``number``-th neighbour; along the minor dimension, a stretch of it."""
        if self.is_minor:
            return _slice(x, self.place, number * self.length, (number + 1) * self.length)
        return _slice(x, self.place, number, (self.length - 1) * self.rows + number + 1, self.rows)

    def rest(self, x: ir.Value) -> ir.Value | None:
        """What no block holds."""
        start, limit = self.length * self.rows, self.shape[self.place]
        return _slice(x, self.place, start, limit) if start < limit else None


def sums(operands: Sequence[ir.Value], axes: Axes, terms: Terms) -> list[ir.Value]:
    """The sum of each of ``terms(operands, axes)`` over all dimensions but ``axes``; operands have one shape.

    ``terms`` is elementwise, and is called with slices of reshaped operands.
    """
    blocks = _blocks(operands[0], axes)
    if blocks is None:
        return [sum_features(term, axes) for term in terms(operands, axes)]
    operands = [reshape(operand, blocks.shape) for operand in operands]
    each = [terms([blocks.row(x, number) for x in operands], blocks.axes) for number in range(blocks.rows)]
    results = _sum_side_by_side([_tree(column) for column in zip(*each, strict=True)], blocks)
    rest = [part for x in operands if (part := blocks.rest(x)) is not None]
    if not rest:
        return results
    more = [sum_features(term, blocks.axes) for term in terms(rest, blocks.axes)]
    return [hlo.add(*pair) for pair in zip(results, more, strict=True)]


def computed_once(vectors: Sequence[ir.Value], like: ir.Value) -> list[ir.Value]:
    """The vectors, of one type, in a form that XLA does not compute again for each element of ``like``.

    XLA fuses all that is cheap into its consumers; a reduction is not. So this is one: the maximum of two copies.
    """
    if not _is_large(like):
        return list(vectors)
    rows = hlo.concatenate([reshape(vector, [1, *shape_of(vector)]) for vector in vectors], 0)
    type_ = tensor_type(rows)
    copies = hlo.broadcast_in_dim(
        ir.RankedTensorType.get([2, *type_.shape], type_.element_type), rows, list(range(1, len(type_.shape) + 1))
    )
    largest = _reduce(hlo.maximum, -math.inf, copies, [0])
    shape = [shape_of(vector) for vector in vectors]
    return [reshape(_slice(largest, 0, number, number + 1), each) for number, each in enumerate(shape)]


def sum_features(x: ir.Value, axes: Axes) -> ir.Value:
    """The sum of a tensor over all dimensions but ``axes``."""
    return sum_over(x, [place for place in range(len(shape_of(x))) if place not in axes])


def sum_over(x: ir.Value, dimensions: Axes) -> ir.Value:
    """The sum of a tensor over ``dimensions``."""
    return _reduce(hlo.add, 0.0, x, dimensions)


def _reduce(combine: Callable[..., ir.Value], start: float, x: ir.Value, dimensions: Axes) -> ir.Value:
    element_type = tensor_type(x).element_type
    kept = [size for place, size in enumerate(shape_of(x)) if place not in dimensions]
    result = ir.RankedTensorType.get(kept, element_type)
    op = hlo.ReduceOp([result], [x], [splat(start, [], element_type)], list(dimensions))
    scalar = ir.RankedTensorType.get([], element_type)
    block = op.body.blocks.append(scalar, scalar)
    with ir.InsertionPoint(block):
        hlo.ReturnOp([combine(*block.arguments)])
    total: ir.Value = op.results[0]
    return total


def _is_large(x: ir.Value) -> bool:
    return tensor_type(x).has_static_shape and product(shape_of(x)) >= _SMALL


def _blocks(x: ir.Value, axes: Axes) -> _Blocks | None:
    """Where to cut: the longest run of dimensions that are no feature's, made one; rather not the minor ones."""
    if not _is_large(x):
        return None
    shape = list(shape_of(x))
    runs = [_run(shape, axes, first, last) for first, last in _ends(len(shape), axes)]
    return max((run for run in runs if run is not None), key=lambda run: (run.rows, not run.is_minor), default=None)


def _ends(rank: int, axes: Axes) -> Iterator[tuple[int, int]]:
    """First and last but one of each run of dimensions that are no feature's."""
    edges = [-1, *sorted(axes), rank]
    return ((before + 1, after) for before, after in itertools.pairwise(edges) if before + 1 < after)


def _run(shape: list[int], axes: Axes, first: int, last: int) -> _Blocks | None:
    length, is_minor = product(shape[first:last]), last == len(shape)
    joined = [*shape[:first], length, *shape[last:]]
    moved = [axis if axis < first else axis - (last - first - 1) for axis in axes]
    if is_minor:
        rows = min(_ROWS, length // _SIDE_BY_SIDE)
    else:
        row_bytes = 4 * product(shape[last:])
        rows = min(length, _ROWS, max(_WAYS, _BLOCK_BYTES // row_bytes))
    return _Blocks(joined, moved, first, rows, is_minor) if rows > 1 else None


def _tree(values: Sequence[ir.Value]) -> ir.Value:
    """Their sum, in pairs of pairs: additions that do not wait for each other."""
    half = len(values) // 2
    return hlo.add(_tree(values[:half]), _tree(values[half:])) if half else values[0]


def _sum_side_by_side(values: Sequence[ir.Value], blocks: _Blocks) -> list[ir.Value]:
    """The sums of several tensors, which are one array until they are summed."""
    if len(values) == 1:
        return [sum_features(values[0], blocks.axes)]
    # As near to each other as their elements that are computed together.
    place = blocks.place if blocks.is_minor else blocks.place + 1
    shape = [*shape_of(values[0])]
    both = hlo.concatenate([reshape(value, [*shape[:place], 1, *shape[place:]]) for value in values], place)
    axes = sorted([place, *(axis if axis < place else axis + 1 for axis in blocks.axes)])
    total, number = sum_features(both, axes), axes.index(place)
    kept = [shape[axis] for axis in blocks.axes]
    return [reshape(_slice(total, number, each, each + 1), kept) for each in range(len(values))]


def _slice(x: ir.Value, place: int, start: int, limit: int, stride: int = 1) -> ir.Value:
    starts, limits, strides = [0] * len(shape_of(x)), list(shape_of(x)), [1] * len(shape_of(x))
    starts[place], limits[place], strides[place] = start, limit, stride
    return hlo.slice(x, starts, limits, strides)
