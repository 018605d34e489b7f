"""A convolution's numbers, with every attribute that StableHLO lets be left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import integers, is_float, product, shape_of, tensor_type


@dataclasses.dataclass(frozen=True)
class Window:
    """What a convolution's kernel meets, by spatial dimension.

    Attributes:
        numbers: which dimensions are the batch, the features and the spatial ones.
        sizes: of the kernel.
        padding: low and high; negative ones cut.
        dilations: the steps between two places of the kernel.
    """

    numbers: hlo.ConvDimensionNumbers
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]

    @property
    def places(self) -> int:
        """How many products make one output, per input feature."""
        return product(self.sizes)

    @property
    def keeps_layout(self) -> bool:
        """Whether the result's dimensions lie as the input's do."""
        return _order(self.numbers, "output") == _order(self.numbers, "input")

    @property
    def features_last(self) -> bool:
        """Whether the input's features lie side by side in memory."""
        return bool(self.numbers.input_feature_dimension == len(self.sizes) + 1)


def window_of(op: hlo.ConvolutionOp) -> Window:
    numbers = hlo.ConvDimensionNumbers(op.dimension_numbers)
    kernel = shape_of(op.rhs)
    sizes = tuple(kernel[dimension] for dimension in numbers.kernel_spatial_dimensions)
    given = op.attributes.get("padding", None)
    pairs = np.zeros((len(sizes), 2), int) if given is None else np.array(given).reshape(len(sizes), 2)
    padding = tuple((int(low), int(high)) for low, high in pairs)
    strides, dilations = (per_dimension(op, name, len(sizes)) for name in ("window_strides", "rhs_dilation"))
    return Window(numbers, sizes, strides, padding, dilations)


def shifted(x: ir.Value, place: Sequence[int], result: ir.Value, window: Window) -> ir.Value:
    """The elements of the padded input that the outputs meet at one place of the kernel, in the outputs' order."""
    start, limit, step = [0] * len(shape_of(x)), list(shape_of(x)), [1] * len(shape_of(x))
    for i, dimension in enumerate(window.numbers.input_spatial_dimensions):
        start[dimension], step[dimension] = place[i] * window.dilations[i], window.strides[i]
        limit[dimension] = start[dimension] + (shape_of(result)[dimension] - 1) * step[dimension] + 1
    if limit == list(shape_of(x)) and not any(start) and set(step) == {1}:
        return x
    return hlo.slice(x, start, limit, step)


def why_not_plain(op: hlo.ConvolutionOp) -> str | None:
    """Why a convolution is not one of floats with sizes that are known, forward in its input; None where it is."""
    if not all(tensor_type(value).has_static_shape for value in (op.lhs, op.rhs, op.result)):
        return "a size is known only when the program runs"
    if not all(map(is_float, (op.lhs, op.rhs, op.result))):
        return "it is not one of real floating-point numbers"
    if 0 in (*shape_of(op.lhs), *shape_of(op.rhs), *shape_of(op.result)):
        return "it has no elements"
    if op.batch_group_count.value != 1:
        return "it groups the batch, as the gradient of a kernel does"
    if any(step != 1 for step in per_dimension(op, "lhs_dilation", len(shape_of(op.lhs)) - 2)):
        return "it dilates its input, as a transposed convolution does"
    if "window_reversal" in op.attributes and any(ir.DenseBoolArrayAttr(op.attributes["window_reversal"])):
        return "it reverses its kernel"
    return None


def per_dimension(op: ir.OpView, name: str, rank: int) -> tuple[int, ...]:
    """A number for each dimension that a window has, 1 where they are left out."""
    return tuple(integers(op, name)) if name in op.attributes else (1,) * rank


def _order(numbers: hlo.ConvDimensionNumbers, side: str) -> tuple[int, ...]:
    batch, feature = getattr(numbers, f"{side}_batch_dimension"), getattr(numbers, f"{side}_feature_dimension")
    return batch, feature, *getattr(numbers, f"{side}_spatial_dimensions")
