"""hoist-weights by value: ``@prepare`` and then ``@main`` equal the ``@main`` that there was."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.modules import by_xla, copy, only, parse, random_arguments, run, weight_flags

V, W = "tensor<3xf32>", 'tensor<3xf32> {stablenorm.weight = "w/variance"}'

LOOP = """
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %one = stablehlo.constant dense<1> : tensor<i32>
  %three = stablehlo.constant dense<3> : tensor<i32>
  %r:2 = stablehlo.while(%i = %zero, %a = %x) : tensor<i32>, tensor<3xf32> cond {
    %p = stablehlo.compare LT, %i, %three : (tensor<i32>, tensor<i32>) -> tensor<i1>
    stablehlo.return %p : tensor<i1>
  } do {
    %s = stablehlo.rsqrt %w : tensor<3xf32>
    %b = stablehlo.multiply %a, %s : tensor<3xf32>
    %j = stablehlo.add %i, %one : tensor<i32>
    stablehlo.return %j, %b : tensor<i32>, tensor<3xf32>
  }
  return %r#1 : tensor<3xf32>
"""
BRANCH = """
  %r = "stablehlo.if"(%p) ({
    %s = stablehlo.rsqrt %w : tensor<3xf32>
    stablehlo.return %s : tensor<3xf32>
  }, {
    stablehlo.return %w : tensor<3xf32>
  }) : (tensor<i1>) -> tensor<3xf32>
  %y = stablehlo.multiply %x, %r : tensor<3xf32>
  return %y : tensor<3xf32>
"""
CASES = {
    "arithmetic in a loop": f"(%x: {V}, %w: {W}) -> {V} {{ {LOOP} }}",
    "a branch on an input": f"(%x: {V}, %p: tensor<i1>, %w: {W}) -> {V} {{ {BRANCH} }}",
    "a branch on a weight": f'(%x: {V}, %p: tensor<i1> {{stablenorm.weight = "p"}}, %w: {W}) -> {V} {{ {BRANCH} }}',
    "integers": """(%x: tensor<3xi32>, %w: tensor<3xi32> {stablenorm.weight = "w"}) -> tensor<3xi32> {
        %a = stablehlo.add %w, %w : tensor<3xi32>
        %y = stablehlo.add %x, %a : tensor<3xi32>
        return %y : tensor<3xi32> }""",
    "a reduction": """(%x: tensor<3xf32>, %w: tensor<3x4xf32> {stablenorm.weight = "w"}) -> tensor<3xf32> {
        %z = stablehlo.constant dense<0.0> : tensor<f32>
        %s = stablehlo.reduce(%w init: %z) applies stablehlo.add across dimensions = [1]
          : (tensor<3x4xf32>, tensor<f32>) -> tensor<3xf32>
        %y = stablehlo.multiply %x, %s : tensor<3xf32>
        return %y : tensor<3xf32> }""",
    "returned weights and results": f"""(%x: {V}, %w: {W}) -> ({V}, {V}, {V}, {V}) {{
        %s = stablehlo.add %w, %w : {V}
        %y = stablehlo.multiply %x, %s : {V}
        return %w, %s, %y, %y : {V}, {V}, {V}, {V} }}""",
    "an unread weight": f"(%x: {V}, %w: {W}) -> {V} {{ return %x : {V} }}",
    "weights alone": f"(%w: {W}) -> {V} {{ %s = stablehlo.add %w, %w : {V}\n return %s : {V} }}",
    "tuples": f"""(%x: {V}, %w: {W}) -> {V} {{
        %t = stablehlo.tuple %x, %w : tuple<{V}, {V}>
        %g = stablehlo.get_tuple_element %t[1] : (tuple<{V}, {V}>) -> {V}
        %y = stablehlo.add %x, %g : {V}
        return %y : {V} }}""",
    "complex constants": """(%x: tensor<2xf32>) -> tensor<2xf32> {
        %c = stablehlo.constant dense<[(1.0, 2.0), (4.0, 3.0)]> : tensor<2xcomplex<f32>>
        %r = stablehlo.real %c : (tensor<2xcomplex<f32>>) -> tensor<2xf32>
        %y = stablehlo.add %r, %x : tensor<2xf32>
        return %y : tensor<2xf32> }""",
    "a weight of no elements": """(%x: tensor<3xf32>, %w: tensor<0xf32> {stablenorm.weight = "w"}) -> tensor<3xf32> {
        %c = stablehlo.concatenate %x, %w, dim = 0 : (tensor<3xf32>, tensor<0xf32>) -> tensor<3xf32>
        return %c : tensor<3xf32> }""",
}


@pytest.mark.parametrize("case", CASES)
def test_prepare_then_main_equals_the_original(case: str):
    module = parse(f"func.func @main{CASES[case]}")
    arguments, flags = random_arguments(module), weight_flags(module)
    expected = by_xla(module, arguments)
    hoisted = copy(module)
    run(hoisted, "hoist-weights")
    prepared = by_xla(only(hoisted, "prepare"), [a for a, weight in zip(arguments, flags, strict=True) if weight])
    inputs = [a for a, weight in zip(arguments, flags, strict=True) if not weight]
    got = by_xla(only(hoisted, "main"), [*inputs, *prepared])
    for ours, theirs in zip(got, expected, strict=True):
        # The same operations in the same order; two compilations may still contract a multiply and an add.
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_arithmetic_in_a_loop_is_done_once():
    module = parse(f"func.func @main{CASES['arithmetic in a loop']}")
    run(module, "hoist-weights")
    assert "rsqrt" not in str(only(module, "main"))
    assert "rsqrt" in str(only(module, "prepare"))
