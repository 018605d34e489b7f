"""The Flax layer with ``axis_name``: replicas are one batch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from stablenorm.ops.flax import BatchNorm
from tests.ops.replicas import AXIS, mesh_of

GENERATOR = np.random.default_rng(0)
GRAPHS = {name: nnx.split(BatchNorm(3, axis_name=name, rngs=nnx.Rngs(0)))[0] for name in (None, AXIS)}
STATE = jax.tree.map(
    lambda leaf: jnp.asarray(GENERATOR.uniform(0.5, 2.0, leaf.shape), leaf.dtype),
    nnx.state(BatchNorm(3, rngs=nnx.Rngs(0))),
)


def normal(*shape: int) -> Any:
    return jnp.asarray(GENERATOR.normal(size=shape), jnp.float32)


def call(name: str | None, x: Any, mask: Any = None, **arguments: Any) -> Any:
    """``y, mean, var`` after a training step."""
    layer = nnx.merge(GRAPHS[name], STATE, copy=True)
    layer.set_attributes(**arguments)
    return layer(x, mask=mask), layer.mean[...], layer.var[...]


def close(got: Any, expected: Any) -> None:
    """A few roundings to float32."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max())


@pytest.mark.parametrize("masked", [False, True])
def test_replicas_are_one_batch(masked: bool) -> None:
    """Gradients, too, and where they count different numbers of rows; the stock module weighs replicas alike."""
    x, upstream = normal(4, 8, 3), normal(4, 8, 3)
    mask = jnp.asarray(GENERATOR.uniform(size=(4, 8, 1)) < np.linspace(0.2, 0.9, 4)[:, None, None]) if masked else None

    def spread(x: Any) -> Any:
        y, mean, var = jax.vmap(lambda x, mask: call(AXIS, x, mask), axis_name=AXIS)(x, mask)
        return (y * upstream).sum(), (y, mean[0], var[3])

    def whole(x: Any) -> Any:
        y, mean, var = call(None, x.reshape(32, 3), None if mask is None else mask.reshape(32, 1))
        return (y.reshape(x.shape) * upstream).sum(), (y.reshape(x.shape), mean, var)

    close(jax.grad(spread, has_aux=True)(x), jax.grad(whole, has_aux=True)(x))


def test_groups_of_replicas() -> None:
    x = normal(16, 3)
    cut = PartitionSpec(AXIS)
    grouped = jax.shard_map(
        lambda x: call(AXIS, x, axis_index_groups=[[0, 2], [1, 3]])[0],
        mesh=mesh_of(4),
        in_specs=cut,
        out_specs=cut,
        check_vma=False,
    )
    y = grouped(x).reshape(4, 4, 3)
    for group in ([0, 2], [1, 3]):
        rows = x.reshape(4, 4, 3)[np.array(group)].reshape(8, 3)
        close(y[np.array(group)].reshape(8, 3), call(None, rows)[0])


def test_inference_needs_no_axis() -> None:
    x = normal(4, 3)
    close(call(AXIS, x, use_running_average=True), call(None, x, use_running_average=True))


def test_one_count_is_sent_where_the_mask_is_of_rows() -> None:
    """Two sums per feature and a count, in one all-reduce."""
    cut = PartitionSpec(AXIS)
    step = jax.jit(jax.shard_map(lambda x, mask: call(AXIS, x, mask)[0], mesh=mesh_of(4), in_specs=cut, out_specs=cut))
    text = step.lower(normal(16, 3), jnp.ones((16, 1), bool)).compile().as_text()
    sent = [line.split(" = ")[1] for line in text.splitlines() if "all-reduce(" in line]
    assert len(sent) == 1
    assert sent[0].startswith("f64[7]")
