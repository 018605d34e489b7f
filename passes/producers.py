"""Where a per-channel scale can go up: operation to rule. A new operation is a new function and a new row."""

from __future__ import annotations

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.producers_elementwise import (
    through_add,
    through_convert,
    through_divide,
    through_multiply,
    through_subtract,
)
from stablenorm.passes.producers_linear import into_batch_norm, into_convolution, into_dot_general
from stablenorm.passes.producers_moving import (
    through_broadcast,
    through_concatenate,
    through_gather,
    through_pad,
    through_reshape,
    through_reverse,
    through_slice,
    through_transpose,
)
from stablenorm.passes.producers_rectifying import through_clamp, through_maximum, through_select
from stablenorm.passes.producers_summing import through_reduce, through_reduce_window
from stablenorm.passes.scaling import Rule

PRODUCERS: dict[type[ir.OpView], Rule] = {
    hlo.ConvolutionOp: into_convolution,
    hlo.DotGeneralOp: into_dot_general,
    hlo.AddOp: through_add,
    hlo.SubtractOp: through_subtract,
    hlo.MulOp: through_multiply,
    hlo.DivOp: through_divide,
    hlo.BatchNormInferenceOp: into_batch_norm,
    hlo.ConcatenateOp: through_concatenate,
    hlo.PadOp: through_pad,
    hlo.MaxOp: through_maximum,
    hlo.MinOp: through_maximum,
    hlo.ClampOp: through_clamp,
    hlo.SelectOp: through_select,
    hlo.ReduceOp: through_reduce,
    hlo.ReduceWindowOp: through_reduce_window,
    hlo.ReshapeOp: through_reshape,
    hlo.TransposeOp: through_transpose,
    hlo.BroadcastInDimOp: through_broadcast,
    hlo.GatherOp: through_gather,
    hlo.SliceOp: through_slice,
    hlo.ReverseOp: through_reverse,
    hlo.ConvertOp: through_convert,
}
