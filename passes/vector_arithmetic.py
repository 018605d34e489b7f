"""Arithmetic on one number for each feature, and on numbers for all of them, tried out with random numbers.

Such arithmetic treats all features alike. So a value is one number here, be it a scalar or a vector over the features,
reshaped or not; and an array holds what it is in several tries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Array
from stablenorm.passes.building import integers, is_float, product, shape_of, tensor_type
from stablenorm.passes.dtypes import dtype_of
from stablenorm.passes.matching import defining_op

TRIES = 32  # a select has to be met with both answers
_DEPTH = 12

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


def operands_of(value: ir.Value, features: int) -> Sequence[ir.Value]:
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
    is_number = isinstance(tensor_type(value).element_type, ir.FloatType | ir.IntegerType)
    return is_number and product(shape_of(value)) in (1, features)


def _permutes(op: ir.OpView) -> bool:
    places = integers(op, "broadcast_dimensions") if "broadcast_dimensions" in op.attributes else []
    return places != sorted(places)


@dataclasses.dataclass(frozen=True)
class Expression:
    """How a value is computed: what of, for it and for what it is computed of, which stands before it."""

    operands: Mapping[ir.Value, Sequence[ir.Value]]

    @classmethod
    def of(cls, value: ir.Value, variable: ir.Value, features: int) -> Expression:
        """``value`` as a function of ``variable``."""
        values = dict.fromkeys(_inside(value, variable, features, _DEPTH))
        return cls({each: () if each == variable else operands_of(each, features) for each in values})

    def without(self, variable: ir.Value) -> list[ir.Value]:
        """The values that do not depend on ``variable``."""
        depends = {variable}
        for value, operands in self.operands.items():
            if not depends.isdisjoint(operands):
                depends.add(value)
        return [value for value in self.operands if value not in depends]

    def draw(self, generator: np.random.Generator) -> dict[ir.Value, Array]:
        """Numbers for all values: constants and sizes have their own, the others random ones."""
        return {value: _draw(value, generator) for value in self.operands}

    def compute(self, drawn: Mapping[ir.Value, Array], chosen: Mapping[ir.Value, Array]) -> Array:
        """The value, where some are ``chosen``, and those that no understood arithmetic computes are ``drawn``."""
        numbers = dict(chosen)
        for value, operands in self.operands.items():
            if value not in numbers:
                known = operands and all(operand in numbers for operand in operands)
                numbers[value] = _apply(value, [numbers[each] for each in operands]) if known else drawn[value]
        return numbers[value]

    def rounding(self) -> float:
        """The step of the coarsest type that a constant was rounded to; float32's where there is no constant."""
        constants = [value for value in self.operands if is_float(value) and _constant(value) is not None]
        types = [dtype_of(value.type) for value in constants] or [np.dtype(np.float32)]
        return max(float(np.spacing(np.ones((), dtype))) for dtype in types)


def _inside(value: ir.Value, variable: ir.Value, features: int, depth: int) -> Iterator[ir.Value]:
    if depth > 0 and value != variable:
        for operand in operands_of(value, features):
            yield from _inside(operand, variable, features, depth - 1)
    yield value


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
    op, number = defining_op(value), _constant(value)
    if number is not None:
        return np.full(TRIES, number)
    if isinstance(op, hlo.GetDimensionSizeOp):
        return size(op.operand, op.dimension.value)
    if dtype_of(value.type) == np.dtype(np.bool_):
        return np.array(generator.choice([0.0, 1.0], TRIES))
    return random_numbers(generator, [-1.0, 1.0])


def random_numbers(generator: np.random.Generator, signs: Sequence[float]) -> Array:
    """Of size 1, to divide by; of one of the signs."""
    return np.array(generator.choice(signs, TRIES) * generator.uniform(0.5, 2.0, TRIES))


def _constant(value: ir.Value) -> float | None:
    op = defining_op(value)
    if not isinstance(op, hlo.ConstantOp) or not isinstance(op.attributes["value"], ir.DenseElementsAttr):
        return None
    elements = op.attributes["value"]
    if not elements.is_splat:
        return None
    number = elements.get_splat_value()
    return float(ir.FloatAttr(number).value if is_float(value) else ir.IntegerAttr(number).value)


def size(value: ir.Value, dimension: int) -> Array:
    """A size, several where it is known only when the program runs: the same ones for each tensor's dimension."""
    known = shape_of(value)[dimension]
    return np.full(TRIES, float(known)) if known >= 0 else np.arange(2.0, 2.0 + TRIES) + dimension
