"""Several sums per feature in one pass over the operands, as XLA:GPU makes one of.

XLA:GPU joins sums along the minor dimension (features first) into one kernel, and leaves float64 sums along another
(features last) apart, a pass over the operands each: one takes 34 of 48 KB of shared memory. A window that walks over
many rows is a plain loop to it, which has any number of results; neighbouring threads read neighbouring features.

Before::

    %first = reduce add f(%x), %second = reduce add g(%x) over rows

After, with ``rows`` rows a window::

    %firsts, %seconds = reduce_window (add, add) f(%x), g(%x) : [windows, features]
    %first = reduce add %firsts, %second = reduce add %seconds
"""

from __future__ import annotations

import array
from collections.abc import Sequence

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.block_sums import Axes, Terms, runs, sum_features
from stablenorm.passes.building import product, reshape, shape_of, splat, tensor_type

# About one for each place that a large GPU has for a thread: with fewer, memory waits; with more, sums are written.
_THREADS = 131072
_FEWEST_ROWS, _MOST_ROWS = 16, 512
# Where this many neighbours are summed, XLA's own reduction writes little.
_LONG = 128


def window_sums(operands: Sequence[ir.Value], axes: Axes, terms: Terms) -> list[ir.Value]:
    """The sum of each of ``terms(operands, axes)`` over all dimensions but ``axes``; operands have one shape."""
    run = _run(operands[0], axes)
    if run is None:
        return [sum_features(term, axes) for term in terms(operands, axes)]
    first, last = run
    shape = shape_of(operands[0])
    length = product(shape[first:last])
    joined = [*shape[:first], length, *shape[last:]]
    moved = [axis if axis < first else axis - (last - first - 1) for axis in axes]
    rows = min(length, max(_FEWEST_ROWS, min(_MOST_ROWS, -(-product(shape) // _THREADS))))
    windows = _over_windows(terms([reshape(x, joined) for x in operands], moved), first, rows)
    return [sum_features(each, moved) for each in windows]


def _run(x: ir.Value, axes: Axes) -> tuple[int, int] | None:
    """First and last but one of the dimensions to walk over; None where XLA's own reduction is one pass."""
    shape = shape_of(x)
    if not tensor_type(x).has_static_shape:
        return None
    lengths = {run: product(shape[slice(*run)]) for run in runs(len(shape), axes)}
    if any(last == len(shape) and length >= _LONG for (_, last), length in lengths.items()):
        return None
    others = {run: length for run, length in lengths.items() if run[1] < len(shape)}
    longest = max(others, key=others.__getitem__, default=None)
    return longest if longest is not None and others[longest] > _FEWEST_ROWS else None


def _over_windows(values: Sequence[ir.Value], place: int, rows: int) -> list[ir.Value]:
    """Sums of every ``rows`` neighbours along a dimension."""
    type_ = tensor_type(values[0])
    count, length = -(-type_.shape[place] // rows), type_.shape[place]
    window = [rows if number == place else 1 for number in range(type_.rank)]
    padding = array.array("q", [0, 0] * type_.rank)
    padding[2 * place + 1] = count * rows - length
    shape = [count if number == place else size for number, size in enumerate(type_.shape)]
    scalar = ir.RankedTensorType.get([], type_.element_type)
    op = hlo.ReduceWindowOp(
        [ir.RankedTensorType.get(shape, type_.element_type)] * len(values),
        values,
        [splat(0.0, [], type_.element_type)] * len(values),
        window,
        window_strides=window,
        padding=ir.DenseElementsAttr.get(padding, shape=[type_.rank, 2]),
    )
    block = op.body.blocks.append(*[scalar] * (2 * len(values)))
    with ir.InsertionPoint(block):
        pairs = zip(block.arguments[: len(values)], block.arguments[len(values) :], strict=True)
        hlo.ReturnOp([hlo.add(*pair) for pair in pairs])
    return list(op.results)
