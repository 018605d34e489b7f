"""What formulas end in: numbers, vectors over the features of a tensor, other tensors."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import is_float, product, shape_of, tensor_type
from stablenorm.passes.dtypes import DTYPES
from stablenorm.passes.matching import defining_op, splat_number
from stablenorm.passes.moments import Formula, Tensor, Vector, atom, number
from stablenorm.passes.polynomials import Place, operand_place
from stablenorm.passes.rewriting import operations
from stablenorm.passes.weights import Weights


class Term(NamedTuple):
    """A value's formula, and for each of its dimensions the dimension of x that it varies along, if any."""

    formula: Formula
    place: Place


@dataclasses.dataclass(frozen=True)
class Leaves:
    """The leaves of formulas of a tensor x.

    Attributes:
        others: the dimensions of x that are no feature's: what varies along one of them is a tensor, no vector.
        count: how many elements each feature has.
    """

    others: frozenset[int]
    count: int
    weights: Weights

    def leaf(self, value: ir.Value, frame: Place) -> Term | None:
        """``value``, whose dimensions lie at ``frame``, as a number or an atom."""
        constant = self.number(value)
        if constant is not None:
            return Term(number(constant), ())
        source, along = self._source(value, frame)
        sizes = shape_of(source)
        place = tuple(each if size != 1 else None for each, size in zip(along, sizes, strict=True))
        if any(each is None and size != 1 for each, size in zip(place, sizes, strict=True)):
            return None
        is_tensor = not self.others.isdisjoint(place)
        return Term(atom(Tensor(source, place) if is_tensor else Vector(source, place)), place)

    def number(self, value: ir.Value) -> Fraction | None:
        """The number that a constant repeats, or that arithmetic of constants makes."""
        found = splat_number(value)
        if found is None:
            source, _ = self._source(value, (None,) * len(shape_of(value)))
            constant = product(shape_of(source)) == 1 and self.weights.is_weight(source)
            array = self.weights.evaluate(source) if constant and not self.weights.names(source) else None
            found = None if array is None else float(array.item())
        return (
            None if found is None or not math.isfinite(found) else self._exact(found, tensor_type(value).element_type)
        )

    def answer(self, question: ir.Value) -> bool | None:
        """What a comparison of numbers answers; None for other questions."""
        op = defining_op(question)
        while isinstance(op, hlo.BroadcastInDimOp):
            op = defining_op(op.operand)
        if not isinstance(op, hlo.CompareOp):
            return None
        left, right = self.number(op.lhs), self.number(op.rhs)
        return None if left is None or right is None else _COMPARISONS[direction(op)](left, right)

    def _source(self, value: ir.Value, place: Place) -> tuple[ir.Value, Place]:
        """What ``value`` repeats, reshapes or converts, and where it lies. A tensor that was rounded stays rounded."""
        op = defining_op(value)
        while isinstance(op, hlo.BroadcastInDimOp | hlo.ReshapeOp | hlo.ConvertOp):
            moved = operand_place(op, place)
            if moved is None or (is_rounding(op) and not self.others.isdisjoint(moved)):
                break
            value, place = op.operand, moved
            op = defining_op(value)
        return value, place

    def _exact(self, found: float, element_type: ir.Type) -> Fraction:
        """A number that is the count, less one or not, or its inverse, but for rounding, is that."""
        dtype = DTYPES.get(str(element_type), np.dtype(np.float64))
        counts = [Fraction(count) for count in (self.count, self.count - 1) if count > 0]
        exact = (number for count in counts for number in (count, 1 / count))
        return next((each for each in exact if found and float(dtype.type(float(each))) == found), Fraction(found))


def is_sum(op: hlo.ReduceOp) -> bool:
    """Whether a reduction adds floating-point numbers, from zero."""
    if len(op.inputs) != 1 or not is_float(op.results[0]):
        return False
    body = [inner.operation.name for inner in operations(op)[1:]]
    return body == [hlo.AddOp.OPERATION_NAME, hlo.ReturnOp.OPERATION_NAME] and _is_zero(op.init_values[0])


def _is_zero(value: ir.Value) -> bool:
    op = defining_op(value)
    return _is_zero(op.operand) if isinstance(op, hlo.ConvertOp) else splat_number(value) == 0


def is_rounding(op: ir.OpView) -> bool:
    """Whether a conversion may change numbers."""
    if not isinstance(op, hlo.ConvertOp) or not is_float(op.operand) or not is_float(op.result):
        return False
    widths = [ir.FloatType(tensor_type(value).element_type).width for value in (op.operand, op.result)]
    return widths[1] < widths[0]


def direction(op: hlo.CompareOp) -> str:
    return str(hlo.ComparisonDirectionAttr(op.comparison_direction).value)


_COMPARISONS: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "EQ": operator.eq,
    "NE": operator.ne,
    "GE": operator.ge,
    "GT": operator.gt,
    "LE": operator.le,
    "LT": operator.lt,
}
