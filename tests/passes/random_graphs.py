"""Random graphs, as text: what a network is made of, in any layout, with per-channel maps everywhere between."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

from tests.passes.graph_text import Graph, Shape, Value, tensor

MOST = 600  # elements of a value
ENDLESS = {"f32": "0xFF800000", "f64": "0xFFF0000000000000"}  # minus infinity


def batch_norm(graph: Graph) -> None:
    x = graph.pick()
    axis = graph.rng.randrange(len(x.shape)) if graph.chance(0.1) else x.axis
    vector = tensor([x.shape[axis]], x.element)
    scale, offset, mean, variance = (
        graph.weight([x.shape[axis]], x.element, what) for what in ("scale", "offset", "mean", "variance")
    )
    if graph.chance(0.05):
        graph.met.add("batch norm with an offset that depends on the input")
        offset = _sum(graph, x, [dim for dim in range(len(x.shape)) if dim != axis])
    graph.emit(
        f"batch norm of rank {max(2, len(x.shape))}",  # of a vector there are too few to count
        f'"stablehlo.batch_norm_inference"({x.name}, {scale}, {offset}, {mean}, {variance}) <{{epsilon = 1.0e-3 : f32, '
        f"feature_index = {axis} : i64}}> : ({x.type}, {', '.join([vector] * 4)}) -> {x.type}",
        x,
        axis=axis,
    )


def per_channel(graph: Graph) -> None:
    x = graph.pick()
    kind = graph.rng.choice(["add", "subtract", "multiply", "multiply", "divide"])
    dims = [x.axis]
    if graph.chance(0.15):
        dims = sorted(graph.rng.sample(range(len(x.shape)), graph.rng.randint(1, len(x.shape))))
        graph.met.add("a map along other dimensions")
    if graph.chance(0.3):
        other = graph.splat(graph.rng.choice([0.5, 3.0, -4.0]), x.shape, x.element)
    else:
        other = graph.spread(x, dims, {"divide": "variance", "multiply": "scale"}.get(kind, "bias"))
    sides = [other, x.name] if kind != "divide" and graph.chance(0.3) else [x.name, other]
    graph.emit(kind, f"stablehlo.{kind} {', '.join(sides)} : {x.type}", x)


def convolution(graph: Graph) -> None:
    """Of as many spatial dimensions as x has beside two, in any layout, with any window."""
    x, rng = graph.pick(), graph.rng
    if len(x.shape) < 2 or len(x.shape) > 5:
        return
    batch_dim, *space = x.others
    features, batch = x.shape[x.axis], x.shape[batch_dim]
    groups = rng.choice([1, 1, 1, *([2] if features % 2 == 0 else []), features])
    batches = 2 if groups == 1 and batch % 2 == 0 and graph.chance(0.3) else 1
    outputs = groups * batches * rng.randint(1, 2 if groups * batches < 3 else 1)
    kernel, dilation, stretch, stride = (
        rng.randint(1, 3),
        rng.randint(1, 2),
        rng.choice([1, 1, 1, 2]),
        rng.randint(1, 2),
    )
    low, high, reverse = rng.randint(0, 2), rng.randint(-1, 2), graph.chance(0.1)
    reach = (kernel - 1) * dilation + 1
    sizes = [((x.shape[dim] - 1) * stretch + 1 + low + high - reach) // stride + 1 for dim in space]
    if any(size < 1 for size in sizes) or math.prod(sizes) * batch * outputs > MOST:
        return
    labels = [*(str(k) for k in range(len(space)))]
    x_labels = [
        "f" if dim == x.axis else "b" if dim == batch_dim else str(space.index(dim)) for dim in range(len(x.shape))
    ]
    w_labels = rng.choice([[*labels, "i", "o"], ["o", "i", *labels], ["i", *labels, "o"]])
    y_labels = rng.choice([["b", *labels, "f"], ["b", "f", *labels]] if graph.chance(0.95) else [x_labels])
    w_sizes = {"i": features // groups, "o": outputs}
    w_shape = [w_sizes.get(label, kernel) for label in w_labels]
    y_sizes = {"b": batch // batches, "f": outputs} | dict(zip(labels, sizes, strict=True))
    y_shape, w = [y_sizes[label] for label in y_labels], graph.weight(w_shape, x.element, "kernel")
    n = len(space)
    window = (
        f"stride = {[stride] * n}, pad = {[[low, high]] * n}, lhs_dilate = {[stretch] * n}, "
        f"rhs_dilate = {[dilation] * n}, reverse = {str([reverse] * n).lower()}"
    )
    numbers = "x".join(f"[{', '.join(each)}]" for each in (x_labels, w_labels)) + f"->[{', '.join(y_labels)}]"
    kinds = {"grouped": 1 < groups < features, "depthwise": 1 < groups == features, "grouped batch": batches > 1}
    kinds |= {"transposed": stretch > 1 and n > 0, "channels first": x_labels[:2] == ["b", "f"] and n > 0}
    graph.met |= {f"{kind} convolution" for kind, holds in kinds.items() if holds}
    graph.emit(
        f"convolution of rank {len(x.shape)}",
        f"stablehlo.convolution({x.name}, {w}) dim_numbers = {numbers}, window = {{{window if n else ''}}} "
        f"{{batch_group_count = {batches} : i64, feature_group_count = {groups} : i64}} : "
        f"({x.type}, {tensor(w_shape, x.element)}) -> {tensor(y_shape, x.element)}",
        x,
        y_shape,
        y_labels.index("f"),
    )


def dense(graph: Graph) -> None:
    """A matrix along the features, or along another dimension, as where images are resized."""
    x, outputs = graph.pick(), graph.rng.randint(1, 5)
    dim = graph.rng.choice(x.others) if x.others and graph.chance(0.15) else x.axis
    rest = [k for k in range(len(x.shape)) if k != dim]
    is_left = graph.chance(0.3)
    shape = (outputs, x.shape[dim]) if is_left else (x.shape[dim], outputs)
    sizes, w = [x.shape[k] for k in rest], graph.weight(shape, x.element, "kernel")
    y, places = ((outputs, *sizes), [dim, *rest]) if is_left else ((*sizes, outputs), [*rest, dim])
    operands, dims = (f"{w}, {x.name}", f"[1] x [{dim}]") if is_left else (f"{x.name}, {w}", f"[{dim}] x [0]")
    types = [tensor(shape, x.element), x.type] if is_left else [x.type, tensor(shape, x.element)]
    kind = f"weight on the {'left' if is_left else 'right'}" if dim == x.axis else "matrix along another dimension"
    text = f"({', '.join(types)}) -> {tensor(y, x.element)}"
    text = f"stablehlo.dot_general {operands}, contracting_dims = {dims} : {text}"
    graph.emit(kind, text, x, y, places.index(x.axis))


def batched_dense(graph: Graph) -> None:
    """One matrix for each of another dimension's places."""
    x, outputs = graph.pick(), graph.rng.randint(1, 4)
    if len(x.shape) < 2:
        return
    batching = graph.rng.choice(x.others)
    shape = (x.shape[batching], x.shape[x.axis], outputs)
    y = (x.shape[batching], *(x.shape[dim] for dim in x.others if dim != batching), outputs)
    graph.emit(
        "batched dot_general",
        f"stablehlo.dot_general {x.name}, {graph.weight(shape, x.element, 'kernel')}, "
        f"batching_dims = [{batching}] x [0], contracting_dims = [{x.axis}] x [1] : "
        f"({x.type}, {tensor(shape, x.element)}) -> {tensor(y, x.element)}",
        x,
        y,
        len(y) - 1,
    )


def activation(graph: Graph) -> None:
    x = graph.pick()
    kind = graph.rng.choice(["relu", "relu", "clamp", "minimum", "tanh", "leaky relu", "swish", "bounded"])
    if kind == "relu":
        text = f"stablehlo.maximum {x.name}, {graph.splat(0.0, x.shape, x.element)} : {x.type}"
    elif kind == "minimum":
        text = f"stablehlo.minimum {graph.splat(0.5, x.shape, x.element)}, {x.name} : {x.type}"
    elif kind == "bounded":
        text = f"stablehlo.maximum {x.name}, {graph.spread(x, [x.axis], 'bound')} : {x.type}"
    elif kind == "clamp":
        low, high = graph.splat(graph.rng.choice([0.0, -1.0]), (), x.element), graph.splat(6.0, (), x.element)
        number = tensor((), x.element)
        text = f"stablehlo.clamp {low}, {x.name}, {high} : ({number}, {x.type}, {number}) -> {x.type}"
    elif kind == "tanh":
        text = f"stablehlo.tanh {x.name} : {x.type}"
    elif kind == "swish":
        gate = graph.line(f"stablehlo.logistic {x.name} : {x.type}")
        text = f"stablehlo.multiply {x.name}, {gate} : {x.type}"
    else:
        slope = graph.splat(0.25, x.shape, x.element)
        product = graph.line(f"stablehlo.multiply {x.name}, {slope} : {x.type}")
        text = f"stablehlo.maximum {x.name}, {product} : {x.type}"
    graph.emit(kind, text, x)


def pad(graph: Graph) -> None:
    """Any dimension but the batch, cutting at times."""
    x, rng = graph.pick(), graph.rng
    low, high, inner = ([0] * len(x.shape) for _ in range(3))
    for dim in rng.sample(range(1, len(x.shape)), rng.randint(0, len(x.shape) - 1)):
        low[dim], high[dim], inner[dim] = (
            rng.randint(-1 if x.shape[dim] > 2 else 0, 1),
            rng.randint(0, 1),
            rng.randint(0, 1),
        )
    shape = [n + a + b + c * (n - 1) for n, a, b, c in zip(x.shape, low, high, inner, strict=True)]
    if math.prod(shape) > MOST:
        return
    number = rng.choice([0.0, 0.0, 1.5])
    fill = graph.splat(number, (), x.element)
    graph.emit(
        "pad" if number == 0 else "filled pad",
        f"stablehlo.pad {x.name}, {fill}, low = {low}, high = {high}, interior = {inner} : "
        f"({x.type}, {tensor((), x.element)}) -> {tensor(shape, x.element)}",
        x,
        shape,
    )


def pool(graph: Graph) -> None:
    x = graph.pick()
    space = [dim for dim in x.others[1:] if x.shape[dim] > 1]
    if not space:
        return
    kind, start = graph.rng.choice([("add", "0.0"), ("maximum", ENDLESS[x.element])])
    padding, size = graph.rng.randint(0, 1), [2 if dim in space else 1 for dim in range(len(x.shape))]
    shape = [n + (padding - 1 if dim in space else 0) for dim, n in enumerate(x.shape)]
    pads = [[0, padding if dim in space else 0] for dim in range(len(x.shape))]
    number = tensor((), x.element)
    graph.emit(
        f"pool by {kind}",
        f'"stablehlo.reduce_window"({x.name}, {graph.splat(start, (), x.element)}) <{{window_dimensions = '
        f"array<i64: {', '.join(map(str, size))}>, padding = dense<{pads}> : tensor<{len(pads)}x2xi64>}}> "
        f"({{ ^bb0(%a: {number}, %b: {number}): %s = stablehlo.{kind} %a, %b : {number} "
        f"stablehlo.return %s : {number} }}) : ({x.type}, {number}) -> {tensor(shape, x.element)}",
        x,
        shape,
    )


def _sum(graph: Graph, x: Value, dims: list[int]) -> str:
    result = tensor([size for dim, size in enumerate(x.shape) if dim not in dims], x.element)
    zero = graph.splat(0.0, (), x.element)
    return graph.line(
        f"stablehlo.reduce({x.name} init: {zero}) applies stablehlo.add across dimensions = {dims} : "
        f"({x.type}, {tensor((), x.element)}) -> {result}"
    )


def mean(graph: Graph) -> None:
    x = graph.pick()
    dims = x.others[1:] if graph.chance(0.8) else sorted(graph.rng.sample(range(len(x.shape)), len(x.shape) - 1))
    shape = [size for dim, size in enumerate(x.shape) if dim not in dims]
    if not dims or graph.chance(0.5):
        return
    axis = x.axis - sum(dim < x.axis for dim in dims) if x.axis not in dims else len(shape) - 1
    type_, count = tensor(shape, x.element), graph.splat(float(math.prod(x.shape[d] for d in dims)), shape, x.element)
    graph.emit("mean", f"stablehlo.divide {_sum(graph, x, dims)}, {count} : {type_}", x, shape, axis)


def reshape(graph: Graph) -> None:
    """Two neighbours become one dimension, or one of even size two."""
    x = graph.pick()
    dim = graph.rng.randrange(len(x.shape))
    if dim + 1 < len(x.shape) and graph.chance(0.6):
        shape = (*x.shape[:dim], x.shape[dim] * x.shape[dim + 1], *x.shape[dim + 2 :])
        axis = x.axis - (x.axis > dim)
    elif x.shape[dim] % 2 == 0 and len(x.shape) < 5:
        shape, axis = (*x.shape[:dim], 2, x.shape[dim] // 2, *x.shape[dim + 1 :]), x.axis + (x.axis >= dim)
    else:
        return
    if len(shape) > 1:
        graph.emit("reshape", f"stablehlo.reshape {x.name} : ({x.type}) -> {tensor(shape, x.element)}", x, shape, axis)


def transpose(graph: Graph) -> None:
    x = graph.pick()
    order = graph.rng.sample(range(len(x.shape)), len(x.shape))
    shape = [x.shape[dim] for dim in order]
    text = f"stablehlo.transpose {x.name}, dims = {order} : ({x.type}) -> {tensor(shape, x.element)}"
    graph.emit("transpose", text, x, shape, order.index(x.axis))


def reverse(graph: Graph) -> None:
    x = graph.pick()
    dims = sorted(graph.rng.sample(range(len(x.shape)), graph.rng.randint(1, 2) if len(x.shape) > 1 else 1))
    kind = "reversed channels" if x.axis in dims else "reverse"
    graph.emit(kind, f"stablehlo.reverse {x.name}, dims = {dims} : {x.type}", x)


def slice_(graph: Graph) -> None:
    x = graph.pick()
    dim = x.axis if graph.chance(0.5) else graph.rng.randrange(len(x.shape))
    if x.shape[dim] < 2:
        return
    start, step = graph.rng.randint(0, x.shape[dim] - 1), graph.rng.randint(1, 2)
    stop = graph.rng.randint(start + 1, x.shape[dim])
    bounds = [f"{start}:{stop}:{step}" if d == dim else f"0:{n}" for d, n in enumerate(x.shape)]
    shape = [(stop - start - 1) // step + 1 if d == dim else n for d, n in enumerate(x.shape)]
    graph.emit(
        "slice of channels" if dim == x.axis else "slice",
        f"stablehlo.slice {x.name} [{', '.join(bounds)}] : ({x.type}) -> {tensor(shape, x.element)}",
        x,
        shape,
    )


def gather(graph: Graph) -> None:
    """Some places of a dimension, again and again, as where images are resized."""
    x = graph.pick()
    dim = graph.rng.randrange(len(x.shape))
    places = [graph.rng.randrange(x.shape[dim]) for _ in range(graph.rng.randint(1, 5))]
    indices = graph.line(f"stablehlo.constant dense<{places}> : tensor<{len(places)}xi32>")
    shape = [len(places) if d == dim else n for d, n in enumerate(x.shape)]
    slices = ", ".join(str(1 if d == dim else n) for d, n in enumerate(x.shape))
    others = [d for d in range(len(x.shape)) if d != dim]
    graph.emit(
        "gather of channels" if dim == x.axis else "gather",
        f'"stablehlo.gather"({x.name}, {indices}) <{{dimension_numbers = #stablehlo.gather<offset_dims = {others}, '
        f"collapsed_slice_dims = [{dim}], start_index_map = [{dim}], index_vector_dim = 1>, "
        f"slice_sizes = array<i64: {slices}>}}> : ({x.type}, tensor<{len(places)}xi32>) -> {tensor(shape, x.element)}",
        x,
        shape,
    )


def broadcast(graph: Graph) -> None:
    """A new dimension, or one of size 1 grows."""
    x = graph.pick()
    if len(x.shape) > 4 or math.prod(x.shape) * 2 > MOST or graph.chance(0.5):
        return
    place = graph.rng.randrange(len(x.shape) + 1)
    dims = [dim + (dim >= place) for dim in range(len(x.shape))]
    shape = (*x.shape[:place], 2, *x.shape[place:])
    text = f"stablehlo.broadcast_in_dim {x.name}, dims = {dims} : ({x.type}) -> {tensor(shape, x.element)}"
    graph.emit("broadcast", text, x, shape, dims[x.axis])


def convert(graph: Graph) -> None:
    """Where the graph is of float32; float64 stays sharp."""
    x = graph.pick()
    if graph.element == "f32":
        other = "f64" if x.element == "f32" else "f32"
        name = graph.line(f"stablehlo.convert {x.name} : ({x.type}) -> {tensor(x.shape, other)}")
        graph.values.append(dataclasses.replace(x, name=name, element=other))
        graph.met.add("convert")


def join(graph: Graph) -> None:
    """A sum, a difference or a product with another value of the same shape."""
    x = graph.pick()
    partners = [value for value in graph.values if (value.shape, value.element) == (x.shape, x.element)]
    y, kind = graph.rng.choice(partners), graph.rng.choice(["add", "add", "add", "subtract", "multiply"])
    graph.emit(f"{kind} of two", f"stablehlo.{kind} {x.name}, {y.name} : {x.type}", x)


def concatenate(graph: Graph) -> None:
    x = graph.pick()
    dim = x.axis if graph.chance(0.6) else graph.rng.randrange(len(x.shape))

    def rest(value: Value) -> tuple[Shape, str]:
        return (*value.shape[:dim], *value.shape[dim + 1 :]), value.element

    partners = [each for each in graph.values if len(each.shape) == len(x.shape) and rest(each) == rest(x)]
    parts = [x, *graph.rng.choices(partners, k=graph.rng.randint(1, 2))]
    shape = [sum(part.shape[dim] for part in parts) if d == dim else n for d, n in enumerate(x.shape)]
    if math.prod(shape) > MOST:
        return
    names, types = (", ".join(each) for each in zip(*((part.name, part.type) for part in parts), strict=True))
    kind = "concatenate" if dim == x.axis else "concatenate along space"
    graph.emit(kind, f"stablehlo.concatenate {names}, dim = {dim} : ({types}) -> {tensor(shape, x.element)}", x, shape)


KINDS: list[Callable[[Graph], None]] = [
    *[batch_norm] * 8,
    *[convolution] * 8,
    *[per_channel] * 4,
    *[dense] * 3,
    *[activation] * 3,
    *[join] * 3,
    *[concatenate, pad, pool, slice_, transpose, reshape] * 2,
    *[batched_dense, mean, reverse, broadcast, convert, gather],
]


def random_graph(seed: int) -> Graph:
    """Three to fourteen operations after each other; float64 mostly, whose roundings hide nothing."""
    rng = random.Random(seed)
    graph = Graph(rng, "f64" if rng.random() < 0.7 else "f32")
    rank = rng.choice([2, 3, 4, 4, 4, 4, 5])
    shape = [rng.randint(1, 4) if rank == 5 else rng.randint(2, 5) for _ in range(rank)]
    axis = rng.choice([1, rank - 1, rank - 1])
    shape[0], shape[axis] = rng.randint(1, 2), rng.randint(1, 4)
    graph.values.append(Value("%x", tuple(shape), axis, graph.element))
    for _ in range(rng.randint(3, 14)):
        rng.choice(KINDS)(graph)
    return graph
