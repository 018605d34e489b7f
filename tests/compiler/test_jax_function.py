"""JAX functions: named weights, closures, pytrees, and batch norms as Flax and Keras 3 write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stablenorm import compiler

EPSILON = 1e-3


def random(seed: int, *shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def parameters(channels: int, dtype: Any = np.float32) -> dict[str, Any]:
    names = ("gamma", "beta", "mean", "variance")
    values = {name: random(seed, channels, dtype=dtype) for seed, name in enumerate(names)}
    return values | {"variance": abs(values["variance"])}


def flax(p: Any, x: Any) -> Any:
    return (x - p["mean"]) * (jax.lax.rsqrt(p["variance"] + EPSILON) * p["gamma"]) + p["beta"]


def keras3(p: Any, x: Any) -> Any:
    inverse = jax.lax.rsqrt(p["variance"] + EPSILON) * p["gamma"]
    return x * inverse + (p["beta"] - p["mean"] * inverse)


def haiku(p: Any, x: Any) -> Any:
    return (x - p["mean"]) * p["gamma"] / jnp.sqrt(p["variance"] + EPSILON) + p["beta"]


def equinox(p: Any, x: Any) -> Any:
    return (x - p["mean"]) / jnp.sqrt(p["variance"] + EPSILON) * p["gamma"] + p["beta"]


def onnx(p: Any, x: Any) -> Any:
    return p["gamma"] * ((x - p["mean"]) * jax.lax.rsqrt(p["variance"] + EPSILON)) + p["beta"]


FORMS = [flax, keras3, haiku, equinox, onnx]


def convolution(x: Any, kernel: Any) -> Any:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def network(form: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def apply(p: Any, x: Any) -> Any:
        h = jax.nn.relu(form(p["bn1"], convolution(x, p["conv"]["kernel"]) + p["conv"]["bias"]))
        h = jax.jit(lambda value: form(p["bn2"], value @ p["dense"]))(h.mean((1, 2)))
        return jax.nn.gelu(h, approximate=False)

    return apply


def weights(dtype: Any = np.float32) -> dict[str, Any]:
    kernel = random(8, 3, 3, 2, 5, dtype=dtype)
    return {
        "conv": {"kernel": kernel, "bias": random(9, 5, dtype=dtype)},
        "bn1": parameters(5, dtype),
        "dense": random(10, 5, 3, dtype=dtype),
        "bn2": parameters(3, dtype),
    }


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    """Float32 by default, in another order of summation, relative to the largest value."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("form", FORMS)
def test_weights_as_arguments(form: Any) -> None:
    function, p, x = network(form), weights(), random(1, 2, 6, 6, 2)
    executable = compiler.compile(function, p, x, weight_argnums=0)
    assert_close(executable(x), function(p, x))
    norms = [row for row in executable.report.rows if row.kind == "batch norm"]
    assert [(row.name, row.into) for row in norms] == [("bn1", "conv"), ("bn2", "dense")]
    assert set(executable.weights) >= {"conv/kernel", "bn1/gamma", "dense", "bn2/variance"}


@pytest.mark.parametrize("form", FORMS)
def test_weights_closed_over(form: Any) -> None:
    p, x = weights(), random(1, 2, 6, 6, 2)
    executable = compiler.compile(lambda value: network(form)(p, value), x)
    assert_close(executable(x), network(form)(p, x))
    assert (executable.report.folded, executable.report.total) == (2, 2)
    assert executable.weights == {}


@pytest.mark.parametrize("form", FORMS)
def test_fresh_weights_closed_over(form: Any) -> None:
    """Ones and zeros, which JAX writes as one repeated number each."""
    p, w, x = {"gamma": np.ones(4), "beta": np.zeros(4), "mean": np.zeros(4), "variance": np.ones(4)}, weights(), 0
    p, x = jax.tree.map(np.float32, p), random(1, 2, 6, 6, 2)
    function = lambda x: 0.5 * form(p, convolution(x, w["conv"]["kernel"][..., :4]))  # noqa: E731
    executable = compiler.compile(function, x)
    assert_close(executable(x), function(x))
    assert (executable.report.folded, executable.report.total) == (1, 1)


@pytest.mark.parametrize("form", FORMS)
def test_float64(form: Any) -> None:
    with jax.enable_x64(True):
        p, x = weights(np.float64), random(1, 2, 6, 6, 2, dtype=np.float64)
        executable = compiler.compile(network(form), p, x, weight_argnums=0)
        expected = network(form)(p, x)
    assert_close(executable(x), expected, 1e-14)  # a few units in the last place, outside of enable_x64 too
    assert executable.report.folded == 2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_types(form: Any, dtype: Any) -> None:
    p, x = jax.tree.map(lambda value: value.astype(dtype), weights()), random(1, 2, 6, 6, 2).astype(dtype)
    executable = compiler.compile(network(form), p, x, weight_argnums=0)
    wide = network(form)(jax.tree.map(lambda value: value.astype(np.float32), p), x.astype(np.float32))
    ours, theirs = (np.asarray(value, np.float32) for value in (executable(x), network(form)(p, x)))
    largest = np.abs(wide).max()
    # No farther from float32 than JAX itself, but for half a dozen roundings of the narrow type.
    slack = 6 * float(jnp.finfo(dtype).eps) * largest
    assert np.abs(ours - wide).max() <= np.abs(theirs - wide).max() + slack


class Pair(NamedTuple):
    left: Any
    right: Any


def test_any_pytree_goes_in_and_out() -> None:
    def function(scale: Any, batch: Any, flag: Any = None) -> Any:
        total = batch["pair"].left * scale + batch["pair"].right
        return {"total": total, "list": [total.sum(), (batch["count"] + 1,)], "none": flag}

    batch = {"pair": Pair(random(1, 3), random(2, 3)), "count": np.arange(2, dtype=np.int32)}
    executable = compiler.compile(function, np.float32(2.0), batch, weight_argnums=0)
    ours, theirs = executable(batch), function(np.float32(2.0), batch)
    assert set(ours) == {"total", "list", "none"}
    assert_close(ours, theirs)
    assert [spec.name for spec in executable.signature.inputs] == ["arg1/count", "arg1/pair/left", "arg1/pair/right"]


def test_weights_among_the_arguments() -> None:
    def function(x: Any, p: Any, y: Any, q: Any) -> Any:
        return flax(p, x @ q) + y

    x, p, y, q = random(1, 2, 3), parameters(4), random(2, 2, 4), random(3, 3, 4)
    executable = compiler.compile(function, x, p, y, q, weight_argnums=(1, 3))
    assert_close(executable(x, y), function(x, p, y, q))
    assert executable.report.folded == 1


def test_shapes_stand_for_arrays() -> None:
    p, x = weights(), random(1, 2, 6, 6, 2)
    executable = compiler.compile(network(flax), p, jax.ShapeDtypeStruct(x.shape, x.dtype), weight_argnums=0)
    assert_close(executable(x), network(flax)(p, x))


def test_operations_that_jax_writes_in_its_own_dialect() -> None:
    def function(x: Any) -> Any:
        return jax.lax.top_k(jax.scipy.special.erf(x) + jnp.square(x) + jnp.sinh(x), 2)

    x = random(1, 3, 5)
    assert_close(compiler.compile(function, x)(x), function(x))


def test_a_batch_norm_of_two_batch_norms_and_no_batch_norm() -> None:
    p, w, x = parameters(4), random(5, 3, 4), random(1, 2, 3)
    executable = compiler.compile(lambda x: flax(p, keras3(p, x @ w)), x)
    assert_close(executable(x), flax(p, keras3(p, x @ w)))
    assert executable.report.folded == 2
    assert compiler.compile(lambda x: x * 2 + 1, x).report.total == 0


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {}, "pass an example for each argument"),
        ((1.0,), {"weight_argnums": 3}, "pass an example for each argument"),
        ((np.zeros(3), np.zeros(3)), {}, "JAX cannot trace the function"),
        (("text",), {}, "JAX cannot trace the function"),
        ((jax.ShapeDtypeStruct((3,), np.float32),), {"weight_argnums": 0}, "got a shape without values"),
    ],
)
def test_bad_arguments_are_told(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(compiler.StablenormError, match=message) as error:
        compiler.compile(lambda x: x + 1, *arguments, **options)
    assert "\n" not in str(error.value)
