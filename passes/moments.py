"""Formulas of tensors, of vectors, and of sums over each feature, in one normal form.

A sum over a feature's n elements is linear, and a vector, one number for each feature, is constant under it. So every
way of writing a moment is one polynomial: with S for that sum and ``m = S(x) / n``, both ``S((x - m) (x - m)) / n`` and
``S(x x) / n - m m`` are ``S(x x) / n - S(x) S(x) / n²``.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction

from jax.extend.mlir import ir

from stablenorm.passes.polynomials import Place


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A factor that varies within a feature."""

    value: ir.Value
    place: Place


@dataclasses.dataclass(frozen=True)
class Vector:
    """A factor with one number for each feature, or one for all. ``derived``: from sums, by what is not arithmetic."""

    value: ir.Value
    place: Place
    derived: bool = False


@dataclasses.dataclass(frozen=True)
class Sum:
    """The sum of a product of tensors, with their exponents, over each feature."""

    factors: frozenset[tuple[Tensor, int]]


@dataclasses.dataclass(frozen=True)
class InverseRoot:
    """``rsqrt`` of a formula."""

    radicand: Formula


Atom = Tensor | Vector | Sum | InverseRoot
# Atoms with their exponents, which are not 0 and may be negative.
Monomial = frozenset[tuple[Atom, int]]


@dataclasses.dataclass(frozen=True)
class Formula:
    """A sum of products of atoms, each with a factor that is not 0."""

    terms: Mapping[Monomial, Fraction]

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:  # roots are asked for theirs again and again
        return hash(frozenset(self.terms.items()))

    def __add__(self, other: Formula) -> Formula:
        return _collect([*self.terms.items(), *other.terms.items()])

    def __sub__(self, other: Formula) -> Formula:
        return self + -other

    def __neg__(self) -> Formula:
        return Formula({monomial: -factor for monomial, factor in self.terms.items()})

    def __mul__(self, other: Formula) -> Formula:
        return _collect((_times(a, b), p * q) for a, p in self.terms.items() for b, q in other.terms.items())

    @property
    def atoms(self) -> set[Atom]:
        return {atom for monomial in self.terms for atom, _ in monomial}

    @property
    def constant(self) -> Fraction | None:
        """The number that this is; None where it is none."""
        return None if self.atoms else sum(self.terms.values(), Fraction(0))


def number(value: int | Fraction) -> Formula:
    return Formula({frozenset(): Fraction(value)} if value else {})


def atom(factor: Atom) -> Formula:
    return Formula({frozenset([(factor, 1)]): Fraction(1)})


def power(formula: Formula, exponent: Fraction) -> Formula | None:
    """``formula ** exponent``, a small whole or half number; None for a root or a reciprocal of zero or of tensors."""
    if exponent in (1, 2, 3):
        return functools.reduce(operator.mul, [formula] * int(exponent))
    if exponent == 0 or exponent.denominator > 2 or abs(exponent) > 3 or not formula.terms or has_tensors(formula):
        return None
    monomial, factor = next(iter(formula.terms.items()))
    powers = {each: times * exponent for each, times in monomial}
    # The root of a square may be of either sign, but for what is a root itself.
    is_whole = exponent.denominator == 1 or (factor == 1 and all(isinstance(each, InverseRoot) for each in powers))
    if len(formula.terms) == 1 and is_whole and all(times.denominator == 1 for times in powers.values()):
        terms = frozenset((each, int(times)) for each, times in powers.items())
        return Formula({terms: factor ** int(exponent) if exponent.denominator == 1 else Fraction(1)})
    return Formula({frozenset([(InverseRoot(formula), int(-2 * exponent))]): Fraction(1)})


def has_tensors(formula: Formula) -> bool:
    return any(isinstance(each, Tensor) for each in formula.atoms)


def feature_sum(formula: Formula, count: int) -> Formula:
    """The sum over the ``count`` elements of each feature."""
    terms = []
    for monomial, factor in formula.terms.items():
        tensors = frozenset((each, power) for each, power in monomial if isinstance(each, Tensor))
        total = atom(Sum(tensors)) if tensors else number(count)
        terms.append(Formula({monomial - tensors: factor}) * total)
    return sum(terms, number(0))


def feature_mean(formula: Formula, count: int) -> Formula:
    return feature_sum(formula, count) * number(Fraction(1, count))


def feature_variance(formula: Formula, count: int) -> Formula:
    """The biased one."""
    mean = feature_mean(formula, count)
    return feature_mean(formula * formula, count) - mean * mean


def _times(one: Monomial, other: Monomial) -> Monomial:
    powers = Counter(dict(one))
    for factor, power in other:
        powers[factor] += power
    return frozenset((factor, power) for factor, power in powers.items() if power)


def _collect(terms: Iterable[tuple[Monomial, Fraction]]) -> Formula:
    total: dict[Monomial, Fraction] = {}
    for monomial, factor in terms:
        total[monomial] = total[monomial] + factor if monomial in total else factor
    return Formula({monomial: factor for monomial, factor in total.items() if factor})
