"""Who reads a value, while operations that were replaced still stand in the function without use.

Passes erase nothing before they are done, so what was replaced still reads its operands. It does not count.
"""

from __future__ import annotations

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

# An operation that reads a value, and as which of its operands.
Reader = tuple[ir.OpView, int]


class Readers:
    """The readers of values in one function; `replaced` says which operations are without use from now on."""

    def __init__(self) -> None:
        self._dead: set[ir.Value] = set()  # first results: operations have no identity of their own

    def of(self, value: ir.Value) -> list[Reader]:
        """Each reading of ``value``, twice where an operation reads it twice; who asks for a size reads no element."""
        readers = ((use.owner.opview, use.operand_number) for use in value.uses if not self._is_dead(use.owner))
        return [reader for reader in readers if not isinstance(reader[0], hlo.GetDimensionSizeOp)]

    def single(self, value: ir.Value) -> bool:
        """Whether exactly one reading of ``value`` is left."""
        return len(self.of(value)) == 1

    def replaced(self, op: ir.OpView) -> None:
        """``op`` is without use, and with it all that only it reads."""
        pending = [op]
        while pending:
            current = pending.pop()
            self._dead.add(current.results[0])
            for operand in current.operands:
                owner = operand.owner
                if not isinstance(owner, ir.Block) and not self._is_dead(owner) and self._is_unread(owner):
                    pending.append(owner.opview)

    def _is_dead(self, op: ir.Operation | ir.OpView) -> bool:
        return len(op.results) > 0 and op.results[0] in self._dead

    def _is_unread(self, op: ir.Operation | ir.OpView) -> bool:
        return all(self._is_dead(use.owner) for result in op.results for use in result.uses)
