"""fold-batch-norm where it must not fold, or must fold what it cannot look at."""

from __future__ import annotations

import pytest

from tests.passes.modules import parse, run

PARAMETERS = ", ".join(
    f'%{name}: tensor<4xf32> {{stablenorm.weight = "bn/{name}"}}' for name in ("scale", "offset", "mean", "variance")
)
BATCH_NORM = """
    %y = "stablehlo.batch_norm_inference"(%d, %scale, %offset, %mean, %variance)
      <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}>
      : (tensor<2x4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
    return %y : tensor<2x4xf32>
"""
DOT = "%d = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]"
CONVOLUTION = """%d = stablehlo.convolution(%x, %w) dim_numbers = [b, f]x[i, o]->[b, f], window = {}
    {batch_group_count = 1 : i64, feature_group_count = 1 : i64}"""


@pytest.mark.parametrize("linear", [DOT, CONVOLUTION], ids=["dot_general", "convolution"])
@pytest.mark.parametrize("element_type", ["i8", "f8E4M3FN"])
def test_a_quantized_weight_is_not_scaled(linear: str, element_type: str):
    """Its type cannot hold the products: rounded to it again, they would be other weights."""
    x, w = f"tensor<2x3x{element_type}>", f"tensor<3x4x{element_type}>"
    module = parse(
        f'func.func @main(%x: {x}, %w: {w} {{stablenorm.weight = "d/w"}}, {PARAMETERS}) -> tensor<2x4xf32> {{'
        f"{linear} : ({x}, {w}) -> tensor<2x4xf32> {BATCH_NORM} }}"
    )
    (remark,) = run(module, "fold-batch-norm").remarks
    assert remark.verdict == "declined"
    assert "too coarse to be scaled" in remark.detail


UNREADABLE = {
    "float8": "dense<[[1.0, 2.0, 3.0, 4.0], [0.5, 2.0, 3.0, 1.0], [1.0, 4.0, 3.0, 1.0]]> : tensor<3x4xf8E4M3FN>",
    "bfloat16": "dense<[[1.0, 2.0, 3.0, 4.0], [0.5, 2.0, 3.0, 1.0], [1.0, 4.0, 3.0, 1.0]]> : tensor<3x4xbf16>",
    "a resource": "dense_resource<kernel> : tensor<3x4xf64>",
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_constant_that_the_bindings_cannot_read_is_folded_unseen(kind: str):
    constant = UNREADABLE[kind]
    type_ = constant.rsplit(" : ", 1)[1]
    resources = '{-# dialect_resources: { builtin: { kernel: "0x08000000' + "000000000000F03F" * 12 + '" } } #-}'
    module = parse(
        f"func.func @main(%x: tensor<2x3xf32>, {PARAMETERS}) -> tensor<2x4xf32> {{"
        f"%c = stablehlo.constant {constant} %w = stablehlo.convert %c : ({type_}) -> tensor<3x4xf32>"
        f"{DOT} : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32> {BATCH_NORM} }}"
        f"{resources if kind == 'a resource' else ''}"
    )
    (remark,) = run(module, "fold-batch-norm").remarks
    assert remark.verdict == "folded"
