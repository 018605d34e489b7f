"""What synchronized batch norm sends in a training step of ResNet-50, read from optimized HLO, beside others' formulas.

On eight CPU devices, and, where ``libtpu`` is installed, compiled ahead of time for eight TPUs.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bench import resnet
from stablenorm.compiler.tables import text_table
from stablenorm.ops import batch_norm

AXIS = "replica"
COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
BYTES = {"f64": 8, "f32": 4, "bf16": 2, "f16": 2}


def train_step(params: Any, moving: Any, images: Any, labels: Any) -> Any:
    norm = functools.partial(batch_norm, training=True, axis_name=AXIS)
    (value, new), gradients = jax.value_and_grad(functools.partial(resnet.loss, norm), has_aux=True)(
        params, moving, images, labels
    )
    params = jax.tree.map(lambda weight, slope: weight - 0.1 * slope, params, gradients)
    return params, new, jax.lax.pmean(value, AXIS)


def collectives(devices: np.ndarray[Any, Any], per_device: int = 4, size: int = 64) -> list[tuple[str, int]]:
    """Kind and payload bytes of each collective in the compiled step, on so many images a device."""
    mesh = Mesh(devices, (AXIS,), axis_types=(AxisType.Auto,) * devices.ndim)
    rows, shared = PartitionSpec(AXIS), PartitionSpec()
    step = jax.shard_map(
        train_step, mesh=mesh, in_specs=(shared, shared, rows, rows), out_specs=(shared, shared, shared)
    )
    images = jax.ShapeDtypeStruct((devices.size * per_device, size, size, 3), np.float32)
    labels = jax.ShapeDtypeStruct(images.shape[:1], np.int32)

    def placed(tree: Any, spec: PartitionSpec) -> Any:
        sharding = NamedSharding(mesh, spec)
        return jax.tree.map(lambda each: jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=sharding), tree)

    arguments = (*placed(resnet.shapes(), shared), *placed((images, labels), rows))
    text = jax.jit(step).lower(*arguments).compile().as_text()
    return [(kind, _bytes(types)) for types, kind in COLLECTIVE.findall(text)]


def _bytes(types: str) -> int:
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", types)
    return sum(BYTES[kind] * math.prod(int(size) for size in sizes.split(",") if size) for kind, sizes in arrays)


def formulas(replicas: int) -> list[tuple[str, str, str]]:
    """What others send for the same 53 batch norms, collectives and bytes that each replica receives."""
    channels = [layer.outputs for layer in resnet.layers()]
    layers, total = len(channels), sum(channels)
    sent = {
        "stablenorm: 2C + 1 float64, 2C float32": (2 * layers, 8 * (2 * total + layers) + 8 * total),
        "Flax: 2C, 3C float32": (2 * layers, 20 * total),
        "torch: gathers 2C + 1 of each replica, 2C, and 2C with the other gradients": (
            2 * layers,
            4 * replicas * (2 * total + layers) + 16 * total,
        ),
        "tf_keras: C three times, C twice": (5 * layers, 20 * total),
    }
    return [(name, str(count), f"{size:,}") for name, (count, size) in sent.items()]


def tpu_devices(topology: str = "v5e:2x4") -> np.ndarray[Any, Any] | None:
    """Descriptions of TPUs to compile for; None where ``libtpu`` is not installed."""
    if importlib.util.find_spec("libtpu") is None:
        return None
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU to ask
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    return np.array(devices).reshape(-1)


def main() -> None:
    """Prints what is sent, as compiled and by formula."""
    jax.config.update("jax_num_cpu_devices", 8)
    rows = []
    for name, devices in (("8 CPU devices", np.array(jax.devices("cpu")[:8])), ("TPU v5e:2x4", tpu_devices())):
        if devices is None:
            rows.append((name, "libtpu is not installed", ""))
            continue
        found = collectives(devices)
        # The gradients of all convolutions are sent together, in arrays of megabytes.
        small = [size for _, size in found if size < 1 << 20]
        rows.append((f"{name}: collectives of a training step", str(len(found)), ""))
        rows.append((f"{name}: those of less than a megabyte", str(len(small)), f"{sum(small):,}"))
    print(text_table(("ResNet-50, 53 batch norms", "collectives", "bytes"), [*rows, *formulas(8)]))
