"""The text of a function that grows, operation by operation, for tests that draw graphs."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Sequence

import numpy as np

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor; ``axis`` is where its features are."""

    name: str
    shape: Shape
    axis: int
    element: str

    @property
    def type(self) -> str:
        return tensor(self.shape, self.element)

    @property
    def others(self) -> list[int]:
        return [dim for dim in range(len(self.shape)) if dim != self.axis]


def tensor(shape: Sequence[int], element: str) -> str:
    return f"tensor<{''.join(f'{size}x' for size in shape)}{element}>"


@dataclasses.dataclass
class Graph:
    """The text of a function that grows; ``met`` says of which kinds it has operations."""

    rng: random.Random
    element: str
    lines: list[str] = dataclasses.field(default_factory=list)
    weights: dict[str, str] = dataclasses.field(default_factory=dict)
    values: list[Value] = dataclasses.field(default_factory=list)
    kernels: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    met: set[str] = dataclasses.field(default_factory=set)

    def pick(self) -> Value:
        """Mostly the newest value, so that graphs are deep; at times an older one, which then has several readers."""
        return self.values[-1] if self.rng.random() < 0.85 else self.rng.choice(self.values)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def line(self, text: str) -> str:
        name = f"%v{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        return name

    def emit(
        self, kind: str, text: str, x: Value, shape: Sequence[int] | None = None, axis: int | None = None
    ) -> Value:
        """A new value of x's element type, and of its shape and axis where none are given."""
        shape, axis = x.shape if shape is None else tuple(shape), x.axis if axis is None else axis
        value = Value(self.line(text), shape, axis, x.element)
        self.values.append(value)
        self.met.add(kind)
        return value

    def splat(self, number: float | str, shape: Sequence[int], element: str) -> str:
        return self.line(f"stablehlo.constant dense<{number}> : {tensor(shape, element)}")

    def weight(self, shape: Sequence[int], element: str, what: str) -> str:
        """An argument, or a constant; kernels are shared at times."""
        type_ = tensor(shape, element)
        known = [name for name, other in self.kernels if other == type_]
        if what == "kernel" and known and self.chance(0.5):
            self.met.add("shared kernel")
            return self.rng.choice(known)
        if self.chance(0.15):
            self.met.add("constant weight")
            draw = np.random.default_rng(self.rng.randrange(2**32))
            numbers = draw.uniform(0.3, 2.0, shape) if what == "variance" else draw.normal(0.2, 1.0, shape)
            name = self.line(f"stablehlo.constant dense<{json.dumps(numbers.tolist())}> : {type_}")
        else:
            name = f"%w{len(self.weights)}"
            self.weights[name] = f'{name}: {type_} {{stablenorm.weight = "{what}/{name[1:]}"}}'
        if what == "kernel":
            self.kernels.append((name, type_))
        return name

    def spread(self, x: Value, dims: list[int], what: str) -> str:
        """A weight that varies along ``dims``, as a tensor of x's shape."""
        shape = [x.shape[dim] for dim in dims]
        weight = self.weight(shape, x.element, what)
        return self.line(
            f"stablehlo.broadcast_in_dim {weight}, dims = {dims} : ({tensor(shape, x.element)}) -> {x.type}"
        )


def text_of(graph: Graph) -> str:
    """The function that returns what nothing reads."""
    read = {name for line in graph.lines for name in re.findall(r"%\w+", line.split(" = ", 1)[1])}
    results = [value for value in graph.values if value.name not in read]
    names, types = (", ".join(each) for each in zip(*((value.name, value.type) for value in results), strict=True))
    arguments = ", ".join([f"%x: {graph.values[0].type}", *graph.weights.values()])
    body = "\n".join(graph.lines)
    return f"func.func @main({arguments}) -> ({types}) {{\n{body}\nreturn {names} : {types} }}"
