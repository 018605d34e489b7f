"""A training step of the JAX function on XLA:CPU, against the float64 oracle on the same inputs."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from stablenorm.ops import BatchNormGrad, BatchNormTraining, batch_norm

RESULTS = ("y", "dx", "dscale", "doffset", "mean", "variance")
FEATURES = 3
# XLA:CPU flushes what is smaller than float32's smallest normal number to zero.
FLUSHED = float(np.finfo(np.float32).smallest_normal)


@functools.partial(jax.jit, static_argnames="epsilon")
def step(x, scale, offset, grad_output, epsilon):
    zeros = jnp.zeros(x.shape[-1])

    def forward(x, scale, offset):
        y, *moving = batch_norm(x, scale, offset, zeros, zeros, training=True, momentum=0.0, epsilon=epsilon)
        return y, moving

    y, pull, moving = jax.vjp(forward, x, scale, offset, has_aux=True)
    return [y, *pull(grad_output), *moving]


def results(x, epsilon=1e-3):
    """What XLA computes and what is true, by the names of `RESULTS`; scale, offset and grad_output are random."""
    generator = np.random.default_rng(1)
    scale, offset = generator.normal(size=(2, x.shape[-1])).astype(np.float32)
    grad_output = generator.normal(size=x.shape).astype(x.dtype)
    got = step(x, scale, offset, grad_output, epsilon)
    y, mean, variance = BatchNormTraining(epsilon, x.ndim - 1).reference(x, scale, offset)
    gradients = BatchNormGrad(epsilon, x.ndim - 1).reference(x, scale, mean, variance, grad_output)
    true = [y, *gradients, mean, variance]
    got = [np.asarray(value).astype(np.float64) for value in got]
    return dict(zip(RESULTS, got, strict=True)), dict(zip(RESULTS, true, strict=True))


def assert_right(x, tolerance, epsilon=1e-3, names=RESULTS):
    """Each result within ``tolerance`` of its largest true value; mean and variance, of each feature's."""
    got, true = results(x, epsilon)
    for name in names:
        size = np.abs(true[name]) if name in ("mean", "variance") else np.abs(true[name]).max()
        with np.errstate(over="ignore", invalid="ignore"):
            overflow = np.isinf(got[name]) & (got[name] == true[name].astype(np.float32))
            within = np.abs(got[name] - true[name]) <= tolerance * size + FLUSHED
        assert np.all(within | overflow), name


def normal(rows):
    return np.random.default_rng(0).normal(size=(rows, FEATURES))


@pytest.mark.parametrize("rows", [1024, 1_000_000])
@pytest.mark.parametrize("power", range(7))
def test_right_at_any_mean(rows, power):
    assert_right((normal(rows) + 10.0**power).astype(np.float32), 1e-6)


def with_first_row(x, value):
    return np.concatenate([np.full_like(x[:1], value), x[1:]])


def spread(x, largest):
    """Numbers between ``-largest / 2`` and ``largest``, both of which occur."""
    return largest * (1.5 * np.argsort(np.argsort(x, 0), 0) / (len(x) - 1) - 0.5)


HARD = {
    "first row an outlier": lambda x: with_first_row(x, 1e6),
    "first row an outlier, far from 0": lambda x: with_first_row(x * 1e-2 + 1e3, -1e6),
    "first row near float32's limit": lambda x: with_first_row(x, 3e38),
    "last row an outlier": lambda x: with_first_row(x, 1e6)[::-1],
    "two clusters, one after the other": lambda x: x + 1e6 * (np.arange(len(x)) < len(x) // 3)[:, None],
    "two clusters, in turn": lambda x: x * 1e-3 + 1e5 * (np.arange(len(x)) % 2)[:, None],
    "drift": lambda x: x + np.linspace(0, 1e6, len(x))[:, None],
    "drift, far from 0": lambda x: x + 1e6 + np.linspace(0, 1e3, len(x))[:, None],
    "constant but for one row": lambda x: with_first_row(np.full_like(x, 0.1), 0.1001),
    "rarely not zero": lambda x: np.where(x > 3, x, 0) + with_first_row(np.zeros_like(x), 1),
    "variance near float32's limit": lambda x: x * 1e19,
    # 1 / deviation ** 3 is 1e-111 here, and the variance 1e74: an infinity in float32, as it should be.
    "near float32's limit": lambda x: spread(x, 1e37),
    # The inverse of the deviation is less than float32's smallest normal number.
    "up to float32's limit": lambda x: spread(x, 3.4e38),
    "variance far below epsilon": lambda x: x * 1e-15,
    "near float32's smallest numbers": lambda x: x * 1e-30,
}


@pytest.mark.parametrize("rows", [1024, 100_000])
@pytest.mark.parametrize("name", HARD)
def test_right_on_hard_data(name, rows):
    assert_right(HARD[name](normal(rows)).astype(np.float32), 1e-5)


def test_statistics_without_a_derivative_pass_on_nothing():
    """Zeros for the derivatives by mean and variance, times a variance that is infinite in float32."""
    x = spread(normal(1024), 3.4e38).astype(np.float32)
    zeros = jnp.zeros(FEATURES)
    _, pull = jax.vjp(lambda x: batch_norm(x, None, None, zeros, zeros, training=True), x)
    (dx,) = pull((jnp.ones_like(x), zeros, zeros))
    assert np.all(np.abs(dx) <= FLUSHED)


@pytest.mark.parametrize("power", [-30, -20, -10])
def test_right_with_an_epsilon_that_is_small_too(power):
    """The outputs are of order one where the inputs are next to nothing, and their gradients up to 1e31."""
    assert_right((normal(1024) * 10.0**power).astype(np.float32), 1e-5, epsilon=10.0 ** (2 * power - 1))


HALF = {
    "mean/std = 100": lambda x: x + 100,
    "up to the limit of float16": lambda x: spread(x, 65504),
    "denormal in float16": lambda x: x * 1e-6,
}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", HALF)
def test_half_precision_is_rounded_once(name, dtype):
    x = HALF[name](normal(4096)).astype(dtype)
    assert_right(x, 1e-5, names=("dscale", "doffset", "mean", "variance"))
    assert_right(x, float(ml_dtypes.finfo(dtype).eps) / 2 * 1.001, names=("y", "dx"))


@pytest.mark.parametrize("number", [0.0, 0.1, -1234.567, 1e-30, 3e38])
def test_a_constant_feature_is_its_offset_exactly(number):
    got, true = results(np.full((1000, FEATURES), number, np.float32))
    offset = np.random.default_rng(1).normal(size=(2, FEATURES)).astype(np.float32)[1]
    assert np.array_equal(got["y"], np.broadcast_to(offset, got["y"].shape))
    assert np.all(got["mean"] == np.float32(number))
    assert np.all(got["variance"] == 0)
    assert np.all(got["dscale"] == 0)
    assert np.all(np.abs(got["dx"] - true["dx"]) <= 1e-6 * np.abs(true["dx"]).max())


@pytest.mark.parametrize("seed", range(8))
def test_no_variance_is_negative_and_nothing_is_nan(seed):
    """Columns of any magnitude and spread, one unit in the last place between rows among them."""
    generator = np.random.default_rng(seed)
    size, deviation = 10.0 ** generator.uniform(-30, 37, (2, 256))
    x = (size * (1 + np.minimum(deviation / size, 1) * generator.uniform(-1, 1, (64, 256)))).astype(np.float32)
    x[:, ::4] = np.nextafter(x[:1, ::4], generator.choice([-np.inf, 0, np.inf], (64, 64)), dtype=np.float32)
    got, true = results(x)
    assert np.all(got["variance"] >= 0)
    for name in RESULTS:
        assert not np.isnan(got[name]).any(), name
        with np.errstate(over="ignore"):
            overflow = np.isinf(true[name].astype(np.float32))
        assert np.all(np.isfinite(got[name]) | overflow), name
