"""raise-batch-norm on generated arithmetic with moments, roots and gradients: the values stay."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.passes.modules import by_xla, copy, run
from tests.passes.training_steps import EPSILON, module_of

ROWS, FEATURES, STEPS, PROGRAMS = 8, 3, 10, 3

# Of two tensors and two vectors, each may make a new tensor, a new vector, or both.
RULES = [
    lambda x, z, v, w: (x + z, v - w),
    lambda x, z, v, w: (x - v, v * w),
    lambda x, z, v, w: (x * v + w, z.mean(0)),
    lambda x, z, v, w: (jnp.tanh(x) * z, jnp.maximum(v, 0.0)),
    lambda x, z, v, w: (x - x.mean(0), x.var(0)),
    lambda x, z, v, w: ((x - x.mean(0)) * jax.lax.rsqrt(x.var(0) + EPSILON), (x * z).mean(0)),
    lambda x, z, v, w: (x * jax.lax.rsqrt(z.var(0) + EPSILON), (x * x).mean(0) - x.mean(0) ** 2),
    lambda x, z, v, w: ((x - z.mean(0)) / jnp.sqrt(z.var(0) + EPSILON), x.var(0, ddof=1)),
    lambda x, z, v, w: ((x - v) * jax.lax.rsqrt(w * w + EPSILON), jax.lax.rsqrt(v * v + EPSILON)),
    lambda x, z, v, w: ((x - x.mean(0)) / jnp.sqrt(x.var(0) + EPSILON) * v + w, ((x - z) ** 2).mean(0)),
    lambda x, z, v, w: (x - (x * z).mean(0) * (z - z.mean(0)) * v, z.sum(0) / ROWS),
]


def program(seed):
    """A function of a tensor, two vectors and a gradient, and its own gradient."""
    rng = np.random.default_rng(seed)
    steps = [(RULES[rng.integers(len(RULES))], rng.random(4), rng.random()) for _ in range(STEPS)]

    def forward(x, g, b):
        tensors, vectors = [x, x * g - b], [g, b]
        for rule, picks, kept in steps:
            pools = (tensors, tensors, vectors, vectors)
            # Mostly recent ones, so that expressions grow.
            chosen = [pool[int(len(pool) * np.sqrt(pick))] for pool, pick in zip(pools, picks, strict=True)]
            tensor, vector = rule(*chosen)
            if kept < 0.7:
                tensors.append(tensor)
            if kept > 0.3:
                vectors.append(vector)
        return jnp.tanh(tensors[-1]), jnp.tanh(vectors[-1]), jnp.tanh(tensors[len(tensors) // 2])

    def whole(x, g, b, d):
        results, vjp = jax.vjp(forward, x, g, b)
        return (*results, *vjp((d, d[0], d)))

    return whole


@pytest.mark.parametrize("seed", range(6))
def test_generated_programs_keep_their_values(seed: int):
    functions = [program(PROGRAMS * seed + number) for number in range(PROGRAMS)]
    rng = np.random.default_rng(seed)
    x, d = (rng.normal(0.5, 1.0, (ROWS, FEATURES)) for _ in range(2))
    arguments = [x, *rng.normal(size=(2, FEATURES)), d]
    with jax.enable_x64(True):
        before = module_of(lambda *operands: [function(*operands) for function in functions], *arguments)
    module = copy(before)
    run(module, "raise-batch-norm")
    assert "stablehlo.batch_norm_training" in str(module), "these programs test nothing"
    run(module, "lower-batch-norm")
    for ours, theirs in zip(by_xla(module, arguments), by_xla(before, arguments), strict=True):
        # A few thousand roundings of float64; generated gradients can be large, and cancel.
        assert np.abs(ours - theirs).max() <= 1e-9 * max(1.0, np.abs(theirs).max())
