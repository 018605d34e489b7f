"""Ways to run a training step on several replicas, as JAX offers them; each gives what one replica would."""

import jax
import numpy as np
from jax.sharding import AxisType, PartitionSpec

AXIS = "replica"
MODES = ["shard_map", "shard_map without types", "pmap", "vmap"]


def mesh_of(*sizes, names=(AXIS,)):
    return jax.sharding.Mesh(
        np.array(jax.devices()[: int(np.prod(sizes))]).reshape(sizes), names, axis_types=(AxisType.Auto,) * len(sizes)
    )


def replicated(step, mode, replicas):
    """``step(params, *batches)`` on each replica, batches cut along their first dimension.

    It gives ``(of_rows, of_features, gradients)``: arrays of rows, statistics that all replicas agree on, and
    derivatives by params. JAX sums these itself where it tracks that params are shared; elsewhere it is done here.
    """
    if mode.startswith("shard_map"):
        checked = mode == "shard_map"

        def summed(params, *batches):
            rows, features, gradients = step(params, *batches)
            return rows, features, gradients if checked else jax.lax.psum(gradients, AXIS)

        shared, cut = PartitionSpec(), PartitionSpec(AXIS)
        return jax.jit(
            lambda params, *batches: jax.shard_map(
                summed,
                mesh=mesh_of(replicas),
                in_specs=(shared, *[cut] * len(batches)),
                out_specs=(cut, shared, shared),
                check_vma=checked,
            )(params, *batches)
        )
    transform = {"pmap": jax.pmap, "vmap": jax.vmap}[mode]

    def run(params, *batches):
        parts = [batch.reshape(replicas, -1, *batch.shape[1:]) for batch in batches]
        mapped = transform(step, axis_name=AXIS, in_axes=(None, *[0] * len(parts)))
        rows, features, gradients = mapped(params, *parts)
        for each in jax.tree.leaves(features):
            np.testing.assert_array_equal(each, np.broadcast_to(each[:1], each.shape))
        whole = jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), rows)
        return whole, *(jax.tree.map(pick, tree) for pick, tree in ((_first, features), (_sum, gradients)))

    return run


def _first(array):
    return array[0]


def _sum(array):
    return array.sum(0)
