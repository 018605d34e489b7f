"""What is known of a map's numbers before it goes down, and what they let it pass."""

from __future__ import annotations

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes import distances
from stablenorm.passes.affine import Affine, Emit
from stablenorm.passes.base import Array
from stablenorm.passes.building import tensor_type
from stablenorm.passes.matching import defining_op
from stablenorm.passes.pending import Form
from stablenorm.passes.weights import Weights


def form_of(found: Affine, weights: Weights) -> Form:
    """The map as it sets out."""
    scale = None if found.scale is None else found.dims
    parameters = [_numbers(found, emit, weights) for emit in (found.scale, found.mean, found.offset)]
    if any(each is None for each in parameters):
        return Form(scale, found.shift_dims, is_half=_is_half(found.operand))
    factor, mean, offset = (np.asarray(each, np.float64) for each in parameters)
    with np.errstate(all="ignore"):
        return Form(
            scale,
            found.shift_dims,
            passes_maxima=_passes_maxima(factor, offset / factor - mean, tensor_type(found.operand).element_type),
            distance=_distance(found, mean * factor if found.scale else offset, weights),
            is_half=_is_half(found.operand),
        )


def emitted(found: Affine, emit: Emit | None) -> ir.Value | None:
    """One of the map's parameters, before the map."""
    with ir.InsertionPoint(found.op), found.op.location:
        return emit and emit()


def _numbers(found: Affine, emit: Emit | None, weights: Weights) -> Array | None:
    value = emitted(found, emit)
    if value is not None:
        return weights.evaluate(value)
    return np.asarray(1.0 if emit is found.scale else 0.0)


def _passes_maxima(scale: Array, quotient: Array, element_type: ir.Type) -> bool:
    """Whether the scale is positive, and the shift divided by it far from what overflows x's type."""
    least = 2.0**-8 if isinstance(element_type, ir.F16Type) else 2.0**-40
    return bool((scale >= least).all() and (np.abs(quotient) <= 1 / least).all())


def _distance(found: Affine, shift: Array, weights: Weights) -> float:
    if isinstance(found.op, hlo.BatchNormInferenceOp):
        return distances.of_batch_norm(found.op, weights)
    return distances.of_shift(shift)


def _is_half(value: ir.Value) -> bool:
    """Whether float16 holds the numbers of ``value``."""
    op = defining_op(value)
    held = op.operand if isinstance(op, hlo.ConvertOp) else value
    return isinstance(tensor_type(held).element_type, ir.F16Type)
