"""lower-depthwise-convolution: a sum over the kernel's places of shifted inputs times one weight for each feature.

With strides s, dilations d, one input feature to a group and ``j`` counting the m outputs of each::

    y[b, p, c*m + j] = sum over k of pad(x)[b, p*s + k*d, c] * W[k, c*m + j]

StableHLO's own definition of such a convolution, its sum written out. XLA:CPU's convolution of one input feature to a
group is a loop without vectors; this is arithmetic by element, which XLA fuses with the bias and the activation after
it. The sum is in float32 at least, in the kernel's order, and is rounded once.

So does XLA:GPU, where cuDNN's call leaves bias and activation to another loop and padding to a third: MobileNetV2 at
batch 8 moves 463 MB instead of 854. Each place is one more read from its cache, so larger kernels are left to cuDNN.

Before::

    %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
        window = {pad = [[1, 1], [1, 1]]} {feature_group_count = 8 : i64, batch_group_count = 1 : i64}
        : (tensor<1x5x5x8xf32>, tensor<3x3x1x8xf32>) -> tensor<1x5x5x8xf32>

After::

    %p = stablehlo.pad %x, %zero, low = [0, 1, 1, 0], high = [0, 1, 1, 0], interior = [0, 0, 0, 0]
    %0 = stablehlo.slice %p [0:1, 0:5, 0:5, 0:8]
    %1 = stablehlo.multiply %0, broadcast(reshape(slice(%w)))
    ... and so on, nine in all, added
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import ClassVar

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Pass, PassContext
from stablenorm.passes.building import along, arithmetic_type, convert, reshape, shape_of, splat, tensor_type
from stablenorm.passes.rewriting import NoMatch, rewrite_each
from stablenorm.passes.windows import Window, shifted, why_not_plain, window_of


@dataclasses.dataclass(frozen=True)
class LowerDepthwiseConvolution(Pass):
    """Writes convolutions with one input feature to a group as fused sums of shifted products.

    Attributes:
        most_places: of a kernel. Each is one more slice in the fused loop: code, and time to compile it.
    """

    name: ClassVar[str] = "lower-depthwise-convolution"
    most_places: int = 64

    def run(self, module: ir.Module, context: PassContext) -> None:
        rewrite_each(module, hlo.ConvolutionOp, functools.partial(_lower, self.most_places))


def _lower(most_places: int, op: hlo.ConvolutionOp) -> ir.Value | NoMatch:
    why = why_not_plain(op)
    if why is not None:
        return NoMatch(why)
    window = window_of(op)
    features = shape_of(op.lhs)[window.numbers.input_feature_dimension]
    if op.feature_group_count.value != features or features == 1:
        return NoMatch("it sums over input features")
    if not window.keeps_layout:
        return NoMatch("its result's dimensions lie in another order than its input's")
    if window.places > most_places:
        return NoMatch(f"its kernel has {window.places} places, more than {most_places}")
    wide = arithmetic_type(op.result)
    x, kernel = convert(_padded(op.lhs, window), wide), convert(op.rhs, wide)
    products = [
        _product(shifted(x, place, op.result, window), _weights(kernel, place, window), op.result, window)
        for place in itertools.product(*map(range, window.sizes))
    ]
    summed = reshape(functools.reduce(hlo.add, products), shape_of(op.result))
    return convert(summed, tensor_type(op.result).element_type)


def _padded(x: ir.Value, window: Window) -> ir.Value:
    if not any(itertools.chain(*window.padding)):
        return x
    low, high = [0] * len(shape_of(x)), [0] * len(shape_of(x))
    for dimension, pair in zip(window.numbers.input_spatial_dimensions, window.padding, strict=True):
        low[dimension], high[dimension] = pair
    return hlo.pad(x, splat(0, [], tensor_type(x).element_type), low, high, [0] * len(low))


def _weights(kernel: ir.Value, place: Sequence[int], window: Window) -> ir.Value:
    """The kernel at one place: a vector over the output features."""
    start, limit = [0] * len(shape_of(kernel)), list(shape_of(kernel))
    for dimension, position in zip(window.numbers.kernel_spatial_dimensions, place, strict=True):
        start[dimension], limit[dimension] = position, position + 1
    vector = hlo.slice(kernel, start, limit, [1] * len(start))
    return reshape(vector, [shape_of(kernel)[window.numbers.kernel_output_feature_dimension]])


def _product(x: ir.Value, weights: ir.Value, result: ir.Value, window: Window) -> ir.Value:
    """``x * weights``; where a feature has several outputs, these lie in a dimension of their own behind it."""
    axis = window.numbers.input_feature_dimension
    features, outputs = shape_of(x)[axis], shape_of(result)[axis]
    if features == outputs:
        return hlo.multiply(x, along(weights, axis, x))
    shape = [*shape_of(x)[: axis + 1], outputs // features, *shape_of(x)[axis + 1 :]]
    repeated = ir.RankedTensorType.get(shape, tensor_type(x).element_type)
    kept = [dimension for dimension in range(len(shape)) if dimension != axis + 1]
    matrix = reshape(weights, [features, outputs // features])
    spread = hlo.broadcast_in_dim(repeated, x, kept)
    return hlo.multiply(spread, along(matrix, [axis, axis + 1], spread))
