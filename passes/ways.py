"""The two ways of a per-channel map, up and down, and how many elementwise operations each saves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.affine import Affine
from stablenorm.passes.building import product, shape_of
from stablenorm.passes.consumers import CONSUMERS
from stablenorm.passes.consumers_gradients import TRAINING_CONSUMERS
from stablenorm.passes.map_numbers import emitted, form_of
from stablenorm.passes.producers import PRODUCERS
from stablenorm.passes.pushing import Push, Walk, push
from stablenorm.passes.readers import Readers
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.scaling import Factor, Plan, plan
from stablenorm.passes.weights import Weights


@dataclasses.dataclass(frozen=True)
class Ways:
    """Looks for a way that is free, and leaves less work than there is. ``training`` as in the pass."""

    weights: Weights
    readers: Readers
    training: bool

    def up(self, found: Affine) -> Plan | NoMatch:
        """Into all that its operand comes from."""
        declined: Plan | NoMatch = NoMatch("it scales along several dimensions")
        scale, rank = emitted(found, found.scale), len(shape_of(found.operand))
        numbers = None if scale is None else self.weights.evaluate(scale)
        axes: Iterable[int] = found.dims if found.dims else reversed(range(rank))
        if len(found.dims) > 1:
            return declined
        for axis in axes:
            size = shape_of(found.operand)[axis]
            if size < 0:
                continue
            flat = None if numbers is None else np.broadcast_to(numbers.reshape(-1), (size,))
            block = found.op.operation.block
            declined = plan(found.operand, Factor(axis, flat, self.weights, self.readers, block, PRODUCERS))
            if isinstance(declined, Plan) and saved_up(declined, found) > 0:
                return dataclasses.replace(declined, axis=axis)
        if isinstance(declined, Plan):
            return NoMatch("it would leave as much elementwise work as there is")
        return declined

    def down(self, found: Affine) -> Push | NoMatch:
        """Into all that reads its result."""
        rules = TRAINING_CONSUMERS if self.training else CONSUMERS
        walk = Walk(self.weights, self.readers, rules, may_stay=self.training)
        down = push(found.op.results[0], form_of(found, self.weights), walk)
        if isinstance(down, Push) and 2 * down.scaled >= max(1, product(shape_of(found.operand))):
            return NoMatch(
                "what would be multiplied instead, the gradients of weights, has at least half of its elements"
            )
        if isinstance(down, Push) and down.saves + found.costs <= 0:
            return NoMatch("it would leave as much elementwise work as there is")
        return down


def saved_up(up: Plan, found: Affine) -> int:
    """The elementwise operations that a way up saves: the map's own and the biases', less the shift at the end."""
    return found.costs + up.saves - (up.bias is not None or found.shift_dims is not None)


def saved_down(down: Push, found: Affine) -> int:
    """The same of a way down, but for the other scales that it takes along: they find that way without this one."""
    others = sum(2 if isinstance(op, hlo.BatchNormInferenceOp) else 1 for op in down.passed if not _is_shift(op))
    return found.costs + down.saves - others


def _is_shift(op: ir.OpView) -> bool:
    return isinstance(op, hlo.AddOp | hlo.SubtractOp)
