"""Where an operation can stand that replaces several values of a block."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from jax.extend.mlir import ir


def make_room(replaced: Sequence[ir.Value], operands: Iterable[ir.Value]) -> ir.Operation | None:
    """The operation before which all ``operands`` are known, and none of the ``replaced`` values is read.

    Readers that stand too early are moved there. None where an operand is computed from what is replaced.
    """
    places = sorted((owner(value).operation for value in replaced), key=_ORDER)
    computed = [owner(operand).operation for operand in operands if not isinstance(operand.owner, ir.Block)]
    needed = [op for op in computed if op.block == places[0].block]
    place = next((op for op in places if all(each.is_before_in_block(op) for each in needed)), None)
    early = [] if place is None else _readers_before(replaced, place)
    if place is None or not set(early).isdisjoint(needed):
        return None
    for op in early:
        op.move_before(place)
    return early[0] if early else place


def owner(value: ir.Value) -> ir.OpView:
    """The operation that computes a value that is no argument."""
    assert not isinstance(value.owner, ir.Block)
    return value.owner


def _readers_before(values: Iterable[ir.Value], place: ir.Operation) -> list[ir.Operation]:
    """The operations of a block that stand before ``place`` and read one of ``values``, directly or not."""
    found: set[ir.Operation] = set()
    pending = list(values)
    while pending:
        for use in pending.pop().uses:
            reader = _in_block(use.owner.operation, place.block)
            if reader not in found and reader.is_before_in_block(place):
                found.add(reader)
                pending.extend(reader.results)
    return sorted(found, key=_ORDER)


def _in_block(op: ir.Operation, block: ir.Block) -> ir.Operation:
    """The operation of ``block`` that is ``op`` or holds it."""
    while op.block != block:
        assert op.parent is not None
        op = op.parent.operation
    return op


def _compare(one: ir.Operation, other: ir.Operation) -> int:
    return -1 if one.is_before_in_block(other) else 1


_ORDER = functools.cmp_to_key(_compare)
