"""Trains a small convolutional network on several processes, with batch norm over all of them.

On this machine, four processes, each with its part of every batch::

    python examples/train_synchronized.py --processes 4

On a cluster, the same program once per process, process 0 at the address that all are given::

    python examples/train_synchronized.py --coordinator 10.0.0.1:1234 --process-count 4 --process-id 0

With ``--checkpoint DIR``, process 0 saves every few steps, and whatever ends the processes, the same command goes on
from there. A process that fails ends all of them (`stablenorm.ops.distributed` says when).

Process 0 also takes each step alone on the whole batch, and prints how far the two are apart. The processes count
different numbers of images (a mask leaves some out), so statistics that are not weighted by the count would show.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file

from stablenorm.ops import batch_norm, distributed

Tree = Any
AXIS = "replica"
CLASSES, IMAGES, SIZE, CHANNELS = 4, 32, 12, (3, 16, 32)
RATE = 0.5


def initial_state() -> tuple[Tree, Tree]:
    """Parameters, and moving statistics. All processes draw the same."""
    generator = np.random.default_rng(0)

    def layer(inputs: int, outputs: int) -> Tree:
        kernel = generator.normal(0, np.sqrt(2 / (9 * inputs)), (3, 3, inputs, outputs)).astype(np.float32)
        return {"kernel": kernel, "scale": np.ones(outputs, np.float32), "offset": np.zeros(outputs, np.float32)}

    layers = [layer(*pair) for pair in itertools.pairwise(CHANNELS)]
    dense = generator.normal(0, 0.3, (CHANNELS[-1], CLASSES)).astype(np.float32)
    moving = [(np.zeros(outputs, np.float32), np.ones(outputs, np.float32)) for outputs in CHANNELS[1:]]
    return {"layers": layers, "dense": dense}, moving


def batch(step: int, processes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, their classes, and which of them count: the first process's all, the last one's half."""
    generator = np.random.default_rng(1 + step)
    classes = generator.integers(0, CLASSES, processes * IMAGES).astype(np.int32)
    colors = np.random.default_rng(0).normal(size=(CLASSES, 1, 1, CHANNELS[0]))
    images = 100 + 3 * colors[classes] + generator.normal(size=(len(classes), SIZE, SIZE, CHANNELS[0]))
    process, place = np.divmod(np.arange(len(classes)), IMAGES)
    counts = place < IMAGES - IMAGES // 2 * process / max(processes - 1, 1)
    return images.astype(np.float32), classes, counts


def logits(params: Tree, moving: Tree, images: Any, counts: Any, axis_name: str | None) -> tuple[Any, Tree]:
    y, new = images, []
    for layer, (mean, variance) in zip(params["layers"], moving, strict=True):
        y = jax.lax.conv_general_dilated(y, layer["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        mask = jnp.broadcast_to(counts[:, None, None], y.shape[:3])
        y, *statistics = batch_norm(
            y, layer["scale"], layer["offset"], mean, variance, training=True, mask=mask, axis_name=axis_name
        )
        y = jax.nn.relu(y)
        new.append(tuple(statistics))
    return y.mean((1, 2)) @ params["dense"], new


def train_step(
    params: Tree, moving: Tree, images: Any, classes: Any, counts: Any, axis_name: str | None = None
) -> tuple[Tree, Tree, Any]:
    """One step of gradient descent on the mean loss of the images that count."""

    def over_all(value: Any) -> Any:
        return value if axis_name is None else jax.lax.psum(value, axis_name)

    total = over_all(counts.sum())

    def loss_of(params: Tree) -> tuple[Any, Tree]:
        scores, new = logits(params, moving, images, counts, axis_name)
        each = -jnp.take_along_axis(jax.nn.log_softmax(scores), classes[:, None], 1)[:, 0]
        return jnp.where(counts, each, 0).sum() / total, new

    # Parameters are the same everywhere, and JAX's types say so: their gradients are summed over the replicas.
    (loss, new), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
    return jax.tree.map(lambda value, slope: value - RATE * slope, params, gradients), new, over_all(loss)


def names(tree: Tree) -> list[str]:
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)]


def shapes(tree: Tree) -> list[tuple[int, ...]]:
    return [leaf.shape for leaf in jax.tree.leaves(tree)]


def save(file: Path, step: int, state: Tree) -> None:
    """The state before ``step``. Under another name first: whoever ends this halfway leaves the last one whole."""
    tree = {"step": np.int32(step), "state": state}
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    save_file(dict(zip(names(tree), map(np.asarray, jax.tree.leaves(tree)), strict=True)), unfinished)
    unfinished.replace(file)


def restore(file: Path | None) -> tuple[int, Tree]:
    """The step to go on with, and its state. Process 0 reads it, so only it needs the file, and sends it to all."""
    tree = {"step": np.int32(0), "state": initial_state()}
    if jax.process_index() == 0 and file is not None and file.exists():
        saved = load_file(file)
        if {name: leaf.shape for name, leaf in saved.items()} != dict(zip(names(tree), shapes(tree), strict=True)):
            raise ValueError(
                f"{file}: got the parameters of another network, allowed: this one's; give another --checkpoint"
            )
        tree = jax.tree.unflatten(jax.tree.structure(tree), [saved[name] for name in names(tree)])
    tree = multihost_utils.broadcast_one_to_all(tree)
    return int(tree["step"]), tree["state"]


def train(steps: int, file: Path | None, every: int) -> None:
    processes, process = jax.process_count(), jax.process_index()
    mesh = Mesh(np.array(jax.devices()), (AXIS,), axis_types=(AxisType.Auto,))
    rows, shared = PartitionSpec(AXIS), PartitionSpec()
    together = jax.jit(
        jax.shard_map(
            functools.partial(train_step, axis_name=AXIS),
            mesh=mesh,
            in_specs=(shared, shared, rows, rows, rows),
            out_specs=shared,
        )
    )
    alone = jax.jit(train_step)
    distributed.alike(shapes=(CHANNELS, CLASSES, IMAGES, SIZE), rate=RATE, steps=steps)
    first, state = restore(file)
    mine = slice(process * IMAGES, (process + 1) * IMAGES)
    for step in range(first, steps):
        whole = batch(step, processes)
        parts = distributed.global_batch(tuple(array[mine] for array in whole), NamedSharding(mesh, rows))
        result = jax.tree.map(lambda value: np.asarray(value.addressable_data(0)), together(*state, *parts))
        if process == 0:
            apart = max(map(_apart, jax.tree.leaves(result), jax.tree.leaves(alone(*state, *whole))))
            print(f"step {step:3}   loss {result[2]:.4f}   apart {apart:.1e}", flush=True)
            if not apart <= 1e-5:  # float32 sums in another order, through two convolutions
                raise ArithmeticError(f"step {step}: got a difference of {apart:.1e}, allowed: 1e-5")
        state = result[:2]
        if process == 0 and file is not None and (step + 1) % every == 0:
            save(file, step + 1, state)


def _apart(value: Any, expected: Any) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(value - expected).max() / np.abs(expected).max())


def launch(processes: int, more: list[str]) -> int:
    """Starts the processes on this machine; the exit code of the first that fails, or 0."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    common = [sys.executable, __file__, "--coordinator", coordinator, "--process-count", str(processes)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    children = [
        subprocess.Popen([*common, "--process-id", str(number), *more], env=environment) for number in range(processes)
    ]
    try:
        while (codes := [child.poll() for child in children]).count(0) < processes:
            failed = [code for code in codes if code]
            if failed:
                return failed[0]
            time.sleep(0.1)
        return 0
    finally:
        for child in children:
            child.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, metavar="N", help="start N processes on this machine")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens; all are given the same")
    parser.add_argument("--process-count", type=int, metavar="N")
    parser.add_argument("--process-id", type=int, metavar="I", help="0 to N - 1")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="save there, and go on from what is there")
    parser.add_argument("--checkpoint-every", type=int, default=5, metavar="STEPS")
    options = parser.parse_args()
    for name in ("processes", "checkpoint_every"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')}: got {value}, allowed: 1 and more")
    cluster = (options.coordinator, options.process_count, options.process_id)
    if options.processes is not None and cluster == (None, None, None):
        more = ["--steps", str(options.steps), "--checkpoint-every", str(options.checkpoint_every)]
        return launch(
            options.processes, more + (["--checkpoint", str(options.checkpoint)] if options.checkpoint else [])
        )
    if options.processes is not None or None in cluster:
        parser.error("give either --processes, or --coordinator, --process-count and --process-id")
    file = options.checkpoint and options.checkpoint / "train.safetensors"
    with distributed.joined(*cluster, heartbeat_timeout=20, collective_timeout=60):
        train(options.steps, file, options.checkpoint_every)
    return 0


if __name__ == "__main__":
    sys.exit(main())
