"""EfficientNet-Lite0 in tf_keras, with the trained weights of a PyTorch checkpoint.

Tan and Le, "EfficientNet", 2019, in its form without squeeze-and-excitation and with ReLU6. Layers are named as the
checkpoint names them, without its leading underscores, which TensorFlow takes in no name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tf_keras

Arrays = Mapping[str, np.ndarray[Any, Any]]
layers = tf_keras.layers
# Where a stage that halves the image begins. Everything else about a block can be read off its weights.
HALVING_BLOCKS = (1, 3, 5, 11)
BLOCKS = 16


def efficientnet_lite0(weights: Arrays) -> Any:
    """Logits of 1000 classes, for images (rows, 224, 224, 3) of values from -1 to 1, at a batch size of 1.

    Raises:
        KeyError: a weight is missing.
        ValueError: a weight has another shape, or is left over.
    """
    weights = {re.sub(r"\b_", "", name): value for name, value in weights.items()}
    image = tf_keras.Input((224, 224, 3), name="image")
    x = _normalized(layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="conv_stem")(image), "bn0")
    for number in range(BLOCKS):
        x = _block(x, f"blocks.{number}.", 2 if number in HALVING_BLOCKS else 1, weights)
    x = _normalized(layers.Conv2D(1280, 1, use_bias=False, name="conv_head")(x), "bn1")
    x = layers.GlobalAveragePooling2D()(x)
    model = tf_keras.Model(image, layers.Dense(1000, name="fc")(x))
    _load(model, weights)
    return model


def _block(x: Any, name: str, strides: int, weights: Arrays) -> Any:
    """Expansion, depthwise convolution and projection; the sum with the block's input where shapes allow it."""
    y = x
    if f"{name}expand_conv.weight" in weights:
        filters = len(weights[f"{name}expand_conv.weight"])
        y = _normalized(layers.Conv2D(filters, 1, use_bias=False, name=f"{name}expand_conv")(y), f"{name}bn0")
    size = weights[f"{name}depthwise_conv.weight"].shape[2:]
    options = {"strides": strides, "padding": "same", "use_bias": False, "name": f"{name}depthwise_conv"}
    y = _normalized(layers.DepthwiseConv2D(size, **options)(y), f"{name}bn1")
    filters = len(weights[f"{name}project_conv.weight"])
    y = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}project_conv")(y)
    y = layers.BatchNormalization(epsilon=1e-3, name=f"{name}bn2")(y)
    return layers.Add()([x, y]) if x.shape == y.shape else y


def _normalized(x: Any, name: str) -> Any:
    return layers.ReLU(6.0)(layers.BatchNormalization(epsilon=1e-3, name=name)(x))


def _load(model: Any, weights: Arrays) -> None:
    left = {name for name in weights if not name.endswith("num_batches_tracked")}
    for layer in model.layers:
        names = [f"{layer.name}.{part}" for part in _parts(layer)]
        layer.set_weights([_in_order_of_keras(layer, weights[name]) for name in names])
        left.difference_update(names)
    if left:
        raise ValueError(f"weights: got {sorted(left)}, which no layer takes")


def _parts(layer: Any) -> Iterator[str]:
    """PyTorch's names of a layer's weights, in the order of `set_weights`."""
    if isinstance(layer, layers.BatchNormalization):
        yield from ("weight", "bias", "running_mean", "running_var")
    elif layer.weights:
        yield from ("weight", "bias")[: len(layer.weights)]


def _in_order_of_keras(layer: Any, weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """From (outputs, inputs, height, width); each output of a depthwise kernel is a channel of its own to tf_keras."""
    if weight.ndim == 4:
        return weight.transpose((2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0))
    return weight.T
