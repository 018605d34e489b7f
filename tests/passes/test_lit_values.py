"""Every function in the passes' lit files computes after its pass what it computed before."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from jax.extend.mlir import ir

from stablenorm.passes import PASSES
from stablenorm.passes.rewriting import functions
from tests.passes.modules import Array, by_interpreter, by_xla, copy, only, parse, random_arguments, run, weight_flags

LIT = Path(__file__).parents[1] / "lit"
# No values: what XLA does not know, and sizes that are known only when the program runs.
NOT_EXECUTABLE = re.compile(r"custom_call|mhlo\.|chlo\.|tensor<\?")
# The bindings cannot read bfloat16, and the interpreter ends the process on a convolution whose batch is not first.
NOT_INTERPRETED = re.compile(r"bf16|\]->\[[^b]")
# Relative to the largest output, some roundings in the coarsest type that a function uses.
TOLERANCES = {"f16": 4e-3, "bf16": 3e-2, "f32": 1e-5, "f64": 1e-12}


def parts() -> list[tuple[str, str, str]]:
    """Pass, name and text of every module in the passes' lit files."""
    found = []
    # These two change values, on purpose.
    for each in (each for each in PASSES if each.name not in ("freeze-batch-norm", "synchronize-batch-norm")):
        for path in sorted([*LIT.glob(f"{each.name}.mlir"), *(LIT / each.name).glob("*.mlir")]):
            for number, text in enumerate(re.split(r"(?m)^// -----$", path.read_text())):
                found.append((each.name, f"{path.relative_to(LIT)}:{number}", text))
    return found


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, _, text in parts()], ids=[i for _, i, _ in parts()])
def test_values_stay(name: str, text: str):
    module = parse(text)
    for function in functions(module):
        if "sym_visibility" in function.attributes and "private" in str(function.attributes["sym_visibility"]):
            continue
        main = only(module, function.name.value)
        if not NOT_EXECUTABLE.search(str(main)):
            _check(main, name)


def _check(module: ir.Module, name: str) -> None:
    arguments, weights = random_arguments(module), weight_flags(module)
    expected = by_xla(module, arguments)
    after = copy(module)
    run(after, name)
    prepared: list[Array] = []
    if any(function.name.value == "prepare" for function in functions(after)):
        prepare = only(after, "prepare")
        prepared = by_xla(prepare, [a for a, weight in zip(arguments, weights, strict=True) if weight])
        arguments = [a for a, weight in zip(arguments, weights, strict=True) if not weight]
    after = only(after, "main")
    _same(by_xla(after, [*arguments, *prepared]), expected, module)
    run(after, "lower-batch-norm")
    if not prepared and not NOT_INTERPRETED.search(str(after)):
        _same(by_interpreter(after, arguments), expected, module)


def _same(got: list[Array], expected: list[Array], module: ir.Module) -> None:
    coarsest = next(name for name in TOLERANCES if name in str(module))
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == theirs.dtype
        exact = theirs.astype(np.float64)
        limit = TOLERANCES[coarsest] * max(1.0, np.nanmax(np.abs(exact), initial=0.0, where=np.isfinite(exact)))
        np.testing.assert_allclose(ours.astype(np.float64), exact, rtol=0, atol=limit, err_msg=str(module))
