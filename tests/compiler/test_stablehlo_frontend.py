"""StableHLO files: every encoding, weights anywhere among the arguments, open sizes, entries of other names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stablenorm import compiler
from stablenorm.compiler.compile import build_with_reference
from stablenorm.compiler.stablehlo_io import portable_artifact, read_module
from stablenorm.passes import make_context

NORM = """
  %y = "stablehlo.batch_norm_inference"(%h, %gamma, %beta, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}> : (TYPE, tensor<3xf32>, tensor<3xf32>,
    tensor<3xf32>, tensor<3xf32>) -> TYPE
"""
MODULE = f"""
func.func ENTRY(
    %w: tensor<4x3xf32> {{stablenorm.weight = "dense/kernel"}}, %x: tensor<BATCHx4xf32>,
    %gamma: tensor<3xf32> {{stablenorm.weight = "norm/gamma"}},
    %beta: tensor<3xf32> {{stablenorm.weight = "norm/beta"}},
    %z: tensor<BATCHx3xf32>,
    %mean: tensor<3xf32> {{stablenorm.weight = "norm/mean"}},
    %variance: tensor<3xf32> {{stablenorm.weight = "norm/variance"}}) -> TYPE {{
  %h = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<BATCHx4xf32>, tensor<4x3xf32>) -> TYPE
  {NORM}
  %r = stablehlo.add %y, %z : TYPE
  return %r : TYPE
}}
"""


def text(batch: str = "2", entry: str = "public @main") -> str:
    return MODULE.replace("TYPE", "tensor<BATCHx3xf32>").replace("BATCH", batch).replace("ENTRY", entry)


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


WEIGHTS = {
    "dense/kernel": random(0, 4, 3),
    "norm/gamma": random(1, 3),
    "norm/beta": random(2, 3),
    "norm/mean": random(3, 3),
    "norm/variance": abs(random(4, 3)),
}


def expected(x: Any, z: Any) -> Any:
    kernel, gamma, beta, mean, variance = (value.astype(np.float64) for value in WEIGHTS.values())
    return (x @ kernel - mean) / np.sqrt(variance + 1e-3) * gamma + beta + z


def check(executable: compiler.Executable, batch: int = 2) -> None:
    x, z = random(5, batch, 4), random(6, batch, 3)
    # A dozen roundings of float32 on values of a few units.
    np.testing.assert_allclose(executable(x, z), expected(x, z), rtol=0, atol=3e-5)
    assert [(row.name, row.into) for row in executable.report.rows] == [("norm", "dense")]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("form", ["text", "bytecode", "portable artifact"])
def test_every_encoding_with_weights_anywhere(form: str, tmp_path: Path) -> None:
    module = read_module(text().encode(), "module", make_context())
    encode = {
        "text": text,
        "bytecode": lambda: module.operation.get_asm(binary=True),
        "portable artifact": lambda: portable_artifact(module),
    }
    executable = compiler.compile(write(tmp_path / "m.mlirbc", encode[form]()), weights=WEIGHTS)
    check(executable)
    assert [spec.name for spec in executable.signature.inputs] == ["arg0", "arg1"]
    executable.save(tmp_path / "out")
    check(compiler.load(tmp_path / "out"))


@pytest.mark.parametrize("entry", ["@main", "public @forward", "@serving_default"])
def test_the_only_public_function_is_the_entry(entry: str, tmp_path: Path) -> None:
    helper = "\nfunc.func private @unused(%x: tensor<1xf32>) -> tensor<1xf32> { return %x : tensor<1xf32> }"
    check(compiler.compile(write(tmp_path / "m.mlir", text(entry=entry) + helper), weights=WEIGHTS))


def test_open_sizes_come_from_the_input_shape(tmp_path: Path) -> None:
    path = write(tmp_path / "m.mlir", text("?"))
    for batch in (1, 5):
        check(compiler.compile(path, weights=WEIGHTS, input_shape=[(batch, 4), (batch, 3)]), batch)
    with pytest.raises(compiler.StablenormError, match=r"got float32\[\?,4\].*--input-shape"):
        compiler.compile(path, weights=WEIGHTS)


def test_constants_count_as_weights(tmp_path: Path) -> None:
    names = {"gamma": [1.0, -2.0, 0.5], "beta": [0.1, 0.2, 0.3], "mean": [1.0, 2.0, 3.0], "variance": [0.5, 1.0, 2.0]}
    kernel = random(0, 4, 3)
    constants = "".join(
        f"%{name} = stablehlo.constant dense<{value}> : tensor<3xf32>\n" for name, value in names.items()
    )
    body = f"""func.func @main(%x: tensor<2x4xf32>) -> tensor<2x3xf32> {{
      %w = stablehlo.constant dense<{kernel.tolist()}> : tensor<4x3xf32>
      {constants}
      %h = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0] : (tensor<2x4xf32>, tensor<4x3xf32>) -> TYPE
      {NORM}
      return %y : TYPE
    }}""".replace("TYPE", "tensor<2x3xf32>")
    executable = compiler.compile(write(tmp_path / "m.mlir", body))
    gamma, beta, mean, variance = (np.array(value) for value in names.values())
    x = random(1, 2, 4)
    exact = (x @ kernel.astype(np.float64) - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    np.testing.assert_allclose(executable(x), exact, rtol=0, atol=3e-5)  # as above
    assert executable.report.folded == 1


def test_weights_without_values_are_told_at_the_call(tmp_path: Path) -> None:
    path = write(tmp_path / "m.mlir", text())
    given = {name: value for name, value in WEIGHTS.items() if name != "norm/mean"}
    executable = compiler.compile(path, weights=given)
    assert executable.report.folded == 1
    with pytest.raises(compiler.StablenormError, match="no value for the weights norm/mean"):
        executable(random(5, 2, 4), random(6, 2, 3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm/kernel": random(0, 3)}, "unknown weight 'norm/kernel', allowed: dense/kernel"),
        ({"norm/mean": random(0, 4)}, r"'norm/mean': got float32\[4\], allowed float32\[3\]"),
        ({"norm/mean": random(0, 3).astype(np.float64)}, r"got float64\[3\], allowed float32\[3\]"),
    ],
)
def test_wrong_weights_are_told(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(compiler.StablenormError, match=message):
        compiler.compile(write(tmp_path / "m.mlir", text()), weights=WEIGHTS | wrong)


UNRANKED = "func.func @main(%x: tensor<*xf32>) -> tensor<*xf32> { return %x : tensor<*xf32> }"
RECURSIVE = """func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  %y = call @main(%x) : (tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("module {}", "public functions"),
        ("func.func @a() { return }\nfunc.func @b() { return }", "allowed: @main, or one"),
        ("func.func @main(%x: index) -> index { return %x : index }", "allowed: ranked tensors"),
        (UNRANKED, "allowed: ranked tensors"),
        (RECURSIVE, "calls itself"),
        ("func.func @main(%x: tensor<f32> {stablenorm.weight = 3}) { return }", 'allowed: stablenorm.weight = "name"'),
    ],
)
def test_modules_that_are_no_model_are_told(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(compiler.StablenormError, match=message) as error:
        compiler.compile(write(tmp_path / "m.mlir", content))
    assert "\n" not in str(error.value)


def test_chlo_is_taken_and_other_dialects_are_told(tmp_path: Path) -> None:
    body = """func.func @main(%x: tensor<3xf32>) -> tensor<3xf32> {
      %y = OP %x : tensor<3xf32>
      return %y : tensor<3xf32>
    }"""
    path = write(tmp_path / "m.mlir", body.replace("OP", "chlo.sinh").replace("%x : t", "%x : tensor<3xf32> -> t"))
    executable, reference = build_with_reference(path)
    x = random(0, 3)
    for outputs in (executable(x), *reference([x])):
        np.testing.assert_allclose(outputs, np.sinh(x), rtol=1e-5)  # float32
    with pytest.raises(compiler.StablenormError, match="import-cleanup"):
        compiler.compile(path, passes="")
    with pytest.raises(compiler.StablenormError, match="math"):
        compiler.compile(write(path, body.replace("OP", "math.absf")))
