"""One of several processes that train with a batch norm over all of them, where one has a fault."""

import os
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from stablenorm.ops import batch_norm
from stablenorm.ops.distributed import alike, global_batch, joined


def happen(fault: str) -> None:
    if fault == "raises":
        raise ArithmeticError("the fault of this test")
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if fault == "absent":
        time.sleep(600)


def train(fault: str, unchecked: bool) -> None:
    mesh = Mesh(np.array(jax.devices()), ("replica",), axis_types=(AxisType.Auto,))
    rows, shared = PartitionSpec("replica"), PartitionSpec()
    count, channels = 3 if fault == "rows" else 4, 5 if fault == "channels" else 3

    @jax.jit
    @jax.shard_map(mesh=mesh, in_specs=rows, out_specs=shared)
    def step(x):
        moving = jnp.zeros(x.shape[-1]), jnp.ones(x.shape[-1])
        return batch_norm(x, None, None, *moving, training=True, axis_name="replica")[1:]

    if not unchecked:
        alike(mean=np.zeros(channels, np.float32), rate=0.5 if fault == "values" else 0.25)
    for number in range(1000):
        if number == 3:
            happen(fault)
        x = np.random.default_rng(number).normal(size=(count, channels)).astype(np.float32)
        if unchecked:
            batch = jax.make_array_from_process_local_data(NamedSharding(mesh, rows), x)
        else:
            batch = global_batch({"x": x}, NamedSharding(mesh, rows))["x"]
        jax.block_until_ready(step(batch))
        print("step", number, flush=True)


if __name__ == "__main__":
    port, processes, process, heartbeat, collective, fault = sys.argv[1:7]
    limits = {"heartbeat_timeout": int(heartbeat), "collective_timeout": int(collective)}
    with joined(f"localhost:{port}", int(processes), int(process), **limits):
        train(fault, unchecked="unchecked" in sys.argv)
