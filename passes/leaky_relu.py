"""A leaky ReLU as several operations: ``max(f, slope * f)``, or ``select(f >= 0, f, slope * f)``."""

from __future__ import annotations

import dataclasses

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.copies import with_operands
from stablenorm.passes.matching import defining_op, splat_number
from stablenorm.passes.readers import Readers


@dataclasses.dataclass(frozen=True)
class LeakyRelu:
    """What reads f, and together commutes with a positive scale.

    Attributes:
        op: the last operation; ``place`` is f's in it.
        product: ``slope * f``, slope a number; ``comparison`` of f with zero, where there is one.
    """

    op: ir.OpView
    operand: ir.Value
    place: int
    product: hlo.MulOp
    comparison: hlo.CompareOp | None

    def is_all_that_reads(self, readers: Readers) -> bool:
        """Whether nothing else reads f, or a part of it."""
        parts = [self.product.result] + ([] if self.comparison is None else [self.comparison.result])
        return len(readers.of(self.operand)) == 1 + len(parts) and all(readers.single(part) for part in parts)

    def of(self, value: ir.Value) -> ir.Value:
        """The same of another value, at the insertion point."""
        exchanged = {self.place: value}
        for place, operand in enumerate(self.op.operands):
            if operand == self.product.result:
                exchanged[place] = with_operands(self.product, _places(self.product, self.operand, value))
            elif self.comparison is not None and operand == self.comparison.result:
                exchanged[place] = with_operands(self.comparison, _places(self.comparison, self.operand, value))
        return with_operands(self.op, exchanged)


def leaky_relu(op: ir.OpView) -> LeakyRelu | None:
    """The one that ends with ``op``."""
    if isinstance(op, hlo.MaxOp | hlo.MinOp):
        return next((found for place in (0, 1) if (found := _ending(op, place, 1 - place, None)) is not None), None)
    if isinstance(op, hlo.SelectOp) and isinstance(comparison := defining_op(op.pred), hlo.CompareOp):
        ends = (_ending(op, place, 3 - place, comparison) for place in (1, 2))
        return next((found for found in ends if found is not None), None)
    return None


def leaky_relu_of(value: ir.Value, readers: Readers) -> LeakyRelu | None:
    """The one that is all that reads ``value``."""
    for op, _ in readers.of(value):
        found = leaky_relu(op)
        if found is not None and found.operand == value and found.is_all_that_reads(readers):
            return found
    return None


def _ending(op: ir.OpView, place: int, other: int, comparison: hlo.CompareOp | None) -> LeakyRelu | None:
    f, product = op.operands[place], defining_op(op.operands[other])
    if not isinstance(product, hlo.MulOp) or f not in (product.lhs, product.rhs):
        return None
    if splat_number(product.rhs if product.lhs == f else product.lhs) is None:
        return None
    if comparison is not None:
        against = comparison.rhs if comparison.lhs == f else comparison.lhs
        if f not in (comparison.lhs, comparison.rhs) or splat_number(against) != 0.0:
            return None
    return LeakyRelu(op, f, place, product, comparison)


def _places(op: ir.OpView, f: ir.Value, value: ir.Value) -> dict[int, ir.Value]:
    return {place: value for place, operand in enumerate(op.operands) if operand == f}
