"""lower-pointwise-convolution: a convolution whose kernel is one place is a matrix product over the features.

With strides s::

    y[b, p, o] = sum over i of x[b, p*s, i] * W[i, o]

XLA:CPU hands matrix products to faster code than convolutions. The features lie last on both sides, so nothing is
transposed and, without strides, no activation is copied.

Before::

    %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
        {feature_group_count = 1 : i64, batch_group_count = 1 : i64}
        : (tensor<1x5x5x8xf32>, tensor<1x1x8x4xf32>) -> tensor<1x5x5x4xf32>

After::

    %m = stablehlo.reshape %w : (tensor<1x1x8x4xf32>) -> tensor<8x4xf32>
    %y = stablehlo.dot_general %x, %m, contracting_dims = [3] x [0]
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import ClassVar

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Pass, PassContext
from stablenorm.passes.building import arithmetic_type, convert, reshape, shape_of, tensor_type
from stablenorm.passes.rewriting import NoMatch, rewrite_each
from stablenorm.passes.windows import Window, shifted, why_not_plain, window_of


@dataclasses.dataclass(frozen=True)
class LowerPointwiseConvolution(Pass):
    """Writes convolutions whose kernel is one place as matrix products."""

    name: ClassVar[str] = "lower-pointwise-convolution"

    def run(self, module: ir.Module, context: PassContext) -> None:
        rewrite_each(module, hlo.ConvolutionOp, _lower)


def _lower(op: hlo.ConvolutionOp) -> ir.Value | NoMatch:
    why = why_not_plain(op)
    if why is not None:
        return NoMatch(why)
    window = window_of(op)
    if window.places != 1 or any(itertools.chain(*window.padding)):
        return NoMatch("its kernel meets several places, or a border")
    if op.feature_group_count.value != 1:
        return NoMatch("it has groups of features")
    if not (window.keeps_layout and window.features_last):
        return NoMatch("its features do not lie last, or its result's dimensions lie in another order")
    x = shifted(op.lhs, (0,) * len(window.sizes), op.result, window)
    return _matrix_product(op, x, window)


def _matrix_product(op: hlo.ConvolutionOp, x: ir.Value, window: Window) -> ir.Value:
    numbers = window.numbers
    dimensions = sorted([numbers.kernel_input_feature_dimension, numbers.kernel_output_feature_dimension])
    matrix = reshape(op.rhs, [shape_of(op.rhs)[dimension] for dimension in dimensions])
    contracted = hlo.DotDimensionNumbers.get(
        [], [], [len(shape_of(x)) - 1], [dimensions.index(numbers.kernel_input_feature_dimension)]
    )
    wide = ir.RankedTensorType.get(shape_of(op.result), arithmetic_type(op.result))
    product = hlo.dot_general(wide, x, matrix, contracted, precision_config=op.precision_config)
    return convert(product, tensor_type(op.result).element_type)
