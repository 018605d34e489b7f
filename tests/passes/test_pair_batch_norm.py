"""Training in pairs of float32, run by XLA:CPU and by StableHLO's interpreter, against the float64 oracle."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.compiler.targets import find_target
from stablenorm.compiler.xla import compile_module
from stablenorm.ops import BatchNormGrad, BatchNormTraining
from stablenorm.passes.pair_batch_norm import statistics_from, statistics_of_inverse
from stablenorm.passes.pairs import like, wide
from tests.ops.test_accuracy import FLUSHED, HARD, normal
from tests.passes.pair_steps import module_of

NAMES = ("y", "mean", "variance", "dx", "dscale", "doffset")


def arguments(x, axis):
    generator = np.random.default_rng(1)
    scale, offset = generator.normal(size=(2, x.shape[axis])).astype(np.float32)
    return x, scale, offset, generator.normal(size=x.shape).astype(x.dtype)


def truth(x, scale, offset, grad_output, axis, epsilon):
    y, mean, variance = BatchNormTraining(epsilon, axis).reference(x, scale, offset)
    return y, mean, variance, *BatchNormGrad(epsilon, axis).reference(x, scale, mean, variance, grad_output)


def assert_right(x, tolerance, axis=-1, epsilon=1e-3, half_tolerance=None, **options):
    """Each result within ``tolerance`` of its largest true value; mean and variance, of each feature's."""
    axis %= x.ndim
    given = arguments(x, axis)
    got = compile_module(module_of(x.shape, x.dtype.name, axis, epsilon, **options), find_target("cpu"))(*given)
    for name, value, true in zip(NAMES, got, truth(*given, axis, epsilon), strict=True):
        value, allowed = np.asarray(value).astype(np.float64), tolerance
        if name in ("y", "dx") and half_tolerance is not None:
            allowed = half_tolerance
        size = np.abs(true) if name in ("mean", "variance") else np.abs(true).max()
        with np.errstate(over="ignore", invalid="ignore"):
            overflow = np.isinf(value) & (value == true.astype(np.float32))
            within = np.abs(value - true) <= allowed * size + FLUSHED
        assert np.all(within | overflow), name


# One rounding to float32 is 6e-8; the square of a pair is right to 1.5e-11.
@pytest.mark.parametrize("power", range(7))
def test_right_at_any_mean(power):
    assert_right((normal(100_000) + 10.0**power).astype(np.float32), 1e-7)


@pytest.mark.parametrize("name", HARD)
def test_right_on_hard_data(name):
    assert_right(HARD[name](normal(100_000)).astype(np.float32), 1e-7)


@pytest.mark.parametrize("power", [-30, -20, -10])
def test_right_with_an_epsilon_that_is_small_too(power):
    assert_right((normal(1024) * 10.0**power).astype(np.float32), 1e-7, epsilon=10.0 ** (2 * power - 1))


@pytest.mark.parametrize("size", [1e-20, 1e30, 3e38])
def test_right_for_gradients_of_any_size(size):
    x, scale, offset, grad_output = arguments((normal(4096) + 10).astype(np.float32), 1)
    grad_output = (grad_output / np.abs(grad_output).max() * size).astype(np.float32)
    scale *= 0.1  # or dx would be more than float32's largest number
    module = module_of(x.shape, "float32", 1, 1e-3)
    got = compile_module(module, find_target("cpu"))(x, scale, offset, grad_output)
    true = truth(x, scale, offset, grad_output, 1, 1e-3)
    np.testing.assert_allclose(got[3], true[3], rtol=0, atol=1e-7 * np.abs(true[3]).max())


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_the_feature_may_be_any_dimension(axis):
    x = np.random.default_rng(0).normal(100, 1, (6, 5, 7, 4)).astype(np.float32)
    assert_right(x, 1e-7, axis)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    unit = float(ml_dtypes.finfo(dtype).eps) / 2
    assert_right((normal(4096) + 100).astype(dtype), 1e-7, half_tolerance=unit * 1.001)  # by float32


@pytest.mark.parametrize("number", [0.0, 0.1, -1234.567, 1e-30, 3e38])
def test_a_constant_feature_is_its_offset_exactly(number):
    given = arguments(np.full((1000, 3), number, np.float32), 1)
    y, mean, variance, _, dscale, _ = compile_module(module_of((1000, 3), "float32", 1, 1e-3), find_target("cpu"))(
        *given
    )
    assert np.array_equal(y, np.broadcast_to(given[2], y.shape))
    assert np.all(mean == np.float32(number))
    assert np.all(variance == 0)
    assert np.all(dscale == 0)


@pytest.mark.parametrize("spoiling", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_spoils_its_own_feature_only(spoiling):
    x = normal(1000).astype(np.float32)
    x[500, 1] = spoiling
    got = compile_module(module_of(x.shape, "float32", 1, 1e-3), find_target("cpu"))(*arguments(x, 1))
    for value in got:
        finite = np.isfinite(np.asarray(value))
        assert finite[..., 0].all()
        assert finite[..., 2].all()
    assert np.isnan(got[0][:, 1]).all()
    assert np.isnan(got[2][1])


def test_the_interpreter_agrees():
    """Its arithmetic is each operation's alone: nothing is fused."""
    x = (normal(300) + 1e5).astype(np.float32)
    given = arguments(x, 1)
    module = module_of(x.shape, "float32", 1, 1e-3)
    with module.context:
        values = [ir.DenseElementsAttr.get(np.ascontiguousarray(value)) for value in given]
        got = [np.array(value) for value in hlo.eval_module(module, values)]
    for name, value, true in zip(NAMES, got, truth(*given, 1, 1e-3), strict=True):
        np.testing.assert_allclose(value, true, rtol=0, atol=1e-7 * np.abs(true).max(), err_msg=name)


REACH = 2.0**20


def by_mean_and_variance(batch, x, epsilon, axes):
    return statistics_from(batch.mean, batch.variance, x, epsilon, axes)


def by_mean_and_inverse(batch, x, epsilon, axes):
    inverse = hlo.multiply(
        batch.ratio, wide(hlo.multiply(hlo.multiply(batch.power, like(REACH, batch.power)), batch.unit))
    )
    return statistics_of_inverse(batch.mean, inverse, REACH, x, axes)


@pytest.mark.parametrize("again", [by_mean_and_variance, by_mean_and_inverse])
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_a_gradient_may_know_its_statistics_from_elsewhere(again, scale):
    assert_right(((normal(1024) + 10) * scale).astype(np.float32), 1e-7, again=again)
