"""MobileNetV2 in plain JAX, with batch norm as an argument."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

from bench.resnet import Array, BatchNorm, Layer, convolutions, shapes_of

# Of each stage: by how much a block is wider inside, its outputs, how many blocks, the stride of the first.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

Block = list[Layer]


def blocks() -> Iterator[Block]:
    """The seventeen inverted residuals: wider (but for the first), depthwise, narrower."""
    inputs = 32
    for wider, outputs, repeats, first_stride in STAGES:
        for number in range(repeats):
            inside = wider * inputs
            expand = [Layer(1, inputs, inside)] if wider > 1 else []
            stride = first_stride if number == 0 else 1
            yield [*expand, Layer(3, inside, inside, stride, groups=inside), Layer(1, inside, outputs)]
            inputs = outputs


def layers() -> list[Layer]:
    """All 52, in the order in which `logits` reads their parameters."""
    return [Layer(3, 3, 32, 2), *(layer for block in blocks() for layer in block), Layer(1, 320, 1280)]


def logits(batch_norm: BatchNorm, params: Any, moving: Any, images: Array) -> tuple[Array, Any]:
    """The scores of a batch, and the new moving statistics."""
    convolve, new = convolutions(batch_norm, params, moving)
    first, *_, last = layers()
    x = jax.nn.relu6(convolve(images, first))
    for *wide, narrow in blocks():
        y = x
        for layer in wide:
            y = jax.nn.relu6(convolve(y, layer))
        y = convolve(y, narrow)
        x = x + y if x.shape == y.shape else y
    return jax.nn.relu6(convolve(x, last)).mean((1, 2)) @ params["dense"], new


def shapes() -> tuple[Any, Any]:
    """Types of the parameters and the moving statistics."""
    return shapes_of(layers())
