"""lower-pooling: what is written out is XLA's own reduce_window, and becomes one fused loop."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from stablenorm import compiler
from tests.passes.modules import by_xla, copy, parse, random_arguments, run
from tests.passes.window_geometries import GEOMETRIES, output_sizes

# What each starts from, as the bits of a type would have it: MLIR reads infinities so.
LOWEST = {"f32": "0xFF800000", "f64": "0xFFF0000000000000", "bf16": "0xFF80", "f16": "0xFC00"}
HIGHEST = {"f32": "0x7F800000", "f64": "0x7FF0000000000000", "bf16": "0x7F80", "f16": "0x7C00"}
START = {"maximum": LOWEST, "minimum": HIGHEST, "add": dict.fromkeys(LOWEST, "0.0")}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("operation", START)
@pytest.mark.parametrize("element_type", LOWEST)
@pytest.mark.parametrize("features_last", [True, False], ids=["last", "first"])
def test_pools_are_xla_s_in_every_geometry(name: str, operation: str, element_type: str, features_last: bool):
    before = parse(pooling_text(GEOMETRIES[name], operation, element_type, features_last))
    after = copy(before)
    run(after, "lower-pooling")
    assert "stablehlo.reduce_window" not in str(after)
    arguments = random_arguments(before)
    (got,), (expected,) = by_xla(after, arguments), by_xla(before, arguments)
    assert got.dtype == expected.dtype
    if operation == "add":  # XLA may round half types at each addition
        exact = parse(pooling_text(GEOMETRIES[name], operation, "f64", features_last))
        (expected,) = by_xla(exact, [argument.astype(np.float64) for argument in arguments])
    # A maximum is one of the elements. A sum of at most twenty; half types are rounded once, at the end.
    rounding = {"f32": 1e-6, "f64": 1e-14, "f16": 1e-3, "bf16": 8e-3}[element_type] if operation == "add" else 0
    largest = np.abs(expected.astype(np.float64)).max()
    np.testing.assert_allclose(got.astype(np.float64), expected.astype(np.float64), rtol=0, atol=rounding * largest)


def pooling_text(geometry: Any, operation: str, element_type: str, features_last: bool) -> str:
    spatial, window, strides, padding, dilations = geometry

    def placed(values: Any, batch: Any, features: Any) -> list[Any]:
        return [batch, *values, features] if features_last else [batch, features, *values]

    def tensor(sizes: Any) -> str:
        return f"tensor<{'x'.join(map(str, placed(sizes, 2, 5)))}x{element_type}>"

    def array(values: Any) -> str:
        return f"array<i64: {', '.join(map(str, placed(values, 1, 1)))}>"

    x, y, scalar = tensor(spatial), tensor(output_sizes(geometry)), f"tensor<{element_type}>"
    pads = [list(pair) for pair in placed(padding, (0, 0), (0, 0))]
    return f"""func.func public @main(%x: {x}) -> {y} {{
      %start = stablehlo.constant dense<{START[operation][element_type]}> : {scalar}
      %y = "stablehlo.reduce_window"(%x, %start) <{{window_dimensions = {array(window)},
          window_strides = {array(strides)}, window_dilations = {array(dilations)},
          padding = dense<{pads}> : tensor<4x2xi64>}}> ({{
      ^bb0(%a: {scalar}, %b: {scalar}):
        %r = stablehlo.{operation} %a, %b : {scalar}
        stablehlo.return %r : {scalar}
      }}) : ({x}, {scalar}) -> {y}
      return %y : {y}
    }}"""


def test_a_maximum_hands_on_what_is_no_number():
    x = np.random.default_rng(3).normal(size=(1, 8, 8, 4)).astype(np.float32)
    x[0, 2, 3, 1] = np.nan
    got = compiler.compile(pooled, x)(x)
    assert np.isnan(got).any()
    np.testing.assert_array_equal(got, np.asarray(pooled(x)))


def pooled(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")


def test_a_pool_and_what_follows_are_one_fusion():
    x = np.zeros((1, 12, 12, 8), np.float32)
    hlo = compiler.compile(lambda x: jax.nn.relu(pooled(x) - 1), x).hlo()
    assert "reduce-window" not in hlo
    (body,) = [text for text in hlo.split("\n\n") if text.count(" maximum(") == 9]
    assert " subtract(" in body or " add(" in body


@pytest.mark.parametrize("body", ["%a, %a", "%b, %b"])
def test_what_leaves_a_part_out_stays(body: str):
    text = pooling_text(GEOMETRIES["plain"], "add", "f32", True)
    module = parse(text.replace("stablehlo.add %a, %b", f"stablehlo.add {body}"))
    run(module, "lower-pooling")
    assert "stablehlo.reduce_window" in str(module)


def test_a_sum_in_another_type_than_its_input_s_stays():
    module = parse("""func.func @main(%x: tensor<6xf32>) -> tensor<5xf64> {
      %zero = stablehlo.constant dense<0.0> : tensor<f64>
      %y = "stablehlo.reduce_window"(%x, %zero) <{window_dimensions = array<i64: 2>}> ({
      ^bb0(%a: tensor<f64>, %b: tensor<f64>):
        %s = stablehlo.add %a, %b : tensor<f64>
        stablehlo.return %s : tensor<f64>
      }) : (tensor<6xf32>, tensor<f64>) -> tensor<5xf64>
      return %y : tensor<5xf64>
    }""")
    run(module, "lower-pooling")
    assert "stablehlo.reduce_window" in str(module)
