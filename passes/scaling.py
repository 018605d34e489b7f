"""The way up of a per-channel scale: into the weights of all that its tensor comes from, or nowhere.

`plan` follows a scale through the rules of `producers.py`. Each rule states one law for one operation: given the scale
it answers with a `Plan`, or with `NoMatch` and the reason. Nothing is emitted before the whole way is known to be free,
in every branch that it needs. What is added on the way, a bias, comes back down by the laws of `consumers.py`, as any
shift does, and is added once, at the end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeAlias

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Array
from stablenorm.passes.building import along, convert, shape_of, tensor_type
from stablenorm.passes.compact import Dims, apply, from_vector, join, varies_only_along, vector_along
from stablenorm.passes.consumers import CONSUMERS
from stablenorm.passes.copies import with_operand
from stablenorm.passes.matching import defining_op
from stablenorm.passes.pending import FARTHEST, Form, Pending
from stablenorm.passes.readers import Readers
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.weights import Weights

Rule: TypeAlias = "Callable[..., Plan | NoMatch]"


@dataclasses.dataclass(frozen=True)
class Factor:
    """A scale on its way up.

    Attributes:
        axis: the dimension along which it lies.
        numbers: what it is, where the weights' values are known.
        block: where its map stands.
        steps: how many operations it has passed.
        shared: whether the rule that asks knows all readers of the value.
    """

    axis: int
    numbers: Array | None
    weights: Weights
    readers: Readers
    block: ir.Block
    rules: Mapping[type[ir.OpView], Rule]
    steps: int = 0
    shared: bool = False


@dataclasses.dataclass(frozen=True)
class Scaled:
    """``scale`` times the original value is ``value + scale * bias``; ``bias`` is compact, or zero: None.

    The bias is not scaled yet because it often is near a batch norm's mean: their difference is exact, while the
    difference of their multiples is not.

    Attributes:
        taken: the weight tensors that took the scale.
        left: additions of biases that had to come before an operation.
    """

    value: ir.Value
    bias: ir.Value | None
    taken: tuple[ir.Value, ...]
    left: tuple[ir.Value, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
    """A way to absorb a scale.

    Attributes:
        into: the layers whose weights take it.
        act: emits, given the scale as a vector.
        bias: along which dimensions the bias varies that is still to be added; None: there is none.
        saves: elementwise operations that go on the way, less those that come.
        axis: the dimension of the map's operand along which the scale lies.
    """

    into: tuple[str, ...]
    act: Callable[[ir.Value], Scaled]
    bias: Dims | None = None
    saves: int = 0
    axis: int = -1


def plan(value: ir.Value, factor: Factor) -> Plan | NoMatch:
    """How ``scale * value`` is absorbed."""
    op = defining_op(value)
    if op is None:
        return NoMatch("its input is an argument of the function: no linear operation comes before it")
    if not factor.shared and not factor.readers.single(value):
        return NoMatch(f"the result of {op.operation.name} has another consumer")
    if op.operation.block != factor.block:
        return NoMatch(f"{op.operation.name} before it stands in another region, a loop perhaps")
    rule = factor.rules.get(type(op))
    if rule is None:
        return NoMatch(f"its input comes from {op.operation.name}, which a per-channel scale cannot pass")
    if factor.steps == FARTHEST:
        return NoMatch(f"no weight takes it within {FARTHEST} operations")
    return rule(op, dataclasses.replace(factor, steps=factor.steps + 1, shared=False))


def carried(op: ir.OpView, inner: Plan | NoMatch, axis: int, factor: Factor, place: int = 0) -> Plan | NoMatch:
    """``s * L(f + b) = L(s * f) + s * L(b)``, L an operation on f alone along whose dimension ``axis`` s lies."""
    if isinstance(inner, NoMatch):
        return inner
    step = CONSUMERS[type(op)](op, place, Form(None, inner.bias), factor.weights) if inner.bias is not None else None
    if step is None or isinstance(step, NoMatch):
        return adding_first(inner, axis, lambda value, scale: with_operand(op, place, value))
    passed = step

    def act(scale: ir.Value) -> Scaled:
        scaled = inner.act(scale)
        after = passed.act(Pending(scaled.value, None, scaled.bias))
        return dataclasses.replace(scaled, value=after.value, bias=after.shift)

    return dataclasses.replace(inner, act=act, bias=passed.form.shift)


def adding_first(inner: Plan, axis: int, emit: Callable[[ir.Value, ir.Value], ir.Value]) -> Plan:
    """For an operation that a scale passes and a bias does not: ``emit(value, scale)`` copies it behind the sum."""

    def act(scale: ir.Value) -> Scaled:
        scaled = inner.act(scale)
        shift = shift_along(axis, scale, scaled.bias)
        if shift is None:
            return dataclasses.replace(scaled, value=emit(scaled.value, scale))
        total = plus(scaled.value, shift, axis)
        narrow = convert(shift, tensor_type(total).element_type)
        return Scaled(emit(total, scale), None, (*scaled.taken, narrow), (*scaled.left, total))

    return dataclasses.replace(inner, act=act, bias=None, saves=inner.saves - (inner.bias is not None))


def shift_along(
    axis: int, scale: ir.Value, bias: ir.Value | None, mean: ir.Value | None = None, offset: ir.Value | None = None
) -> ir.Value | None:
    """``offset + scale * (bias - mean)``, the difference first: it is exact where they are near each other.

    A vector along ``axis`` where bias, mean and offset are, else compact as they are; the scale is a vector.
    """
    parts = [bias, mean, offset]
    size = shape_of(scale)[0]
    if all(part is None or varies_only_along(part, axis) for part in parts):
        return _shift(scale, *(part and vector_along(part, axis, size) for part in parts))
    rank = next(len(shape_of(part)) for part in parts if part is not None)
    return _shift(from_vector(scale, axis, rank), *parts)


def _shift(scale: ir.Value, bias: ir.Value | None, mean: ir.Value | None, offset: ir.Value | None) -> ir.Value | None:
    if mean is None:
        product = bias and join(hlo.multiply, bias, scale)
        return product if offset is None or product is None else join(hlo.add, offset, product)
    product = join(hlo.multiply, mean if bias is None else join(hlo.subtract, mean, bias), scale)
    return hlo.negate(product) if offset is None else join(hlo.subtract, offset, product)


def plus(value: ir.Value, shift: ir.Value, axis: int) -> ir.Value:
    """``value + shift`` in the value's type; the shift is a vector along ``axis``, or compact."""
    if len(shape_of(shift)) == 1:
        return hlo.add(value, along(convert(shift, tensor_type(value).element_type), axis, value))
    return apply(hlo.add, value, shift)
