"""raise-batch-norm on training: forward and backward as JAX writes them, against the float64 oracle."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from tests.passes.modules import by_xla, copy, run
from tests.passes.training_steps import (
    EPSILON,
    FEATURES,
    ROWS,
    arguments_at,
    batch_norm,
    error,
    in_float64,
    module_of,
    oracle,
    step,
)


def squares(x):
    """``E[x²] - E[x]²``, clamped, as Flax writes it."""
    mean = x.mean(0)
    return mean, jnp.maximum(0.0, (x * x).mean(0) - mean * mean)


def weighted_sums(x):
    """Sums times 1/n, and dimensions that stay."""
    mean = jnp.sum(x, 0, keepdims=True) * (1 / ROWS)
    return mean, jnp.sum((x - mean) ** 2, 0, keepdims=True) * (1 / ROWS)


# Mean and variance of x over its rows.
MOMENTS = {
    "two passes": lambda x: (x.mean(0), x.var(0)),
    "a clamped difference": squares,
    "sums times 1/n": weighted_sums,
    "a bare difference": lambda x: (x.mean(0), jnp.square(x).mean(0) - jnp.square(x.mean(0))),
    "centered once more": lambda x: (x.mean(0), ((x - x.mean(0)) * x).mean(0)),
    "halves of two means": lambda x: (0.5 * (x.mean(0) + x.sum(0) / ROWS), x.var(0)),
    "from the unbiased one": lambda x: (x.mean(0), x.var(0, ddof=1) * ((ROWS - 1) / ROWS)),
}


def keras(x, mean, variance, g, b):
    inverse = jax.lax.rsqrt(variance + EPSILON) * g
    return x * inverse + (-mean * inverse + b)


# y of x, mean, variance, scale and offset.
FORMS = {
    "Flax": lambda x, m, v, g, b: (x - m) * (jax.lax.rsqrt(v + EPSILON) * g) + b,
    "Keras": keras,
    "divided by a root": lambda x, m, v, g, b: (x - m) / jnp.sqrt(v + EPSILON) * g + b,
    "times one over a root": lambda x, m, v, g, b: g * ((x - m) * (1 / jnp.sqrt(v + EPSILON))) + b,
    "offset first": lambda x, m, v, g, b: b - (m - x) * jax.lax.rsqrt(EPSILON + v) * g,
    "powers": lambda x, m, v, g, b: (x - m) * (v + EPSILON) ** -0.5 * g + b,
    "a root that is divided by": lambda x, m, v, g, b: (x - m) * g / (v + EPSILON) * jnp.sqrt(v + EPSILON) + b,
}

SPELLINGS = {(moments, "Flax") for moments in MOMENTS} | {("two passes", form) for form in FORMS}


def spelt(moments, form):
    def forward(x, g, b):
        mean, variance = MOMENTS[moments](x)
        return FORMS[form](x, mean, variance, g, b), (mean.reshape(-1), variance.reshape(-1))

    return forward


@pytest.mark.parametrize(("moments", "form"), sorted(SPELLINGS))
def test_a_training_step_is_raised_and_right_at_any_mean(moments: str, form: str):
    arguments = arguments_at(0.3)
    before = module_of(step(spelt(moments, form)), *arguments)
    module = copy(before)
    run(module, "raise-batch-norm")
    assert [str(module).count(f"stablehlo.batch_norm_{kind}") for kind in ("training", "grad")] == [1, 1]
    assert "rsqrt" not in str(module), "something of the decomposed form is left"
    run(module, "lower-batch-norm")
    expected = oracle(*arguments)
    assert error(by_xla(before, arguments), expected) < 1e-5  # well-conditioned: some hundred roundings
    assert error(by_xla(module, arguments), expected) < 2e-7  # one rounding of float32, and its reader's
    far = arguments_at(1e4)
    assert not error(by_xla(before, far), oracle(*far)) < 1e-5  # it may be NaN
    assert error(by_xla(module, far), oracle(*far)) < 2e-7


def moving(x, g, b, d):
    """What is updated with the statistics: the mean before y is known, the unbiased variance after."""
    mean, variance = squares(x)
    moving_mean = 0.99 * d[0] + 0.01 * mean
    y = FORMS["Keras"](x, mean, variance, g, b)
    return y, moving_mean, 0.99 * d[1] + 0.01 * variance * (ROWS / (ROWS - 1)), x.var(0, ddof=1)


def late_scale(x, g, b, d):
    """The mean is read before scale and offset are known."""
    mean = x.mean(0)
    reader = 0.5 * mean
    g, b = jnp.exp(g) + 1, jnp.tanh(b @ jnp.outer(b, g))
    return FORMS["Flax"](x, mean, x.var(0), g, b), reader


def residual(x, g, b, d):
    return jax.grad(
        lambda x, g, b: jnp.sum((jax.nn.relu(batch_norm(x, g, b)) + jnp.sin(x - x[:1])) ** 2 * d), (0, 1, 2)
    )(x, g, b)


def two_in_a_row(x, g, b, d):
    def loss(x, g, b):
        return jnp.sum(batch_norm(jax.nn.relu(batch_norm(x, g, b)), b, g) * d)

    return jax.grad(loss, (0, 1, 2))(x, g, b)


def skipped(x, g, b, d):
    """The gradient of y goes around the batch norm too."""
    return jax.vjp(lambda x, g, b: jax.nn.relu(x + batch_norm(x, g, b)) + x, x, g, b)[1](d)


def rematerialized(x, g, b, d):
    return jax.grad(lambda x, g, b: jnp.sum(jnp.sin(jax.checkpoint(batch_norm)(x, g, b)) * d), (0, 1, 2))(x, g, b)


def scaled_after(x, g, b, d):
    return jax.grad(lambda x, g, b: jnp.sum(jnp.sin(batch_norm(x, g, b) * jnp.exp(g)) * d), (0, 1, 2))(x, g, b)


def offset_only(x, g, b, d):
    return jax.vjp(lambda x, b: batch_norm(x, jnp.ones(FEATURES, x.dtype), b), x, b)[1](d)


def several_readers(x, g, b, d):
    h = batch_norm(x, jnp.ones(FEATURES, x.dtype), jnp.zeros(FEATURES, x.dtype))
    return h * g + b, h * b - g, jnp.tanh(h)


def own_mean_in_the_scale(x, g, b, d):
    return (batch_norm(x, jnp.ones(FEATURES, x.dtype), b) * jnp.tanh(x.mean(0) / 1e4),)


STEPS = {
    function.__name__: function
    for function in (
        moving, late_scale, residual, two_in_a_row, skipped, rematerialized, scaled_after, offset_only,
        several_readers,
        own_mean_in_the_scale
    )
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_what_stands_around_reads_the_named_forms(name: str):
    arguments = arguments_at(1e4)
    module = module_of(STEPS[name], *arguments)
    run(module, "raise-batch-norm")
    assert "rsqrt" not in str(module), "something of the decomposed form is left"
    run(module, "lower-batch-norm")
    assert error(by_xla(module, arguments), in_float64(STEPS[name], arguments)) < 1e-6


def test_half_precision_is_rounded_once():
    def half(x, g, b, d):
        """Statistics in float32 of a rounded tensor, a rounded result."""
        x, d = x.astype(jnp.bfloat16), d.astype(jnp.bfloat16)
        y, vjp = jax.vjp(lambda x, g, b: batch_norm(x.astype(jnp.float32), g, b).astype(jnp.bfloat16), x, g, b)
        return [result.astype(jnp.float32) for result in (y, *vjp(d))]

    x, g, b, d = (a.astype(ml_dtypes.bfloat16).astype(np.float32) for a in arguments_at(100.0))
    module = module_of(half, x, g, b, d)
    run(module, "raise-batch-norm")
    assert [str(module).count(f"stablehlo.batch_norm_{kind}") for kind in ("training", "grad")] == [1, 1]
    run(module, "lower-batch-norm")
    y, _, _, *gradients = oracle(x, g, b, d)
    got = by_xla(module, [x, g, b, d])
    assert error(got[:2], [y, gradients[0]]) < 4e-3  # half a unit in the last of bfloat16's places
    assert error(got[2:], gradients[1:]) < 2e-7  # the vectors are float32


def two_of_one_tensor(x, g, b, d):
    def loss(x, g, b):
        return jnp.sum(jnp.sin(batch_norm(x, g, b)) * d) + jnp.sum(jax.nn.relu(batch_norm(x, b, g)) * d)

    return jax.grad(loss, (0, 1, 2))(x, g, b)


def test_two_batch_norms_of_one_tensor_keep_their_gradient():
    """It is the sum of two, over common statistics, and stays decomposed; it reads the named statistics."""
    arguments = arguments_at(0.3)
    module = module_of(two_of_one_tensor, *arguments)
    run(module, "raise-batch-norm")
    assert str(module).count("stablehlo.batch_norm_training") == 2
    run(module, "lower-batch-norm")
    # Some hundred roundings of float32.
    assert error(by_xla(module, arguments), in_float64(two_of_one_tensor, arguments)) < 1e-5
