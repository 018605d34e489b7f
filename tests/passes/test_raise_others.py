"""raise-batch-norm on what normalizes, but is no batch norm: its arithmetic stays, and so do its values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.passes.modules import by_xla, copy, run
from tests.passes.training_steps import EPSILON, FEATURES, arguments_at, module_of, step


def normalized(x, mean, variance):
    return (x - mean) * jax.lax.rsqrt(variance + EPSILON)


def over(x, axes):
    """``x`` normalized with its own statistics over some axes."""
    return normalized(x, x.mean(axes, keepdims=True), x.var(axes, keepdims=True))


def images(x):
    return x.reshape(8, -1, FEATURES)


def masked(x):
    weight = (x > 0.3).astype(x.dtype)
    mean = (x * weight).sum(0) / weight.sum(0)
    return normalized(x, mean, ((x - mean) ** 2 * weight).sum(0) / weight.sum(0))


def of_another(x, z):
    return normalized(x, z.mean(0), z.var(0))


OTHERS = {
    "layer norm": lambda x: over(x, 1),
    "layer norm of rank three": lambda x: over(images(x), 2),
    "layer norm of whole elements": lambda x: over(images(x), (1, 2)),
    "instance norm": lambda x: over(images(x), 1),
    "instance norm of one image": lambda x: over(x[None], 1),
    "group norm": lambda x: over(x.reshape(8, 32, 2, FEATURES), (1, 3)),
    "another tensor's mean": lambda x: normalized(x, jnp.sin(x).mean(0), x.var(0)),
    "another tensor's statistics": lambda x: of_another(x, jnp.sin(x)),
    "statistics of a rounded tensor": lambda x: of_another(x, x.astype(jnp.bfloat16).astype(x.dtype)),
    "rounded after its statistics": lambda x: normalized(x.astype(jnp.bfloat16).astype(x.dtype), x.mean(0), x.var(0)),
    "statistics of half of the rows": lambda x: of_another(x, x[::2]),
    "masked": masked,
    "a rectified mean": lambda x: normalized(x, jax.nn.relu(x.mean(0)), x.var(0)),
    "a mean for each row": lambda x: normalized(x, x.mean(1, keepdims=True), x.var(0)),
    "an unbiased variance": lambda x: normalized(x, x.mean(0), x.var(0, ddof=1)),
    "a mean of squares": lambda x: normalized(x, x.mean(0), (x * x).mean(0)),
    "a root of both moments": lambda x: normalized(x, x.mean(0), x.var(0) + x.mean(0) ** 2),
    "epsilon outside of the root": lambda x: (x - x.mean(0)) / (jnp.sqrt(x.var(0)) + EPSILON),
    "divided by the variance": lambda x: (x - x.mean(0)) / (x.var(0) + EPSILON),
    "no mean": lambda x: x * jax.lax.rsqrt(x.var(0) + EPSILON),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_batch_norm_stays(name: str):
    def forward(x, g, b):
        return OTHERS[name](x) * g + b, ()

    x, g, b, d = arguments_at(0.3)
    arguments = [x, g, b, np.resize(d, jax.eval_shape(forward, x, g, b)[0].shape)]
    before = module_of(step(forward), *arguments)
    module = copy(before)
    run(module, "raise-batch-norm")
    assert "batch_norm" not in str(module)
    for ours, theirs in zip(by_xla(module, arguments), by_xla(before, arguments), strict=True):
        np.testing.assert_array_equal(ours, theirs)
