"""The device that XLA compiles for: one that is attached, or the description of one that is not."""

from __future__ import annotations

import importlib.resources
import importlib.util
import os

import jax

from stablenorm.compiler.diagnostics import StablenormError, first_line
from stablenorm.compiler.targets import Target


def device_for(target: Target) -> jax.Device:
    """The first device of the target's topology, or, where it names none, the first that is attached.

    Raises:
        StablenormError: the topology is unknown, what compiles for it is not installed, or no device is attached.
    """
    if target.topology is None:
        return attached_device(target)
    return {"tpu": _described_tpu, "cuda": _described_gpu}[target.name](target.topology)


def attached_device(target: Target) -> jax.Device:
    """The first attached device.

    Raises:
        StablenormError: there is none.
    """
    try:
        return jax.devices(target.name)[0]
    except RuntimeError as error:
        raise StablenormError(
            f"target {target.name}: JAX sees no such device on this machine; {_ADVICE[target.name]}"
        ) from error


_ADVICE = {
    "cpu": "name cpu in JAX_PLATFORMS, or leave it unset",
    "tpu": "with a topology, such as v5e:2x2, a model can be compiled, inspected and saved here, and run elsewhere",
    "cuda": "with a topology, such as h200, a model can be compiled, inspected and saved here, and run elsewhere",
}

# What libtpu asks of a cloud's machine where a TPU is attached; it would wait for an answer, and log that none came.
_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several processes may compile; without a TPU none holds it
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def _is_attached(platform: str) -> bool:
    try:
        return bool(jax.devices(platform))
    except RuntimeError:
        return False


def _described_tpu(topology: str) -> jax.Device:
    if importlib.util.find_spec("libtpu") is None:
        raise StablenormError("target tpu: libtpu is not installed; pip install 'stablenorm[tpu]'")
    from jax.experimental import topologies

    if not _is_attached("tpu"):
        os.environ.update(_NO_TPU | os.environ)
    try:
        # An empty name would be one of libtpu's own choice.
        return topologies.get_topology_desc(platform="tpu", topology_name=topology or "none").devices[0]
    except (jax.errors.JaxRuntimeError, RuntimeError) as error:
        raise StablenormError(
            f"topology: got {topology!r}, allowed: what libtpu knows, such as v5e:2x2, v5e:2x4 or v6e:2x2 "
            f"({first_line(error)})"
        ) from error


# What XLA must know of a GPU (its GpuTargetConfig), by name.
_GPUS = importlib.resources.files("stablenorm.compiler") / "gpus"


def _described_gpu(name: str) -> jax.Device:
    allowed = sorted(entry.name.removesuffix(".txtpb") for entry in _GPUS.iterdir())
    if name not in allowed:
        raise StablenormError(f"topology: got {name!r} for the target cuda, allowed: {', '.join(allowed)}")
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        raise StablenormError("target cuda: XLA for CUDA is not installed; pip install 'stablenorm[cuda]'")
    from jax.experimental import topologies

    description = (_GPUS / f"{name}.txtpb").read_text()
    try:
        # One GPU on one machine.
        found = topologies.get_topology_desc(name, platform="cuda", topology="1x1x1", target_config=description)
    except (jax.errors.JaxRuntimeError, RuntimeError, NotImplementedError) as error:
        raise StablenormError(
            f"target cuda: XLA for CUDA does not start ({first_line(error)}); "
            "without a GPU, set JAX_PLATFORMS=cpu before JAX is imported"
        ) from error
    return found.devices[0]
