"""Writing the parts of a formula (`moments.py`) as StableHLO again."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import convert, reshape, shape_of, splat, tensor_type
from stablenorm.passes.moments import Vector
from stablenorm.passes.polynomials import Place


def laid_out(value: ir.Value, place: Place, shape: Sequence[int], target: Place) -> ir.Value:
    """``value``, its dimensions lying at ``place``, as a tensor of ``shape``, whose dimensions lie at ``target``."""
    varying = [(size, along) for size, along in zip(shape_of(value), place, strict=True) if size != 1]
    kept = [along for size, along in zip(shape, target, strict=True) if size != 1]
    if [along for _, along in varying] == kept:
        return reshape(value, shape)
    flat = reshape(value, [size for size, _ in varying])
    result = ir.RankedTensorType.get(shape, tensor_type(value).element_type)
    return hlo.broadcast_in_dim(result, flat, [target.index(along) for _, along in varying])


def product_of(
    factors: Sequence[Vector], x: ir.Value, axes: Sequence[int], element_type: ir.Type, sign: int = 1
) -> ir.Value:
    """``sign`` times the product of vectors over the features of x."""
    shape = [shape_of(x)[axis] for axis in axes]
    if sign == 0 or not factors:
        return splat(sign, shape, element_type)
    vectors = (laid_out(factor.value, factor.place, shape, tuple(axes)) for factor in factors)
    result = functools.reduce(hlo.multiply, [convert(vector, element_type) for vector in vectors])
    return hlo.negate(result) if sign < 0 else result


def replace(value: ir.Value, place: Place, result: ir.Value, lies: Place) -> None:
    """Lets all that reads ``value`` read ``result``, laid out and converted as ``value`` is."""
    new = laid_out(result, lies, shape_of(value), place)
    value.replace_all_uses_with(convert(new, tensor_type(value).element_type))


def attribute(number: Fraction | None, element_type: ir.Type) -> float:
    """A number as an attribute of an operation that computes in ``element_type``, float32 or float64."""
    exact = float(number or 0)
    return exact if isinstance(element_type, ir.F64Type) else float(np.float32(exact))


def feature_index(axes: tuple[int, ...]) -> int | tuple[int, ...]:
    """One dimension as a number: StableHLO has operations for that."""
    return axes if len(axes) > 1 else axes[0]
