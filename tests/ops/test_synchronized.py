"""Statistics of all replicas: a step on several equals the step of one on the whole batch."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from stablenorm.ops import BatchNormTraining, batch_norm
from tests.ops.replicas import AXIS, MODES, mesh_of, replicated

GENERATOR = np.random.default_rng(0)
FEATURES = 5


def parameters():
    signed = [GENERATOR.normal(size=FEATURES).astype(np.float32) for _ in range(3)]
    return [*signed, GENERATOR.uniform(0.5, 2.0, FEATURES).astype(np.float32)]


def batch(rows=16, mean=3.0, dtype=np.float32):
    x = GENERATOR.normal(mean, 2.0, size=(rows, 3, FEATURES)).astype(dtype)
    return x, GENERATOR.normal(size=x.shape).astype(dtype)


def step(params, x, grad_output, mask=None, axis_name=None, **options):
    """``(y, dx), (moving statistics), (dscale, doffset)``"""
    scale, offset, *moving = params

    def loss(scale, offset, x):
        y, *new = batch_norm(x, scale, offset, *moving, training=True, mask=mask, axis_name=axis_name, **options)
        return (y * grad_output).astype(jnp.float32).sum(), (y, new)

    (dscale, doffset, dx), (y, new) = jax.grad(loss, (0, 1, 2), has_aux=True)(scale, offset, x)
    return (y, dx), new, (dscale, doffset)


def assert_equal(got, expected, tolerance=1e-6):
    """Within 1e-6 of the largest value: results are float32, and are rounded at most three times."""
    for value, truth in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        truth = np.asarray(truth, np.float64)
        np.testing.assert_allclose(np.asarray(value, np.float64), truth, rtol=0, atol=tolerance * np.abs(truth).max())


@pytest.mark.parametrize("replicas", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", MODES)
def test_equals_one_replica_on_the_whole_batch(mode, replicas):
    params, (x, grad_output) = parameters(), batch()
    got = replicated(functools.partial(step, axis_name=AXIS), mode, replicas)(params, x, grad_output)
    assert_equal(got, step(params, x, grad_output))


MASKS = {
    "uneven": lambda: GENERATOR.uniform(size=(16, 3)) < np.linspace(0.2, 0.9, 16)[:, None],
    "a replica without any": lambda: np.arange(16)[:, None] + np.zeros((16, 3)) >= 4,
    "fractions": lambda: GENERATOR.uniform(size=(16, 3)).astype(np.float32),
    "of each feature": lambda: GENERATOR.uniform(size=(16, 3, FEATURES)) < 0.5,
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("mode", MODES)
def test_each_replica_weighs_as_much_as_it_counts(mode, name):
    params, (x, grad_output), mask = parameters(), batch(), MASKS[name]()
    got = replicated(functools.partial(step, axis_name=AXIS), mode, 4)(params, x, grad_output, mask)
    assert_equal(got, step(params, x, grad_output, mask))


@pytest.mark.parametrize("mode", MODES)
def test_where_no_replica_counts_anything_moving_statistics_stay(mode):
    params, (x, grad_output) = parameters(), batch()
    mask = np.zeros(x.shape[:2], bool)
    _, moving, gradients = replicated(functools.partial(step, axis_name=AXIS), mode, 4)(params, x, grad_output, mask)
    for value, old in zip(moving, params[2:], strict=True):
        np.testing.assert_array_equal(value, old)
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mean", [1e2, 1e4, 1e5])
def test_nothing_cancels_on_the_first_step(mode, mean):
    x, grad_output = batch(mean=2 * mean)
    params = [*parameters()[:2], np.zeros(FEATURES, np.float32), np.ones(FEATURES, np.float32)]
    function = functools.partial(step, axis_name=AXIS, momentum=0.0)
    got = replicated(function, mode, 4)(params, x, grad_output)
    _, mean_, variance = BatchNormTraining(1e-3, 2).reference(x, *params[:2])
    np.testing.assert_allclose(got[1][0], mean_, rtol=1e-7)  # one rounding to float32
    # One rounding to float32, and a few of float64 in numbers that are mean ** 2 times as large: 2e-8 at 1e4.
    np.testing.assert_allclose(got[1][1], variance, rtol=1e-7 + mean**2 * 2.0**-51)
    assert_equal(got, step(params, x, grad_output, momentum=0.0), 1e-6 + mean**2 * 2.0**-51)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_sends_float64_and_float32(dtype):
    params, (x, grad_output) = parameters(), batch(dtype=dtype)
    function = replicated(functools.partial(step, axis_name=AXIS), "shard_map", 4)
    (_, dx), moving, gradients = function(params, x, grad_output)
    (_, dx_expected), moving_expected, gradients_expected = step(params, x, grad_output)
    assert_equal((moving, gradients), (moving_expected, gradients_expected))
    assert_equal(dx, dx_expected, 2 * float(ml_dtypes.finfo(dtype).eps))  # two roundings to the type
    sent = [line for line in all_reduces(function, params, x, grad_output) if "f64" in line or "f32" in line]
    assert len(sent) == 2


def all_reduces(function, *arguments):
    """The lines of optimized HLO that communicate."""
    text = function.lower(*arguments).compile().as_text()
    kinds = ("all-reduce(", "all-gather(", "collective-permute(", "all-to-all(", "reduce-scatter(")
    return [line.split(" = ")[1] for line in text.splitlines() if any(kind in line for kind in kinds)]


@pytest.mark.parametrize("masked", [False, True])
def test_one_packed_array_forward_and_one_backward(masked):
    params, (x, grad_output) = parameters(), batch()
    mask = [np.ones((16, 3), bool)] * masked
    step_on_8 = replicated(functools.partial(step, axis_name=AXIS), "shard_map", 8)
    forward, backward = sorted(all_reduces(step_on_8, params, x, grad_output, *mask))[::-1]
    # Two sums per feature and a count; two sums per feature, which scale's and offset's derivatives are made of.
    assert forward.startswith(f"f64[{2 * FEATURES + 1}]")
    assert backward.startswith(f"f32[2,{FEATURES}]")


def test_parameters_alone_need_one_array_backward():
    params, (x, grad_output) = parameters(), batch()

    def of_parameters(params, x, grad_output):
        def loss(scale):
            return (batch_norm(x, scale, *params[1:], training=True, axis_name=AXIS)[0] * grad_output).sum()

        return x, (), jax.grad(loss)(params[0])

    function = replicated(of_parameters, "shard_map", 8)
    assert len(all_reduces(function, params, x, grad_output)) == 2
    assert_equal(function(params, x, grad_output)[2], step(params, x, grad_output)[2][0])


def test_groups_are_axes_of_the_mesh():
    params, (x, grad_output) = parameters(), batch()
    rows, shared = PartitionSpec(("group", AXIS)), PartitionSpec()
    grouped = jax.jit(
        jax.shard_map(
            functools.partial(step, axis_name=AXIS),
            mesh=mesh_of(2, 4, names=("group", AXIS)),
            in_specs=(shared, rows, rows),
            out_specs=(rows, PartitionSpec("group"), shared),
        )
    )
    got = grouped(params, x, grad_output)
    halves = [step(params, x[half], grad_output[half]) for half in (slice(8), slice(8, 16))]
    rows_ = jax.tree.map(lambda *parts: np.concatenate(parts), *(half[0] for half in halves))
    moving = jax.tree.map(lambda *parts: np.concatenate(parts), *(half[1] for half in halves))
    gradients = jax.tree.map(jnp.add, *(half[2] for half in halves))
    assert_equal(got, (rows_, moving, gradients))


def test_groups_by_index():
    params, (x, grad_output) = parameters(), batch()
    groups = [[0, 2], [1, 3]]
    function = functools.partial(step, axis_name=AXIS, axis_index_groups=groups)
    got, _, _ = jax.jit(
        jax.shard_map(
            function,
            mesh=mesh_of(4),
            in_specs=(PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(AXIS)),
            out_specs=(PartitionSpec(AXIS), PartitionSpec(), PartitionSpec()),
            check_vma=False,
        )
    )(params, x, grad_output)
    rows = np.arange(16).reshape(4, 4)
    for group in groups:
        chosen = rows[group].reshape(-1)
        expected, _, _ = step(params, x[chosen], grad_output[chosen])
        assert_equal([each[chosen] for each in got], expected)


@pytest.mark.parametrize("mode", MODES)
def test_second_derivatives_are_those_of_the_whole_batch(mode):
    params, (x, direction) = parameters(), batch()

    def slope(params, x, direction, axis_name=None):
        def loss(x, scale):
            y = batch_norm(x, scale, *params[1:], training=True, axis_name=axis_name)[0]
            return jnp.sin(y).sum()

        def along(x, scale):
            return (jax.grad(loss)(x, scale) * direction).sum()

        dx, dscale = jax.grad(along, (0, 1))(x, params[0])
        return dx, (), dscale

    got = replicated(functools.partial(slope, axis_name=AXIS), mode, 4)(params, x, direction)
    # Three sums over the batch, each rounded to float32 on the way.
    assert_equal(got, slope(params, x, direction), 1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_forward_mode(mode):
    params, (x, direction) = parameters(), batch()

    def tangent(params, x, direction, axis_name=None):
        def function(x):
            return batch_norm(x, *params, training=True, axis_name=axis_name)

        _, (dy, *moving) = jax.jvp(function, (x,), (direction,))
        return dy, moving, ()

    got = replicated(functools.partial(tangent, axis_name=AXIS), mode, 4)(params, x, direction)
    assert_equal(got, tangent(params, x, direction))


def test_what_is_kept_for_backward_is_x_and_values_per_feature():
    (x, _), params = batch(), parameters()

    def loss(scale, x):
        return jnp.sin(batch_norm(x, scale, *params[1:], training=True, axis_name=AXIS)[0]).sum()

    kept = jax.shard_map(
        lambda scale, x: jax.tree.leaves(jax.vjp(loss, scale, x)[1]),
        mesh=mesh_of(1),
        in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
        out_specs=PartitionSpec(AXIS),
        check_vma=False,
    )
    sizes = [array.size for array in jax.eval_shape(kept, params[0], x)]
    # x, and the cosine of y that sin keeps.
    assert sum(size >= x.size for size in sizes) == 2
