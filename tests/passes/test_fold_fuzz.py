"""fold-batch-norm on random graphs: what they compute stays what it was, by XLA and by StableHLO's interpreter.

``STABLENORM_FUZZ=2000`` runs that many graphs; the count that folded is printed.
"""

from __future__ import annotations

import dataclasses
import os
import random

import jax
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stablenorm.passes.weights import weight_names
from tests.passes.modules import Array, by_interpreter, by_xla, copy, main_function, parse, random_arguments, run

COUNT = int(os.environ.get("STABLENORM_FUZZ", "60"))
# Of the largest output: sums of a few hundred products in float32, in another order, a few layers deep.
TOLERANCE = 3e-5
INTERPRETED = 10  # one graph in so many also goes through the interpreter, which is slow

Shape = tuple[int, ...]


@dataclasses.dataclass
class Graph:
    """The text of a function that grows: each value has a name and a shape, features last."""

    rng: random.Random
    lines: list[str] = dataclasses.field(default_factory=list)
    weights: list[str] = dataclasses.field(default_factory=list)
    values: list[tuple[str, Shape]] = dataclasses.field(default_factory=list)
    reads: dict[str, int] = dataclasses.field(default_factory=dict)

    def pick(self) -> tuple[str, Shape]:
        """Mostly the newest value, so that graphs are deep; at times an older one, which then has several readers."""
        value = self.values[-1] if self.rng.random() < 0.85 else self.rng.choice(self.values)
        self.reads[value[0]] = self.reads.get(value[0], 0) + 1
        return value

    def emit(self, text: str, shape: Shape, kept: bool = True) -> str:
        name = f"%v{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        if kept:
            self.values.append((name, shape))
        return name

    def weight(self, shape: Shape, what: str = "w") -> str:
        name = f"%w{len(self.weights)}"
        self.weights.append(f'{name}: {tensor(shape)} {{stablenorm.weight = "{what}/{name[1:]}"}}')
        return name

    def vector(self, shape: Shape) -> str:
        size = shape[-1]
        weight = self.weight((size,))
        dims = [len(shape) - 1]
        return self.emit(
            f"stablehlo.broadcast_in_dim {weight}, dims = {dims} : ({tensor((size,))}) -> {tensor(shape)}",
            shape,
            kept=False,
        )

    def splat(self, number: float | str, shape: Shape) -> str:
        return self.emit(f"stablehlo.constant dense<{number}> : {tensor(shape)}", shape, kept=False)


def tensor(shape: Shape) -> str:
    return f"tensor<{''.join(f'{size}x' for size in shape)}f32>"


def batch_norm(graph: Graph) -> None:
    x, shape = graph.pick()
    vector = tensor((shape[-1],))
    names = ", ".join(graph.weight((shape[-1],), what) for what in ("scale", "offset", "mean", "variance"))
    graph.emit(
        f'"stablehlo.batch_norm_inference"({x}, {names}) '
        f"<{{epsilon = 1.0e-3 : f32, feature_index = {len(shape) - 1} : i64}}>"
        f" : ({tensor(shape)}, {', '.join([vector] * 4)}) -> {tensor(shape)}",
        shape,
    )


def per_channel(graph: Graph) -> None:
    x, shape = graph.pick()
    kind = graph.rng.choice(["add", "subtract", "multiply", "multiply", "divide"])
    if kind == "divide":
        other = graph.splat(graph.rng.choice([0.5, 3.0, -4.0]), shape)
    else:
        other = graph.vector(shape) if graph.rng.random() < 0.7 else graph.splat(0.75, shape)
    graph.emit(f"stablehlo.{kind} {x}, {other} : {tensor(shape)}", shape)


def convolution(graph: Graph) -> None:
    x, shape = graph.pick()
    if len(shape) != 4:
        return dense(graph)
    rng, features = graph.rng, shape[3]
    groups = rng.choice([1, 1, *([2] if features % 2 == 0 else []), features])
    outputs = groups * rng.randint(1, 3 if groups < 3 else 1)
    kernel, dilation, stretch = rng.randint(1, 3), rng.randint(1, 2), rng.choice([1, 1, 1, 2])
    stride, low, high = rng.randint(1, 2), rng.randint(0, 2), rng.randint(0, 2)
    reach = (kernel - 1) * dilation + 1
    sizes = [((size - 1) * stretch + 1 + low + high - reach) // stride + 1 for size in shape[1:3]]
    if min(sizes) < 1:
        return None
    w = graph.weight((kernel, kernel, features // groups, outputs))
    result = (shape[0], *sizes, outputs)
    pairs = [[low, high], [low, high]]
    graph.emit(
        f"stablehlo.convolution({x}, {w}) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = "
        f"{{stride = {[stride] * 2}, pad = {pairs}, lhs_dilate = {[stretch] * 2}, rhs_dilate = {[dilation] * 2}}} "
        f"{{batch_group_count = 1 : i64, feature_group_count = {groups} : i64}} : ({tensor(shape)}, "
        f"{tensor((kernel, kernel, features // groups, outputs))}) -> {tensor(result)}",
        result,
    )
    return None


def dense(graph: Graph) -> None:
    x, shape = graph.pick()
    outputs = graph.rng.randint(1, 5)
    weight = (shape[-1], outputs)
    result = (*shape[:-1], outputs)
    graph.emit(
        f"stablehlo.dot_general {x}, {graph.weight(weight)}, contracting_dims = [{len(shape) - 1}] x [0] : "
        f"({tensor(shape)}, {tensor(weight)}) -> {tensor(result)}",
        result,
    )


def activation(graph: Graph) -> None:
    x, shape = graph.pick()
    kind = graph.rng.choice(["relu", "relu", "clamp", "tanh", "leaky"])
    if kind == "relu":
        graph.emit(f"stablehlo.maximum {x}, {graph.splat(0.0, shape)} : {tensor(shape)}", shape)
    elif kind == "clamp":
        low, high = graph.splat(0.0, ()), graph.splat(6.0, ())
        graph.emit(
            f"stablehlo.clamp {low}, {x}, {high} : ({tensor(())}, {tensor(shape)}, {tensor(())}) -> {tensor(shape)}",
            shape,
        )
    elif kind == "tanh":
        graph.emit(f"stablehlo.tanh {x} : {tensor(shape)}", shape)
    else:
        slope = graph.emit(f"stablehlo.multiply {x}, {graph.splat(0.25, shape)} : {tensor(shape)}", shape, kept=False)
        graph.emit(f"stablehlo.maximum {x}, {slope} : {tensor(shape)}", shape)


def pad(graph: Graph) -> None:
    x, shape = graph.pick()
    if len(shape) != 4:
        return
    low, high, inner = (graph.rng.randint(0, 1) for _ in range(3))
    sizes = [size + low + high + inner * (size - 1) for size in shape[1:3]]
    fill = graph.splat(graph.rng.choice([0.0, 0.0, 1.5]), ())
    result = (shape[0], *sizes, shape[3])
    graph.emit(
        f"stablehlo.pad {x}, {fill}, low = [0, {low}, {low}, 0], high = [0, {high}, {high}, 0], "
        f"interior = [0, {inner}, {inner}, 0] : ({tensor(shape)}, {tensor(())}) -> {tensor(result)}",
        result,
    )


def pool(graph: Graph) -> None:
    x, shape = graph.pick()
    if len(shape) != 4 or min(shape[1:3]) < 2:
        return
    kind, initial = graph.rng.choice([("add", "0.0"), ("maximum", "0xFF800000")])
    padding = graph.rng.randint(0, 1)
    result = (shape[0], *(size + padding - 1 for size in shape[1:3]), shape[3])
    start = graph.splat(initial, ())
    graph.emit(
        f'"stablehlo.reduce_window"({x}, {start}) <{{window_dimensions = array<i64: 1, 2, 2, 1>, '
        f"padding = dense<[[0, 0], [0, {padding}], [0, {padding}], [0, 0]]> : tensor<4x2xi64>}}> "
        f"({{ ^bb0(%a: tensor<f32>, %b: tensor<f32>): %s = stablehlo.{kind} %a, %b : tensor<f32> "
        f"stablehlo.return %s : tensor<f32> }}) "
        f": ({tensor(shape)}, tensor<f32>) -> {tensor(result)}",
        result,
    )


def move(graph: Graph) -> None:
    x, shape = graph.pick()
    kind = graph.rng.choice(["flatten", "mean", "reverse", "slice", "swap"])
    if kind == "reverse":
        dims = sorted(graph.rng.sample(range(1, len(shape)), 1))
        graph.emit(f"stablehlo.reverse {x}, dims = {dims} : {tensor(shape)}", shape)
    if len(shape) != 4:
        return
    if kind == "flatten" and graph.rng.random() < 0.4:
        result: Shape = (shape[0], shape[1] * shape[2] * shape[3])
        graph.emit(f"stablehlo.reshape {x} : ({tensor(shape)}) -> {tensor(result)}", result)
    if kind == "mean" and graph.rng.random() < 0.4:
        result = (shape[0], shape[3])
        total = graph.emit(
            f"stablehlo.reduce({x} init: {graph.splat(0.0, ())}) applies stablehlo.add across dimensions = [1, 2] : "
            f"({tensor(shape)}, tensor<f32>) -> {tensor(result)}",
            result,
            kept=False,
        )
        graph.emit(
            f"stablehlo.divide {total}, {graph.splat(float(shape[1] * shape[2]), result)} : {tensor(result)}", result
        )
    if kind == "slice" and shape[1] > 1:
        start = graph.rng.randint(0, shape[3] - 1)
        result = (shape[0], shape[1] - 1, shape[2], shape[3] - start)
        bounds = f"[0:{shape[0]}, 1:{shape[1]}, 0:{shape[2]}, {start}:{shape[3]}]"
        graph.emit(f"stablehlo.slice {x} {bounds} : ({tensor(shape)}) -> {tensor(result)}", result)
    if kind == "swap":
        result = (shape[0], shape[2], shape[1], shape[3])
        graph.emit(f"stablehlo.transpose {x}, dims = [0, 2, 1, 3] : ({tensor(shape)}) -> {tensor(result)}", result)


def join(graph: Graph) -> None:
    x, shape = graph.pick()
    partners = [value for value in graph.values if value[1][:-1] == shape[:-1]]
    y, other = graph.rng.choice(partners)
    if other == shape and graph.rng.random() < 0.6:
        kind = graph.rng.choice(["add", "add", "subtract"])
        graph.emit(f"stablehlo.{kind} {x}, {y} : {tensor(shape)}", shape)
    elif shape[-1] + other[-1] <= 8:
        result = (*shape[:-1], shape[-1] + other[-1])
        types = f"({tensor(shape)}, {tensor(other)}) -> {tensor(result)}"
        graph.emit(f"stablehlo.concatenate {x}, {y}, dim = {len(shape) - 1} : {types}", result)


KINDS = [batch_norm, batch_norm, batch_norm, per_channel, convolution, convolution, convolution, dense, activation]
KINDS += [pad, pool, move, join, join]


def random_graph(seed: int) -> str:
    graph = Graph(random.Random(seed))
    size = graph.rng.randint(3, 6)
    shape = (graph.rng.randint(1, 2), size, size, graph.rng.randint(1, 4))
    graph.values.append(("%x", shape))
    for _ in range(graph.rng.randint(3, 14)):
        graph.rng.choice(KINDS)(graph)
    results = [value for value in graph.values if value[0] not in graph.reads] or [graph.values[-1]]
    names, types = (", ".join(parts) for parts in zip(*((name, tensor(s)) for name, s in results), strict=True))
    arguments = ", ".join([f"%x: {tensor(shape)}", *graph.weights])
    body = "\n".join(graph.lines)
    return f"func.func @main({arguments}) -> ({types}) {{\n{body}\nreturn {names} : {types} }}"


def check(seed: int) -> int:
    """Folds one graph and compares; says how many maps folded."""
    module = parse(random_graph(seed))
    arguments = random_arguments(module, seed)
    if seed % 3 == 0:  # activations let only such a scale pass
        positive = [
            np.abs(a) if "scale" in (name or "") else a for a, name in zip(arguments, names(module), strict=True)
        ]
        arguments = positive
    known = {name: array for name, array in zip(names(module), arguments, strict=True) if name}
    folded = copy(module)
    remarks = run(folded, "fold-batch-norm", known).remarks
    compare(by_xla(folded, arguments), by_xla(module, arguments), seed)
    if seed % INTERPRETED == 0:
        run(module, "lower-batch-norm")
        run(folded, "lower-batch-norm")
        compare(by_interpreter(folded, arguments), by_interpreter(module, arguments), seed)
    return sum(remark.verdict == "folded" for remark in remarks)


def names(module: object) -> list[str | None]:
    with module.context:  # type: ignore[attr-defined]
        return weight_names(main_function(module))  # type: ignore[arg-type]


def compare(got: list[Array], expected: list[Array], seed: int) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        largest = max(1.0, float(np.abs(theirs).max(initial=0.0)))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * largest, err_msg=f"graph {seed}")


def test_a_folded_graph_computes_what_it_did() -> None:
    counts: list[int] = []

    @settings(
        max_examples=COUNT,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32))
    def every(seed: int) -> None:
        counts.append(check(seed))
        if len(counts) % 100 == 0:
            jax.clear_caches()

    every()
    print(f"{len(counts)} graphs, {sum(counts)} maps folded in {sum(map(bool, counts))} of them")
    assert sum(map(bool, counts)) > len(counts) / 4
