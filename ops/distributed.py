"""Several processes that train together: faults end all of them, in a time that is known.

``with joined(...):`` around everything a process does, `alike` once for what all processes must share, `global_batch`
for each batch. Processes wait for each other in every batch norm, so one that fails, or brings another shape, must end
the others too. Each fault ends them within:

- A process raises or is killed: ``heartbeat_timeout``, mostly at once, as its connections close.
- A process is stopped or unreachable: ``heartbeat_timeout`` or ``collective_timeout``, whichever is first. It ends
  itself when it goes on.
- A process lives and never takes part: ``collective_timeout``; itself, another ``heartbeat_timeout`` later. Only on
  CPUs: on other devices nothing here bounds this wait, but `faulthandler.dump_traceback_later(seconds, exit=True)`,
  called again in each step, does.
- A process brings other shapes: at once, by `alike` and `global_batch`. Where neither is called, Gloo ends a process
  that receives more than it expects; the one that receives less goes on with a wrong sum until it meets the closed
  connection.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

TIMEOUT_FLAG = "--xla_cpu_collective_timeout_seconds"


@contextlib.contextmanager
def joined(
    coordinator: str | None = None,
    process_count: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_timeout: int = 30,
    collective_timeout: int = 300,
    initialization_timeout: int = 300,
    shutdown_timeout: int = 60,
) -> Iterator[None]:
    """Joins the processes of one program on entry, leaves them on exit; an exception ends this process at once.

    The exception is printed and the exit code is 1, without the usual end of Python, in which JAX would wait for the
    other processes while they wait for this one. `SystemExit` of 0 is no failure.

    Args:
        coordinator: ``host:port`` of process 0. With the next two left out, as on TPUs or under Slurm, JAX finds them.
        process_count: how many processes there are.
        process_id: which one this is, from 0.
        heartbeat_timeout: seconds without a sign of life after which a process counts as dead, and all end. Heartbeats
            come from a thread of their own: a long compilation does not stop them.
        collective_timeout: seconds that an operation of all processes waits for the last of them (CPU). It must cover
            what one process does alone: a longer compilation, a checkpoint. A value in ``XLA_FLAGS`` comes first.
        initialization_timeout: seconds in which all processes must have started.
        shutdown_timeout: seconds that a process which is done waits for the others to be done.

    Raises:
        ValueError: a timeout that is not a positive int.
        RuntimeError: JAX has already run something in this process.
    """
    limits = {
        "heartbeat_timeout": heartbeat_timeout,
        "collective_timeout": collective_timeout,
        "initialization_timeout": initialization_timeout,
        "shutdown_timeout": shutdown_timeout,
    }
    for name, value in limits.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name}: got {value!r}, allowed: an int of seconds, 1 and more")
    flags = os.environ.get("XLA_FLAGS", "")
    if TIMEOUT_FLAG not in flags:
        # XLA reads it when its devices start; JAX refuses to initialize after that.
        os.environ["XLA_FLAGS"] = f"{flags} {TIMEOUT_FLAG}={collective_timeout}".strip()
    try:
        jax.distributed.initialize(
            coordinator,
            process_count,
            process_id,
            initialization_timeout=initialization_timeout,
            heartbeat_timeout_seconds=heartbeat_timeout,
            shutdown_timeout_seconds=shutdown_timeout,
        )
    except RuntimeError:
        os.environ["XLA_FLAGS"] = flags
        raise
    try:
        try:
            yield
        except SystemExit as done:
            if done.code:
                raise
        jax.distributed.shutdown()
    except BaseException as error:
        _end(error)


def alike(**values: Any) -> None:
    """Raises unless all processes give the same: the same structure, shapes, types and bytes.

    For parameters and moving statistics at the start, and any setting that shapes the program. Every process must call
    it. ``values`` are trees of arrays or numbers.

    Raises:
        ValueError: in every process, with the first difference.
    """
    described = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(values):
        array = np.asarray(leaf)
        content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        described.append(f"{_name(path)} {array.dtype}{array.shape} with the values {content[:16]}")
    _compare("alike", described, "the same in every process")


def global_batch(local: Any, sharding: Sharding) -> Any:
    """One array of all processes' rows: `jax.make_array_from_process_local_data`, after a look at all shapes.

    Unequal rows raise nothing in JAX, and each process then believes in another global shape: what is computed of it
    under plain `jax.jit` is wrong without a word. Every process must call it; it costs one small operation of all
    processes. Where row counts do differ, fill up and mask. (`batch_norm` with ``axis_name`` sends its count and is
    right for unequal rows too; a mean that is taken beside it is not.)

    Args:
        local: a tree of this process's arrays.
        sharding: of each global array.

    Raises:
        ValueError: in every process, where structures, shapes or types differ.
    """
    leaves = jax.tree_util.tree_leaves_with_path(local)
    described = [f"{_name(path)} {leaf.dtype}{leaf.shape}".strip() for path, leaf in leaves]
    _compare("global_batch", described, "equal shapes and types; fill up the shorter batch and mask what it adds")
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), local)


def _compare(name: str, described: list[str], allowed: str) -> None:
    """What is sent has one size in all processes: unequal sizes would break the comparison itself."""
    text = "\n".join(described).encode()
    digest = hashlib.sha256(text).digest()
    every = _gather(digest + len(text).to_bytes(8))
    other = next((process for process, sent in enumerate(every) if sent[:32] != every[0][:32]), None)
    if other is None:
        return
    longest = max(int.from_bytes(sent[32:]) for sent in every)
    texts = [sent.decode().rstrip().split("\n") for sent in _gather(text.ljust(longest))]
    pairs = itertools.zip_longest(texts[0], texts[other], fillvalue="nothing")
    first, second = next((a, b) for a, b in pairs if a != b)
    raise ValueError(f"{name}: got {first} in process 0, {second} in process {other}, allowed: {allowed}")


def _gather(row: bytes) -> list[bytes]:
    gathered = np.asarray(multihost_utils.process_allgather(np.frombuffer(row, np.uint8)))
    return [sent.tobytes() for sent in gathered.reshape(jax.process_count(), len(row))]


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _end(error: BaseException) -> NoReturn:
    traceback.print_exception(error)
    if "Gloo" in str(error):
        did = "did not take part in time" if "Timed out" in str(error) else "ended, or sent another size"
        print(f"Another process {did}: what it printed says why.", file=sys.stderr)
    print("This process ends, and with it all that it was joined with.", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
