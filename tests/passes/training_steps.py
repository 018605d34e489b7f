"""Training steps that tests of raise-batch-norm share: as modules, with arguments, and in float64."""

from __future__ import annotations

import jax
import numpy as np

from stablenorm.ops import BatchNormGrad, BatchNormTraining
from tests.passes.modules import parse, run

EPSILON = float(np.float32(1e-3))
ROWS, FEATURES = 512, 3


def batch_norm(x, g, b, axes=(0,)):
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + EPSILON) * g.reshape(shape) + b.reshape(shape)


def step(forward):
    """``y, mean, variance, grad_operand, grad_scale, grad_offset``"""

    def whole(x, g, b, d):
        y, vjp, statistics = jax.vjp(forward, x, g, b, has_aux=True)
        return (y, *statistics, *vjp(d))

    return whole


def module_of(function, *arguments):
    module = parse(str(jax.jit(function, keep_unused=True).lower(*arguments).compiler_ir("stablehlo")))
    run(module, "import-cleanup")
    return module


def arguments_at(mean, dtype=np.float32):
    generator = np.random.default_rng(0)
    x = (generator.normal(size=(ROWS, FEATURES)) + mean).astype(dtype)
    vectors = [generator.normal(size=FEATURES).astype(dtype) for _ in range(2)]
    return [x, *vectors, generator.normal(size=(ROWS, FEATURES)).astype(dtype)]


def oracle(x, g, b, d):
    y, mean, variance = BatchNormTraining(EPSILON, 1).reference(x, g, b)
    return [y, mean, variance, *BatchNormGrad(EPSILON, 1).reference(x, g, mean, variance, d)]


def error(got, expected):
    """The largest one, relative to the largest value."""
    return max(np.abs(ours - truth).max() / np.abs(truth).max() for ours, truth in zip(got, expected, strict=True))


def in_float64(function, arguments):
    with jax.enable_x64(True):
        return [np.asarray(result) for result in jax.jit(function)(*(a.astype(np.float64) for a in arguments))]
