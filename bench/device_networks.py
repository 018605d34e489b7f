"""ResNet-50 and MobileNetV2 in inference on a device: batch norms folded, kept, and under ``jit`` as they are written.

Weights are arguments and lie on the device, images too, results stay there: a time is that of the computation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bench import mobilenet, resnet
from bench.device_timing import Start, Wait, guarded, medians
from stablenorm import compiler
from stablenorm.ops import batch_norm

NETWORKS: dict[str, Any] = {"ResNet-50": resnet, "MobileNetV2": mobilenet}
FOLDED, KEPT, STOCK = "folded", "kept", "jit"
# What JAX calls the platform of a GPU, and the target's name.
_TARGETS = {"gpu": "cuda"}


class Record(NamedTuple):
    """Median milliseconds of a call, and how far its result is from that under ``jit``, over the largest score.

    Convolutions in float32 may be rounded to TF32 or bfloat16 by the device: what is folded is rounded elsewhere.
    """

    network: str
    dtype: str
    batch: int
    way: str
    milliseconds: float
    difference: float


def measure(
    name: str, batch: int, size: int, dtype: str, rounds: int, left_out: Callable[[str, str], None]
) -> Iterator[Record]:
    """A network on so many images of that size; what fails is told to ``left_out``."""
    title = f"{name}, {dtype}"
    found = guarded(lambda: _of(NETWORKS[name], title, batch, size, dtype, rounds, left_out))
    if isinstance(found, str):
        left_out(title, found)
        return
    for way, (seconds, difference) in found.items():
        yield Record(name, dtype, batch, way, 1e3 * seconds, difference)


def _of(
    network: Any, title: str, batch: int, size: int, dtype: str, rounds: int, left_out: Callable[[str, str], None]
) -> dict[str, tuple[float, float]]:
    generator = np.random.default_rng(0)
    params, moving = random_weights(network, generator, dtype)
    images = jax.device_put(generator.normal(size=(batch, size, size, 3)).astype(jnp.dtype(dtype)))
    calls: dict[str, tuple[Start, Wait]] = {}
    for way, make in {STOCK: _stock, KEPT: functools.partial(_ours, fold=False), FOLDED: _ours}.items():
        call = guarded(lambda make=make: make(network, params, moving, images))
        if isinstance(call, str):
            left_out(f"{title}, {way}", call)
        else:
            calls[way] = call, jax.block_until_ready
    seconds = medians(calls, rounds, lambda way, why: left_out(f"{title}, {way}", why))
    scores = {way: np.asarray(jax.tree.leaves(calls[way][0]())[0], np.float64) for way in seconds}
    true = scores.get(STOCK)
    return {way: (seconds[way], math.nan if true is None else _difference(scores[way], true)) for way in seconds}


def _difference(got: Any, true: Any) -> float:
    return float(np.abs(got - true).max() / np.abs(true).max())


def random_weights(network: Any, generator: np.random.Generator, dtype: str) -> Any:
    """Parameters and moving statistics, none of them trivial; kernels in the type, vectors in float32.

    A kernel keeps the variance of what it reads, so that scores are of order one.
    """
    params, moving = network.shapes()

    def kernel(spec: Any) -> Any:
        return (generator.normal(size=spec.shape) / math.sqrt(math.prod(spec.shape[:-1]))).astype(jnp.dtype(dtype))

    def vector(spec: Any, low: float, high: float) -> Any:
        return generator.uniform(low, high, spec.shape).astype(np.float32)

    layers = [
        {
            "kernel": kernel(each["kernel"]),
            "scale": vector(each["scale"], 0.5, 1.5),
            "offset": vector(each["offset"], -0.5, 0.5),
        }
        for each in params["layers"]
    ]
    statistics = [(vector(mean, -0.5, 0.5), vector(variance, 0.5, 1.5)) for mean, variance in moving]
    return {"layers": layers, "dense": kernel(params["dense"])}, statistics


def _scores(network: Any, params: Any, moving: Any, images: Any) -> Any:
    return network.logits(functools.partial(batch_norm, training=False), params, moving, images)[0]


def _stock(network: Any, params: Any, moving: Any, images: Any) -> Start:
    compiled = jax.jit(functools.partial(_scores, network))
    weights = jax.device_put((params, moving))
    return lambda: compiled(*weights, images)


def _ours(network: Any, params: Any, moving: Any, images: Any, fold: bool = True) -> Start:
    platform = jax.default_backend()
    executable = compiler.compile(
        functools.partial(_scores, network),
        params,
        moving,
        images,
        weight_argnums=(0, 1),
        target=_TARGETS.get(platform, platform),
        fold=fold,
    )
    # A call of the executable itself would end with its results in NumPy: they would be copied to the host.
    run, prepared = executable._runnable, executable._prepared
    return lambda: run(images, *prepared)
