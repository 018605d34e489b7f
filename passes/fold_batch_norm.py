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
elementwise operations on activations per call: a batch norm counts two, a multiplication and an addition one each. What
would not leave fewer than there were stays. So every rewrite lowers that count, and the pass ends.

The arithmetic on weights is done in float32 at least. What stays says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import ClassVar, Literal

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.affine import Affine, affine
from stablenorm.passes.base import Array, Pass, PassContext, Remark
from stablenorm.passes.building import convert, is_float, shape_of, tensor_type
from stablenorm.passes.compact import join, vector_along
from stablenorm.passes.copies import with_operand
from stablenorm.passes.matching import defining_op, layer_name, where
from stablenorm.passes.pending import Form, Pending
from stablenorm.passes.producers import PRODUCERS
from stablenorm.passes.pushing import Push, Walk, push
from stablenorm.passes.readers import Readers
from stablenorm.passes.rewriting import NoMatch, functions, operations, sweep
from stablenorm.passes.scaling import Factor, Plan, plan, plus, shift_along
from stablenorm.passes.weights import Weights

# A mean so much larger than what is normalized would cost that many times float32's rounding, 6e-8, in a sum of
# products with x; the batch norm itself subtracts it first.
LARGEST_MEAN = 64.0


@dataclasses.dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Folds ``stablehlo.batch_norm_inference``, and other per-channel maps, into convolutions and dot_generals."""

    name: ClassVar[str] = "fold-batch-norm"

    def run(self, module: ir.Module, context: PassContext) -> None:
        with module.context, ir.Location.unknown():
            for function in functions(module):
                fold = _Fold(Weights(function, context.weights), context.remarks)
                for op in operations(function):
                    fold.scaling(op)
                for op in reversed(operations(function)):
                    fold.shifting(op)
        sweep(module)


@dataclasses.dataclass(frozen=True)
class _Fold:
    """The fold of one function.

    Attributes:
        taken: where a map went that another one took along, by its result.
        copies: batch norms that took a shift into their means, by the result of the one that they stand for.
    """

    weights: Weights
    remarks: list[Remark]
    readers: Readers = dataclasses.field(default_factory=Readers)
    taken: dict[ir.Value, str] = dataclasses.field(default_factory=dict)
    copies: dict[ir.Value, ir.OpView] = dataclasses.field(default_factory=dict)

    def scaling(self, op: ir.OpView) -> None:
        """Folds a map that scales; says what became of a batch norm in any case."""
        while op.results and op.results[0] in self.copies:
            op = self.copies[op.results[0]]
        if not isinstance(op, hlo.BatchNormInferenceOp | hlo.MulOp | hlo.DivOp):
            return
        way: tuple[str, ...] | NoMatch
        way = (self.taken[op.results[0]],) if op.results[0] in self.taken else self._scaling_way(op)
        if not isinstance(op, hlo.BatchNormInferenceOp):
            return
        if isinstance(way, NoMatch):
            self._say(op, "declined", way.reason)
        else:
            self._say(op, "folded", ", ".join(dict.fromkeys(way)))

    def shifting(self, op: ir.OpView) -> None:
        """Lets a map that only shifts go where it costs nothing."""
        if not isinstance(op, hlo.AddOp | hlo.SubtractOp) or not self._is_live(op):
            return
        found = affine(op, self.weights)
        if found is not None:
            down = self._down(found, None)
            if isinstance(down, Push):
                self._act_down(found, down)

    def _scaling_way(self, op: ir.OpView) -> tuple[str, ...] | NoMatch:
        """Into which layers the map went."""
        found = self._guarded(op)
        if isinstance(found, NoMatch):
            return found
        scale = _emit(found, found.scale)
        numbers = self.weights.evaluate(scale)
        if numbers is not None and not np.isfinite(numbers).all():
            return NoMatch(f"a folded weight would not be finite in {tensor_type(scale).element_type}")
        up, down = self._up(found, numbers), self._down(found, numbers)
        if isinstance(up, Plan) and (isinstance(down, NoMatch) or _saved(up, found) >= down.saves + found.costs):
            went = self._act_up(found, up)
            if went is None or isinstance(down, NoMatch):
                return went or up.into
        if isinstance(down, Push):
            return self._act_down(found, down) or down.into
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
        found = affine(op, self.weights) if self._is_live(op) or isinstance(op, hlo.BatchNormInferenceOp) else None
        return found or NoMatch("it is no per-channel map")

    def _is_live(self, op: ir.OpView) -> bool:
        return bool(self.readers.of(op.results[0]))

    def _up(self, found: Affine, numbers: Array | None) -> Plan | NoMatch:
        declined: Plan | NoMatch = NoMatch("it scales along several dimensions")
        rank = len(shape_of(found.operand))
        axes: Iterable[int] = found.dims if found.dims else reversed(range(rank))
        if len(found.dims) > 1:
            return declined
        for axis in axes:
            size = shape_of(found.operand)[axis]
            if size < 0:
                continue
            flat = None if numbers is None else np.broadcast_to(numbers.reshape(-1), (size,))
            declined = plan(found.operand, Factor(axis, flat, self.weights, self.readers, PRODUCERS))
            if isinstance(declined, Plan) and _saved(declined, found) > 0:
                return dataclasses.replace(declined, axis=axis)
        if isinstance(declined, Plan):
            return NoMatch("it would leave as much elementwise work as there is")
        return declined

    def _down(self, found: Affine, scale: Array | None) -> Push | NoMatch:
        if isinstance(found.op, hlo.BatchNormInferenceOp) and self._loses_digits(found.op):
            return NoMatch("its mean is too far from zero, against its deviation, to be subtracted after a sum")
        shift = found.dims if found.offset is not None else None
        form = Form(found.dims if found.scale is not None else None, shift, self._passes_maxima(found, scale))
        down = push(found.op.results[0], form, Walk(self.weights, self.readers, set()))
        if isinstance(down, Push) and down.saves + found.costs <= 0:
            return NoMatch("it would leave as much elementwise work as there is")
        return down

    def _passes_maxima(self, found: Affine, scale: Array | None) -> bool:
        """Whether the shift may be divided by the scale, and stays far from what x's type holds at most."""
        least = 2.0**-8 if isinstance(tensor_type(found.operand).element_type, ir.F16Type) else 2.0**-40
        if scale is None or not (scale >= least).all():
            return False
        mean, offset = (
            0.0 if emit is None else self.weights.evaluate(_emit(found, emit)) for emit in (found.mean, found.offset)
        )
        if mean is None or offset is None:
            return False
        quotient = np.asarray(offset, np.float64) / scale - np.asarray(mean, np.float64)
        return bool((np.abs(quotient) <= 1 / least).all())

    def _loses_digits(self, op: hlo.BatchNormInferenceOp) -> bool:
        values = [self.weights.evaluate(each) for each in (op.scale, op.offset, op.mean, op.variance)]
        if any(value is None for value in values):
            return False
        scale, offset, mean, variance = (np.asarray(value, np.float64) for value in values)
        with np.errstate(all="ignore"):
            far = np.linalg.norm(mean * scale / np.sqrt(variance + op.epsilon.value))
        return bool(far > LARGEST_MEAN * np.linalg.norm([scale, offset]))

    def _act_up(self, found: Affine, up: Plan) -> NoMatch | None:
        op, axis = found.op, up.axis
        with ir.InsertionPoint(op), op.location:
            assert found.scale is not None
            scale, mean, offset = (emit and emit() for emit in (found.scale, found.mean, found.offset))
            assert scale is not None
            vector = vector_along(scale, axis, shape_of(found.operand)[axis])
            scaled = up.act(vector)
            shift = shift_along(axis, vector, scaled.bias, mean, offset)
            narrow = shift and convert(shift, tensor_type(scaled.value).element_type)
            unfit = self._not_finite([*scaled.taken], "weight") or self._not_finite([narrow] if narrow else [], "bias")
            if unfit is not None:
                return unfit
            self._replace(op, scaled.value if narrow is None else _shifted(scaled.value, narrow, axis))
        return None

    def _act_down(self, found: Affine, down: Push) -> NoMatch | None:
        op = found.op
        scale, mean, offset = (_emit(found, emit) if emit else None for emit in (found.scale, found.mean, found.offset))
        with ir.InsertionPoint(op), op.location:
            shift = offset
            if scale is not None and mean is not None and offset is not None:
                shift = join(hlo.subtract, offset, hlo.multiply(mean, scale))
        numbers = [self.weights.evaluate(value) for value in (scale, shift) if value is not None]
        if not all(each is None or np.isfinite(each).all() for each in numbers):
            return NoMatch("a folded weight would not be finite")
        replacements = down.act(Pending(found.operand, scale, shift))
        into = ", ".join(down.into)
        for other in down.passed:
            self.taken[other.results[0]] = into
        for old, new in replacements:
            copy = defining_op(new)
            if isinstance(old, hlo.BatchNormInferenceOp) and isinstance(copy, hlo.BatchNormInferenceOp):
                self.copies[old.results[0]] = copy
            self._replace(old, new)
        return None

    def _replace(self, op: ir.OpView, value: ir.Value) -> None:
        op.results[0].replace_all_uses_with(value)
        self.readers.replaced(op)

    def _not_finite(self, values: list[ir.Value], what: str) -> NoMatch | None:
        for value in values:
            numbers = self.weights.evaluate(value)
            if numbers is not None and not np.isfinite(numbers).all():
                return NoMatch(f"a folded {what} would not be finite in {tensor_type(value).element_type}")
        return None

    def _say(self, op: hlo.BatchNormInferenceOp, verdict: Literal["folded", "declined"], detail: str) -> None:
        subject = layer_name(op, self.weights, op.mean, op.variance, op.scale, op.offset)
        self.remarks.append(Remark("fold-batch-norm", verdict, subject, detail, where(op)))


def _emit(found: Affine, emit: object) -> ir.Value:
    assert callable(emit)
    with ir.InsertionPoint(found.op), found.op.location:
        value: ir.Value = emit()
        return value


def _saved(up: Plan, found: Affine) -> int:
    """The elementwise operations that a way up saves: the map's own and the biases', less the shift at the end."""
    return found.costs + up.saves - (up.bias is not None or found.offset is not None)


def _shifted(value: ir.Value, shift: ir.Value, axis: int) -> ir.Value:
    op = defining_op(value)
    if isinstance(op, hlo.BatchNormInferenceOp) and tensor_type(shift).rank == 1:  # a merged one: its offset is zero
        return with_operand(op, 2, convert(shift, tensor_type(op.offset).element_type))
    return plus(value, shift, axis)
