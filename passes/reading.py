"""Reading arithmetic forward from a tensor: what each operation's result is, as a formula (`moments.py`).

Starting at x, every operation that reads a value whose formula is known gets one too, in program order. What it reads
beside that is a leaf. Reading ends at what is no arithmetic (a convolution, an activation).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import integers, is_float, product, shape_of
from stablenorm.passes.leaves import Leaves, Term, direction, is_rounding, is_sum
from stablenorm.passes.matching import defining_op
from stablenorm.passes.moments import (
    Formula,
    Tensor,
    Vector,
    atom,
    feature_mean,
    feature_sum,
    feature_variance,
    has_tensors,
    number,
    power,
)
from stablenorm.passes.named_forms import BatchNorm, view
from stablenorm.passes.polynomials import Place, result_place
from stablenorm.passes.sources import Source
from stablenorm.passes.weights import Weights

# Gradients of batch norm have six terms, and as many for each other gradient that is added to them on the way.
_MOST_TERMS, _MOST_FACTORS, _MOST_ADDED = 24, 12, 3


class Reading:
    """What is computed from ``x``, and from ``others`` of its shape, in the block of a source.

    Attributes:
        axes: the feature dimensions of x, ascending.
        count: how many elements each feature has.
        mean, variance: the formulas of x's statistics; ``tensor`` is x itself.
        terms: what is known, by value, in program order.
        named: the batch norms of x with its own statistics that have their name already.
    """

    def __init__(self, source: Source, weights: Weights, *others: ir.Value) -> None:
        self.x, self.axes, self.block = source.x, source.axes, source.block
        self.place: Place = tuple(axis if size != 1 else None for axis, size in enumerate(shape_of(self.x)))
        self.count = source.count
        self._others = frozenset(p for p in self.place if p is not None and p not in self.axes)
        self._leaves = Leaves(self._others, self.count, weights)
        self.tensor = Tensor(self.x, self.place)
        self.mean = feature_mean(atom(self.tensor), self.count)
        self.variance = feature_variance(atom(self.tensor), self.count)
        self.terms = {value: Term(atom(Tensor(value, self.place)), self.place) for value in (self.x, *others)}
        self.named: list[BatchNorm] = []
        self._read()

    def _read(self) -> None:
        queued: set[ir.Operation] = set()
        pending: list[_InOrder] = []
        fresh = list(self.terms)
        while fresh or pending:
            for user in (use.owner.operation for value in fresh for use in value.uses):
                if user.block == self.block and user not in queued:
                    queued.add(user)
                    heapq.heappush(pending, _InOrder(user))
            found = self._terms(heapq.heappop(pending).op.opview) if pending else {}
            fresh = [value for value in found if value not in self.terms]
            self.terms.update({value: found[value] for value in fresh})

    def _terms(self, op: ir.OpView) -> dict[ir.Value, Term]:
        named = view(op)
        if named is not None:
            return self._statistics(named)
        term = self._term(op)
        return {op.results[0]: term} if term is not None and self._may_become_one(term.formula) else {}

    def _may_become_one(self, formula: Formula) -> bool:
        """Whether a formula is no longer than what is looked for, and no long sum of tensors, as along skips."""
        short = len(formula.terms) <= _MOST_TERMS and all(len(monomial) <= _MOST_FACTORS for monomial in formula.terms)
        bare = [each for monomial in formula.terms for each, _ in monomial if len(monomial) == 1]
        tensors = sum(isinstance(each, Tensor) for each in bare)
        return short and tensors <= (1 if self.tensor in bare else _MOST_ADDED)

    def _statistics(self, named: BatchNorm) -> dict[ir.Value, Term]:
        """Mean and variance of x, where they have their name."""
        operand = self.terms.get(named["operand"])
        if named.kind != "training" or named.axes != self.axes or "weight" in named.operands:
            return {}
        if operand is None or operand.formula != atom(self.tensor):
            return {}
        self.named.append(named)
        place = tuple(self.place[axis] for axis in self.axes)
        _, mean, variance = named.op.results
        return {mean: Term(self.mean, place), variance: Term(self.variance, place)}

    def _term(self, op: ir.OpView) -> Term | None:
        match op:
            case hlo.ConvertOp() if is_rounding(op) and self.terms[op.operand].formula == atom(self.tensor):
                return None  # how far x is from its mean is lost
            case hlo.ConvertOp() | hlo.BroadcastInDimOp() | hlo.ReshapeOp() | hlo.TransposeOp():
                formula, place = self.terms[op.operand]
                moved = result_place(op, place)
                return None if moved is None else Term(formula, moved)
            case hlo.ReduceOp() if is_sum(op) and op.inputs[0] in self.terms:
                return self._summed(op)
            case hlo.SelectOp() if is_float(op.result):
                return self._selected(op)
            case _ if isinstance(op, _ELEMENTWISE):
                return self._elementwise(op)
        return None

    def _elementwise(self, op: ir.OpView) -> Term | None:
        frame = self._frame(op.operands)
        operands = [frame and self._operand(operand, frame) for operand in op.operands]
        known = [operand for operand in operands if operand]
        if frame is None or len(known) < len(operands):
            return None
        formula = self._combined(op, [operand.formula for operand in known])
        return self._derived(op.results[0], frame) if formula is None else Term(formula, frame)

    def _combined(self, op: ir.OpView, operands: Sequence[Formula]) -> Formula | None:
        match op, operands:
            case hlo.AddOp(), (left, right):
                return self._rooted(left + right)
            case hlo.SubtractOp(), (left, right):
                return left - right
            case hlo.MulOp(), (left, right) if len(left.terms) * len(right.terms) <= 2 * _MOST_TERMS:
                return left * right
            case hlo.NegOp(), (operand,):
                return -operand
            case hlo.DivOp(), (left, right) if (inverse := power(right, Fraction(-1))) is not None:
                return left * inverse
            case hlo.RsqrtOp(), (operand,):
                return power(operand, Fraction(-1, 2))
            case hlo.SqrtOp(), (operand,):
                return power(operand, Fraction(1, 2))
            case hlo.PowOp(), (base, exponent) if exponent.constant is not None:
                return power(base, exponent.constant)
            case hlo.MaxOp(), _ if self.variance in operands and number(0) in operands:
                return self.variance  # it is not negative
        return None

    def _rooted(self, formula: Formula) -> Formula:
        """The variance with an epsilon is a power of its root, so that quotients by it and by its root are alike."""
        epsilon = (formula - self.variance).constant if frozenset() in formula.terms else None
        root = power(formula, Fraction(-1, 2)) if epsilon and epsilon > 0 else None
        return formula if root is None else power(root, Fraction(-2)) or formula

    def _summed(self, op: hlo.ReduceOp) -> Term | None:
        """The sum over each feature; or over dimensions of size 1, which is a reshape."""
        formula, place = self.terms[op.inputs[0]]
        dimensions = set(integers(op, "dimensions"))
        kept = tuple(along for dimension, along in enumerate(place) if dimension not in dimensions)
        summed = {place[dimension] for dimension in dimensions}
        count = product([shape_of(op.inputs[0])[dimension] for dimension in dimensions])
        if count == 1:
            return Term(formula, kept)
        partly = has_tensors(formula) and not self._others <= summed
        if count != self.count or partly or not summed.isdisjoint(self.axes):
            return None
        return Term(feature_sum(formula, count), kept)

    def _selected(self, op: hlo.SelectOp) -> Term | None:
        """Where the answer is constant (``jnp.var`` asks whether there are enough elements) it is known."""
        answer = self._leaves.answer(op.pred)
        if answer is not None:
            return self.terms.get(op.on_true if answer else op.on_false)
        frame = self._frame([op.on_true, op.on_false])
        return None if frame is None else self._derived(op.result, frame)

    def _derived(self, value: ir.Value, frame: Place) -> Term | None:
        """A vector that is computed from known values, but not by arithmetic: an atom."""
        return None if self._others & set(frame) else Term(atom(Vector(value, frame, derived=True)), frame)

    def _frame(self, operands: Sequence[ir.Value]) -> Place | None:
        """Where the dimensions of an elementwise operation lie; None where known operands contradict each other."""
        places = [self.terms[operand].place for operand in operands if operand in self.terms]
        if shape_of(operands[0]) == shape_of(self.x):
            places.append(self.place)
        along = [{place for place in each if place is not None} for each in zip(*places, strict=True)]
        return tuple(next(iter(each), None) for each in along) if all(len(each) < 2 for each in along) else None

    def _operand(self, value: ir.Value, frame: Place) -> Term | None:
        if value in self.terms:
            return self.terms[value]
        return Term(number(1), ()) if self._is_slope_of_clamp(value) else self._leaves.leaf(value, frame)

    def _is_slope_of_clamp(self, value: ir.Value) -> bool:
        """Whether this is JAX's derivative of ``maximum(v, 0)`` by v, where v is the variance.

        ``(v == max ? 1 : 0) / (0 == max ? 2 : 1)`` is 1 but where the variance is 0. There x is its mean, and what the
        derivative is multiplied with is 0.
        """
        op = defining_op(value)
        if not isinstance(op, hlo.DivOp):
            return False
        above, below = (self._choice(defining_op(operand)) for operand in op.operands)
        return above == _Choice({self.variance}, 1, 0) and below == _Choice({self.variance, number(0)}, 2, 1)

    def _choice(self, op: ir.OpView | None) -> _Choice | None:
        question = defining_op(op.pred) if isinstance(op, hlo.SelectOp) else None
        if not isinstance(op, hlo.SelectOp) or not isinstance(question, hlo.CompareOp) or direction(question) != "EQ":
            return None
        terms = [self._operand(operand, (None,) * len(shape_of(operand))) for operand in question.operands]
        formulas = {term.formula for term in terms if term is not None}
        return _Choice(formulas, self._leaves.number(op.on_true), self._leaves.number(op.on_false))


class _Choice(NamedTuple):
    """A select between two numbers that asks whether formulas are equal."""

    equal: set[Formula]
    on_true: Fraction | int | None
    on_false: Fraction | int | None


class _InOrder:
    """An operation, ordered by its place in the block."""

    def __init__(self, op: ir.Operation) -> None:
        self.op = op

    def __lt__(self, other: _InOrder) -> bool:
        return bool(self.op.is_before_in_block(other.op))


_ELEMENTWISE = (
    hlo.AddOp | hlo.SubtractOp | hlo.NegOp | hlo.MulOp | hlo.DivOp | hlo.RsqrtOp | hlo.SqrtOp | hlo.PowOp | hlo.MaxOp
)
