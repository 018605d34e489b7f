"""A compiled model in the hand: how it is called, what it tells about itself, and what it refuses."""

from __future__ import annotations

import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stablenorm import compiler


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


WEIGHTS = {"w": random(0, 3, 4), "mean": random(1, 4), "variance": abs(random(2, 4)), "offset": random(3, 4)}
A, B = random(4, 2, 3), random(5, 2, 4)


def function(p: Any, pair: Any) -> Any:
    folded = (pair["a"] @ p["w"] - p["mean"]) * jax.lax.rsqrt(p["variance"] + 1e-3) + p["offset"]
    kept = (pair["b"] - p["mean"]) * jax.lax.rsqrt(p["variance"] + 1e-3) + p["offset"]
    return {"sum": folded + kept, "both": [folded, kept]}


@pytest.fixture(scope="module")
def executable() -> compiler.Executable:
    return compiler.compile(function, WEIGHTS, {"a": A, "b": B}, weight_argnums=0)


def test_every_form_of_a_call_gives_the_same(executable: compiler.Executable) -> None:
    expected = function(WEIGHTS, {"a": A, "b": B})
    names = [spec.name for spec in executable.signature.inputs]
    for arguments, keywords in (
        (({"a": A, "b": B},), {}),
        ((A, B), {}),
        (((A, B),), {}),
        (([A, B],), {}),
        (({names[0]: A, names[1]: B},), {}),
        ((), {names[0]: A, names[1]: B}),
        ((jnp.asarray(A), jnp.asarray(B)), {}),
        ((np.asfortranarray(A), B[::-1][::-1]), {}),
    ):
        outputs = executable(*arguments, **keywords)
        assert isinstance(outputs["both"], tuple)
        for ours, theirs in zip(jax.tree.leaves(outputs), jax.tree.leaves(expected), strict=True):
            assert isinstance(ours, np.ndarray)
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-4)  # float32; rsqrt of small variances


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((), {}, "got inputs"),
        ((A,), {}, "got inputs"),
        ((A, B, B), {}, "got inputs"),
        (({"a": A},), {}, "got inputs"),
        (({"a": A, "c": B},), {}, "got inputs"),
        ((A,), {"b": B}, "got inputs"),
        ((), {"a": A, "c": B}, "got inputs"),
        ((None, B), {}, "got inputs"),
        ((B, A), {}, r"got float32\[2,4\], allowed float32\[2,3\]"),
        ((A[:1], B[:1]), {}, r"got float32\[1,3\], allowed float32\[2,3\]"),
        ((A.astype(np.float64), B), {}, r"got float64\[2,3\], allowed float32\[2,3\]"),
        ((A.astype(np.float16), B), {}, "got float16"),
        ((A.astype(np.int32), B), {}, "got int32"),
        (("text", B), {}, "got "),
        ((object(), B), {}, "got "),
    ],
)
def test_what_is_no_input_is_told_in_one_line(
    arguments: Any, keywords: Any, message: str, executable: compiler.Executable
) -> None:
    with pytest.raises(compiler.StablenormError, match=message) as error:
        executable(*arguments, **keywords)
    assert "\n" not in str(error.value)
    assert "allowed" in str(error.value)


def test_the_report_tells_each_batch_norm(executable: compiler.Executable) -> None:
    report = executable.report
    assert (report.folded, report.total) == (1, 2) == (len([r for r in report.rows if r.into]), len(report.rows))
    (kept,) = (row for row in report.rows if row.status == "kept")
    assert (kept.name, kept.into) == ("mean", "")
    assert "argument of the function" in kept.reason
    assert set(json.loads(report.to_json())) == {"folded", "total", "removed", "rows"}
    assert {frozenset(row) for row in json.loads(report.to_json())["rows"]} == {
        frozenset({"name", "kind", "status", "into", "removed", "reason"})
    }
    assert compiler.Report.from_json(report.to_json()) == report
    assert (report.removed, [row.removed for row in report.rows if row.status == "folded"]) == (1, [1])
    assert "1 of 2 batch norms folded; elementwise operations less per call: 1" in str(report)
    assert kept.reason in str(report)


def test_the_final_module_takes_inputs_and_prepared_weights(executable: compiler.Executable) -> None:
    text = executable.stablehlo()
    assert "func.func public @prepare" in text
    assert "batch_norm" not in text
    prepare, main = text.split("@main")
    assert set(re.findall(r'stablenorm\.weight = "(.*?)"', prepare)) == set(WEIGHTS)
    assert "stablenorm.weight" not in main
    assert "rsqrt" not in main
    assert executable.hlo().startswith("HloModule")
    assert "ENTRY" in executable.hlo()


def test_weights_are_the_models_own(executable: compiler.Executable) -> None:
    assert set(executable.weights) == set(WEIGHTS)
    for name, value in executable.weights.items():
        np.testing.assert_array_equal(value, WEIGHTS[name])
    executable(A, B)  # changes nothing
    np.testing.assert_array_equal(executable.weights["w"], WEIGHTS["w"])


def test_pipelines_of_ones_own_and_none_at_all() -> None:
    expected = function(WEIGHTS, {"a": A, "b": B})["sum"]
    arguments = (function, WEIGHTS, {"a": A, "b": B})
    for options in ({"fold": False}, {"passes": ""}, {"passes": "import-cleanup"}, {"passes": "canonicalize,cse"}):
        executable = compiler.compile(*arguments, weight_argnums=0, **options)
        assert executable.report.folded == 0
        np.testing.assert_allclose(executable(A, B)["sum"], expected, rtol=0, atol=2e-4)  # as above
    with pytest.raises(compiler.StablenormError, match=r"unknown pass 'fold-batchnorm'.*did you mean fold-batch-norm"):
        compiler.compile(*arguments, weight_argnums=0, passes="fold-batchnorm")


def test_what_is_no_model_is_told() -> None:
    for model in (3, None, {"a": 1}, np.zeros(3), b"bytes"):
        with pytest.raises(compiler.StablenormError, match=r"got a model of type .*allowed: a tf_keras model"):
            compiler.compile(model)
    with pytest.raises(compiler.StablenormError, match="got the target 'gpu', allowed: cpu, tpu, cuda"):
        compiler.compile(function, WEIGHTS, {"a": A, "b": B}, weight_argnums=0, target="gpu")


def test_progress_names_every_step() -> None:
    steps: list[str] = []
    compiler.compile(function, WEIGHTS, {"a": A, "b": B}, weight_argnums=0, progress=steps.append)
    assert steps[0] == "importing the model"
    assert "fold-batch-norm" in steps
    assert steps[-1] == "compiling with XLA"


def test_running_out_of_memory_is_told_in_one_line() -> None:
    executable = compiler.compile(lambda x: jnp.broadcast_to(x, (10**6, 10**6, 10**3)), np.float32(1))  # 4 petabytes
    with pytest.raises(compiler.StablenormError, match=r"XLA cannot run the module: .*memory") as error:
        executable(np.float32(1))
    assert "\n" not in str(error.value)


def test_a_donated_input_gives_its_memory_to_the_result_and_numpy_arrays_stay() -> None:
    shape = (64, 64)

    def model(weights: Any, x: Any, scalar: Any) -> Any:
        return jnp.tanh(x * weights) + scalar

    w, x, scalar = random(6, *shape), random(7, *shape), np.float32(0.5)
    executable = compiler.compile(model, w, x, scalar, weight_argnums=0, donate_inputs=True)
    expected, given = np.tanh(x * w) + scalar, x.copy()
    np.testing.assert_allclose(executable(x, scalar), expected, atol=1e-6)  # two roundings of numbers below 8
    np.testing.assert_array_equal(x, given)

    on_device, kept = jnp.array(x), jnp.array(scalar)
    result = executable(on_device, kept)
    assert on_device.is_deleted()
    assert not kept.is_deleted()  # no result has its type
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert "input_output_alias" in executable.hlo()


def test_jax_arrays_stay_without_donation() -> None:
    executable = compiler.compile(lambda x: x + 1, np.ones(3, np.float32))
    x = jnp.arange(3.0)
    np.testing.assert_array_equal(executable(x), [1, 2, 3])
    assert not x.is_deleted()
    assert "input_output_alias" not in executable.hlo()
