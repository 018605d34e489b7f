"""The way down of a map ``s*x + t``: into everything that reads it, or nowhere.

`push` follows the map through `CONSUMERS` along every reader, until the scale is in weights. A shift that is left ends
where it meets another one, or costs one addition where it stops. Nothing is emitted while a way is looked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import convert, tensor_type
from stablenorm.passes.compact import apply
from stablenorm.passes.consumers import CONSUMERS
from stablenorm.passes.distances import largest_distance
from stablenorm.passes.pending import FARTHEST, Form, Pending, Step
from stablenorm.passes.readers import Reader, Readers
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.weights import Weights


class Replacement(NamedTuple):
    """The value that is to replace an operation's result, and the weights that took the map."""

    op: ir.OpView
    value: ir.Value
    taken: tuple[ir.Value, ...]


@dataclasses.dataclass(frozen=True)
class Push:
    """A way down.

    Attributes:
        into: the layers whose weights take the map.
        saves: elementwise operations that go on the way, less those that come.
        passed: the other maps that it took along.
        act: emits, and says what replaces what; nothing is replaced yet.
    """

    into: tuple[str, ...]
    saves: int
    passed: tuple[ir.OpView, ...]
    act: Callable[[Pending], list[Replacement]]


@dataclasses.dataclass(frozen=True)
class Walk:
    """What a search knows; ``seen`` holds the results of operations that it has met: each takes the map once."""

    weights: Weights
    readers: Readers
    seen: set[ir.Value]


def push(value: ir.Value, form: Form, walk: Walk, steps: int = 0) -> Push | NoMatch:
    """How all that reads ``value`` takes ``s*x + t`` instead, x being a value of the same shape."""
    readers = walk.readers.of(value)
    if not readers:
        return NoMatch("nothing reads it")
    if steps == FARTHEST:
        return NoMatch(f"no weight takes it within {FARTHEST} operations")
    ways: list[Push] = []
    for reader in readers:
        way = _through(reader, value, form, walk, steps)
        if isinstance(way, NoMatch):
            return way
        ways.append(way)

    def act(pending: Pending) -> list[Replacement]:
        return [replacement for way in ways for replacement in way.act(pending)]

    into = tuple(dict.fromkeys(name for way in ways for name in way.into))
    passed = tuple(op for way in ways for op in way.passed)
    return Push(into, sum(way.saves for way in ways), passed, act)


def _through(reader: Reader, value: ir.Value, form: Form, walk: Walk, steps: int) -> Push | NoMatch:
    op, place = reader
    rule = CONSUMERS.get(type(op))
    if rule is None:
        return NoMatch(f"{op.operation.name} reads it, which a per-channel map cannot pass")
    if op.results[0] in walk.seen:
        return NoMatch(f"{op.operation.name} reads it twice")
    if not isinstance(value.owner, ir.Block) and op.operation.block != value.owner.operation.block:
        return NoMatch(f"{op.operation.name} reads it in another region")
    walk.seen.add(op.results[0])
    step = rule(op, place, form, walk.weights)
    if isinstance(step, NoMatch):
        return step
    if form.shift is not None and form.distance > largest_distance(op.results[0]):
        return NoMatch("what it shifts is too far from zero, against its deviation, to be shifted after a sum")
    return _after(op, step, walk, steps)


def _after(op: ir.OpView, step: Step, walk: Walk, steps: int) -> Push | NoMatch:
    into = () if step.into is None else (step.into,)
    has_map = not step.form.is_empty
    further = push(op.results[0], step.form, walk, steps + 1) if has_map else None
    if step.form.scale is not None and isinstance(further, NoMatch):
        return further
    costs = 1 if has_map else 0
    takes_along = (op,) if step.saves > 0 and step.form.scale is not None else ()  # a bias that it meets stays
    if isinstance(further, Push) and (step.form.scale is not None or further.saves > -costs):
        onward = further

        def act(pending: Pending) -> list[Replacement]:
            return onward.act(_emitted(op, step, pending))

        names = tuple(dict.fromkeys(into + onward.into))
        return Push(names, step.saves + onward.saves, takes_along + onward.passed, act)
    return Push(into, step.saves - costs, takes_along, lambda pending: [_settled(op, step, pending)])


def _emitted(op: ir.OpView, step: Step, pending: Pending) -> Pending:
    with ir.InsertionPoint(op), op.location:
        after = step.act(pending)
    return dataclasses.replace(after, taken=(*pending.taken, *after.taken))


def _settled(op: ir.OpView, step: Step, pending: Pending) -> Replacement:
    after = _emitted(op, step, pending)
    if after.shift is None:
        return Replacement(op, after.value, after.taken)
    with ir.InsertionPoint(op), op.location:
        narrow = convert(after.shift, tensor_type(after.value).element_type)
        return Replacement(op, apply(hlo.add, after.value, narrow), (*after.taken, narrow))
