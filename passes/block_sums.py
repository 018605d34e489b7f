"""Several sums per feature in one pass over the operands: first over blocks of rows, then over blocks.

A sum of all rows at once is a loop over rows inside of a loop over features to XLA:CPU, which neither its vectors nor
its threads speed up; and two sums are two passes. A reduction of all terms at once, over a few rows, is one parallel
loop over features and blocks, whose inner loop is unrolled and whose sums stay in registers. Where float32 rows are
narrow, a block has several stretches of them: their terms are added before the reduction, and fewer sums are written
and read.

Before::

    %first = reduce add f(%x), %second = reduce add g(%x) over rows

After, with ``rows`` rows a block::

    %blocks = reshape %x : [blocks, rows, features]
    %a, %b, ... = slice %blocks : each stretch, or all rows
    %firsts, %seconds = reduce (add, add) f(%a) + f(%b) + ..., g(%a) + g(%b) + ... over [1]
    ... and so again, until what is left is small
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import convert, product, reshape, shape_of, splat, tensor_type
from stablenorm.passes.sizes import Size, in_shape, part_of, product_of, quotient_of, sizes_of

Axes = Sequence[int]
# Of operands and their feature axes, the terms to sum.
Terms = Callable[[Sequence[ir.Value], Axes], Sequence[ir.Value]]

# How many rows a block may have, the best first: fewer are more to write and read between two steps; LLVM does not
# always unroll a loop over 16. One that ends within a row of an image, or an image of a volume, is for sizes that allow
# no other: where XLA cannot cancel the division of an index, its loop has no vectors, and a step takes twice as long.
_ROWS = (14, 13, 12, 11, 10, 9, 8, 7, 6, 5)
# Blocks of float32 rows that are so narrow may have more, in so many stretches: each is a load in one unrolled loop
# over 8, 7, 6 or 5. Wider rows of a power of two meet in one place of the first cache; types to convert are slower so.
# Of these, none may end within a sample either, for the same reason: images of 7x7 are cut into blocks of 14.
_MORE_ROWS = (32, 28, 24, 20)
_STRETCHES = 4
_NARROW = 512
# Neighbours along the minor dimension are added where this many of them, a few vectors, are left side by side.
_SIDE_BY_SIDE = 16
# Less than this many elements are summed at once.
_SMALL = 16384


class _Blocks(NamedTuple):
    """Where to cut: ``shape`` and its feature ``axes``, with blocks of ``rows`` along the dimension ``place``."""

    shape: list[Size]
    axes: list[int]
    place: int
    rows: int
    is_minor: bool

    @property
    def is_known(self) -> bool:
        return isinstance(self.shape[self.place], int)

    @property
    def preference(self) -> tuple[bool, bool, bool, int]:
        return self.rows >= min(_ROWS), self.is_known, not self.is_minor, self.rows

    @property
    def length(self) -> Size:
        return quotient_of(self.shape[self.place], self.rows)

    def cut(self, x: ir.Value) -> list[ir.Value]:
        """The rows of each block along a dimension: neighbours; or, along the minor dimension, a stretch each.

        Of blocks with more rows, one tensor for each of their stretches.
        """
        shape: list[Size] = [self.rows, self.length] if self.is_minor else [self.length, self.rows]
        kept = self._part(x, 0, product_of([self.rows, self.length]))
        blocks = in_shape(kept, [*self.shape[: self.place], *shape, *self.shape[self.place + 1 :]])
        if self.rows not in _MORE_ROWS:
            return [blocks]
        rows = self.rows // _STRETCHES
        return [part_of(blocks, self.row, start, start + rows) for start in range(0, self.rows, rows)]

    @property
    def row(self) -> int:
        return self.place if self.is_minor else self.place + 1

    @property
    def cut_axes(self) -> list[int]:
        return [axis if axis < self.place else axis + 1 for axis in self.axes]

    def rest(self, x: ir.Value) -> ir.Value | None:
        """What no block holds."""
        start, limit = product_of([self.rows, self.length]), self.shape[self.place]
        return None if start == limit else self._part(x, start, limit)

    def _part(self, x: ir.Value, start: Size, limit: Size) -> ir.Value:
        if (start, limit) == (0, self.shape[self.place]):
            return x
        if isinstance(tensor_type(x).element_type, ir.BF16Type):
            x = convert(x, ir.F32Type.get())  # XLA:CPU does it anyway, and writes a slice that it converted back
        return part_of(x, self.place, start, limit)


def sums(operands: Sequence[ir.Value], axes: Axes, terms: Terms, steps: int = 2) -> list[ir.Value]:
    """The sum of each of ``terms(operands, axes)`` over all dimensions but ``axes``; operands have one shape.

    ``terms`` is elementwise, and is called with parts of reshaped operands. Rows whose number is not known are cut into
    blocks ``steps`` times.
    """
    blocks = _blocks(operands[0], axes)
    if blocks is None or not (blocks.is_known or steps):
        return [sum_features(term, axes) for term in terms(operands, axes)]
    operands = [in_shape(operand, blocks.shape) for operand in operands]
    stretches = [terms(stretch, blocks.cut_axes) for stretch in zip(*map(blocks.cut, operands), strict=True)]
    added = [functools.reduce(hlo.add, parts) for parts in zip(*stretches, strict=True)]
    each = _reduce(hlo.add, 0.0, added, [blocks.row])
    results = sums(each, blocks.axes, lambda each, _: each, steps if blocks.is_known else steps - 1)
    rest = [part for x in operands if (part := blocks.rest(x)) is not None]
    if not rest:
        return results
    more = [sum_features(term, blocks.axes) for term in terms(rest, blocks.axes)]
    return [hlo.add(*pair) for pair in zip(results, more, strict=True)]


def sums_at_once(operands: Sequence[ir.Value], axes: Axes, terms: Terms) -> list[ir.Value]:
    """`sums` in one reduction of all terms over all rows, without blocks."""
    values = terms(operands, axes)
    return _reduce(hlo.add, 0.0, values, _others(values[0], axes))


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
    (largest,) = _reduce(hlo.maximum, -math.inf, [copies], [0])
    shape = [shape_of(vector) for vector in vectors]
    return [reshape(part_of(largest, 0, number, number + 1), each) for number, each in enumerate(shape)]


def sum_features(x: ir.Value, axes: Axes) -> ir.Value:
    """The sum of a tensor over all dimensions but ``axes``."""
    return sum_over(x, _others(x, axes))


def sum_over(x: ir.Value, dimensions: Axes) -> ir.Value:
    """The sum of a tensor over ``dimensions``."""
    return _reduce(hlo.add, 0.0, [x], dimensions)[0]


def _others(x: ir.Value, axes: Axes) -> list[int]:
    return [place for place in range(len(shape_of(x))) if place not in axes]


def _reduce(
    combine: Callable[..., ir.Value], start: float, values: Sequence[ir.Value], dimensions: Axes
) -> list[ir.Value]:
    """Tensors of one type reduced in one loop, each by itself."""
    element_type = tensor_type(values[0]).element_type
    kept = [size for place, size in enumerate(shape_of(values[0])) if place not in dimensions]
    result, scalar = (ir.RankedTensorType.get(shape, element_type) for shape in (kept, []))
    count = len(values)
    op = hlo.ReduceOp([result] * count, values, [splat(start, [], element_type)] * count, list(dimensions))
    block = op.body.blocks.append(*[scalar] * (2 * count))
    with ir.InsertionPoint(block):
        pairs = zip(block.arguments[:count], block.arguments[count:], strict=True)
        hlo.ReturnOp([combine(*pair) for pair in pairs])
    return list(op.results)


def _is_large(x: ir.Value) -> bool:
    return not tensor_type(x).has_static_shape or product(shape_of(x)) >= _SMALL


def _blocks(x: ir.Value, axes: Axes) -> _Blocks | None:
    """Where to cut: a run of dimensions that are no feature's; where it is long enough, not the minor one.

    Each run is made one dimension, which is one loop.
    """
    if not _is_large(x):
        return None
    sizes, is_float32 = sizes_of(x), isinstance(tensor_type(x).element_type, ir.F32Type)
    spans = sorted([*runs(len(sizes), axes), *((axis, axis + 1) for axis in axes)])
    shape = [product_of(sizes[first:last]) for first, last in spans]
    places = [place for place, (first, _) in enumerate(spans) if first in axes]
    each = [
        _run(shape, places, place, sizes[first:last], is_float32)
        for place, (first, last) in enumerate(spans)
        if first not in axes
    ]
    return max((run for run in each if run is not None), key=lambda run: run.preference, default=None)


def runs(rank: int, axes: Axes) -> Iterator[tuple[int, int]]:
    """First and last but one of each run of dimensions that are no feature's."""
    edges = [-1, *sorted(axes), rank]
    return ((before + 1, after) for before, after in itertools.pairwise(edges) if before + 1 < after)


def _run(shape: list[Size], axes: list[int], place: int, sizes: Sequence[Size], is_float32: bool) -> _Blocks | None:
    """Blocks along the dimension ``place``, which joins dimensions of ``sizes``."""
    length, width, is_minor = shape[place], product_of(shape[place + 1 :]), place == len(shape) - 1
    if not isinstance(length, int):
        return _Blocks(shape, axes, place, _ROWS[0], is_minor)
    most = length // _SIDE_BY_SIDE if is_minor else length
    is_narrow = isinstance(width, int) and width <= _NARROW and not is_minor
    inner = [] if is_minor else [product_of(sizes[start:]) for start in range(1, len(sizes))]
    more = [rows for rows in _MORE_ROWS if is_float32 and is_narrow and _is_even(rows, inner)]
    even = [rows for rows in _ROWS if _is_even(rows, inner[1:])]  # samples they may straddle
    choice = [rows for rows in (*more, *even) if rows <= most] or [rows for rows in _ROWS if rows <= most]
    if not choice:
        return _Blocks(shape, axes, place, most, is_minor) if most > 1 else None
    rows = next((rows for rows in choice if length % rows == 0), choice[0])
    return _Blocks(shape, axes, place, rows, is_minor)


def _is_even(rows: int, sizes: Sequence[Size]) -> bool:
    """Whether no block of ``rows`` ends within one of ``sizes``: that is several blocks, or a block several of it."""
    return all(isinstance(size, int) and math.gcd(size, rows) in (size, rows) for size in sizes)
