"""Which values count as weights, what they are called, and which contracts hold of a module."""

from __future__ import annotations

import numpy as np
import pytest

from stablenorm.passes import PASSES, contracts
from stablenorm.passes.weights import Weights
from tests.passes.modules import main_function, parse, run

V = "tensor<3xf32>"


def returned(body: str) -> tuple[Weights, list]:
    """``@main(%x, %w "a/w", %v "b/v")`` with a body, and the values that it returns."""
    marked = f'%w: {V} {{stablenorm.weight = "a/w"}}, %v: {V} {{stablenorm.weight = "b/v"}}'
    results = body.rsplit(" : ", 1)[1]
    module = parse(f"func.func @main(%x: {V}, {marked}) -> ({results}) {{ {body} }}")
    main = main_function(module)
    returned.module = module  # keeps the values alive
    return Weights(main, {}), list(list(main.entry_block.operations)[-1].operands)


@pytest.mark.parametrize(
    ("body", "is_weight"),
    [
        (f"return %w : {V}", True),
        (f"return %x : {V}", False),
        (f"%y = stablehlo.add %w, %v : {V} return %y : {V}", True),
        (f"%y = stablehlo.add %w, %x : {V} return %y : {V}", False),
        (f"%y = stablehlo.constant dense<1.0> : {V} return %y : {V}", True),
        (f"%y = stablehlo.custom_call @f(%w) : ({V}) -> {V} return %y : {V}", False),
        (f"%y = stablehlo.optimization_barrier %w : {V} return %y : {V}", False),
        ("%i = stablehlo.replica_id : tensor<ui32> return %i : tensor<ui32>", False),
        (
            f"""%z = stablehlo.constant dense<0.0> : tensor<f32>
            %y = stablehlo.reduce(%w init: %z) applies stablehlo.add across dimensions = [0]
              : ({V}, tensor<f32>) -> tensor<f32>
            return %y : tensor<f32>""",
            True,
        ),
        (
            f"""%p = stablehlo.constant dense<true> : tensor<i1>
            %y = "stablehlo.if"(%p) ({{ stablehlo.return %w : {V} }}, {{ stablehlo.return %x : {V} }})
              : (tensor<i1>) -> {V}
            return %y : {V}""",
            False,
        ),
    ],
)
def test_a_weight_depends_on_weights_and_constants_alone(body: str, is_weight: bool):
    weights, (value,) = returned(body)
    assert weights.is_weight(value) is is_weight


def test_names_are_in_the_order_of_use():
    weights, (value,) = returned(
        f"%s = stablehlo.multiply %v, %w : {V} %y = stablehlo.add %s, %v : {V} return %y : {V}"
    )
    assert weights.names(value) == ["b/v", "a/w"]


def test_a_long_chain_needs_no_deep_stack():
    steps = [f"%s{n + 1} = stablehlo.add %s{n}, %s{n} : {V}" for n in range(3000)]
    weights, (value,) = returned(f"%s0 = stablehlo.negate %w : {V} {' '.join(steps)} return %s3000 : {V}")
    assert weights.is_weight(value)
    assert weights.names(value) == ["a/w"]
    assert Weights(main_function(returned.module), {"a/w": np.zeros(3, np.float32)}).evaluate(value).tolist() == [0] * 3


@pytest.mark.parametrize("each", PASSES, ids=lambda each: each.name)
def test_arguments_need_no_attributes(each):
    module = parse(f"func.func @main(%x: {V}) -> {V} {{ return %x : {V} }}")
    run(module, each.name + ("{replica_groups=[[0]]}" if each.name == "synchronize-batch-norm" else ""))
    assert "return %arg0" in str(module)


@pytest.mark.parametrize(
    ("contract", "body", "broken"),
    [
        (
            contracts.no_batch_norm,
            """%y = "stablehlo.batch_norm_inference"(%x, %w, %w, %w, %w)
            <{epsilon = 1.0e-3 : f32, feature_index = 0 : i64}>
            : (tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) -> tensor<3xf32>
            return %y : tensor<3xf32>""",
            "stablehlo.batch_norm_inference is left at ",
        ),
        (contracts.no_foreign_operations, f"%y = math.sqrt %x : {V} return %y : {V}", "math.sqrt is left at "),
        (contracts.weights_are_prepared, f"return %x : {V}", "@main still takes weights"),
        (contracts.no_calls, f"return %x : {V}", None),
    ],
)
def test_a_contract_says_what_breaks_it(contract, body: str, broken: str | None):
    returned(body)
    said = contract(returned.module)
    assert said is None if broken is None else said.startswith(broken)
