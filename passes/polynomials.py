"""Elementwise arithmetic as polynomials, so that every way of writing the same formula looks the same.

``x * (r * g) + (b - m * (r * g))`` and ``(x - m) * (g * r) + b`` both become ``x g r - m g r + b``. What is not
expanded is an atom: the tensor ``x`` itself, ``rsqrt(v)`` (also written ``1 / sqrt(v)``), and any weight expression
without an rsqrt in it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import integers, is_float, shape_of
from stablenorm.passes.matching import defining_op
from stablenorm.passes.weights import Weights

# For each dimension of a value, the dimension of the whole expression that it lies along, or None.
Place = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Atom:
    """A factor that is not expanded. ``inverse_root`` atoms stand for ``rsqrt(value)``."""

    value: ir.Value
    place: Place
    inverse_root: bool = False


Monomial = tuple[Atom, ...]
Polynomial = dict[Monomial, int]

_DEPTH = 8


class NotPolynomial(Exception):
    """The expression is not one that is understood here."""


def expand(value: ir.Value, variable: ir.Value, weights: Weights) -> Polynomial:
    """``value`` as a polynomial in ``variable`` and atoms.

    Raises:
        NotPolynomial: another tensor that depends on inputs is in it, or an operation that is not arithmetic.
    """
    return _Expansion(variable, weights).of(value, tuple(range(len(shape_of(value)))), _DEPTH)


@dataclasses.dataclass(frozen=True)
class _Expansion:
    """One expansion. ``numbers`` orders the atoms as they were met, so that equal products have one spelling."""

    variable: ir.Value
    weights: Weights
    numbers: dict[Atom, int] = dataclasses.field(default_factory=dict)

    def of(self, value: ir.Value, place: Place, depth: int) -> Polynomial:
        if value == self.variable:
            return self._atom(value, place)
        is_weight = self.weights.is_weight(value)
        op = defining_op(value)
        if depth == 0 or (not is_weight and not isinstance(op, _ARITHMETIC)):
            raise NotPolynomial
        match op:
            case hlo.MulOp():
                return self._product(self.of(op.lhs, place, depth - 1), self.of(op.rhs, place, depth - 1))
            case hlo.DivOp() if (radicand := _radicand(op.rhs, place)) is not None:
                return self._product(self.of(op.lhs, place, depth - 1), self._atom(*radicand, inverse_root=True))
            case hlo.RsqrtOp():
                return self._atom(op.operand, place, inverse_root=True)
            case hlo.BroadcastInDimOp() | hlo.ReshapeOp() | hlo.ConvertOp() if (
                moved := operand_place(op, place)
            ) is not None:
                return self.of(op.operand, moved, depth - 1)
            case hlo.AddOp() | hlo.SubtractOp() | hlo.NegOp() if not is_weight or has_inverse_root(value):
                signs = {hlo.AddOp: (1, 1), hlo.SubtractOp: (1, -1), hlo.NegOp: (-1,)}[type(op)]
                terms = [self.of(operand, place, depth - 1) for operand in op.operands]
                return _sum(zip(signs, terms, strict=True))
        if not is_weight:
            raise NotPolynomial
        return self._atom(value, place)

    def _atom(self, value: ir.Value, place: Place, inverse_root: bool = False) -> Polynomial:
        atom = Atom(value, place, inverse_root)
        self.numbers.setdefault(atom, len(self.numbers))
        return {(atom,): 1}

    def _product(self, left: Polynomial, right: Polynomial) -> Polynomial:
        pairs = [((*a, *b), m * n) for a, m in left.items() for b, n in right.items()]
        return _sum((factor, {tuple(sorted(atoms, key=self.numbers.__getitem__)): 1}) for atoms, factor in pairs)


_ARITHMETIC = (hlo.AddOp, hlo.SubtractOp, hlo.MulOp, hlo.DivOp, hlo.NegOp)
_TRANSPARENT = (*_ARITHMETIC, hlo.BroadcastInDimOp, hlo.ReshapeOp, hlo.ConvertOp)


def has_inverse_root(value: ir.Value, depth: int = _DEPTH) -> bool:
    """Whether an rsqrt, or a division by a square root, is among the factors and terms of ``value``."""
    op = defining_op(value)
    if isinstance(op, hlo.RsqrtOp | hlo.SqrtOp):
        return True
    return depth > 0 and isinstance(op, _TRANSPARENT) and any(has_inverse_root(o, depth - 1) for o in op.operands)


def _radicand(divisor: ir.Value, place: Place) -> tuple[ir.Value, Place] | None:
    """``v``, and where it lies, where ``divisor`` is ``sqrt(v)``, broadcast or not."""
    op = defining_op(divisor)
    while isinstance(op, hlo.BroadcastInDimOp | hlo.ReshapeOp | hlo.ConvertOp):
        moved = operand_place(op, place)
        if moved is None:
            return None
        place, op = moved, defining_op(op.operand)
    return (op.operand, place) if isinstance(op, hlo.SqrtOp) else None


def operand_place(op: ir.OpView, place: Place) -> Place | None:
    """Where the operand's dimensions lie, given where the result's do; None where a reshape mixes dimensions."""
    if isinstance(op, hlo.ConvertOp):
        return place if is_float(op.operands[0]) else None
    if isinstance(op, hlo.BroadcastInDimOp):
        return tuple(place[dimension] for dimension in integers(op, "broadcast_dimensions"))
    before, after = shape_of(op.operands[0]), shape_of(op.results[0])
    kept = [place[dimension] for dimension, size in enumerate(after) if size != 1]
    if [size for size in before if size != 1] != [size for size in after if size != 1]:
        return None
    if not kept and len(before) == 1:  # one channel
        return (next((dimension for dimension in reversed(place) if dimension is not None), None),)
    sizes = iter(kept)
    return tuple(next(sizes) if size != 1 else None for size in before)


def result_place(op: ir.OpView, place: Place) -> Place | None:
    """Where the result's dimensions lie, given where the operand's do; None where a reshape mixes dimensions."""
    before, after = shape_of(op.operands[0]), shape_of(op.results[0])
    match op:
        case hlo.ConvertOp():
            return place if is_float(op.result) else None
        case hlo.TransposeOp():
            return tuple(place[dimension] for dimension in integers(op, "permutation"))
        case hlo.BroadcastInDimOp():
            moved = dict(zip(integers(op, "broadcast_dimensions"), place, strict=True))
            return tuple(moved.get(dimension) for dimension in range(len(after)))
    if [size for size in before if size != 1] != [size for size in after if size != 1]:
        return None
    kept = iter([along for along, size in zip(place, before, strict=True) if size != 1])
    return tuple(next(kept) if size != 1 else None for size in after)


def _sum(terms: Iterable[tuple[int, Polynomial]]) -> Polynomial:
    total: Polynomial = {}
    for sign, polynomial in terms:
        for monomial, coefficient in polynomial.items():
            total[monomial] = total.get(monomial, 0) + sign * coefficient
    return {monomial: coefficient for monomial, coefficient in total.items() if coefficient != 0}


def without(monomial: Monomial, factors: Monomial) -> Monomial | None:
    """The factors that are left when ``factors`` are taken out; None where one of them is missing."""
    left = Counter(monomial)
    left.subtract(Counter(factors))
    if min(left.values(), default=0) < 0:
        return None
    return tuple(left.elements())
