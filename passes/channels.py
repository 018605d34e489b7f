"""Per-channel vectors: tensors that vary along one dimension only."""

from __future__ import annotations

from collections.abc import Callable

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import reshape, shape_of, tensor_type
from stablenorm.passes.compact import compact
from stablenorm.passes.weights import Weights

# Emits the vector, of rank 1, when called.
Vector = Callable[[], ir.Value]


def channel_vector(value: ir.Value, axis: int, weights: Weights) -> Vector | None:
    """How to emit a weight as a rank-1 tensor along ``axis``; None: it varies along another dimension, or with x."""
    found = compact(value, weights)
    if found is None or not found.dims <= {axis}:
        return None
    size = shape_of(value)[axis]

    def emit() -> ir.Value:
        one = found.emit()
        if axis in found.dims or size == 1:
            return reshape(one, [size])
        type_ = ir.RankedTensorType.get([size], tensor_type(one).element_type)
        return hlo.broadcast_in_dim(type_, reshape(one, []), [])

    return emit
