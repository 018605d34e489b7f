"""A map ``s*x + t`` on its way down: what is known of it before anything is emitted, and what stands for it after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jax.extend.mlir import ir

from stablenorm.passes.compact import Dims
from stablenorm.passes.copies import with_operand

FARTHEST = 100  # operations between a map and the weights that take it


@dataclasses.dataclass(frozen=True)
class Form:
    """What is known of a pending map.

    Attributes:
        scale, shift: along which dimensions they vary; None: no scale (it is 1), no shift (it is 0).
        passes_maxima: whether every scale is known to be positive, and shift / scale a number that x's type holds.
        distance: how far from zero x lies, in deviations, where it is known to.
        is_half: whether float16 holds x.
    """

    scale: Dims | None
    shift: Dims | None
    passes_maxima: bool = False
    distance: float = 0.0
    is_half: bool = False

    def after(self, scale: Dims | None, shift: Dims | None, distance: float = 0.0) -> Form:
        """The map with other factors, of which less is known."""
        farthest = max(self.distance, distance)
        return dataclasses.replace(self, scale=scale, shift=shift, passes_maxima=False, distance=farthest)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left of the map."""
        return self.scale is None and self.shift is None


@dataclasses.dataclass(frozen=True)
class Pending:
    """The value that stands for ``scale * value + shift``, both compact or None; ``taken``: weights that took some."""

    value: ir.Value
    scale: ir.Value | None
    shift: ir.Value | None
    taken: tuple[ir.Value, ...] = ()


@dataclasses.dataclass(frozen=True)
class Step:
    """The map behind one operation: its form; how it is emitted; elementwise operations that this saves."""

    form: Form
    act: Callable[[Pending], Pending]
    into: str | None = None
    saves: int = 0


Part = Callable[[ir.Value], ir.Value]


def each(op: ir.OpView, part: Part, pending: Pending) -> Pending:
    """The operation on the value, ``part`` on scale and shift."""
    scale, shift = (value if value is None else part(value) for value in (pending.scale, pending.shift))
    return Pending(with_operand(op, 0, pending.value), scale, shift)


def dims_of(form: Form, rule: Callable[[Dims], Dims]) -> Form:
    scale, shift = (dims if dims is None else rule(dims) for dims in (form.scale, form.shift))
    return dataclasses.replace(form, scale=scale, shift=shift)


def union(a: Dims | None, b: Dims | None) -> Dims | None:
    return b if a is None else a if b is None else a | b
