"""fold-batch-norm where sizes are open: it folds what it would fold of a known size, and says why it cannot."""

from __future__ import annotations

import re

import numpy as np
import pytest
from jax.extend.mlir import ir

from stablenorm.passes.rewriting import run_mlir
from tests.passes.modules import by_xla, copy, main_function, parse, random_arguments, run

WEIGHTS = {
    "w": "3x3x4x6",
    "v": "3x3x4x6",
    "d": "4x3",
    "e": "6x3",
    "b": "6",
    **dict.fromkeys(("scale", "offset", "mean", "variance"), "4"),
    **{f"{name}6": "6" for name in ("scale", "offset", "mean", "variance")},
}
IMAGE, MAP = "tensor<?x5x5x4xf32>", "tensor<?x5x5x6xf32>"


def batch_norm(x: str, type_: str, suffix: str = "") -> str:
    """``%y``, or ``%y6`` of six features."""
    names = ", ".join(f"%{name}{suffix}" for name in ("scale", "offset", "mean", "variance"))
    vector = f"tensor<{suffix or 4}xf32>"
    axis = type_.count("x") - 1
    return (
        f'%y{suffix} = "stablehlo.batch_norm_inference"({x}, {names}) <{{epsilon = 1.0e-3 : f32, '
        f"feature_index = {axis} : i64}}> : ({type_}, {', '.join([vector] * 4)}) -> {type_}\n"
    )


def convolution(y: str, x: str, w: str, window: str, before: str, after: str) -> str:
    return (
        f"{y} = stablehlo.convolution({x}, {w}) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], "
        f"window = {{{window}}} {{batch_group_count = 1 : i64, feature_group_count = 1 : i64}} : "
        f"({before}, tensor<3x3x4x6xf32>) -> {after}\n"
    )


def broadcast(y: str, vector: str, like: str, type_: str, dims: str) -> str:
    """To the shape of a tensor of open sizes, as frameworks write it."""
    rank = type_.count("x")
    sizes = "".join(
        f"{y}{k} = stablehlo.get_dimension_size {like}, dim = {k} : ({type_}) -> tensor<i32>\n"
        f"{y}_{k} = stablehlo.reshape {y}{k} : (tensor<i32>) -> tensor<1xi32>\n"
        for k in range(rank)
    )
    names, types = ", ".join(f"{y}_{k}" for k in range(rank)), ", ".join(["tensor<1xi32>"] * rank)
    source = "tensor<6xf32>" if dims else "tensor<f32>"
    return sizes + (
        f"{y}s = stablehlo.concatenate {names}, dim = 0 : ({types}) -> tensor<{rank}xi32>\n"
        f"{y} = stablehlo.dynamic_broadcast_in_dim {vector}, {y}s, dims = [{dims}] : "
        f"({source}, tensor<{rank}xi32>) -> {type_}\n"
    )


SAME, VALID = "pad = [[1, 1], [1, 1]]", ""
SMALL = "tensor<?x3x3x6xf32>"
ROWS, OUTPUT = "tensor<?x4xf32>", "tensor<?x3xf32>"
POOLED = f"""
    %zero = stablehlo.constant dense<0.0> : tensor<f32>
    %sum = stablehlo.reduce(%y init: %zero) applies stablehlo.add across dimensions = [1, 2]
      : ({IMAGE}, tensor<f32>) -> {ROWS}
"""
DENSE = f"%r = stablehlo.dot_general %q, %d, contracting_dims = [1] x [0] : ({ROWS}, tensor<4x3xf32>) -> {OUTPUT}\n"
BIASED = broadcast("%wide", "%b", "%c", MAP, "3") + f"%a = stablehlo.add %c, %wide : {MAP}\n"
FOLDS = {
    "before VALID": (batch_norm("%x", IMAGE) + convolution("%r", "%y", "%w", VALID, IMAGE, SMALL), SMALL),
    "before SAME": (batch_norm("%x", IMAGE) + convolution("%r", "%y", "%w", SAME, IMAGE, MAP), MAP),
    "before SAME with a bias": (
        batch_norm("%x", IMAGE) + convolution("%c", "%y", "%w", SAME, IMAGE, MAP) + BIASED.replace("%a =", "%r ="),
        MAP,
    ),
    "before a sum and a dense layer": (batch_norm("%x", IMAGE) + POOLED + DENSE.replace("%q", "%sum"), OUTPUT),
    "behind": (
        convolution("%c", "%x", "%w", SAME, IMAGE, MAP)
        + batch_norm("%c", MAP, "6")
        + f"%r = stablehlo.abs %y6 : {MAP}",
        MAP,
    ),
    "behind a bias": (
        convolution("%c", "%x", "%w", SAME, IMAGE, MAP)
        + BIASED
        + batch_norm("%a", MAP, "6")
        + f"%r = stablehlo.abs %y6 : {MAP}",
        MAP,
    ),
    "behind a ReLU": (
        convolution("%c", "%x", "%w", SAME, IMAGE, MAP)
        + BIASED
        + "%nought = stablehlo.constant dense<0.0> : tensor<f32>\n"
        + broadcast("%floor", "%nought", "%a", MAP, "")
        + f"%relu = stablehlo.maximum %a, %floor : {MAP}\n"
        + batch_norm("%relu", MAP, "6")
        + f"%r = stablehlo.abs %y6 : {MAP}",
        MAP,
    ),
    "behind a sum of branches": (
        convolution("%c", "%x", "%w", SAME, IMAGE, MAP)
        + convolution("%k", "%x", "%v", SAME, IMAGE, MAP)
        + f"%s = stablehlo.add %c, %k : {MAP}\n"
        + batch_norm("%s", MAP, "6")
        + f"%r = stablehlo.abs %y6 : {MAP}",
        MAP,
    ),
    "two in a row": (
        convolution("%c", "%x", "%w", SAME, IMAGE, MAP)
        + batch_norm("%c", MAP, "6")
        + BIASED.replace("%c", "%y6").replace("%a =", "%r ="),
        MAP,
    ),
    "open height, VALID": (
        batch_norm("%x", "tensor<?x?x5x4xf32>")
        + convolution("%r", "%y", "%w", VALID, "tensor<?x?x5x4xf32>", "tensor<?x?x3x6xf32>"),
        "tensor<?x?x3x6xf32>",
    ),
    "open height, behind": (
        convolution("%c", "%x", "%w", SAME, "tensor<?x?x5x4xf32>", "tensor<?x?x5x6xf32>")
        + batch_norm("%c", "tensor<?x?x5x6xf32>", "6")
        + "%r = stablehlo.abs %y6 : tensor<?x?x5x6xf32>",
        "tensor<?x?x5x6xf32>",
    ),
}
DECLINES = {
    "a convolution pads a dimension whose size is known only when the program runs": (
        batch_norm("%x", "tensor<?x?x5x4xf32>")
        + convolution("%r", "%y", "%w", SAME, "tensor<?x?x5x4xf32>", "tensor<?x?x5x6xf32>"),
        "tensor<?x?x5x6xf32>",
    ),
    "a sum over a dimension whose size is known only when the program runs": (
        (batch_norm("%x", IMAGE) + POOLED + DENSE.replace("%q", "%sum")).replace("x5x5x4x", "x?x5x4x"),
        OUTPUT,
    ),
    "stablehlo.dynamic_reshape reads it, which a per-channel map cannot pass": (
        batch_norm("%x", IMAGE)
        + f"%n = stablehlo.get_dimension_size %x, dim = 0 : ({IMAGE}) -> tensor<i32>\n"
        + "%k = stablehlo.constant dense<25> : tensor<i32>\n"
        + "%nk = stablehlo.multiply %n, %k : tensor<i32>\n"
        + "%one = stablehlo.reshape %nk : (tensor<i32>) -> tensor<1xi32>\n"
        + "%four = stablehlo.constant dense<4> : tensor<1xi32>\n"
        + "%sizes = stablehlo.concatenate %one, %four, dim = 0 : (tensor<1xi32>, tensor<1xi32>) -> tensor<2xi32>\n"
        + f"%q = stablehlo.dynamic_reshape %y, %sizes : ({IMAGE}, tensor<2xi32>) -> {ROWS}\n"
        + DENSE,
        OUTPUT,
    ),
}


def module_of(body: str, result: str) -> ir.Module:
    x = re.findall(r"tensor<\?x[^>]*4xf32>", body)[0]
    weights = ", ".join(
        f'%{name}: tensor<{sizes}xf32> {{stablenorm.weight = "layer/{name}"}}' for name, sizes in WEIGHTS.items()
    )
    return parse(f"func.func @main(%x: {x}, {weights}) -> {result} {{ {body}\nreturn %r : {result} }}")


def of_batch(module: ir.Module, batch: int) -> ir.Module:
    """The module with its open sizes made known."""
    refined = copy(module)
    with refined.context:
        types = [str(type_) for type_ in main_function(refined).type.inputs]
    types[0] = types[0].replace("?x?", f"{batch}x5").replace("?", str(batch))
    run_mlir(
        refined,
        f"stablehlo-refine-arguments{{types={','.join(types)}}},stablehlo-refine-shapes,"
        "func.func(stablehlo-canonicalize-dynamism),canonicalize",
    )
    return refined


@pytest.mark.parametrize("name", FOLDS)
def test_it_folds_and_computes_the_same(name: str):
    module = module_of(*FOLDS[name])
    static = of_batch(module, 3)
    arguments = random_arguments(static)
    names = list(WEIGHTS)
    arguments[1 + names.index("scale6")] = np.abs(arguments[1 + names.index("scale6")])
    known = {f"layer/{each}": array for each, array in zip(names, arguments[1:], strict=True)}
    folded = copy(module)
    run(folded, "fold-batch-norm", known)
    assert "batch_norm" not in str(folded)
    (expected,), (got,) = by_xla(static, arguments), by_xla(of_batch(folded, 3), arguments)
    # Of sums of 100 products at most, in another order.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize("reason", DECLINES)
def test_it_says_why_it_cannot(reason: str):
    module = module_of(*DECLINES[reason])
    remark = run(module, "fold-batch-norm").remarks[0]
    assert remark.verdict == "declined"
    assert reason in remark.detail
    assert "batch_norm" in str(module)
