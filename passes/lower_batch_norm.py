"""lower-batch-norm: batch norm becomes arithmetic that XLA fuses, and that does not cancel.

Inference, in float32 at least, rounded once to the operand's type::

    y = (x - mean) * (scale * rsqrt(variance + epsilon)) + offset

Subtracting the mean first is exact where x is near it; ``x * s + (offset - mean * s)`` would cancel instead. The
per-channel factor depends on weights alone, so `hoist-weights` computes it once.

Training and its gradient sum in float64 (`batch_statistics.py`) and round each result once::

    y = (x - mean(x)) * (scale * rsqrt(variance(x) + epsilon)) + offset

    h = (x - mean) * rsqrt(variance + epsilon)
    grad_operand = scale * rsqrt(variance + epsilon) * (grad_output - mean(grad_output) - h * mean(grad_output * h))
    grad_scale, grad_offset = sum(grad_output * h), sum(grad_output)

A gradient whose mean and variance are those of a training operation in the same function reads them before they were
rounded: at mean/deviation = 1e6 the rounded mean would be off by a thirtieth of the deviation.

Each platform has its own way to pass over the batch no more than it must, and any of them is right on all: ``cpu`` sums
blocks of rows in float64 (`block_sums.py`); ``cuda`` windows of rows, of x and its exact square, which need no shift
(`window_sums.py`, `exact_squares.py`); ``tpu`` pairs of float32 all at once (`pair_batch_norm.py`).

Before::

    %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
        <{epsilon = 1.0e-03 : f32, feature_index = 1 : i64}>

After::

    %s = stablehlo.multiply %scale, rsqrt(%variance + 1.0e-03)
    %y = (%x - broadcast(%mean)) * broadcast(%s) + broadcast(%offset)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from jax.extend.mlir import ir

from stablenorm.passes.base import Pass, PassContext, Remark
from stablenorm.passes.batch_norm_arithmetic import gradient_from, infer, rounded, train
from stablenorm.passes.batch_statistics import Statistics
from stablenorm.passes.building import tensor_type
from stablenorm.passes.contracts import no_batch_norm
from stablenorm.passes.matching import layer_name, where
from stablenorm.passes.named_forms import BatchNorm, batch_norms
from stablenorm.passes.pair_batch_norm import (
    PairStatistics,
    gradient_in_pairs,
    is_possible,
    statistics_from,
    train_in_pairs,
)
from stablenorm.passes.platforms import Platform
from stablenorm.passes.rewriting import functions, run_mlir, sweep
from stablenorm.passes.weights import Weights

Exact = dict[tuple[ir.Value, ir.Value], Statistics | PairStatistics]


@dataclasses.dataclass(frozen=True)
class LowerBatchNorm(Pass):
    """Writes inference, training and gradient of batch norm out in arithmetic that does not cancel.

    Attributes:
        platform: for which sums over a batch are arranged; any runs everywhere.
    """

    platform: Platform = Platform.CPU

    name: ClassVar[str] = "lower-batch-norm"
    ensures = (no_batch_norm,)

    def run(self, module: ir.Module, context: PassContext) -> None:
        lowered: list[ir.OpView] = []
        for function in functions(module):
            weights = Weights(function, context.weights)
            exact: Exact = {}
            for norm in batch_norms(function):
                context.remarks.extend(_remarks(norm, weights))
                with ir.InsertionPoint(norm.op), norm.op.location:
                    results = _lower(norm, exact, self.platform)
                for old, new in zip(norm.op.results, results, strict=True):
                    old.replace_all_uses_with(new)
                lowered.append(norm.op)
        # Not before every function is done, since memos and `exact` hold their results; composites outlive a sweep.
        for op in lowered:
            op.operation.erase()
        sweep(module)
        run_mlir(module, "symbol-dce")  # the decompositions of composites


def _remarks(norm: BatchNorm, weights: Weights) -> list[Remark]:
    """What a report says of a batch norm with weights that is still there; nothing of its gradient."""
    parameters = [norm[name] for name in ("mean", "variance", "scale", "offset") if name in norm.operands]
    if norm.kind == "grad" or (norm.kind == "training" and not any(map(weights.is_parameter, parameters))):
        return []
    inference, training = "no pass folded it", "it normalizes with the statistics of its batch"
    detail = inference if norm.kind == "inference" else training
    name = layer_name(norm.op, weights, *parameters)
    return [Remark("lower-batch-norm", "lowered", name, detail, where(norm.op))]


def _lower(norm: BatchNorm, exact: Exact, platform: Platform) -> list[ir.Value]:
    """The results' new values; ``exact`` holds the unrounded statistics behind each mean and variance."""
    element_type = tensor_type(norm["operand"]).element_type
    in_pairs = platform is Platform.TPU and norm.groups is None and is_possible(norm.operands)
    match norm.kind:
        case "inference":
            return [infer(norm.operands, norm.epsilon, norm.axes)]
        case "training":
            fresh: Statistics | PairStatistics
            if in_pairs:
                y, fresh = train_in_pairs(norm.operands, norm.epsilon, norm.axes)
            else:
                y, fresh, _ = train(norm.operands, norm.epsilon, norm.axes, groups=norm.groups, platform=platform)
            results = rounded((y, fresh.mean, fresh.variance), element_type)
            exact[results[1], results[2]] = fresh
            return results
        case "grad":
            batch = exact.get((norm["mean"], norm["variance"]))
            return rounded(_gradients(norm, batch, platform, in_pairs), element_type)


def _gradients(
    norm: BatchNorm, batch: Statistics | PairStatistics | None, platform: Platform, in_pairs: bool
) -> Sequence[ir.Value]:
    if in_pairs:
        if not isinstance(batch, PairStatistics):
            batch = statistics_from(norm["mean"], norm["variance"], norm["operand"], norm.epsilon, norm.axes)
        return gradient_in_pairs(norm.operands, batch, norm.axes)
    known = batch if isinstance(batch, Statistics) else None
    return gradient_from(norm.operands, known, norm.epsilon, norm.axes, norm.groups, platform)
