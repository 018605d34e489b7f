"""NumPy's reading of the operations that weight arithmetic is made of.

Passes use it to look at numbers before they decide (is a folded weight finite?), never to produce results: what is
folded is computed by XLA in ``@prepare``. An operation that is not in the table makes a value unknown, not wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.extend.mlir import ir

from stablenorm.passes.base import Array
from stablenorm.passes.building import integers
from stablenorm.passes.dtypes import dtype_of


class Unknown(Exception):
    """A number that cannot be known here."""


def _dtype(op: ir.OpView) -> np.dtype[Any]:
    dtype = dtype_of(op.results[0].type)
    if dtype is None:
        raise Unknown
    return dtype


def _shape(op: ir.OpView) -> list[int]:
    return list(ir.RankedTensorType(op.results[0].type).shape)


def _constant(op: ir.OpView) -> Array:
    dtype = _dtype(op)
    try:
        return _elements(op, op.attributes["value"], dtype)
    except (TypeError, ValueError):  # what the bindings cannot read: bfloat16, float8, complex elements, resources
        raise Unknown from None


def _elements(op: ir.OpView, attribute: ir.Attribute, dtype: np.dtype[Any]) -> Array:
    if isinstance(attribute, ir.DenseElementsAttr):
        elements = ir.DenseElementsAttr(attribute)
        if elements.is_splat:
            return np.full(_shape(op), _scalar(elements.get_splat_value()), dtype)
    return np.array(attribute, dtype=dtype).reshape(_shape(op))


def _scalar(attribute: ir.Attribute) -> float | int:
    if isinstance(attribute, ir.FloatAttr):
        return ir.FloatAttr(attribute).value
    return ir.IntegerAttr(attribute).value


def _broadcast_in_dim(op: ir.OpView, operand: Array) -> Array:
    shape = _shape(op)
    dimensions = integers(op, "broadcast_dimensions")
    aligned = [1] * len(shape)
    for size, dimension in zip(operand.shape, dimensions, strict=True):
        aligned[dimension] = size
    ordered = operand.transpose(np.argsort(dimensions))  # they may stand in any order
    return np.broadcast_to(ordered.reshape(aligned), shape)


def _divide(op: ir.OpView, x: Array, y: Array) -> Array:
    if x.dtype.kind in "iu":
        raise Unknown  # integers are divided in another way, and by zero in none
    return x / y


def _slice(op: ir.OpView, operand: Array) -> Array:
    bounds = zip(*(integers(op, name) for name in ("start_indices", "limit_indices", "strides")), strict=True)
    return operand[tuple(slice(start, limit, stride) for start, limit, stride in bounds)]


EVALUATORS: dict[str, Callable[..., Array]] = {
    "stablehlo.constant": _constant,
    "stablehlo.convert": lambda op, x: x.astype(_dtype(op)),
    "stablehlo.reshape": lambda op, x: x.reshape(_shape(op)),
    "stablehlo.transpose": lambda op, x: x.transpose(integers(op, "permutation")),
    "stablehlo.reverse": lambda op, x: np.flip(x, tuple(integers(op, "dimensions"))),
    "stablehlo.slice": _slice,
    "stablehlo.broadcast_in_dim": _broadcast_in_dim,
    "stablehlo.concatenate": lambda op, *xs: np.concatenate(xs, ir.IntegerAttr(op.attributes["dimension"]).value),
    "stablehlo.add": lambda op, x, y: x + y,
    "stablehlo.subtract": lambda op, x, y: x - y,
    "stablehlo.multiply": lambda op, x, y: x * y,
    "stablehlo.divide": _divide,
    "stablehlo.maximum": lambda op, x, y: np.maximum(x, y),
    "stablehlo.minimum": lambda op, x, y: np.minimum(x, y),
    "stablehlo.negate": lambda op, x: -x,
    "stablehlo.abs": lambda op, x: np.abs(x),
    "stablehlo.sqrt": lambda op, x: np.sqrt(x),
    "stablehlo.rsqrt": lambda op, x: (1 / np.sqrt(x)).astype(x.dtype),
}
