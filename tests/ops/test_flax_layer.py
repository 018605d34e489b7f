"""The Flax layer computes what the stock module does where that is right, and what float64 says elsewhere."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from stablenorm.ops import BatchNormGrad, BatchNormInference, BatchNormTraining
from stablenorm.ops.flax import BatchNorm

Stock = nnx.BatchNorm
GENERATOR = np.random.default_rng(0)


def normal(*shape: int, mean: float = 0.0, dtype: Any = np.float32) -> Any:
    return (GENERATOR.normal(size=shape) + mean).astype(dtype)


def randomise(layer: Any) -> Any:
    for variable in filter(None, (layer.scale, layer.bias, layer.mean, layer.var)):
        variable[...] = jnp.asarray(GENERATOR.uniform(0.5, 2.0, variable[...].shape), variable[...].dtype)
    return layer


def pair(features: int, **arguments: Any) -> tuple[Any, Any]:
    """Ours and the stock module, with the same random state."""
    ours, stock = (cls(features, **arguments, rngs=nnx.Rngs(0)) for cls in (BatchNorm, Stock))
    nnx.update(stock, nnx.state(randomise(ours)))
    return ours, stock


def vectors(layer: Any) -> list[Any]:
    """``scale, bias, mean, var``"""
    return [np.asarray(variable[...], np.float64) for variable in (layer.scale, layer.bias, layer.mean, layer.var)]


def outputs(layer: Any, x: Any, upstream: Any, **arguments: Any) -> tuple[Any, Any]:
    """Y, and the gradients of ``sum(y * upstream)`` by the parameters and by x."""

    def loss(layer: Any, x: Any) -> Any:
        y = layer(x, **arguments)
        return jnp.sum(y * upstream), y

    gradients, y = nnx.grad(loss, argnums=(0, 1), has_aux=True)(layer, jnp.asarray(x))
    return y, gradients


def close(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Relative to the largest value of each array: float32 sums of a hundred terms in two orders, as a rule."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(initial=0.0))


def test_the_constructor_is_the_stock_modules() -> None:
    assert inspect.signature(BatchNorm) == inspect.signature(Stock)
    assert issubclass(BatchNorm, Stock)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((8, 3), {}),
        ((8, 3), {"axis": 0, "use_fast_variance": False}),
        ((4, 5, 3), {"axis": -2, "momentum": 0.6}),
        ((4, 5, 5, 3), {"axis": (3,), "epsilon": 0.3}),
        ((4, 3, 5, 5), {"axis": 1, "use_bias": False}),
        ((2, 3, 3, 2, 3), {"use_scale": False}),
        ((6, 3), {"use_scale": False, "use_bias": False, "momentum": 0}),
    ],
)
def test_equals_the_stock_module(shape: Any, arguments: dict[str, Any], inference: bool) -> None:
    x, upstream = normal(*shape, mean=0.5), normal(*shape)
    ours, stock = pair(shape[np.atleast_1d(arguments.get("axis", -1))[0]], **arguments)
    close(*(outputs(layer, x, upstream, use_running_average=inference) for layer in (ours, stock)))
    for _ in range(2):
        close(ours(x, use_running_average=inference), stock(x, use_running_average=inference))
    close(nnx.state(ours), nnx.state(stock))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_is_right_at_any_mean(masked: bool, fast: bool) -> None:
    """Float64 is the judge, at mean/deviation = 1e4, where the stock module's fast variance is off by its own size."""
    x, upstream = normal(64, 4, 3, mean=1e4), normal(64, 4, 3)
    mask = GENERATOR.uniform(size=(64, 4)) > 0.3 if masked else np.ones((64, 4), bool)
    upstream = upstream * mask[..., None]
    layer = randomise(BatchNorm(3, momentum=0.0, use_fast_variance=fast, rngs=nnx.Rngs(0)))
    scale, bias, *_ = vectors(layer)
    _, mean, variance = BatchNormTraining(1e-5, 1).reference(x[mask], scale, bias)
    dx, dscale, dbias = BatchNormGrad(1e-5, 1).reference(x[mask], scale, mean, variance, upstream[mask])
    y, (gradients, gx) = outputs(layer, x, upstream, mask=jnp.asarray(mask)[..., None] if masked else None)
    # A few roundings to float32.
    close(y, (x - mean) / np.sqrt(variance + 1e-5) * scale + bias, 1e-6)
    close(vectors(layer)[2:], [mean, variance], 1e-6)
    close([gx[mask], gradients["scale"], gradients["bias"]], [dx, dscale, dbias], 1e-6)
    assert not gx[~mask].any()


def test_second_derivatives_are_exact() -> None:
    """Against differences of the first derivative, in float64: 1e-6 is the step's square and the rounding over it."""
    with jax.enable_x64(True):
        x, upstream, direction = (normal(6, 3, dtype=np.float64) for _ in range(3))
        graph, state = nnx.split(randomise(BatchNorm(3, rngs=nnx.Rngs(0))))

        def loss(x: Any) -> Any:
            return jnp.sum(jnp.sin(nnx.merge(graph, state, copy=True)(x)) * upstream)

        step = 1e-5
        expected = (jax.grad(loss)(x + step * direction) - jax.grad(loss)(x - step * direction)) / (2 * step)
        close(jax.jvp(jax.grad(loss), (x,), (direction,))[1], expected, 1e-6)
        close(jax.grad(lambda x: jnp.vdot(jax.grad(loss)(x), direction))(x), expected, 1e-6)


def test_a_constant_channel_has_no_variance() -> None:
    """Not negative, not NaN: the output is the bias, exactly."""
    x = np.full((16, 3), 1234.567, np.float32)
    layer = randomise(BatchNorm(3, momentum=0.0, rngs=nnx.Rngs(0)))
    assert np.array_equal(layer(x), np.broadcast_to(layer.bias[...], x.shape))
    assert not layer.var[...].any()


HALVES = [np.float16, ml_dtypes.bfloat16]


@pytest.mark.parametrize(
    ("of_x", "dtype", "param_dtype"),
    [
        (np.float32, None, np.float16),
        (np.float32, np.float16, np.float32),
        (np.float16, None, np.float16),
        (np.float16, np.float32, np.float16),
        (np.float16, np.float16, np.float32),
        (ml_dtypes.bfloat16, None, np.float32),
        (ml_dtypes.bfloat16, ml_dtypes.bfloat16, ml_dtypes.bfloat16),
        (ml_dtypes.bfloat16, np.float16, ml_dtypes.bfloat16),
        (np.int32, None, np.float32),
        (np.int32, ml_dtypes.bfloat16, np.float32),
    ],
)
def test_types_are_the_stock_modules(of_x: Any, dtype: Any, param_dtype: Any) -> None:
    x = (4 * normal(8, 3)).astype(of_x)
    ours, stock = pair(3, dtype=dtype, param_dtype=param_dtype)
    for inference in (False, True):
        got, expected = (layer(jnp.asarray(x), use_running_average=inference) for layer in (ours, stock))
        assert got.dtype == expected.dtype
        # A few units in the last place, which the stock module rounds to several times.
        close(got, expected, max(1e-5, 4 * float(ml_dtypes.finfo(got.dtype).eps)))
    assert [leaf.dtype for leaf in jax.tree.leaves(nnx.state(ours))] == [
        leaf.dtype for leaf in jax.tree.leaves(nnx.state(stock))
    ]


@pytest.mark.parametrize("dtype", HALVES)
def test_half_types_are_rounded_once(dtype: Any) -> None:
    """Statistics are float32, also to normalize with; the stock module rounds the running mean to ``dtype``."""
    x = normal(256, 3, mean=100.0).astype(dtype)
    layer = randomise(BatchNorm(3, dtype=dtype, momentum=0.0, rngs=nnx.Rngs(0)))
    scale, bias, *_ = vectors(layer)
    y, mean, variance = BatchNormTraining(1e-5, 1).reference(x.astype(np.float64), scale, bias)
    ulp = float(ml_dtypes.finfo(dtype).eps)
    close(layer(x), y, ulp)
    close(vectors(layer)[2:], [mean, variance], 1e-6)
    x = normal(256, 3, mean=100.0).astype(dtype)
    (y,) = BatchNormInference(1e-5, 1).reference(x.astype(np.float64), *vectors(layer))
    close(layer(x, use_running_average=True), y, ulp)


@pytest.mark.parametrize("given", [None, np.float64])
def test_float64(given: Any) -> None:
    """The state stays float32, as its Variables are."""
    with jax.enable_x64(True):
        x = normal(64, 3, mean=1e8, dtype=np.float64)
        layer = randomise(BatchNorm(3, dtype=given, momentum=0.0, rngs=nnx.Rngs(0)))
        scale, bias, *_ = vectors(layer)
        y, mean, variance = BatchNormTraining(1e-5, 1).reference(x, scale, bias)
        got = layer(x)
    assert got.dtype == np.float64
    close(got, y, 1e-7)  # The oracle's own mean is rounded to 1e8 * 1e-16.
    close(vectors(layer)[2:], [mean, variance], 1e-6)
    assert layer.mean[...].dtype == layer.var[...].dtype == np.float32


def test_promote_dtype_is_asked() -> None:
    """It says what is normalized, and the type of the result."""
    seen = []

    def promote(values: Any, dtype: Any = None) -> Any:
        seen.append(([value is not None for value in values], dtype))
        return (values[0].astype(jnp.float16), *values[1:])

    x = normal(8, 3)
    ours, stock = pair(3, promote_dtype=promote, use_bias=False)
    got, expected = ours(x), stock(x)
    assert seen == [([True, True, True, True, False], None)] * 2
    assert got.dtype == expected.dtype == np.float32
    close(got, expected)
