"""Plain ``jit`` with a sharded batch: statistics of the whole batch, or of each group, and what that sends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from stablenorm.ops import batch_norm
from tests.ops.replicas import AXIS, mesh_of
from tests.ops.test_synchronized import FEATURES, MASKS, all_reduces, assert_equal, batch, parameters, step


def sharded(*arrays, devices=8):
    return [jax.device_put(array, NamedSharding(mesh_of(devices), PartitionSpec(AXIS))) for array in arrays]


def replicated_on_all(tree):
    return jax.device_put(tree, NamedSharding(mesh_of(8), PartitionSpec()))


@pytest.mark.parametrize("mask", [None, *MASKS])
def test_the_whole_batch_by_one_array_forward_and_one_backward(mask):
    params, (x, grad_output) = replicated_on_all(parameters()), batch(mean=1e4)
    masks = [] if mask is None else [MASKS[mask]()]
    inputs = sharded(x, grad_output, *masks)
    function = jax.jit(step)
    assert_equal(function(params, *inputs), step(params, x, grad_output, *masks))
    sent = [line.split("{")[0] for line in all_reduces(function, params, *inputs)]
    assert len(sent) == 2, sent
    assert f"f32[2,{FEATURES}]" in sent
    assert f"f64[{2 if mask is None else 3},{FEATURES}]" in sent


def test_forward_alone_sends_one_array():
    params, (x, _) = replicated_on_all(parameters()), batch()
    forward = jax.jit(functools.partial(batch_norm, training=True))
    assert len(all_reduces(forward, *sharded(x), *params)) == 1


@pytest.mark.parametrize("shape", [(16, FEATURES), (16, 4, 4, FEATURES), (8, FEATURES, 4, 4)])
def test_other_ranks_and_feature_dimensions(shape):
    x = np.random.default_rng(0).normal(5.0, 1.0, shape).astype(np.float32)
    function = functools.partial(batch_norm, training=True, axis=shape.index(FEATURES))
    params = parameters()
    (x_sharded,) = sharded(x)
    assert_equal(jax.jit(function)(x_sharded, *replicated_on_all(params)), function(x, *params))
    assert len(all_reduces(jax.jit(function), x_sharded, *replicated_on_all(params))) == 1


def test_a_batch_that_the_devices_do_not_divide_is_right_too():
    x = np.random.default_rng(0).normal(5.0, 1.0, (12, 3, FEATURES)).astype(np.float32)
    params = parameters()
    (x_sharded,) = sharded(x, devices=4)
    function = functools.partial(batch_norm, training=True)
    assert_equal(jax.jit(function)(x_sharded, *params), function(x, *params))


def by_hand(x, grad_output, params, groups):
    """Each group as a batch of its own."""
    cut = [np.split(array, groups) for array in (x, grad_output)]
    each = [step(params, *parts) for parts in zip(*cut, strict=True)]
    rows = jax.tree.map(lambda *parts: np.concatenate(parts), *(part[0] for part in each))
    moving = jax.tree.map(lambda *parts: np.stack(parts), *(part[1] for part in each))
    return rows, moving, jax.tree.map(lambda *parts: sum(parts), *(part[2] for part in each))


@pytest.mark.parametrize("groups", [2, 8, 16])
def test_groups_have_statistics_of_their_own(groups):
    params, (x, grad_output) = parameters(), batch()
    rows, moving, gradients = by_hand(x, grad_output, params, groups)
    one_row_each = [*params[:2], *(np.broadcast_to(each, (groups, FEATURES)) for each in params[2:])]
    assert_equal(step(one_row_each, x, grad_output, groups=groups), (rows, moving, gradients))
    mean = [each.mean(0) for each in moving]
    assert_equal(step(params, x, grad_output, groups=groups), (rows, mean, gradients))


@pytest.mark.parametrize("groups", [8, 16])
def test_groups_of_a_device_send_nothing(groups):
    params, (x, _) = parameters(), batch()
    moving = sharded(*(np.broadcast_to(each, (groups, FEATURES)) for each in params[2:]))
    function = jax.jit(functools.partial(batch_norm, training=True, groups=groups))
    assert all_reduces(function, *sharded(x), *replicated_on_all(params[:2]), *moving) == []


def test_a_group_without_any_counts_for_nothing():
    params, (x, grad_output) = parameters(), batch()
    mask = np.ones((16, 3), bool)
    mask[:4] = False
    _, moving, _ = step(params, x, grad_output, mask, groups=4)
    others = [step(params, x[rows], grad_output[rows])[1] for rows in np.split(np.arange(16), 4)[1:]]
    assert_equal(moving, jax.tree.map(lambda *parts: np.mean(parts, 0), *others))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 3}, r"groups: got 3 for x of shape \(16, 3, 5\)"),
        ({"groups": 0}, "groups: got 0"),
        ({"groups": 2, "axis": 0}, r"features along \(0,\), allowed: a divisor of the first dimension"),
        ({"groups": 2, "axis_name": "i"}, "groups: got 2 with axis_name='i'"),
        ({"axis_index_groups": [[0]]}, "axis_index_groups: got some without axis_name"),
    ],
)
def test_bad_groups_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        batch_norm(jnp.ones((16, 3, 5)), None, None, jnp.zeros(5), jnp.ones(5), training=True, **options)
