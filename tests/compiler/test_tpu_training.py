"""What training costs on a TPU, ahead of time, in passes over the activation."""

from __future__ import annotations

import functools
import re

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from stablenorm.compiler.cost import cost_of
from stablenorm.compiler.devices import device_for
from stablenorm.compiler.targets import find_target
from stablenorm.compiler.xla import compile_module
from stablenorm.ops import batch_norm
from tests.passes.pair_steps import module_of

# More than 128 MB: smaller arrays are prefetched, and counted twice.
SHAPES = {
    ("bfloat16", 3): (128, 56, 56, 256),
    ("bfloat16", 1): (128, 256, 56, 56),
    ("float32", 3): (128, 56, 56, 128),
    ("float32", 1): (128, 128, 56, 56),
}


@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize(
    ("dtype", "axis", "floor"), [("bfloat16", 3, 3), ("float32", 1, 3), ("bfloat16", 1, 8), ("float32", 3, 8)]
)
def test_training_moves_what_it_must(dtype, axis, floor):
    """Forward: two reads and a write; the gradient: four reads and a write more."""
    shape, with_gradient = SHAPES[dtype, axis], floor == 8
    module = module_of(shape, dtype, axis, 1e-3, with_gradient)
    compiled = compile_module(module, find_target("tpu", "v5e:2x2"))
    size = np.prod(shape) * np.dtype(getattr(ml_dtypes, dtype, dtype)).itemsize
    assert compiled.cost().bytes_accessed / size <= 1.05 * floor
    entry = compiled.hlo().partition("ENTRY ")[2]
    activation = rf"\[{','.join(map(str, shape))}\]\S* (?:copy|copy-start|transpose|bitcast-convert)\("
    assert not re.search(activation, entry)


@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize(("dtype", "axis", "floor"), [("float32", 3, 3), ("bfloat16", 3, 8), ("float32", 1, 8)])
def test_the_function_moves_what_it_must(dtype, axis, floor):
    shape = SHAPES[dtype, axis]
    on_device = functools.partial(
        jax.ShapeDtypeStruct, sharding=SingleDeviceSharding(device_for(find_target("tpu", "v5e:2x2")))
    )

    def forward(x, scale, offset):
        y, *moving = batch_norm(x, scale, offset, 0 * scale, 0 * scale, training=True, axis=axis)
        return y, moving

    def step(x, scale, offset, grad_output):
        y, pull, moving = jax.vjp(forward, x, scale, offset, has_aux=True)
        return y, pull(grad_output), moving

    x, vector = on_device(shape, dtype), on_device((shape[axis],), "float32")
    operands = (x, vector, vector) if floor == 3 else (x, vector, vector, x)
    compiled = jax.jit(forward if floor == 3 else step).lower(*operands).compile()
    size = np.prod(shape) * np.dtype(getattr(ml_dtypes, dtype, dtype)).itemsize
    assert cost_of(compiled).bytes_accessed / size <= 1.05 * floor
