"""The Keras 3 layer computes what the stock layer does where that is right, and what float64 says elsewhere."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import keras
import ml_dtypes
import numpy as np
import pytest

from stablenorm.ops import BatchNormGrad, BatchNormTraining
from stablenorm.ops.keras import BatchNormalization

# Keras reads its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

Stock = keras.layers.BatchNormalization
GENERATOR = np.random.default_rng(0)


def normal(*shape: int, mean: float = 0.0, dtype: Any = np.float32) -> Any:
    return (GENERATOR.normal(size=shape) + mean).astype(dtype)


def randomised(layer: Any, x: Any) -> Any:
    """Built for x, every weight random, variances positive."""
    layer.build(x.shape)
    for weight in layer.weights:
        weight.assign(GENERATOR.uniform(0.5, 2.0, weight.shape))
    return layer


def pair(x: Any, **arguments: Any) -> tuple[Any, Any]:
    """Ours and the stock layer, with the same random weights."""
    ours, stock = randomised(BatchNormalization(**arguments), x), Stock(**arguments)
    stock.build(x.shape)
    stock.set_weights(ours.get_weights())
    return ours, stock


def outputs(layer: Any, x: Any, upstream: Any, **arguments: Any) -> tuple[Any, Any]:
    """What a call returns: y and new statistics; and the gradients of ``sum(y * upstream)`` by x and the weights."""
    trainable, others = (
        [weight.value for weight in group] for group in (layer.trainable_variables, layer.non_trainable_variables)
    )

    def loss(x: Any, trainable: Any) -> Any:
        y, others_now = layer.stateless_call(trainable, others, x, **arguments)
        return jnp.sum(y * upstream), (y, others_now)

    gradients, results = jax.grad(loss, (0, 1), has_aux=True)(x, trainable)
    return results, gradients


def close(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Relative to the largest value of each array: float32 sums of a hundred terms in two orders, as a rule."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(initial=0.0))


@pytest.mark.parametrize("training", [True, False, None])
@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((8, 3), {}),
        ((8, 3), {"axis": 0}),
        ((4, 5, 3), {"axis": -2, "momentum": 0.6}),
        ((4, 5, 5, 3), {"epsilon": 0.3}),
        ((4, 3, 5, 5), {"axis": 1, "center": False}),
        ((2, 3, 3, 2, 3), {"axis": -1, "scale": False}),
        ((6, 3), {"center": False, "scale": False, "momentum": 0}),
        ((6, 3), {"epsilon": 1, "momentum": np.float32(0.5)}),
    ],
)
def test_equals_the_stock_layer(shape: Any, arguments: dict[str, Any], training: bool | None) -> None:
    x, upstream = normal(*shape, mean=0.5), normal(*shape)
    ours, stock = pair(x, **arguments)
    close(outputs(ours, x, upstream, training=training), outputs(stock, x, upstream, training=training))
    for _ in range(3):
        close(ours(x, training=training), stock(x, training=training))
    close(ours.get_weights(), stock.get_weights())


@pytest.mark.parametrize("masked", [False, True])
def test_is_right_at_any_mean(masked: bool) -> None:
    """Float64 is the judge, at mean/deviation = 1e4, where the stock layer's gradient by gamma is off by 1e-3."""
    x, upstream = normal(64, 4, 3, mean=1e4), normal(64, 4, 3)
    mask = GENERATOR.uniform(size=(64, 4)) > 0.3 if masked else np.ones((64, 4), bool)
    upstream = upstream * mask[..., None]
    layer = randomised(BatchNormalization(momentum=0.0), x)
    gamma, beta = (np.asarray(weight.value) for weight in (layer.gamma, layer.beta))
    _, mean, variance = BatchNormTraining(1e-3, 1).reference(x[mask], gamma, beta)
    dx, dscale, doffset = BatchNormGrad(1e-3, 1).reference(x[mask], gamma, mean, variance, upstream[mask])
    (y, moving), (gx, (gscale, goffset)) = outputs(
        layer, x, upstream, training=True, mask=jnp.asarray(mask) if masked else None
    )
    # A few roundings to float32.
    close(y, (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 1e-6)
    close(moving, [mean, variance], 1e-6)
    close([gx[mask], gscale, goffset], [dx, dscale, doffset], 1e-6)
    assert not gx[~mask].any()


def test_second_derivatives_are_exact() -> None:
    """Against differences of the first derivative, in float64: 1e-6 is the step's square and the rounding over it."""
    with jax.enable_x64(True):
        x, upstream, direction = (normal(6, 3, dtype=np.float64) for _ in range(3))
        layer = randomised(BatchNormalization(dtype="float64"), x)
        trainable, others = (
            [w.value for w in layer.trainable_variables],
            [w.value for w in layer.non_trainable_variables],
        )

        def loss(x: Any) -> Any:
            return jnp.sum(jnp.sin(layer.stateless_call(trainable, others, x, training=True)[0]) * upstream)

        step = 1e-5
        expected = (jax.grad(loss)(x + step * direction) - jax.grad(loss)(x - step * direction)) / (2 * step)
        close(jax.jvp(jax.grad(loss), (x,), (direction,))[1], expected, 1e-6)
        close(jax.grad(lambda x: jnp.vdot(jax.grad(loss)(x), direction))(x), expected, 1e-6)


def test_a_constant_channel_has_no_variance() -> None:
    """Not negative, not NaN: the output is beta, exactly."""
    x = np.full((16, 3), 1234.567, np.float32)
    layer = randomised(BatchNormalization(momentum=0.0), x)
    assert np.array_equal(layer(x, training=True), np.broadcast_to(layer.beta.value, x.shape))
    assert not np.asarray(layer.moving_variance.value).any()


POLICIES = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "mixed_float16": np.float16,
    "mixed_bfloat16": ml_dtypes.bfloat16,
}


@pytest.mark.parametrize("policy", POLICIES)
def test_half_types(policy: str) -> None:
    """Types are the stock layer's. Statistics are float32, and rounded only where Keras stores them in half."""
    x = normal(256, 3, mean=100.0).astype(POLICIES[policy])
    ours, stock = pair(x, dtype=policy, momentum=0.0)
    gamma, beta = (np.asarray(weight.value, np.float64) for weight in (ours.gamma, ours.beta))
    y, mean, variance = BatchNormTraining(1e-3, 1).reference(x.astype(np.float64), gamma, beta)
    got = ours(x, training=True)
    assert got.dtype == stock(x, training=True).dtype == POLICIES[policy]
    assert [w.dtype for w in ours.weights] == [w.dtype for w in stock.weights]
    # Half a unit in the last place, of y and of what is stored.
    ulp = float(ml_dtypes.finfo(POLICIES[policy]).eps)
    close(got, y, ulp)
    close([w.value for w in ours.non_trainable_variables], [mean, variance], 1e-6 if "mixed" in policy else ulp)
    assert ours(x).dtype == POLICIES[policy]


def test_float64() -> None:
    with jax.enable_x64(True):
        x = normal(64, 3, mean=1e8, dtype=np.float64)
        layer = randomised(BatchNormalization(dtype="float64", momentum=0.0), x)
        gamma, beta = (np.asarray(weight.value) for weight in (layer.gamma, layer.beta))
        y, mean, variance = BatchNormTraining(1e-3, 1).reference(x, gamma, beta)
        got = layer(x, training=True)
        assert got.dtype == layer.moving_variance.value.dtype == np.float64
        # The oracle's own mean is rounded to 1e8 * 1e-16.
        close([got, layer.moving_mean.value, layer.moving_variance.value], [y, mean, variance], 1e-7)


@pytest.mark.parametrize(("policy", "autocast"), [("float32", False), ("mixed_float16", False), ("float16", True)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_types_of_what_is_not_cast(policy: str, autocast: bool, dtype: Any) -> None:
    """With ``autocast=False`` inputs come as they are; the result has the policy's type all the same."""
    x = normal(64, 3, mean=3.0).astype(dtype)
    ours, stock = pair(x, dtype=policy, autocast=autocast)
    got, expected = ours(x, training=True), stock(x, training=True)
    assert got.dtype == expected.dtype
    close(got, expected, 1e-3 if got.dtype == np.float16 else 1e-5)  # one unit in the last place of float16


def test_vmap_and_jit() -> None:
    xs = normal(5, 8, 3)
    layer = randomised(BatchNormalization(), xs[0])
    trainable, others = [w.value for w in layer.trainable_variables], [w.value for w in layer.non_trainable_variables]

    @jax.jit
    @jax.vmap
    def mapped(x: Any) -> Any:
        return layer.stateless_call(trainable, others, x, training=True)

    for number, x in enumerate(xs):
        close(
            jax.tree.map(lambda leaf, n=number: leaf[n], mapped(xs)),
            layer.stateless_call(trainable, others, x, training=True),
        )
