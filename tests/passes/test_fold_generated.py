"""fold-batch-norm on generated convolutions: XLA's own batch norm before, one convolution after, the same numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.passes.modules import by_xla, copy, parse, random_arguments, run

# Relative to the largest output. float16 and bfloat16 round the weights and the result once more (units 2^-11, 2^-8),
# and sums of a few dozen of terms carry that on.
TOLERANCES = {"f64": 1e-12, "f32": 2e-5, "bf16": 5e-2, "f16": 6e-3}


@dataclasses.dataclass(frozen=True)
class Case:
    """A convolution, a bias or none, and a batch norm behind it, as a module's text."""

    text: str
    element_type: str


@st.composite
def cases(draw: st.DrawFn) -> Case:
    space = draw(st.integers(0, 3))
    groups, batch_groups = draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (1, 2)]))
    inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 3)) * groups * batch_groups
    window = [_window(draw) for _ in range(space)]
    batch = draw(st.integers(1, 2)) * batch_groups
    element_type = draw(st.sampled_from(sorted(TOLERANCES)))
    x = _Labelled(draw, "bf", [batch, inputs * groups, *(w.size for w in window)])
    kernel = _Labelled(draw, "io", [inputs, outputs, *(w.kernel for w in window)])
    y = _Labelled(draw, "bf", [batch // batch_groups, outputs, *(w.result for w in window)])
    axis, vector = y.order.index("f"), f"tensor<{outputs}x{element_type}>"
    x_type, w_type, y_type = (each.type(element_type) for each in (x, kernel, y))
    bias = draw(st.sampled_from(["", "right", "left"]))
    add = {"": "", "right": "%c, %wide", "left": "%wide, %c"}[bias]
    names = ("scale", "offset", "mean", "variance", "bias")
    parameters = ", ".join(f'%{name}: {vector} {{stablenorm.weight = "bn/{name}"}}' for name in names)
    attributes = {
        "stride": [w.stride for w in window],
        "pad": [list(w.padding) for w in window],
        "lhs_dilate": [w.lhs_dilation for w in window],
        "rhs_dilate": [w.rhs_dilation for w in window],
        "reverse": [w.reverse for w in window],
    }
    written = ", ".join(f"{name} = {str(value).lower()}" for name, value in attributes.items() if value)
    text = f"""func.func @main(%x: {x_type}, %w: {w_type} {{stablenorm.weight = "conv/kernel"}}, {parameters})
        -> {y_type} {{
      %c = stablehlo.convolution(%x, %w) dim_numbers = {x}x{kernel}->{y}, window = {{{written}}}
        {{batch_group_count = {batch_groups} : i64, feature_group_count = {groups} : i64}}
        : ({x_type}, {w_type}) -> {y_type}
      %wide = stablehlo.broadcast_in_dim %bias, dims = [{axis}] : ({vector}) -> {y_type}
      {f"%a = stablehlo.add {add} : {y_type}" if add else ""}
      %y = "stablehlo.batch_norm_inference"({"%a" if add else "%c"}, %scale, %offset, %mean, %variance)
        <{{epsilon = 1.0e-3 : f32, feature_index = {axis} : i64}}>
        : ({y_type}, {", ".join([vector] * 4)}) -> {y_type}
      return %y : {y_type} }}"""
    return Case(text, element_type)


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
    size = draw(st.integers(0, 2)) + (kernel - 1) * rhs_dilation + 1
    padding = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    return Window(size, kernel, draw(small), padding, draw(small), rhs_dilation, draw(flag))


class _Labelled:
    """A tensor whose dimensions stand in a drawn order: two letters, then the spatial dimensions by number."""

    def __init__(self, draw: st.DrawFn, letters: str, sizes: list[int]) -> None:
        labels = [*letters, *map(str, range(len(sizes) - 2))]
        self.order = draw(st.permutations(labels))
        self.sizes = [sizes[labels.index(label)] for label in self.order]

    def __str__(self) -> str:
        return f"[{', '.join(self.order)}]"

    def type(self, element_type: str) -> str:
        return f"tensor<{'x'.join(map(str, self.sizes))}x{element_type}>"


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_a_folded_convolution_computes_the_same(case: Case):
    module = parse(case.text)
    arguments = random_arguments(module)
    (expected,) = (array.astype(np.float64) for array in by_xla(module, arguments))
    folded = copy(module)
    (remark,) = run(folded, "fold-batch-norm").remarks
    assert remark.verdict == "folded", remark
    (got,) = (array.astype(np.float64) for array in by_xla(folded, arguments))
    limit = TOLERANCES[case.element_type] * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(got, expected, rtol=0, atol=limit)
