"""lower-pooling: a maximum or a sum over windows is one of shifted inputs, written out.

With strides s, dilations d and ``o`` a maximum, a minimum or an addition::

    y[p] = pad(x)[p*s] o pad(x)[p*s + d] o ... over the window's places

StableHLO's own definition of reduce_window. XLA:CPU's is a loop over the places of each output, without vectors; this
is arithmetic by element, which XLA fuses with what comes after. Sums of half types are in float32 and rounded once.

Before::

    %y = "stablehlo.reduce_window"(%x, %lowest) <{window_dimensions = [1, 2, 1], window_strides = [1, 2, 1]}> ({
      stablehlo.maximum
    }) : (tensor<1x8x3xf32>, tensor<f32>) -> tensor<1x4x3xf32>

After::

    %0 = stablehlo.slice %x [0:1, 0:7:2, 0:3]
    %1 = stablehlo.slice %x [0:1, 1:8:2, 0:3]
    %y = stablehlo.maximum %0, %1 : tensor<1x4x3xf32>
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Pass, PassContext
from stablenorm.passes.building import arithmetic_type, convert, integers, is_float, product, shape_of, tensor_type
from stablenorm.passes.matching import reducer, splat_number
from stablenorm.passes.rewriting import NoMatch, rewrite_each
from stablenorm.passes.windows import per_dimension

# What may combine a window's elements, and the number that changes nothing.
_Combination = tuple[Callable[[ir.Value, ir.Value], ir.Value], float]
_COMBINATIONS: dict[str | None, _Combination] = {
    "stablehlo.add": (hlo.add, 0.0),
    "stablehlo.maximum": (hlo.maximum, -math.inf),
    "stablehlo.minimum": (hlo.minimum, math.inf),
}


@dataclasses.dataclass(frozen=True)
class LowerPooling(Pass):
    """Writes maxima and sums over windows as arithmetic on shifted slices.

    Attributes:
        most_places: of a window. Each is one more slice in the fused loop: code, and time to compile it.
    """

    name: ClassVar[str] = "lower-pooling"
    most_places: int = 25

    def run(self, module: ir.Module, context: PassContext) -> None:
        rewrite_each(module, hlo.ReduceWindowOp, functools.partial(_lower, self.most_places))


def _lower(most_places: int, op: hlo.ReduceWindowOp) -> ir.Value | NoMatch:
    if len(op.operands) != 2:
        return NoMatch("it reduces several inputs at once")
    (x, start), (result,) = op.operands, op.results
    if not is_float(x) or not all(tensor_type(value).has_static_shape for value in (x, result)):
        return NoMatch("it is not one of real floating-point numbers of known size")
    if len({tensor_type(value).element_type for value in (x, start, result)}) > 1:
        return NoMatch("its sums are of another type than its input")
    combine, neutral = _COMBINATIONS.get(reducer(op), (None, 0.0))
    if combine is None or splat_number(start) != neutral:
        return NoMatch("it is no maximum, minimum or sum that starts from nothing")
    sizes = integers(op, "window_dimensions")
    if product(sizes) > most_places or 0 in (*shape_of(x), *shape_of(result)):
        return NoMatch("its window has too many places, or it has no elements")
    if set(per_dimension(op, "base_dilations", len(sizes))) != {1}:
        return NoMatch("it dilates its input")
    padded = convert(_padded(op, x, start), arithmetic_type(x))
    places = itertools.product(*map(range, sizes))
    combined = functools.reduce(combine, (_shifted(op, padded, place) for place in places))
    return convert(combined, tensor_type(result).element_type)


def _padded(op: hlo.ReduceWindowOp, x: ir.Value, start: ir.Value) -> ir.Value:
    attribute = op.attributes.get("padding", None)
    if attribute is None or not np.array(attribute).any():
        return x
    low, high = np.array(attribute).reshape(-1, 2).T.tolist()
    return hlo.pad(x, start, low, high, [0] * len(low))


def _shifted(op: hlo.ReduceWindowOp, padded: ir.Value, place: Sequence[int]) -> ir.Value:
    """The elements that the outputs meet at one place of the window, in the outputs' order."""
    strides, dilations = (per_dimension(op, name, len(place)) for name in ("window_strides", "window_dilations"))
    start = [position * dilation for position, dilation in zip(place, dilations, strict=True)]
    sizes = zip(start, shape_of(op.results[0]), strides, strict=True)
    return hlo.slice(padded, start, [first + (size - 1) * step + 1 for first, size, step in sizes], strides)
