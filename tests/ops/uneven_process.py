"""One of two processes, of nine and seven rows: prints how far its statistics are from those of all sixteen."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from stablenorm.ops import batch_norm

ROWS = [slice(9), slice(9, 16)]


def main(port: str, process: int) -> None:
    jax.distributed.initialize(f"localhost:{port}", 2, process, heartbeat_timeout_seconds=20)
    mesh = Mesh(np.array(jax.devices()), ("replica",), axis_types=(AxisType.Auto,))
    rows, shared = PartitionSpec("replica"), PartitionSpec()
    x = np.random.default_rng(0).normal(1e4, 1.0, (16, 3)).astype(np.float32)

    def step(x):
        moving = jnp.zeros(3), jnp.ones(3)
        return batch_norm(x, None, None, *moving, training=True, momentum=0.0, axis_name="replica")[1:]

    mine = jax.make_array_from_process_local_data(NamedSharding(mesh, rows), x[ROWS[process]])
    function = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=rows, out_specs=shared))
    mean, variance = (np.asarray(value.addressable_data(0)) for value in function(mine))
    wide = x.astype(np.float64)
    print(np.abs(mean / wide.mean(0) - 1).max(), np.abs(variance / wide.var(0) - 1).max(), flush=True)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
