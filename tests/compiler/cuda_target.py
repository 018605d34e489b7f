"""Models compiled for a GPU that is not there. `make test-cuda-aot` runs this: what it needs takes four gigabytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import tf_keras

from stablenorm import compiler, ops
from stablenorm.compiler.cost import cost_of
from stablenorm.compiler.devices import device_for
from stablenorm.compiler.targets import TARGETS, find_target

OPTIONS: Any = {"input_shape": (32, 224, 224, 3), "target": "cuda", "topology": "h200"}


@pytest.fixture(scope="module")
def resnet(randomised: Callable[[Any], Any]) -> Any:
    return randomised(tf_keras.applications.ResNet50(weights=None))


@pytest.fixture(scope="module")
def folded(resnet: Any) -> compiler.Executable:
    return compiler.compile(resnet, **OPTIONS)


def test_every_convolution_takes_its_bias_and_activation(folded: compiler.Executable) -> None:
    assert folded.report.folded == folded.report.total == 53
    hlo = folded.hlo()
    assert hlo.count('custom_call_target="__cudnn$convBiasActivationForward"') == 53
    assert hlo.count('custom_call_target="__cudnn$conv') == 53


@pytest.mark.parametrize("batch", [1, 8, 32])
def test_it_moves_six_tenths_of_what_stock_xla_moves(batch: int, resnet: Any) -> None:
    """Weights are arguments of both, and a fifth of all at batch 1."""
    options = OPTIONS | {"input_shape": (batch, 224, 224, 3)}
    stock = compiler.compile(resnet, passes="import-cleanup", **options)
    assert compiler.compile(resnet, **options).cost().bytes_accessed <= 0.6 * stock.cost().bytes_accessed


def test_folding_alone_saves_four_tenths(folded: compiler.Executable, resnet: Any) -> None:
    """The other passes do for the unfolded network what they can."""
    unfolded = compiler.compile(resnet, fold=False, **OPTIONS)
    assert folded.cost().bytes_accessed <= 0.6 * unfolded.cost().bytes_accessed


def test_no_call_prepares_a_kernel_and_the_rest_is_pooling_slices_and_the_head(folded: compiler.Executable) -> None:
    assert not re.search(r"wrapped_transpose|transpose\(", folded.hlo())
    assert folded.cost().fusions <= 7  # two poolings, three slices, a matrix product, a softmax


def test_mobilenet_moves_six_tenths_of_what_stock_xla_moves(randomised: Callable[[Any], Any]) -> None:
    """Depthwise convolutions, their biases and activations are one loop each."""
    mobilenet = randomised(tf_keras.applications.MobileNetV2(weights=None))
    folded = compiler.compile(mobilenet, **OPTIONS)
    stock = compiler.compile(mobilenet, passes="import-cleanup", **OPTIONS)
    assert folded.report.folded == folded.report.total == 52
    assert folded.cost().bytes_accessed <= 0.6 * stock.cost().bytes_accessed


def batch_norm(x: Any, scale: Any, offset: Any, axis: int) -> Any:
    zero, one = jnp.zeros_like(scale), jnp.ones_like(scale)
    return ops.batch_norm(x, scale, offset, zero, one, training=True, axis=axis)


def batch_norm_step(x: Any, scale: Any, offset: Any, grad_output: Any, axis: int) -> Any:
    y, pull = jax.vjp(lambda *operands: batch_norm(*operands, axis)[0], x, scale, offset)
    return y, pull(grad_output)


# As in ResNet-50, beyond 100 MB in half types; the minor run of the last is short.
SHAPES = {(256, 56, 56, 64): 3, (512, 14, 14, 1024): 3, (1024, 7, 7, 2048): 3}
SHAPES |= {(256, 64, 56, 56): 1, (512, 1024, 14, 14): 1, (1024, 2048, 7, 7): 1}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_training_moves_what_it_must(shape: tuple[int, ...], dtype: str) -> None:
    """Forward x is read twice and y written; backward both inputs are read twice and one written."""
    device = jax.sharding.SingleDeviceSharding(device_for(find_target("cuda", "h200")))
    axis = SHAPES[shape]
    x = jax.ShapeDtypeStruct(shape, dtype, sharding=device)
    vector = jax.ShapeDtypeStruct((shape[axis],), "float32", sharding=device)
    size = x.size * x.dtype.itemsize
    for function, operands, passes in ((batch_norm, (), 3), (batch_norm_step, (x,), 8)):
        traced = jax.jit(function, static_argnames="axis").trace(x, vector, vector, *operands, axis=axis)
        cost = cost_of(traced.lower(lowering_platforms=("cuda",)).compile())
        assert cost.bytes_accessed <= 1.05 * passes * size, function.__name__


@pytest.mark.usefixtures("libtpu")
def test_one_model_is_compiled_for_every_platform() -> None:
    """The module that the pipeline leaves for one platform is taken by XLA for the others too."""
    model = tf_keras.Sequential(
        [
            tf_keras.layers.Input((16, 16, 3)),
            tf_keras.layers.Conv2D(8, 3, padding="same"),
            tf_keras.layers.BatchNormalization(),
            tf_keras.layers.ReLU(),
            tf_keras.layers.DepthwiseConv2D(3, strides=2),
        ]
    )
    pipelines = [target.pipeline for target in TARGETS.values()]
    for target, topology in (("cpu", None), ("cuda", "h200"), ("tpu", "v5e:2x2")):
        for passes in pipelines:
            options: Any = {"input_shape": (8, 16, 16, 3), "target": target, "topology": topology}
            assert compiler.compile(model, passes=passes, **options).cost().bytes_accessed > 0


def test_it_is_saved_and_loaded_and_says_that_there_is_no_gpu(folded: compiler.Executable, tmp_path: Path) -> None:
    folded.save(str(tmp_path / "out"))
    loaded = compiler.load(tmp_path / "out")
    assert loaded.target == folded.target
    assert loaded.cost() == folded.cost()
