"""A weight that takes a scale: in which types it can, and how it is rounded."""

from __future__ import annotations

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import along, convert, is_float, tensor_type
from stablenorm.passes.matching import defining_op


def can_hold_a_scale(weight: ir.Value) -> bool:
    """Integers and eight-bit floats are quantized: rounding a scaled one to its type again would lose digits."""
    return is_float(weight) and ir.FloatType(tensor_type(weight).element_type).width >= 16


def scaled_weight(weight: ir.Value, scale: ir.Value, axis: int) -> ir.Value:
    """``weight * scale`` along ``axis``: multiplied in the scale's type, rounded once to the weight's."""
    wide = unrounded(weight, tensor_type(scale).element_type)
    return convert(hlo.multiply(wide, along(scale, axis, wide)), tensor_type(weight).element_type)


def unrounded(weight: ir.Value, element_type: ir.Type) -> ir.Value:
    """A weight in a wider type: as it was before mixed precision rounded it, where it was."""
    op = defining_op(weight)
    if isinstance(op, hlo.ConvertOp) and tensor_type(op.operand).element_type == element_type:
        return op.operand
    return convert(weight, element_type)
