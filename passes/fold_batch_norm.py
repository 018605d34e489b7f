"""fold-batch-norm: per-channel affine maps disappear into the weights before or behind them.

With ``s = scale / sqrt(variance + epsilon)`` and ``t = offset - mean * s``::

    s * (conv(x, W) + b - mean) + offset  =  conv(x, s * W) + (offset - (mean - b) * s)
    conv(pad(s * x + t), W)               =  conv(pad(x), s * W) + conv(pad(t), W)

Before::

    %c = stablehlo.convolution(%x, %w) ...
    %y = "stablehlo.batch_norm_inference"(%c, %scale, %offset, %mean, %variance) <{feature_index = 3 : i64, ...}>

After::

    %s = scale * rsqrt(variance + epsilon)
    %c = stablehlo.convolution(%x, %w * %s) ...
    %y = stablehlo.add %c, broadcast(offset - mean * %s)

A map is a batch norm, or a multiplication or division with weights along channels, or an addition of them. The scale
goes up into every linear operation that it comes from, or down into every one that reads it, whichever leaves fewer
elementwise operations on activations per call, up where both leave as many: a batch norm counts two, a multiplication
and an addition one each. What would not leave fewer than there were stays. So every rewrite lowers that count, and the
pass ends.

In a training step of frozen batch norms the same scale multiplies a gradient on its way back. With the option
``training`` it goes on into both convolutions that read it, of which one computes the gradient of the weight::

    conv(s * g, W) = conv(g, s * W),    conv(x, s * g) = s * conv(x, g)

One multiplication is left on the weight's gradient, where that has fewer than half of the elements of g. Such a graph
has weights that change: what it computes of them, ``s * W``, it computes in every step.

The arithmetic on weights is done in float32 at least. What stays says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.affine import Affine, affine
from stablenorm.passes.base import Pass, PassContext
from stablenorm.passes.building import convert, is_float, shape_of, tensor_type
from stablenorm.passes.compact import join, vector_along
from stablenorm.passes.copies import with_operand
from stablenorm.passes.fates import Fate, Fates
from stablenorm.passes.map_numbers import emitted
from stablenorm.passes.matching import defining_op
from stablenorm.passes.pending import Pending
from stablenorm.passes.pushing import Push
from stablenorm.passes.readers import Readers
from stablenorm.passes.rewriting import NoMatch, functions, operations, sweep
from stablenorm.passes.scaling import Plan, plus, shift_along
from stablenorm.passes.ways import Ways, saved_down, saved_up
from stablenorm.passes.weights import Weights


@dataclasses.dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Folds ``stablehlo.batch_norm_inference``, and other per-channel maps, into convolutions and dot_generals.

    Attributes:
        training: whether the scales of gradients go on to the gradients of weights.
    """

    name: ClassVar[str] = "fold-batch-norm"

    training: bool = False

    def run(self, module: ir.Module, context: PassContext) -> None:
        with module.context, ir.Location.unknown():
            for function in functions(module):
                weights, readers, maps = Weights(function, context.weights), Readers(), operations(function)
                fold = _Fold(weights, readers, Ways(weights, readers, self.training))
                for op in maps:
                    fold.scaling(op)
                for op in reversed(operations(function)):
                    fold.shifting(op)
                context.remarks.extend(fold.fates.remarks(maps, weights))
        sweep(module)


@dataclasses.dataclass(frozen=True)
class _Fold:
    """The fold of one function.

    Attributes:
        copies: batch norms that took a shift into their means, by the result of the one that they stand for.
    """

    weights: Weights
    readers: Readers
    ways: Ways
    fates: Fates = dataclasses.field(default_factory=Fates)
    copies: dict[ir.Value, ir.OpView] = dataclasses.field(default_factory=dict)

    def scaling(self, op: ir.OpView) -> None:
        """Folds a map that scales; notes what became of a batch norm in any case."""
        while op.results and op.results[0] in self.copies:
            op = self.copies[op.results[0]]
        if isinstance(op, hlo.BatchNormInferenceOp | hlo.MulOp | hlo.DivOp) and not self.fates.is_gone(op):
            declined = self._scaled(op)
            if declined is not None:
                self.fates.note(op, declined)

    def shifting(self, op: ir.OpView) -> None:
        """Lets a map that only shifts go where it costs nothing."""
        if not isinstance(op, hlo.AddOp | hlo.SubtractOp) or not self._is_live(op):
            return
        found = affine(op, self.weights, self.readers)
        down = found and self.ways.down(found)
        if found is not None and isinstance(down, Push):
            self._act_down(found, down)

    def _scaled(self, op: ir.OpView) -> NoMatch | None:
        found = self._guarded(op)
        if isinstance(found, NoMatch):
            return found
        scale = emitted(found, found.scale)
        unfit = self._not_finite([] if scale is None else [scale], "weight")
        if unfit is not None:
            return unfit
        up, down = self.ways.up(found), self.ways.down(found)
        if isinstance(up, Plan) and (isinstance(down, NoMatch) or saved_up(up, found) >= saved_down(down, found)):
            declined = self._act_up(found, up)
            if declined is None or isinstance(down, NoMatch):
                return declined
        if isinstance(down, Push):
            return self._act_down(found, down)
        assert isinstance(up, NoMatch)
        return NoMatch(f"{up.reason}; behind it, {down.reason}")

    def _guarded(self, op: ir.OpView) -> Affine | NoMatch:
        if isinstance(op, hlo.BatchNormInferenceOp):
            if not is_float(op.operand):
                return NoMatch(f"its type is not a real floating-point type: {op.operand.type}")
            parameters = {"scale": op.scale, "offset": op.offset, "mean": op.mean, "variance": op.variance}
            for name, parameter in parameters.items():
                if not self.weights.is_weight(parameter):
                    return NoMatch(f"its {name} depends on the model's inputs")
        is_map = self._is_live(op) or isinstance(op, hlo.BatchNormInferenceOp)
        found = affine(op, self.weights, self.readers) if is_map else None
        return found or NoMatch("it is no per-channel map")

    def _is_live(self, op: ir.OpView) -> bool:
        return bool(self.readers.of(op.results[0]))

    def _act_up(self, found: Affine, up: Plan) -> NoMatch | None:
        op, axis = found.op, up.axis
        with ir.InsertionPoint(op), op.location:
            scale, mean, offset = (emit and emit() for emit in (found.scale, found.mean, found.offset))
            assert scale is not None
            vector = vector_along(scale, axis, shape_of(found.operand)[axis])
            scaled = up.act(vector)
            shift = shift_along(axis, vector, scaled.bias, mean, offset)
            narrow = shift and convert(shift, tensor_type(scaled.value).element_type)
            unfit = self._not_finite(scaled.taken, "weight") or self._not_finite([narrow] if narrow else [], "bias")
            if unfit is not None:
                return unfit
            value = scaled.value if narrow is None else _shifted(scaled.value, narrow, axis)
        merged = narrow is not None and isinstance(defining_op(value), hlo.BatchNormInferenceOp)  # no addition is left
        self._replace(op, value)
        for other in found.also:
            self.fates.note(other, Fate(up.into, 0))
        self.fates.note(op, Fate(up.into, saved_up(up, found) + merged), [value, *scaled.left])
        return None

    def _act_down(self, found: Affine, down: Push) -> NoMatch | None:
        scale, mean, offset = (emitted(found, emit) for emit in (found.scale, found.mean, found.offset))
        with ir.InsertionPoint(found.op), found.op.location:
            shift = offset
            if scale is not None and mean is not None:
                product = join(hlo.multiply, mean, scale)
                shift = hlo.negate(product) if offset is None else join(hlo.subtract, offset, product)
        replacements = down.act(Pending(found.operand, scale, shift))
        weights = [value for value in (scale, shift) if value is not None]
        weights += [weight for replacement in replacements for weight in replacement.taken]
        unfit = self._not_finite(weights, "weight")
        if unfit is not None:
            return unfit
        for other in (*found.also, *down.passed):
            self.fates.note(other, Fate(down.into, 0))  # what it saves is counted once, below
        left: list[ir.Value] = []
        for old, new, _ in replacements:
            copy = defining_op(new)
            if isinstance(old, hlo.BatchNormInferenceOp) and isinstance(copy, hlo.BatchNormInferenceOp):
                self.copies[old.results[0]] = copy
                self.fates.stands_for(new, old)
            else:
                left.append(new)
            self._replace(old, new)
        self.fates.note(found.op, Fate(down.into, found.costs + down.saves), left)
        return None

    def _replace(self, op: ir.OpView, value: ir.Value) -> None:
        op.results[0].replace_all_uses_with(value)
        self.readers.replaced(op)

    def _not_finite(self, values: Iterable[ir.Value], what: str) -> NoMatch | None:
        for value in values:
            numbers = self.weights.evaluate(value)
            if numbers is not None and not np.isfinite(numbers).all():
                return NoMatch(f"a folded {what} would not be finite in {tensor_type(value).element_type}")
        return None


def _shifted(value: ir.Value, shift: ir.Value, axis: int) -> ir.Value:
    op = defining_op(value)
    if isinstance(op, hlo.BatchNormInferenceOp) and tensor_type(shift).rank == 1:  # a merged one: its offset is zero
        return with_operand(op, 2, convert(shift, tensor_type(op.offset).element_type))
    return plus(value, shift, axis)
