"""What a map ``s*x + t`` becomes behind each operation that reads it.

Every law here is one of linearity: ``L(s*x + t) = s'*L(x) + L(t)``, where L does not mix what s tells apart. The shift
goes through L itself, as a tensor without the batch: so behind a convolution with padding it is a border map, computed
once, and exact. A convolution or dot_general with a weight takes s into the weight; what is left is a shift.

`CONSUMERS` is the table: operation to rule, guard first. A rule emits nothing; it answers with a `Step`, or `NoMatch`.
"""

from __future__ import annotations

from collections.abc import Callable

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.consumers_elementwise import (
    through_add,
    through_batch_norm,
    through_convert,
    through_divide,
    through_multiply,
    through_subtract,
)
from stablenorm.passes.consumers_linear import into_convolution, into_dot_general
from stablenorm.passes.consumers_moving import (
    through_broadcast,
    through_concatenate,
    through_gather,
    through_pad,
    through_reshape,
    through_reverse,
    through_slice,
    through_transpose,
)
from stablenorm.passes.consumers_rectifying import through_clamp, through_maximum
from stablenorm.passes.consumers_summing import through_reduce, through_reduce_window
from stablenorm.passes.pending import Step
from stablenorm.passes.rewriting import NoMatch

CONSUMERS: dict[type[ir.OpView], Callable[..., Step | NoMatch]] = {
    hlo.MulOp: through_multiply,
    hlo.DivOp: through_divide,
    hlo.AddOp: through_add,
    hlo.SubtractOp: through_subtract,
    hlo.BatchNormInferenceOp: through_batch_norm,
    hlo.ConvertOp: through_convert,
    hlo.ReshapeOp: through_reshape,
    hlo.TransposeOp: through_transpose,
    hlo.BroadcastInDimOp: through_broadcast,
    hlo.GatherOp: through_gather,
    hlo.SliceOp: through_slice,
    hlo.ReverseOp: through_reverse,
    hlo.PadOp: through_pad,
    hlo.ConcatenateOp: through_concatenate,
    hlo.MaxOp: through_maximum,
    hlo.MinOp: through_maximum,
    hlo.ClampOp: through_clamp,
    hlo.ReduceOp: through_reduce,
    hlo.ReduceWindowOp: through_reduce_window,
    hlo.ConvolutionOp: into_convolution,
    hlo.DotGeneralOp: into_dot_general,
}
