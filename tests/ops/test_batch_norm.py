"""The JAX function: values against NumPy in float64, derivatives against differences, under every transform."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from stablenorm.ops import batch_norm

GENERATOR = np.random.default_rng(0)


def parameters(shape, dtype=np.float32):
    """``scale, offset, moving_mean, moving_variance``, none of them trivial."""
    signed = [GENERATOR.normal(size=shape).astype(dtype) for _ in range(3)]
    return [*signed, GENERATOR.uniform(0.5, 2.0, shape).astype(dtype)]


def oracle(x, scale, offset, axes, epsilon=1e-3, weight=None):
    """``y, mean, variance, count`` in float64, by two passes."""
    x = np.asarray(x, np.float64)
    weight = np.ones(x.shape) if weight is None else np.broadcast_to(weight, x.shape).astype(np.float64)
    others = tuple(axis for axis in range(x.ndim) if axis not in axes)
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    counted = np.where(weight == 0, 0.0, x)
    count = weight.sum(others)
    divisor = np.where(count == 0, 1.0, count)
    mean = (counted * weight).sum(others) / divisor
    variance = ((counted - mean.reshape(shape)) ** 2 * weight).sum(others) / divisor
    inverse = 1 / np.sqrt(variance + epsilon)
    y = (x - mean.reshape(shape)) * (inverse * scale).reshape(shape) + np.asarray(offset, np.float64).reshape(shape)
    return y, mean, variance, count


def close(got, expected, tolerance=1e-6):
    """Within ``tolerance`` of the largest value: a few roundings to float32 of intermediate and final results."""
    expected = np.asarray(expected, np.float64)
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((6,), 0),
        ((8, 3), -1),
        ((8, 3), 0),
        ((4, 5, 3), 1),
        ((2, 4, 4, 3), -1),
        ((2, 3, 2, 2, 2), 1),
        ((4, 5, 3), (0, 2)),
        ((4, 5, 3), [-1, -2]),
        ((4, 5), (0, 1)),
    ],
)
def test_training_normalizes_and_updates(shape, axis):
    axes = tuple(sorted(a % len(shape) for a in np.atleast_1d(axis)))
    features = tuple(shape[a] for a in axes)
    x = GENERATOR.normal(size=shape).astype(np.float32)
    scale, offset, mean, variance = parameters(features)
    y, new_mean, new_variance = batch_norm(x, scale, offset, mean, variance, training=True, axis=axis, momentum=0.7)
    expected, batch_mean, batch_variance, _ = oracle(x, scale, offset, axes)
    close(y, expected)
    close(new_mean, mean * 0.7 + batch_mean * 0.3)
    close(new_variance, variance * 0.7 + batch_variance * 0.3)


def test_inference_uses_the_moving_statistics_and_keeps_them():
    x = GENERATOR.normal(size=(4, 3)).astype(np.float32)
    scale, offset, mean, variance = parameters(3)
    y, new_mean, new_variance = batch_norm(x, scale, offset, mean, variance, training=False)
    close(y, (x - mean.astype(np.float64)) / np.sqrt(variance + 1e-3) * scale + offset)
    assert np.array_equal(new_mean, mean)
    assert np.array_equal(new_variance, variance)


@pytest.mark.parametrize(("rows", "factor"), [(1, 1.0), (2, 2.0), (5, 1.25)])
def test_unbiased_moving_variance(rows, factor):
    x = GENERATOR.normal(size=(rows, 3)).astype(np.float32)
    _, _, variance = batch_norm(x, None, None, np.zeros(3), np.ones(3), training=True, momentum=0.0, unbiased=True)
    np.testing.assert_allclose(variance, oracle(x, 1.0, np.zeros(3), (1,))[2] * factor, rtol=1e-6)


MASKS = {
    "booleans": lambda: GENERATOR.uniform(size=(6, 5)) > 0.4,
    "fractions": lambda: GENERATOR.uniform(size=(6, 5)) * (GENERATOR.uniform(size=(6, 5)) > 0.4),
    "rows": lambda: GENERATOR.uniform(size=(6, 1)) > 0.4,
    "of each element": lambda: GENERATOR.uniform(size=(6, 5, 3)) > 0.4,
}


@pytest.mark.parametrize("name", MASKS)
def test_mask_weighs_the_statistics(name):
    mask = MASKS[name]()
    weight = mask if mask.ndim == 3 else mask[..., None]
    x = GENERATOR.normal(size=(6, 5, 3)).astype(np.float32)
    scale, offset, mean, variance = parameters(3)
    y, new_mean, new_variance = batch_norm(
        x, scale, offset, mean, variance, training=True, momentum=0.0, mask=mask.astype(np.float32)
    )
    expected, batch_mean, batch_variance, _ = oracle(x, scale, offset, (2,), weight=weight)
    close(y, expected)
    close(new_mean, batch_mean)
    close(new_variance, batch_variance)


def test_masked_nan_is_not_read():
    x = GENERATOR.normal(size=(6, 3)).astype(np.float32)
    x[2] = np.nan
    mask = np.arange(6) != 2
    y, mean, variance = batch_norm(x, None, None, np.zeros(3), np.ones(3), training=True, momentum=0.0, mask=mask)
    close(mean, x[mask].mean(0, dtype=np.float64))
    close(variance, x[mask].astype(np.float64).var(0))
    assert np.isfinite(y[mask]).all()


@pytest.mark.parametrize("rows", [0, 4])
def test_nothing_counted_leaves_the_moving_statistics(rows):
    """An empty batch, or one that is masked as a whole."""
    mean, variance = np.float32([1, 2, 3]), np.float32([4, 5, 6])
    mask = np.zeros(rows, bool) if rows else None
    x = GENERATOR.normal(size=(rows, 3)).astype(np.float32)
    y, new_mean, new_variance = batch_norm(x, None, None, mean, variance, training=True, mask=mask)
    assert y.shape == x.shape
    assert np.array_equal(new_mean, mean)
    assert np.array_equal(new_variance, variance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 1e-3), (ml_dtypes.bfloat16, 8e-3), (np.float32, 1e-7)])
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_types(dtype, tolerance, mean):
    """The output is rounded once to x's type: half a unit in the last place. Statistics are float32."""
    x = (GENERATOR.normal(size=(512, 3)) + mean).astype(dtype)
    scale, offset, *moving = parameters(3)
    y, new_mean, new_variance = batch_norm(x, scale, offset, *moving, training=True, momentum=0.0)
    expected, batch_mean, batch_variance, _ = oracle(x, scale, offset, (1,))
    assert y.dtype == dtype
    assert new_mean.dtype == new_variance.dtype == np.float32
    close(y, expected, tolerance)
    close(new_mean, batch_mean, 1e-7)
    close(new_variance, batch_variance, 1e-7)


def scalar(x, scale, offset, mask=None):
    """A function of all outputs with non-trivial derivatives of every order."""
    y, mean, variance = batch_norm(x, scale, offset, jnp.zeros(3), jnp.ones(3), training=True, momentum=0.5, mask=mask)
    weights = jnp.arange(1.0, 1 + y.size).reshape(y.shape) / y.size
    return (jnp.sin(y) * weights).sum() + jnp.cos(mean).sum() + jnp.sin(variance).sum()


def differences(function, x, step=1e-5):
    """The derivative of ``function`` by x, one dimension more, by central differences."""
    x = np.asarray(x)
    result = []
    for index in np.ndindex(x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        result.append((np.asarray(function(moved[0])) - np.asarray(function(moved[1]))) / (2 * step))
    return np.stack(result, -1).reshape(*np.shape(result[0]), *x.shape)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_derivatives_to_third_order(place, masked):
    """Forward and reverse mode, nested both ways, against differences of the order below, in float64."""
    mask = np.float64([1, 0, 2, 0.5]) if masked else None
    with jax.enable_x64(True):
        operands = [GENERATOR.normal(size=shape) for shape in ((4, 3), 3, 3)]

        def of_one(value):
            return scalar(*operands[:place], value, *operands[place + 1 :], mask=mask)

        at = operands[place]
        # Rounding of the function, 1e-16, over the step, and the step's square, both times the next derivatives.
        tolerance = {"rtol": 1e-6, "atol": 1e-7}
        first = differences(of_one, at)
        np.testing.assert_allclose(jax.grad(of_one)(at), first, **tolerance)
        np.testing.assert_allclose(jax.jacfwd(of_one)(at), first, **tolerance)
        second = differences(jax.jit(jax.grad(of_one)), at)
        for outer in (jax.jacfwd, jax.jacrev):
            for inner in (jax.jacfwd, jax.jacrev):
                np.testing.assert_allclose(outer(inner(of_one))(at), second, **tolerance)
        third = differences(jax.jit(jax.hessian(of_one)), at)
        np.testing.assert_allclose(jax.jacfwd(jax.hessian(of_one))(at), third, **tolerance)
        np.testing.assert_allclose(jax.jacrev(jax.hessian(of_one))(at), third, **tolerance)


def test_reverse_mode_keeps_x_and_vectors_only():
    x = GENERATOR.normal(size=(64, 3)).astype(np.float32)
    scale, offset, *moving = parameters(3)
    _, pull = jax.vjp(lambda x, s, o: batch_norm(x, s, o, *moving, training=True)[0], x, scale, offset)
    kept = [leaf for leaf in jax.tree.leaves(pull) if leaf.size > 3]
    assert len(kept) == 1
    assert np.array_equal(kept[0], x)


def test_vmap_is_a_loop():
    xs = GENERATOR.normal(size=(5, 4, 3)).astype(np.float32)
    scale, offset, *moving = parameters(3)

    def one(x, scale):
        return batch_norm(x, scale, offset, *moving, training=True)

    mapped = jax.vmap(one, in_axes=(1, None))(xs, scale)
    looped = [one(xs[:, n], scale) for n in range(4)]
    for value, expected in zip(mapped, zip(*looped, strict=True), strict=True):
        close(value, np.stack(expected))
    gradient = jax.vmap(jax.grad(lambda x, s: jnp.sin(one(x, s)[0]).sum(), argnums=1), in_axes=(1, None))(xs, scale)
    close(gradient, np.stack([jax.grad(lambda s, n=n: jnp.sin(one(xs[:, n], s)[0]).sum())(scale) for n in range(4)]))


@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map_normalizes_each_shard(check_vma):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    x = GENERATOR.normal(size=(8, 3)).astype(np.float32)
    scale, offset, *moving = parameters(3)

    def local(x, scale):
        return batch_norm(x, scale, offset, *moving, training=True)[0]

    specs = (PartitionSpec("data"), PartitionSpec())
    sharded = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=specs[0], check_vma=check_vma)
    close(sharded(x, scale), local(x, scale))

    def gradients(function):
        return jax.grad(lambda x, scale: jnp.sin(function(x, scale)).sum(), (0, 1))(x, scale)

    for got, expected in zip(gradients(sharded), gradients(local), strict=True):
        close(got, expected)


def test_scan_and_checkpoint():
    xs = GENERATOR.normal(size=(3, 8, 3)).astype(np.float32)
    scale, offset, *moving = parameters(3)

    def step(moving, x):
        y, *moving = batch_norm(x, scale, offset, *moving, training=True)
        return tuple(moving), y

    (mean, variance), ys = jax.lax.scan(step, tuple(moving), xs)
    expected = tuple(moving)
    for x, y in zip(xs, ys, strict=True):
        expected, one = step(expected, x)
        close(y, one)
    close(mean, expected[0])
    close(variance, expected[1])

    def loss(x):
        return jnp.sin(step(tuple(moving), x)[1]).sum()

    close(jax.grad(jax.checkpoint(loss))(xs[0]), jax.grad(loss)(xs[0]))


def test_a_symbolic_batch_size_is_exported():
    scale, offset, *moving = parameters(3)

    def loss(x):
        return jnp.sin(batch_norm(x, scale, offset, *moving, training=True)[0]).sum()

    (batch,) = jax.export.symbolic_shape("batch")
    step = jax.export.export(jax.jit(jax.value_and_grad(loss)))(jax.ShapeDtypeStruct((batch, 3), np.float32))
    for rows in (1, 2, 7):
        x = GENERATOR.normal(size=(rows, 3)).astype(np.float32)
        for got, expected in zip(step.call(x), jax.value_and_grad(loss)(x), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-6)
