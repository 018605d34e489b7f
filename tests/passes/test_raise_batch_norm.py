"""raise-batch-norm by value, for arithmetic that is nearly a batch norm."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.passes.modules import by_interpreter, by_xla, copy, parse, random_arguments, run

V, T = "tensor<4xf32>", "tensor<2x4xf32>"
NAMES = ("variance", "variance2", "scale", "offset", "mean")
PARAMETERS = ", ".join(f'%{name}: {V} {{stablenorm.weight = "bn/{name}"}}' for name in NAMES)


def module_of(body: str) -> str:
    """Vectors %r = rsqrt(variance + 0.001), %r2 and the parameters, and each broadcast in capitals; returns %y."""
    wide = [
        f"%{name.upper()} = stablehlo.broadcast_in_dim %{name}, dims = [1] : ({V}) -> {T}"
        for name in ("r", "r2", "scale", "offset", "mean", "root")
    ]
    return f"""func.func @main(%x: {T}, {PARAMETERS}) -> {T} {{
      %eps = stablehlo.constant dense<1.0e-3> : {V}
      %ve = stablehlo.add %variance, %eps : {V}
      %r = stablehlo.rsqrt %ve : {V}
      %root = stablehlo.sqrt %ve : {V}
      %ve2 = stablehlo.add %variance2, %eps : {V}
      %r2 = stablehlo.rsqrt %ve2 : {V}
      {chr(10).join(wide)}
      {body}
      return %y : {T} }}"""


def lines(*steps: str) -> str:
    """``a = op b c``, a line each, as StableHLO on whole tensors."""
    return "\n".join(
        f"%{s[0]} = stablehlo.{s[2]} {', '.join(f'%{o}' for o in s[3:])} : {T}" for s in map(str.split, steps)
    )


RAISED = {
    "Flax": lines("d = subtract x MEAN", "e = multiply R SCALE", "f = multiply d e", "y = add f OFFSET"),
    "divided by the root": lines("d = subtract x MEAN", "e = divide d ROOT", "y = multiply e SCALE"),
    "offset subtracted": lines("d = subtract x MEAN", "e = multiply d R", "y = subtract e OFFSET"),
    "mean added": lines("d = add x MEAN", "y = multiply d R"),
    "scale squared": lines("d = subtract x MEAN", "e = multiply d R", "f = multiply e SCALE", "y = multiply f SCALE"),
    "scale is the mean": lines("d = subtract x MEAN", "e = multiply d R", "y = multiply e MEAN"),
    "two in a row": lines("d = subtract x MEAN", "e = multiply d R", "f = subtract e OFFSET", "y = multiply f R2"),
}
# Batch norms of another tensor, or with a sign that is not looked for: only the value counts.
OTHERS = {
    "negated twice": lines("d = subtract MEAN x", "e = multiply d R", "y = negate e"),
    "a root in the offset": lines("b = multiply OFFSET R2", "d = subtract x MEAN", "e = multiply d R", "y = add e b"),
    "two roots": lines("d = subtract x MEAN", "e = multiply d R", "y = multiply e R2"),
    "the input doubled": lines("a = add x x", "d = subtract a MEAN", "y = multiply d R"),
}
NOT_RAISED = {
    "a root in the mean": lines("m = multiply MEAN R2", "d = subtract x m", "y = multiply d R"),
    "no mean": lines("d = multiply x R", "y = add d OFFSET"),
    "only a factor": lines("y = multiply x R"),
    "a mirrored input": lines("d = subtract MEAN x", "y = multiply d R"),
    "a root where its inverse should be": lines("d = subtract x MEAN", "y = multiply d ROOT"),
    "a quotient by the inverse root": lines("d = subtract x MEAN", "y = divide d R"),
    "a quotient by the input": lines("d = subtract x MEAN", "y = divide R d"),
    "the input squared": lines("d = subtract x MEAN", "e = multiply d x", "y = multiply e R"),
    "another mean than its own": lines("a = multiply x R", "b = multiply MEAN R2", "y = subtract a b"),
}


@pytest.mark.parametrize("form", [*RAISED, *NOT_RAISED, *OTHERS])
def test_the_value_stays(form: str):
    module = parse(module_of({**RAISED, **NOT_RAISED, **OTHERS}[form]))
    arguments = random_arguments(module)
    (expected,) = by_interpreter(module, arguments)
    run(module, "raise-batch-norm")
    (by_name,) = by_xla(module, arguments)
    run(module, "lower-batch-norm")
    (written_out,) = by_interpreter(module, arguments)
    limit = 1e-6 * max(1.0, np.abs(expected).max())  # a few roundings of float32
    np.testing.assert_allclose(by_name, expected, rtol=0, atol=limit)
    np.testing.assert_allclose(written_out, expected, rtol=0, atol=limit)


@pytest.mark.parametrize("form", RAISED)
def test_a_batch_norm_is_raised(form: str):
    module = parse(module_of(RAISED[form]))
    run(module, "raise-batch-norm")
    assert str(module).count("batch_norm_inference") == (2 if form == "two in a row" else 1)


@pytest.mark.parametrize("form", NOT_RAISED)
def test_what_is_nearly_one_is_not_raised(form: str):
    module = parse(module_of(NOT_RAISED[form]))
    run(module, "raise-batch-norm")
    assert "batch_norm_inference" not in str(module)


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(range(3), 2)))
def test_parameters_along_different_dimensions_stay_arithmetic(one: int, other: int):
    module = parse(f"""func.func @main(%x: tensor<3x3x3xf32>,
        %v: tensor<3xf32> {{stablenorm.weight = "bn/variance"}}, %m: tensor<3xf32> {{stablenorm.weight = "bn/mean"}})
        -> tensor<3x3x3xf32> {{
      %r = stablehlo.rsqrt %v : tensor<3xf32>
      %R = stablehlo.broadcast_in_dim %r, dims = [{one}] : (tensor<3xf32>) -> tensor<3x3x3xf32>
      %M = stablehlo.broadcast_in_dim %m, dims = [{other}] : (tensor<3xf32>) -> tensor<3x3x3xf32>
      %d = stablehlo.subtract %x, %M : tensor<3x3x3xf32>
      %y = stablehlo.multiply %d, %R : tensor<3x3x3xf32>
      return %y : tensor<3x3x3xf32> }}""")
    before = copy(module)
    run(module, "raise-batch-norm")
    assert "batch_norm" not in str(module)
    assert str(module) == str(before)
