"""skip-places: what every reader skips is not computed.

Convolutions of one place with stride s read every s-th place. To take every s-th place commutes with what is computed
place by place, and is one more stride to a convolution::

    take(x + y, s) = take(x, s) + take(y, s)
    take(max(x, y), s) = max(take(x, s), take(y, s))
    take(conv(x, W; stride r), s) = conv(x, W; stride r * s)

ResNet-50's last block of a stage is read like that, by the two first convolutions of the next: a quarter of its last
sum counts, and so on up, over the bias, the ReLU and the residual addition, to its convolution of three by three. Where
a value on the way has other readers, it is sliced. Three blocks of ResNet-50 then cost a tenth of the folded network's
traffic less. Between convolutions there are only such operations once batch norms are folded.

Before::

    %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {pad = [[1, 1]]}
        : (tensor<1x8x3xf32>, tensor<3x3x6xf32>) -> tensor<1x8x6xf32>
    %1 = stablehlo.maximum %0, %zero : tensor<1x8x6xf32>
    %y = stablehlo.convolution(%1, %v) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {stride = [2]}
        : (tensor<1x8x6xf32>, tensor<1x6x9xf32>) -> tensor<1x4x9xf32>

After::

    %0 = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f],
        window = {stride = [2], pad = [[1, 1]]} : (tensor<1x8x3xf32>, tensor<3x3x6xf32>) -> tensor<1x4x6xf32>
    %1 = stablehlo.maximum %0, %zero : tensor<1x4x6xf32>
    %y = stablehlo.convolution(%1, %v) dim_numbers = [b, 0, f]x[0, i, o]->[b, 0, f], window = {stride = [1]}
        : (tensor<1x4x6xf32>, tensor<1x6x9xf32>) -> tensor<1x4x9xf32>
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Pass, PassContext
from stablenorm.passes.building import integers, shape_of, splat, tensor_type
from stablenorm.passes.matching import defining_op, single_use, splat_number
from stablenorm.passes.rewriting import NoMatch, copy_as, functions, operations_of, sweep
from stablenorm.passes.windows import why_not_plain, window_of

# For each dimension of a value: every how many-th place is read.
Steps = tuple[int, ...]

_PLACE_BY_PLACE = hlo.AddOp | hlo.MaxOp | hlo.MinOp | hlo.ClampOp
# Operations on the way up: blocks of networks are short.
_LONGEST = 20


@dataclasses.dataclass(frozen=True)
class SkipPlaces(Pass):
    """Moves the strides of convolutions of one place up, to the convolutions that compute what they read."""

    name: ClassVar[str] = "skip-places"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for function in functions(module):
            while _skip_once(function):
                sweep(module)  # what is replaced must not count as a reader


@dataclasses.dataclass(frozen=True)
class _Taken:
    """The places of a value that are read: how many convolutions compute fewer, what is sliced, and how it is built."""

    convolutions: int
    slices: int
    build: Callable[[], ir.Value]


def _skip_once(function: func.FuncOp) -> bool:
    return any(not isinstance(_skip(op), NoMatch) for op in operations_of(function, hlo.ConvolutionOp))


def _skip(op: hlo.ConvolutionOp) -> NoMatch | None:
    """Changes a convolution and all others that read the same value, or nothing."""
    steps, source = _skipped(op), defining_op(op.lhs)
    if isinstance(steps, NoMatch) or source is None:
        return NoMatch("it skips nothing that is computed")
    if any(use.operand_number != 0 for use in op.lhs.uses):
        return NoMatch("what it skips is a kernel, or another operation's second operand")
    readers = [use.owner.opview for use in op.lhs.uses]
    if any(not isinstance(reader, hlo.ConvolutionOp) or _skipped(reader) != steps for reader in readers):
        return NoMatch("what it skips has another reader")
    taken = _through(source, op.lhs, steps, _LONGEST)
    if taken.convolutions == 0 or taken.convolutions < taken.slices:
        return NoMatch("no convolution would compute less, or too much would be sliced")
    with ir.InsertionPoint(source), source.location:
        places = taken.build()
        every = ir.DenseI64ArrayAttr.get([1] * len(window_of(op).sizes))
    for reader in readers:
        reader.operation.operands[0] = places
        reader.operation.attributes["window_strides"] = every
    return None


def _skipped(op: hlo.ConvolutionOp) -> Steps | NoMatch:
    """The steps at which a convolution reads its input and nothing between."""
    why = why_not_plain(op)
    if why is not None:
        return NoMatch(why)
    window = window_of(op)
    if window.places != 1 or any(map(any, window.padding)) or set(window.strides) == {1}:
        return NoMatch("it reads every place, or a border")
    by_dimension = dict(zip(window.numbers.input_spatial_dimensions, window.strides, strict=True))
    return tuple(by_dimension.get(dimension, 1) for dimension in range(len(shape_of(op.lhs))))


def _take(value: ir.Value, steps: Steps, left: int) -> _Taken:
    """Every so many-th place of a value."""
    if set(steps) <= {1}:
        return _Taken(0, 0, lambda: value)
    op = defining_op(value)
    if isinstance(op, hlo.BroadcastInDimOp):
        kept = [steps[dim] if size > 1 else 1 for dim, size in _broadcast(op)]
        inner = _take(op.operand, tuple(kept), left)
        return dataclasses.replace(inner, build=lambda: copy_as(_type(value, steps), op, [inner.build()]))
    number = splat_number(value)
    if number is not None:
        return _Taken(0, 0, lambda: splat(number, _sizes(value, steps), tensor_type(value).element_type))
    return _through(op, value, steps, left) if op is not None and single_use(value) else _sliced(value, steps)


def _through(op: ir.OpView, value: ir.Value, steps: Steps, left: int) -> _Taken:
    """The same for a value that has no other reader, by way of the operation that computes it."""
    if isinstance(op, hlo.ConvolutionOp) and _is_along_places(op, steps):
        return _Taken(1, 0, lambda: _with_strides(op, steps))
    if not isinstance(op, _PLACE_BY_PLACE) or left == 0:
        return _sliced(value, steps)
    # A clamp's bounds may be scalars.
    parts = [_take(operand, steps if shape_of(operand) else (), left - 1) for operand in op.operands]
    convolutions, slices = sum(part.convolutions for part in parts), sum(part.slices for part in parts)
    return _Taken(convolutions, slices, lambda: copy_as(_type(value, steps), op, [part.build() for part in parts]))


def _sliced(value: ir.Value, steps: Steps) -> _Taken:
    return _Taken(0, 1, lambda: _slice(value, steps))


def _slice(value: ir.Value, steps: Steps) -> ir.Value:
    return hlo.slice(value, [0] * len(steps), list(shape_of(value)), list(steps))


def _is_along_places(op: hlo.ConvolutionOp, steps: Steps) -> bool:
    places = window_of(op).numbers.output_spatial_dimensions
    return why_not_plain(op) is None and all(step == 1 or dim in places for dim, step in enumerate(steps))


def _with_strides(op: hlo.ConvolutionOp, steps: Steps) -> ir.Value:
    """The convolution at every so many-th place. Its padding stays: the last place that is left needs no more."""
    window = window_of(op)
    pairs = zip(window.strides, window.numbers.output_spatial_dimensions, strict=True)
    strides = [stride * steps[dim] for stride, dim in pairs]
    return copy_as(_type(op.result, steps), op, op.operands, window_strides=ir.DenseI64ArrayAttr.get(strides))


def _type(value: ir.Value, steps: Steps) -> ir.Type:
    return ir.RankedTensorType.get(_sizes(value, steps), tensor_type(value).element_type)


def _sizes(value: ir.Value, steps: Steps) -> list[int]:
    return [-(-size // step) for size, step in zip(shape_of(value), steps, strict=True)]


def _broadcast(op: hlo.BroadcastInDimOp) -> list[tuple[int, int]]:
    """For each dimension of the operand, the result's that it becomes, and its size."""
    return list(zip(integers(op, "broadcast_dimensions"), shape_of(op.operand), strict=True))
