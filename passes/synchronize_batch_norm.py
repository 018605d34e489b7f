"""synchronize-batch-norm: training batch norms take the statistics of all replicas of a group, not of their own batch.

A module that trains on one replica becomes the module of each of several. Lowered, each operation sends one array: two
float64 sums per feature forward, two of the parameters' type backward. With sums over the replicas of a group::

    mean, variance = sum(x) / n, sum(x * x) / n - mean ** 2                            sum(x), sum(x * x): one array
    grad_offset, grad_scale = sum(grad_output), sum(grad_output * h)                   one array
    grad_operand = scale * r * (grad_output - (grad_offset + h * grad_scale) / n)

``grad_scale`` and ``grad_offset`` are sums over the group already: what sums the gradients of other weights must leave
these two out.

Before::

    %y, %mean, %variance = "stablehlo.batch_norm_training"(%x, %scale, %offset)
        <{epsilon = 1.0e-03 : f32, feature_index = 1 : i64}>

After, with ``replica_groups=[[0,1]]``::

    %y, %mean, %variance = stablehlo.composite "stablenorm.batch_norm_training" %x, %scale, %offset
        {epsilon = 1.0e-03, feature_indices = array<i64: 1>, replica_groups = dense<[[0, 1]]>, ...}
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jax.extend.mlir import ir

from stablenorm.ops.batch_norm_grad import BatchNormGrad
from stablenorm.ops.batch_norm_training import BatchNormTraining
from stablenorm.passes.base import Pass, PassContext
from stablenorm.passes.collectives import ReplicaGroups
from stablenorm.passes.named_forms import BatchNorm, batch_norms
from stablenorm.passes.rewriting import functions, run_mlir


@dataclasses.dataclass(frozen=True)
class SynchronizeBatchNorm(Pass):
    """Training batch norms and their gradients share sums within ``replica_groups``; grouped ones stay as they are."""

    name: ClassVar[str] = "synchronize-batch-norm"

    replica_groups: ReplicaGroups

    def run(self, module: ir.Module, context: PassContext) -> None:
        for function in list(functions(module)):
            for norm in batch_norms(function):
                if norm.kind != "inference" and norm.groups is None:
                    self._replace(norm)
        run_mlir(module, "symbol-dce")

    def _replace(self, norm: BatchNorm) -> None:
        kind = BatchNormTraining if norm.kind == "training" else BatchNormGrad
        synchronized = kind(norm.epsilon, norm.axes, self.replica_groups)
        with ir.InsertionPoint(norm.op), norm.op.location:
            results = synchronized.emit(*norm.operands.values())
        for old, new in zip(norm.op.results, results, strict=True):
            old.replace_all_uses_with(new)
        norm.op.operation.erase()
