"""The way down of a map ``s*x + t``: into everything that reads it, or nowhere.

`push` follows the map through `CONSUMERS` along every reader, until the scale is in weights. A shift that is left ends
where it meets another one, or costs one addition where it stops. Nothing is emitted while a way is looked for.

In a training step a scale may also stay behind an operation that makes its tensor smaller, the gradient of a weight:
one multiplication there counts as none, where all that stay so have fewer than half of the elements of the tensor that
the map multiplies. The other half is for the weight of the convolution behind, which takes the scale in every step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import convert, product, shape_of, tensor_type
from stablenorm.passes.compact import apply
from stablenorm.passes.consumers_moving import concatenated_form, concatenated_pending
from stablenorm.passes.consumers_rectifying import through_leaky_relu
from stablenorm.passes.distances import largest_distance
from stablenorm.passes.leaky_relu import LeakyRelu, leaky_relu_of
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
        scaled: the elements of the results behind which the scale stays.
    """

    into: tuple[str, ...]
    saves: int
    passed: tuple[ir.OpView, ...]
    act: Callable[[Pending], list[Replacement]]
    scaled: int = 0


@dataclasses.dataclass(frozen=True)
class Walk:
    """What a search knows.

    Attributes:
        rules: what a map becomes behind each operation.
        may_stay: whether a scale may stay behind an operation that makes its tensor smaller.
        seen: the results of operations that it has met: each takes the map once.
    """

    weights: Weights
    readers: Readers
    rules: Mapping[type[ir.OpView], Callable[..., Step | NoMatch]]
    may_stay: bool = False
    seen: set[ir.Value] = dataclasses.field(default_factory=set)
    joins: dict[ir.Value, Join] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Join:
    """A concatenation that waits for every scale that comes to it: branches of one map may meet again there."""

    op: hlo.ConcatenateOp
    steps: int = 0
    forms: dict[int, Form] = dataclasses.field(default_factory=dict)
    pendings: dict[int, Pending] = dataclasses.field(default_factory=dict)


def push(value: ir.Value, form: Form, walk: Walk) -> Push | NoMatch:
    """How all that reads ``value`` takes ``s*x + t`` instead, x being a value of the same shape."""
    way, ways = _onward(value, form, walk, 0), list[Push]()
    while isinstance(way, Push) and walk.joins:
        ways.append(way)
        way = _behind(_first(walk), walk)
    return way if isinstance(way, NoMatch) else _together([*ways, way])


def _first(walk: Walk) -> Join:
    """The join that no other one comes before."""
    first, *others = walk.joins.values()
    for other in others:
        if other.op.operation.is_before_in_block(first.op.operation):
            first = other
    return walk.joins.pop(first.op.results[0])


def _behind(join: Join, walk: Walk) -> Push | NoMatch:
    form = concatenated_form(join.op, join.forms)
    if isinstance(form, NoMatch):
        return form
    walk.seen.add(join.op.results[0])
    step = Step(form, lambda _: concatenated_pending(join.op, join.pendings))
    return _after(join.op, min(join.forms), step, walk, join.steps)


def _waiting(op: hlo.ConcatenateOp, place: int, form: Form, walk: Walk, steps: int) -> Push:
    join = walk.joins.setdefault(op.results[0], Join(op))
    join.forms[place], join.steps = form, max(join.steps, steps)

    def act(pending: Pending) -> list[Replacement]:
        join.pendings[place] = pending
        return []

    return Push((), 0, (), act)


def _together(ways: list[Push]) -> Push:
    def act(pending: Pending) -> list[Replacement]:
        return [replacement for way in ways for replacement in way.act(pending)]

    into = tuple(dict.fromkeys(name for way in ways for name in way.into))
    passed = tuple(op for way in ways for op in way.passed)
    return Push(into, sum(way.saves for way in ways), passed, act, sum(way.scaled for way in ways))


def _onward(value: ir.Value, form: Form, walk: Walk, steps: int) -> Push | NoMatch:
    readers = walk.readers.of(value)
    if not readers:
        return NoMatch("nothing reads it")
    if steps == FARTHEST:
        return NoMatch(f"no weight takes it within {FARTHEST} operations")
    if (leaky := leaky_relu_of(value, walk.readers)) is not None:
        return _through_leaky_relu(leaky, form, walk, steps)
    ways: list[Push] = []
    for reader in readers:
        way = _through(reader, value, form, walk, steps)
        if isinstance(way, NoMatch):
            return way
        ways.append(way)
    return _together(ways)


def _through_leaky_relu(leaky: LeakyRelu, form: Form, walk: Walk, steps: int) -> Push | NoMatch:
    step = through_leaky_relu(leaky, form)
    walk.seen.add(leaky.op.results[0])
    return step if isinstance(step, NoMatch) else _after(leaky.op, leaky.place, step, walk, steps)


def _through(reader: Reader, value: ir.Value, form: Form, walk: Walk, steps: int) -> Push | NoMatch:
    op, place = reader
    rule = walk.rules.get(type(op))
    if isinstance(op, func.ReturnOp):
        return NoMatch("it is an output")
    if rule is None:
        return NoMatch(f"{op.operation.name} reads it, which a per-channel map cannot pass")
    if op.results[0] in walk.seen:
        return NoMatch(f"branches of it meet again in {op.operation.name}")
    if not isinstance(value.owner, ir.Block) and op.operation.block != value.owner.operation.block:
        return NoMatch(f"{op.operation.name} reads it in another region")
    if isinstance(op, hlo.ConcatenateOp) and form.scale is not None:
        return _waiting(op, place, form, walk, steps)
    if op.results[0] in walk.joins:
        return NoMatch(f"branches of it meet again in {op.operation.name}, one without its scale")
    walk.seen.add(op.results[0])
    step = rule(op, place, form, walk.weights)
    if isinstance(step, NoMatch):
        return step
    is_added_before = step.form.shift is None and step.into is None
    if form.shift is not None and not is_added_before and form.distance > largest_distance(op.results[0]):
        return NoMatch("what it shifts is too far from zero, against its deviation, to be shifted after a sum")
    return _after(op, place, step, walk, steps)


def _after(op: ir.OpView, place: int, step: Step, walk: Walk, steps: int) -> Push | NoMatch:
    into = () if step.into is None else (step.into,)
    has_map = not step.form.is_empty
    further = _onward(op.results[0], step.form, walk, steps + 1) if has_map else None
    if step.form.scale is not None and isinstance(further, NoMatch):
        return _staying(op, place, step, further) if walk.may_stay else further
    costs = 1 if has_map else 0
    takes_along = (op,) if step.saves > 0 and step.form.scale is not None else ()  # a bias that it meets stays
    if isinstance(further, Push) and (step.form.scale is not None or further.saves > -costs):
        onward = further

        def act(pending: Pending) -> list[Replacement]:
            return onward.act(_emitted(op, step, pending))

        names = tuple(dict.fromkeys(into + onward.into))
        return Push(names, step.saves + onward.saves, takes_along + onward.passed, act, onward.scaled)
    return Push(into, step.saves - costs, takes_along, lambda pending: [_settled(op, step, pending)])


def _staying(op: ir.OpView, place: int, step: Step, declined: NoMatch) -> Push | NoMatch:
    """The scale stays behind ``op``, if that makes its tensor smaller."""
    before, after = shape_of(op.operands[place]), shape_of(op.results[0])
    if step.form.shift is not None or min(*before, *after, 0) < 0:
        return declined
    if 2 * product(after) >= product(before):
        return NoMatch(
            f"{declined.reason}; nor can it stay behind {op.operation.name}, whose result is not smaller by half"
        )
    if isinstance(tensor_type(op.results[0]).element_type, ir.F16Type):
        return NoMatch("float16 may not hold a sum that is scaled only afterwards")
    into = () if step.into is None else (step.into,)
    return Push(into, step.saves, (), lambda pending: [_settled(op, step, pending)], product(after))


def _emitted(op: ir.OpView, step: Step, pending: Pending) -> Pending:
    with ir.InsertionPoint(op), op.location:
        after = step.act(pending)
    return dataclasses.replace(after, taken=(*pending.taken, *after.taken))


def _settled(op: ir.OpView, step: Step, pending: Pending) -> Replacement:
    after = _emitted(op, step, pending)
    if after.scale is not None:  # in a training step, and no shift with it
        with ir.InsertionPoint(op), op.location:
            return Replacement(op, apply(hlo.multiply, after.value, after.scale), after.taken)
    if after.shift is None:
        return Replacement(op, after.value, after.taken)
    with ir.InsertionPoint(op), op.location:
        narrow = convert(after.shift, tensor_type(after.value).element_type)
        return Replacement(op, apply(hlo.add, after.value, narrow), (*after.taken, narrow))
