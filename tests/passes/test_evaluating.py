"""Each operation that passes can look at gives XLA's numbers, and what they cannot look at is unknown."""

from __future__ import annotations

import numpy as np
import pytest

from stablenorm.passes.evaluating import EVALUATORS
from stablenorm.passes.weights import Weights
from tests.passes.modules import by_xla, main_function, parse, random_arguments

F = "tensor<2x3xf32>"
UNARY = {name: f"stablehlo.{name} %v : {F}" for name in ("negate", "abs", "sqrt", "rsqrt")}
BINARY = {
    f"{name} {type_}": f"stablehlo.{name} %v, %w : tensor<2x3x{type_}>"
    for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum")
    for type_ in ("f32", "i32")
    if (name, type_) != ("divide", "i32")
}
OTHERS = {
    "constant": f"stablehlo.constant dense<[[1.0, 2.0, 3.0], [4.0, -5.0, 6.5]]> : {F}",
    "constant splat": f"stablehlo.constant dense<2.5> : {F}",
    "constant bfloat16 splat": "stablehlo.constant dense<2.5> : tensor<2x3xbf16>",
    "constant true": "stablehlo.constant dense<true> : tensor<2xi1>",
    "constant booleans": "stablehlo.constant dense<[true, false, false]> : tensor<3xi1>",
    "constant integers": "stablehlo.constant dense<[[-1], [2]]> : tensor<2x1xi8>",
    "constant unsigned": "stablehlo.constant dense<[200, 2]> : tensor<2xui8>",
    "constant empty": "stablehlo.constant dense<> : tensor<0x2xf32>",
    "convert f16": f"stablehlo.convert %v : ({F}) -> tensor<2x3xf16>",
    "convert bf16": f"stablehlo.convert %v : ({F}) -> tensor<2x3xbf16>",
    "convert i32": f"stablehlo.convert %v : ({F}) -> tensor<2x3xi32>",
    "convert i1": f"stablehlo.convert %v : ({F}) -> tensor<2x3xi1>",
    "reshape": f"stablehlo.reshape %v : ({F}) -> tensor<3x1x2xf32>",
    "transpose": f"stablehlo.transpose %v, dims = [1, 0] : ({F}) -> tensor<3x2xf32>",
    "reverse": f"stablehlo.reverse %v, dims = [1] : {F}",
    "slice": f"stablehlo.slice %v [1:2, 0:3:2] : ({F}) -> tensor<1x2xf32>",
    "broadcast_in_dim": f"stablehlo.broadcast_in_dim %v, dims = [2, 0] : ({F}) -> tensor<3x4x2xf32>",
    "concatenate": f"stablehlo.concatenate %v, %w, dim = 1 : ({F}, {F}) -> tensor<2x6xf32>",
}
CASES = UNARY | BINARY | OTHERS


def function(expression: str, result: str) -> str:
    type_ = "i32" if expression.endswith("xi32>") and "convert" not in expression else "f32"
    names = [(name, f'tensor<2x3x{type_}> {{stablenorm.weight = "{name}/variance"}}') for name in "vw"]
    arguments = ", ".join(f"%{name}: {text}" for name, text in names)
    return f"func.func @main({arguments}) -> {result} {{ %y = {expression}\n return %y : {result} }}"


def value_and_numbers(expression: str) -> tuple:
    result = expression.rsplit("-> ")[-1].rsplit(" : ")[-1]
    module = parse(function(expression, result))
    arguments = [array + np.asarray(1, array.dtype) for array in random_arguments(module)]  # no division by zero
    main = main_function(module)
    weights = Weights(main, {"v/variance": arguments[0], "w/variance": arguments[1]})
    (returned,) = list(main.entry_block.operations)[-1].operands
    return module, arguments, weights.evaluate(returned)


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_those_of_xla(case: str):
    module, arguments, got = value_and_numbers(CASES[case])
    (expected,) = by_xla(module, arguments)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got.astype(np.float64), expected.astype(np.float64), rtol=1e-6)  # one rounding


def test_every_operation_of_the_table_is_tested():
    assert {f"stablehlo.{case.split()[0]}" for case in CASES} == set(EVALUATORS)


@pytest.mark.parametrize(
    "expression",
    [
        "stablehlo.tanh %v : tensor<2x3xf32>",
        "stablehlo.divide %v, %w : tensor<2x3xi32>",
        "stablehlo.constant dense<[1.0, 2.0]> : tensor<2xbf16>",
        "stablehlo.constant dense<[1.0, 2.0]> : tensor<2xf8E4M3FN>",
        "stablehlo.constant dense<[(1.0, 2.0), (3.0, 4.0)]> : tensor<2xcomplex<f32>>",
        "stablehlo.constant dense<(1.0, 2.0)> : tensor<2xcomplex<f32>>",
        "stablehlo.constant dense<[1, 2]> : tensor<2xi4>",
    ],
)
def test_what_cannot_be_looked_at_is_unknown(expression: str):
    assert value_and_numbers(expression)[2] is None
