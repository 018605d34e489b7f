"""What training costs on a TPU, ahead of time, in passes over the activation."""

from __future__ import annotations

import functools
import re

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.experimental.topologies import get_topology_desc
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

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


def forward(x, scale, offset, axis=-1, axis_name=None):
    y, *moving = batch_norm(x, scale, offset, 0 * scale, 0 * scale, training=True, axis=axis, axis_name=axis_name)
    return y, moving


def step(x, scale, offset, grad_output, axis=-1):
    y, pull, moving = jax.vjp(functools.partial(forward, axis=axis), x, scale, offset, has_aux=True)
    return y, pull(grad_output), moving


@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize(("dtype", "axis", "floor"), [("float32", 3, 3), ("bfloat16", 3, 8), ("float32", 1, 8)])
def test_the_function_moves_what_it_must(dtype, axis, floor):
    shape, device = SHAPES[dtype, axis], device_for(find_target("tpu", "v5e:2x2"))
    on_device = functools.partial(jax.ShapeDtypeStruct, sharding=SingleDeviceSharding(device))
    x, vector = on_device(shape, dtype), on_device((shape[axis],), "float32")
    operands = (x, vector, vector) if floor == 3 else (x, vector, vector, x)
    function = functools.partial(forward if floor == 3 else step, axis=axis)
    compiled = jax.jit(function).lower(*operands).compile()
    assert cost_of(compiled).bytes_accessed / x.size / x.dtype.itemsize <= 1.05 * floor


@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize(("floor", "collectives"), [(3, {"all-gather": 2}), (8, {"all-gather": 2, "all-reduce": 1})])
def test_a_batch_over_four_devices_moves_what_it_must_and_sends_vectors(floor, collectives):
    """Forward one array of float64, which is two of float32 there."""
    mesh, (x, vector) = four_devices((512, 56, 56, 256), 256)
    operands = (x, vector, vector) if floor == 3 else (x, vector, vector, x)
    cost = cost_of(jax.jit(forward if floor == 3 else step).lower(*operands).compile())
    assert cost.bytes_accessed / (x.size * 2 / mesh.size) <= 1.05 * floor
    assert cost.collectives == collectives


@pytest.mark.usefixtures("libtpu")
def test_replicas_move_what_they_must_for_one_all_reduce():
    mesh, (x, vector) = four_devices((512, 56, 56, 256), 256)
    batch, shared = PartitionSpec("d"), PartitionSpec()
    replicas = jax.shard_map(
        functools.partial(forward, axis_name="d"),
        mesh=mesh,
        in_specs=(batch, shared, shared),
        out_specs=(batch, shared),
    )
    cost = cost_of(jax.jit(replicas).lower(x, vector, vector).compile())
    assert cost.bytes_accessed / (x.size * 2 / mesh.size) <= 1.05 * 3
    assert cost.collectives == {"all-reduce": 1}


def four_devices(shape, features):
    """A mesh of four TPUs, and a batch that is spread over them, with a vector that is not."""
    mesh = Mesh(np.array(get_topology_desc("v5e:2x2", platform="tpu").devices).reshape(4), ("d",))
    x = jax.ShapeDtypeStruct(shape, "bfloat16", sharding=NamedSharding(mesh, PartitionSpec("d")))
    return mesh, (x, jax.ShapeDtypeStruct((features,), "float32", sharding=NamedSharding(mesh, PartitionSpec())))
