"""transpose-kernels: a convolution's kernel lies in memory as cuDNN reads it, from the start.

Whatever the kernel's order is named, the sum is the same::

    y[b, p, o] = sum over k, i of x[b, p + k, i] * W[k, i, o] = sum over k, i of x[b, p + k, i] * V[o, k, i]

XLA:GPU computes convolutions in one or two spatial dimensions with features last, from kernels in the order
``[o, 0, 1, i]``, and those in three with features first, from ``[o, i, 0, 1, 2]``, whichever orders a module names. It
turns the kernels of another order at every call: two kernels' worth of traffic for each, in folded ResNet-50 188 MB,
a sixth of all at batch 8. Here a weight is turned, so `hoist-weights` does it once. (This is what XLA does for float32,
half types and float64, with and without groups, on a GPU of compute capability 9.0.)

Before::

    %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {}
        : (tensor<1x5x5x8xf32>, tensor<3x3x8x4xf32>) -> tensor<1x3x3x4xf32>

After::

    %v = stablehlo.transpose %w, dims = [3, 0, 1, 2] : (tensor<3x3x8x4xf32>) -> tensor<4x3x3x8xf32>
    %y = stablehlo.convolution(%x, %v) dim_numbers = [b, 0, 1, f]x[o, 0, 1, i]->[b, 0, 1, f], window = {}
        : (tensor<1x5x5x8xf32>, tensor<4x3x3x8xf32>) -> tensor<1x3x3x4xf32>
"""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Pass, PassContext
from stablenorm.passes.rewriting import NoMatch, functions, operations_of, rewrite, sweep
from stablenorm.passes.weights import Weights
from stablenorm.passes.windows import why_not_plain


@dataclasses.dataclass(frozen=True)
class TransposeKernels(Pass):
    """Turns weights that are kernels of convolutions into the order of dimensions that cuDNN reads."""

    name: ClassVar[str] = "transpose-kernels"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for function in functions(module):
            weights = Weights(function, context.weights)
            for op in operations_of(function, hlo.ConvolutionOp):
                rewrite(op, functools.partial(_transpose, weights))
        sweep(module)


def _transpose(weights: Weights, op: hlo.ConvolutionOp) -> ir.Value | NoMatch:
    if not (weights.is_weight(op.rhs) and weights.is_varied(op.rhs)):
        return NoMatch("its kernel is no weight: to turn it would cost what XLA's turning costs")
    why = why_not_plain(op)
    if why is not None:
        return NoMatch(why)
    numbers = hlo.ConvDimensionNumbers(op.dimension_numbers)
    order = _read_order(numbers)
    if order == sorted(order):
        return NoMatch("its kernel lies as cuDNN reads it")
    kernel = hlo.transpose(op.rhs, order)
    turned = op.operation.clone()
    turned.operands[1] = kernel
    turned.attributes["dimension_numbers"] = _renumbered(numbers, order)
    result: ir.Value = turned.results[0]
    return result


def _read_order(numbers: hlo.ConvDimensionNumbers) -> list[int]:
    """The kernel's dimensions, outermost first, as cuDNN reads them."""
    output, places = numbers.kernel_output_feature_dimension, numbers.kernel_spatial_dimensions
    inputs = numbers.kernel_input_feature_dimension
    return [output, inputs, *places] if len(places) > 2 else [output, *places, inputs]


def _renumbered(numbers: hlo.ConvDimensionNumbers, order: list[int]) -> hlo.ConvDimensionNumbers:
    """The same numbers where the kernel's dimensions lie in another order."""
    return hlo.ConvDimensionNumbers.get(
        numbers.input_batch_dimension,
        numbers.input_feature_dimension,
        numbers.input_spatial_dimensions,
        order.index(numbers.kernel_input_feature_dimension),
        order.index(numbers.kernel_output_feature_dimension),
        [order.index(place) for place in numbers.kernel_spatial_dimensions],
        numbers.output_batch_dimension,
        numbers.output_feature_dimension,
        numbers.output_spatial_dimensions,
    )
