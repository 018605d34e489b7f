"""Moving averages: the value into which a statistic of a batch is averaged.

However it is spelt, an update is arithmetic of this form::

    update(old, batch) = a * old + b * batch        a + b = 1, so update(old, old) = old

``old * momentum + batch * (1 - momentum)``, ``old - (old - batch) * (1 - momentum)``, a select that may keep the old
value, a momentum or a count that is known only when the program runs: all are found in one way. The arithmetic is
computed in float64, of random numbers, and ``update(old, old)`` is compared with ``old``. Where the batch's variance
may come with Bessel's factor, it is ``update(old, old / factor)``.

Such arithmetic treats all features alike, so a value is one number here, be it a vector over the features, reshaped
or not, or a scalar.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Array
from stablenorm.passes.building import integers, is_float, product, shape_of, tensor_type
from stablenorm.passes.dtypes import dtype_of
from stablenorm.passes.matching import defining_op, splat_number
from stablenorm.passes.rewriting import NoMatch

# Each value takes so many numbers at once: a select has to be met with both answers.
_TRIES = 32
_DEPTH = 12
_FLOAT32_STEP = float(np.finfo(np.float32).eps)

_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "stablehlo.add": np.add,
    "stablehlo.subtract": np.subtract,
    "stablehlo.multiply": np.multiply,
    "stablehlo.divide": np.divide,
    "stablehlo.negate": np.negative,
    "stablehlo.maximum": np.maximum,
    "stablehlo.minimum": np.minimum,
    "stablehlo.select": np.where,
}
_COMPARISONS: dict[str, Callable[..., Any]] = {
    "EQ": np.equal,
    "NE": np.not_equal,
    "GE": np.greater_equal,
    "GT": np.greater,
    "LE": np.less_equal,
    "LT": np.less,
}
# The same numbers in another shape or type. A second operand only says in which shape.
_UNCHANGED = {
    "stablehlo.broadcast_in_dim",
    "stablehlo.convert",
    "stablehlo.dynamic_broadcast_in_dim",
    "stablehlo.reshape",
}


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
        count = np.ones(_TRIES)
        for place in range(len(shape_of(self.batch))):
            if place not in self.axes:
                count = count * _size(self.batch, place)
        return [np.ones(_TRIES), count / np.maximum(count - 1, 1)] if self.is_variance else [np.ones(_TRIES)]


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
    pending = [(use.owner, False) for use in statistic.value.uses]
    while pending:
        user, updated = pending.pop()
        understood = len(user.results) == 1 and _operands(user.results[0], statistic.features)
        old = _old_value(user.results[0], statistic) if understood else None
        if old is not None:  # a select between the two, or a conversion, may come behind it
            found[user.results[0]] = old
        if old is not None or (understood and not updated):
            pending.extend((use.owner, old is not None) for use in user.results[0].uses)
        elif not updated and user not in exempt:
            return NoMatch(
                f"is read by {user.operation.name}, which does not average it into a moving one; take that reader out"
            )
    if len(set(found.values())) > 1:
        return NoMatch("is averaged into two moving ones; leave one of them out")
    return Average(next(iter(found.values())), tuple(found)) if found else None


def _old_value(updated: ir.Value, statistic: Statistic) -> ir.Value | None:
    """The moving average that ``updated`` is, one batch later; None where it is no such average."""
    values = list(dict.fromkeys(_expression(updated, statistic, _DEPTH)))
    depends = {statistic.value}
    for value in values:
        if value not in depends and not depends.isdisjoint(_operands(value, statistic.features)):
            depends.add(value)
    update = _Update(values, statistic)
    averages = (value for value in values if value not in depends and _is_vector(value, statistic.features))
    return next(filter(update.averages_into, averages), None)


def _is_vector(value: ir.Value, features: int) -> bool:
    return is_float(value) and product(shape_of(value)) == features and splat_number(value) is None


def _operands(value: ir.Value, features: int) -> Sequence[ir.Value]:
    """What understood arithmetic computes ``value`` from; nothing where it is no such arithmetic."""
    op = defining_op(value)
    if op is None or op.operation.name not in {*_ARITHMETIC, *_UNCHANGED, hlo.CompareOp.OPERATION_NAME}:
        return ()
    operands = list(op.operands)[:1] if op.operation.name in _UNCHANGED else list(op.operands)
    if not all(_is_one_for_each(each, features) for each in (value, *operands)) or _permutes(op):
        return ()
    truncates = not is_float(value) and (isinstance(op, hlo.DivOp) or is_float(operands[0]))
    return () if truncates and not isinstance(op, hlo.CompareOp) else operands


def _is_one_for_each(value: ir.Value, features: int) -> bool:
    """Whether ``value`` holds one number for each feature, or one for all."""
    number = isinstance(tensor_type(value).element_type, ir.FloatType | ir.IntegerType)
    return number and product(shape_of(value)) in (1, features)


def _permutes(op: ir.OpView) -> bool:
    places = integers(op, "broadcast_dimensions") if "broadcast_dimensions" in op.attributes else []
    return places != sorted(places)


def _expression(value: ir.Value, statistic: Statistic, depth: int) -> Iterator[ir.Value]:
    """What ``value`` is computed from, operands first, ``value`` last."""
    if depth > 0 and value != statistic.value:
        for operand in _operands(value, statistic.features):
            yield from _expression(operand, statistic, depth - 1)
    yield value


@dataclasses.dataclass(frozen=True)
class _Update:
    """Arithmetic on numbers: ``values`` in the order in which they are computed, the updated average last."""

    values: Sequence[ir.Value]
    statistic: Statistic

    def averages_into(self, old: ir.Value) -> bool:
        """Whether they compute ``a * old + b * batch``, and ``old`` from ``batch = old / factor``."""
        generator = np.random.default_rng(0)
        given = {value: _draw(value, generator) for value in self.values}

        def update(average: Array, batch: Array) -> Array:
            return self._compute(given, {old: average, self.statistic.value: batch})

        signs = [1.0] if self.statistic.is_variance else [-1.0, 1.0]
        first, second, batch, other = (_random(generator, signs) for _ in range(4))
        rounding = self._rounding()
        with np.errstate(all="ignore"):
            between = (update(first, batch) + update(second, other)) / 2
            is_linear = _same(update((first + second) / 2, (batch + other) / 2), between, 1e-9)
            reads_old = not _same(update(first, batch), update(second, batch), rounding)
            stays = any(_same(update(first, first / factor), first, rounding) for factor in self.statistic.factors())
        return is_linear and reads_old and stays

    def _compute(self, given: Mapping[ir.Value, Array], chosen: Mapping[ir.Value, Array]) -> Array:
        numbers = dict(chosen)
        for value in self.values:
            operands = _operands(value, self.statistic.features)
            if value not in numbers:
                known = bool(operands) and all(operand in numbers for operand in operands)
                numbers[value] = _apply(value, [numbers[each] for each in operands]) if known else given[value]
        return numbers[self.values[-1]]

    def _rounding(self) -> float:
        """How far ``a + b`` may be from 1: some steps of the coarsest type that a constant was rounded to."""
        types = [dtype_of(value.type) for value in self.values if is_float(value) and _constant(value) is not None]
        return 4 * max((float(np.spacing(np.ones((), dtype))) for dtype in types), default=_FLOAT32_STEP)


def _apply(value: ir.Value, operands: Sequence[Array]) -> Array:
    """What the operation of ``value`` makes of numbers; 0 and 1 for no and yes."""
    op = value.owner
    if isinstance(op, hlo.CompareOp):
        compare = _COMPARISONS[hlo.ComparisonDirectionAttr(op.comparison_direction).value]
        return np.asarray(compare(*operands), np.float64)
    assert isinstance(op, ir.OpView)
    name = op.operation.name
    return operands[0] if name in _UNCHANGED else np.asarray(_ARITHMETIC[name](*operands), np.float64)


def _draw(value: ir.Value, generator: np.random.Generator) -> Array:
    """Numbers for a value that is not computed here: its own where it is a constant or a size, else random ones."""
    op, number = defining_op(value), _constant(value)
    if number is not None:
        return np.full(_TRIES, number)
    if isinstance(op, hlo.GetDimensionSizeOp):
        return _size(op.operand, op.dimension.value)
    is_bool = dtype_of(value.type) == np.dtype(np.bool_)
    return np.array(generator.choice([0.0, 1.0], _TRIES)) if is_bool else _random(generator, [-1.0, 1.0])


def _random(generator: np.random.Generator, signs: Sequence[float]) -> Array:
    return np.array(generator.choice(signs, _TRIES) * generator.uniform(0.5, 2.0, _TRIES))


def _constant(value: ir.Value) -> float | None:
    op = defining_op(value)
    if not isinstance(op, hlo.ConstantOp) or not isinstance(op.attributes["value"], ir.DenseElementsAttr):
        return None
    elements = op.attributes["value"]
    if not elements.is_splat:
        return None
    number = elements.get_splat_value()
    return float(ir.FloatAttr(number).value if is_float(value) else ir.IntegerAttr(number).value)


def _size(value: ir.Value, dimension: int) -> Array:
    """A size, several where it is known only when the program runs: the same ones for each tensor's dimension."""
    size = shape_of(value)[dimension]
    return np.full(_TRIES, float(size)) if size >= 0 else np.arange(2.0, 2.0 + _TRIES) + dimension


def _same(ours: Array, theirs: Array, tolerance: float) -> bool:
    return bool(np.all(np.abs(ours - theirs) <= tolerance * np.maximum(1.0, np.abs(theirs))))
