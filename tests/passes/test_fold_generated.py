"""fold-batch-norm on one generated convolution or dot_general, the batch norm behind it or before it.

The judge is the same module in float64, on the same numbers. What may be lost is a number of roundings of the sum of
the terms' magnitudes, which the module itself computes from absolute values.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from stablenorm.passes.weights import weight_names
from tests.passes.modules import Array, by_xla, copy, main_function, parse, random_arguments, run
from tests.passes.random_linear import Linear, convolutions, dot_generals, tensor

# What rounding to a type changes, relative to the number, at most.
ROUNDING = {"f64": 2.0**-53, "f32": 2.0**-24, "bf16": 2.0**-8, "f16": 2.0**-11}
# In the element type: the folded weight, the sum of products, the shift and their sum. The others are of sums and of
# the scale's arithmetic, in float32 at least, where bfloat16 and float16 are concerned.
NARROW, WIDE = 4, 12
PARAMETERS = ("scale", "offset", "mean", "variance")


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.one_of(convolutions(), dot_generals()), st.sampled_from(sorted(ROUNDING)), st.data())
@pytest.mark.parametrize("place", ["before", "behind"])
def test_a_folded_operation_computes_the_same(place: str, linear: Linear, element_type: str, data: st.DataObject):
    good = linear.takes if place == "before" else linear.gives
    assume(good)
    axis, has_bias = data.draw(st.sampled_from(sorted(good))), data.draw(st.booleans())
    module = parse(_text(linear, place, axis, element_type, has_bias))
    arguments = random_arguments(module)
    folded = copy(module)
    (remark,) = (each for each in run(folded, "fold-batch-norm").remarks if each.subject == "bn")
    assert remark.verdict == "folded", remark
    assert "batch_norm" not in str(folded)
    (got,) = by_xla(folded, arguments)
    exact = _text(linear, place, axis, "f64", has_bias)
    (expected,), (magnitude,) = (by_xla(parse(exact), each) for each in (_wide(arguments), _absolute(exact, arguments)))
    limit = (
        NARROW * ROUNDING[element_type] + (WIDE + linear.terms) * ROUNDING["f64" if element_type == "f64" else "f32"]
    )
    assert got.dtype == arguments[0].dtype
    error = np.abs(got.astype(np.float64) - expected)
    assert (error <= limit * magnitude).all(), (error / magnitude).max() / limit


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.one_of(convolutions(), dot_generals()), st.data())
@pytest.mark.parametrize("place", ["before", "behind"])
def test_a_scale_along_another_dimension_stays(place: str, linear: Linear, data: st.DataObject):
    sizes, good = (linear.x, linear.takes) if place == "before" else (linear.y, linear.gives)
    others = [dim for dim, size in enumerate(sizes) if dim not in good and size > 1]
    assume(others)
    module = parse(_text(linear, place, data.draw(st.sampled_from(others)), "f32", has_bias=True))
    (remark,) = (each for each in run(module, "fold-batch-norm").remarks if each.subject == "bn")
    assert remark.verdict == "declined"
    assert "batch_norm" in str(module)


def _text(linear: Linear, place: str, axis: int, element_type: str, has_bias: bool) -> str:
    sizes = linear.x if place == "before" else linear.y
    x, w, y, vector = (tensor(each, element_type) for each in (linear.x, linear.w, linear.y, [sizes[axis]]))
    t = tensor(sizes, element_type)
    arguments = [f"%x: {x}", f'%w: {w} {{stablenorm.weight = "layer/kernel"}}']
    arguments += [f'%{name}: {vector} {{stablenorm.weight = "bn/{name}"}}' for name in PARAMETERS]
    arguments += [f'%b: {tensor([], element_type)} {{stablenorm.weight = "layer/bias"}}']

    def batch_norm(name: str) -> str:
        operands = ", ".join([name, *(f"%{parameter}" for parameter in PARAMETERS)])
        return (
            f'%n = "stablehlo.batch_norm_inference"({operands}) <{{epsilon = 1.0e-3 : f32, '
            f"feature_index = {axis} : i64}}> : ({t}, {', '.join([vector] * 4)}) -> {t}\n"
        )

    body = batch_norm("%x") if place == "before" else ""
    body += f"%l = {linear.text('%n' if place == 'before' else '%x', element_type)}\n"
    body += f"%wide = stablehlo.broadcast_in_dim %b, dims = [] : ({tensor([], element_type)}) -> {y}\n"
    body += f"%a = stablehlo.add %l, %wide : {y}\n" if has_bias else ""
    value = "%a" if has_bias else "%l"
    body += batch_norm(value) if place == "behind" else ""
    result = "%n" if place == "behind" else value
    return f"func.func @main({', '.join(arguments)}) -> {y} {{\n{body}return {result} : {y} }}"


def _wide(arguments: list[Array]) -> list[Array]:
    return [array.astype(np.float64) for array in arguments]


def _absolute(text: str, arguments: list[Array]) -> list[Array]:
    """Numbers on which the module computes the sum of the magnitudes of its terms: the mean is subtracted."""
    module = parse(text)
    with module.context:
        names = weight_names(main_function(module))
    signs = [-1 if name == "bn/mean" else 1 for name in names]
    return [sign * np.abs(array) for sign, array in zip(signs, _wide(arguments), strict=True)]
