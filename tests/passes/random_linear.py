"""Random convolutions and dot_generals of any layout, as text, for hypothesis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from hypothesis import strategies as st


@dataclasses.dataclass(frozen=True)
class Linear:
    """``y = linear(x, w)``.

    Attributes:
        x, w, y: their sizes.
        form: the operation's text, with ``{x}``, ``{w}`` and ``{types}`` left open.
        takes: the dimensions of x along which the weight takes a scale.
        gives: the same of y.
        terms: how many products an element of y is the sum of.
    """

    x: list[int]
    w: list[int]
    y: list[int]
    form: str
    takes: frozenset[int]
    gives: frozenset[int]
    terms: int
    is_weight_left: bool = False

    def text(self, operand: str, element_type: str) -> str:
        x, w, y = (tensor(sizes, element_type) for sizes in (self.x, self.w, self.y))
        types = f"({w}, {x}) -> {y}" if self.is_weight_left else f"({x}, {w}) -> {y}"
        return self.form.replace("{x}", operand).replace("{w}", "%w").replace("{types}", types)


def tensor(sizes: Sequence[int], element_type: str) -> str:
    return f"tensor<{''.join(f'{size}x' for size in sizes)}{element_type}>"


@st.composite
def convolutions(draw: st.DrawFn) -> Linear:
    """Up to three spatial dimensions, groups of features or of the batch, every window attribute, any layout."""
    window = [_window(draw) for _ in range(draw(st.integers(0, 3)))]
    groups, batch_groups = draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (1, 2)]))
    inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 3)) * groups * batch_groups
    batch = draw(st.integers(1, 2)) * batch_groups
    x = _Labelled(draw, "bf", [batch, inputs * groups, *(w.size for w in window)])
    w = _Labelled(draw, "io", [inputs, outputs, *(w.kernel for w in window)])
    y = _Labelled(draw, "bf", [batch // batch_groups, outputs, *(w.result for w in window)])
    attributes = {
        "stride": [w.stride for w in window],
        "pad": [list(w.padding) for w in window],
        "lhs_dilate": [w.lhs_dilation for w in window],
        "rhs_dilate": [w.rhs_dilation for w in window],
        "reverse": [w.reverse for w in window],
    }
    written = ", ".join(f"{name} = {str(value).lower()}" for name, value in attributes.items() if value)
    form = (
        f"stablehlo.convolution({{x}}, {{w}}) dim_numbers = {x}x{w}->{y}, window = {{{written}}} "
        f"{{batch_group_count = {batch_groups} : i64, feature_group_count = {groups} : i64}} : {{types}}"
    )
    terms = inputs * math.prod(w.kernel for w in window)
    takes, gives = frozenset({x.order.index("f")}), frozenset({y.order.index("f")})
    return Linear(x.sizes, w.sizes, y.sizes, form, takes, gives, terms)


@dataclasses.dataclass(frozen=True)
class Window:
    """One spatial dimension."""

    size: int
    kernel: int
    stride: int
    padding: tuple[int, int]
    lhs_dilation: int
    rhs_dilation: int
    reverse: bool

    @property
    def result(self) -> int:
        padded = (self.size - 1) * self.lhs_dilation + 1 + sum(self.padding)
        return (padded - (self.kernel - 1) * self.rhs_dilation - 1) // self.stride + 1


def _window(draw: st.DrawFn) -> Window:
    small, flag = st.integers(1, 2), st.booleans()
    kernel, rhs_dilation = draw(st.integers(1, 3)), draw(small)
    size = draw(st.integers(1, 3)) + (kernel - 1) * rhs_dilation + 1
    padding = (draw(st.integers(-1, 2)), draw(st.integers(0, 2)))  # a negative one cuts
    return Window(size, kernel, draw(small), padding, draw(small), rhs_dilation, draw(flag))


class _Labelled:
    """A tensor whose dimensions stand in a drawn order: two letters, then the spatial dimensions by number."""

    def __init__(self, draw: st.DrawFn, letters: str, sizes: list[int]) -> None:
        labels = [*letters, *map(str, range(len(sizes) - 2))]
        self.order = draw(st.permutations(labels))
        self.sizes = [sizes[labels.index(label)] for label in self.order]

    def __str__(self) -> str:
        return f"[{', '.join(self.order)}]"


@st.composite
def dot_generals(draw: st.DrawFn) -> Linear:
    """Up to two batching and two contracting dimensions, in any order; the weight on either side."""
    sizes = st.integers(2, 3)
    batching = [draw(sizes) for _ in range(draw(st.integers(0, 2)))]
    contracting = [draw(sizes) for _ in range(draw(st.integers(1, 2)))]
    free = [[draw(sizes) for _ in range(draw(st.integers(0, 2)))] for _ in range(2)]
    count, shared = len(batching), [*batching, *contracting]
    x, w = (_shuffled(draw, [*shared, *own]) for own in free)
    is_weight_left = draw(st.booleans())
    first, second = (w, x) if is_weight_left else (x, w)
    dims = f"contracting_dims = {first.places[count : len(shared)]} x {second.places[count : len(shared)]}"
    if batching:
        dims = f"batching_dims = {first.places[:count]} x {second.places[:count]}, {dims}"
    operands = "{w}, {x}" if is_weight_left else "{x}, {w}"
    y = [*batching, *(each.sizes[place] for each in (first, second) for place in sorted(each.places[len(shared) :]))]
    start = count + (0 if is_weight_left else len(free[0]))
    gives = frozenset([*range(count), *range(start, start + len(free[1]))])
    takes = frozenset(x.places[: len(shared)])
    form = f"stablehlo.dot_general {operands}, {dims} : {{types}}"
    return Linear(x.sizes, w.sizes, y, form, takes, gives, math.prod(contracting), is_weight_left)


@dataclasses.dataclass(frozen=True)
class _Shuffled:
    sizes: list[int]
    places: list[int]  # of the dimensions as they were named


def _shuffled(draw: st.DrawFn, sizes: list[int]) -> _Shuffled:
    order = draw(st.permutations(range(len(sizes))))
    return _Shuffled([sizes[k] for k in order], [order.index(k) for k in range(len(sizes))])
