"""Moving averages: the value into which a statistic of a batch is averaged.

However it is spelt, an update is arithmetic of this form::

    update(old, batch) = a * old + b * batch        a + b = 1, so update(old, old) = old

``old * momentum + batch * (1 - momentum)``, ``old - (old - batch) * (1 - momentum)``, a select that may keep the old
value, a momentum or a count that is known only when the program runs: all are found in one way. The arithmetic is
tried with random numbers (`vector_arithmetic.py`), and ``update(old, old)`` is compared with ``old``. Where the batch's
variance may come with Bessel's factor, it is ``update(old, old / factor)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
from jax.extend.mlir import ir

from stablenorm.passes.base import Array
from stablenorm.passes.building import is_float, product, shape_of
from stablenorm.passes.matching import splat_number
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.vector_arithmetic import TRIES, Expression, operands_of, random_numbers, size

# How far equal results of float64 may be apart.
_EXACT = 1e-9


@dataclasses.dataclass(frozen=True)
class Statistic:
    """``value``, the mean or the variance of ``batch`` for each feature, features lying along ``axes``.

    A variance is not negative, and may be multiplied by ``n / (n - 1)`` on its way, n being a feature's elements.
    """

    value: ir.Value
    batch: ir.Value
    axes: Sequence[int]
    is_variance: bool

    @property
    def features(self) -> int:
        return product(shape_of(self.value))

    def factors(self) -> list[Array]:
        """What the statistic may be multiplied by before it is averaged."""
        count = np.ones(TRIES)
        for place in range(len(shape_of(self.batch))):
            if place not in self.axes:
                count = count * size(self.batch, place)
        return [np.ones(TRIES), count / np.maximum(count - 1, 1)] if self.is_variance else [np.ones(TRIES)]


@dataclasses.dataclass(frozen=True)
class Average:
    """``old``, the moving average before the batch, and the values that it is after it."""

    old: ir.Value
    updated: tuple[ir.Value, ...]


def find_average(statistic: Statistic, exempt: Collection[ir.OpView]) -> Average | NoMatch | None:
    """The moving average that all readers of a statistic update, but those that are ``exempt``; None without readers.

    What nothing reads any more is no reader.
    """
    found: dict[ir.Value, ir.Value] = {}
    seen: set[tuple[ir.Value, bool]] = set()
    pending = [(use.owner, False) for use in statistic.value.uses]
    while pending:
        user, behind_update = pending.pop()
        is_understood = len(user.results) == 1 and operands_of(user.results[0], statistic.features)
        if not is_understood and not behind_update and user not in exempt:
            what = f"is read by {user.operation.name}, which does not average it into a moving one"
            return NoMatch(f"{what}; take that reader out")
        if not is_understood or (user.results[0], behind_update) in seen:
            continue
        value = user.results[0]
        seen.add((value, behind_update))
        old = _old_value(value, statistic)
        if old is not None:
            found[value] = old
        if old is not None or not behind_update:  # more of it: a select that keeps the old value, a conversion
            pending.extend((use.owner, old is not None) for use in value.uses)
    if len(set(found.values())) > 1:
        return NoMatch("is averaged into two moving ones; leave one of them out")
    return Average(next(iter(found.values())), tuple(found)) if found else None


def _old_value(updated: ir.Value, statistic: Statistic) -> ir.Value | None:
    """The moving average that ``updated`` is, one batch later; None where it is no such average."""
    update = Expression.of(updated, statistic.value, statistic.features)
    vectors = (value for value in update.without(statistic.value) if _is_vector(value, statistic.features))
    return next((old for old in vectors if _averages(update, old, statistic)), None)


def _is_vector(value: ir.Value, features: int) -> bool:
    return is_float(value) and product(shape_of(value)) == features and splat_number(value) is None


def _averages(expression: Expression, old: ir.Value, statistic: Statistic) -> bool:
    """Whether it is ``a * old + b * statistic``, and ``old`` where ``factor * statistic = old``."""
    generator = np.random.default_rng(0)
    drawn = expression.draw(generator)

    def update(average: Array, batch: Array) -> Array:
        return expression.compute(drawn, {old: average, statistic.value: batch})

    signs = [1.0] if statistic.is_variance else [-1.0, 1.0]
    first, second, batch, other = (random_numbers(generator, signs) for _ in range(4))
    rounding = 4 * expression.rounding()  # of a, of b, and of the factor
    with np.errstate(all="ignore"):
        between = (update(first, batch) + update(second, other)) / 2
        is_linear = _same(update((first + second) / 2, (batch + other) / 2), between, _EXACT)
        reads_old = not _same(update(first, batch), update(second, batch), _EXACT)
        stays = any(_same(update(first, first / factor), first, rounding) for factor in statistic.factors())
    return is_linear and reads_old and stays


def _same(ours: Array, theirs: Array, tolerance: float) -> bool:
    return bool(np.all(np.abs(ours - theirs) <= tolerance * np.maximum(1.0, np.abs(theirs))))
