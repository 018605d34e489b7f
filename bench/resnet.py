"""ResNet-50 in plain JAX, with batch norm as an argument: collectives are counted in it, and devices measured by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any
# y and the new moving statistics of x, by scale, offset and the old ones.
BatchNorm = Callable[..., tuple[Array, Array, Array]]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution with the batch norm after it."""

    size: int
    inputs: int
    outputs: int
    stride: int = 1
    groups: int = 1

    def convolve(self, x: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
        )

    def parameters(self) -> dict[str, jax.ShapeDtypeStruct]:
        shape = (self.size, self.size, self.inputs // self.groups, self.outputs)
        vector = jax.ShapeDtypeStruct((self.outputs,), np.float32)
        return {"kernel": jax.ShapeDtypeStruct(shape, np.float32), "scale": vector, "offset": vector}


Block = tuple[tuple[Layer, Layer, Layer], Layer | None]


def blocks() -> Iterator[Block]:
    """The sixteen residual blocks; the first of each stage has a projection."""
    inputs = 64
    for stage, repeats in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(repeats):
            stride = 2 if block == 0 and stage > 0 else 1
            main = (Layer(1, inputs, width), Layer(3, width, width, stride), Layer(1, width, 4 * width))
            yield main, Layer(1, inputs, 4 * width, stride) if block == 0 else None
            inputs = 4 * width


def layers() -> list[Layer]:
    """All 53, in the order in which `logits` reads their parameters."""
    order = [Layer(7, 3, 64, 2)]
    for main, projection in blocks():
        order += [*main, *([projection] if projection else [])]
    return order


def convolutions(batch_norm: BatchNorm, params: Any, moving: Any) -> tuple[Callable[[Array, Layer], Array], list[Any]]:
    """What computes each next layer with its batch norm, and where the new moving statistics are put."""
    new: list[Any] = []
    weights, old = iter(params["layers"]), iter(moving)

    def convolve(x: Array, layer: Layer) -> Array:
        own = next(weights)
        y, *statistics = batch_norm(layer.convolve(x, own["kernel"]), own["scale"], own["offset"], *next(old))
        new.append(tuple(statistics))
        return y

    return convolve, new


def logits(batch_norm: BatchNorm, params: Any, moving: Any, images: Array) -> tuple[Array, Any]:
    """The scores of a batch, and the new moving statistics."""
    convolve, new = convolutions(batch_norm, params, moving)
    first, *_ = layers()
    x = jax.nn.relu(convolve(images, first))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    for main, projection in blocks():
        y = x
        for layer in main[:2]:
            y = jax.nn.relu(convolve(y, layer))
        y = convolve(y, main[2])
        x = jax.nn.relu(y + (convolve(x, projection) if projection else x))
    return x.mean((1, 2)) @ params["dense"], new


def loss(batch_norm: BatchNorm, params: Any, moving: Any, images: Array, labels: Array) -> tuple[Array, Any]:
    """The mean cross entropy of a batch, and the new moving statistics."""
    found, new = logits(batch_norm, params, moving, images)
    return -jnp.take_along_axis(jax.nn.log_softmax(found), labels[:, None], 1).mean(), new


def shapes() -> tuple[Any, Any]:
    """Types of the parameters and the moving statistics."""
    return shapes_of(layers())


def shapes_of(order: Sequence[Layer]) -> tuple[Any, Any]:
    """Types of the parameters and the moving statistics of these layers and a dense one to a thousand classes."""
    params = {
        "layers": [layer.parameters() for layer in order],
        "dense": jax.ShapeDtypeStruct((order[-1].outputs, 1000), np.float32),
    }
    return params, [(each["scale"], each["scale"]) for each in params["layers"]]
