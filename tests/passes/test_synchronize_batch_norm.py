"""A module for one replica, synchronized and run on four, equals one replica on the whole batch."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func
from jax.sharding import PartitionSpec

from stablenorm.compiler.stablehlo_io import portable_artifact
from stablenorm.ops import BatchNormGrad, BatchNormTraining
from stablenorm.passes import make_context
from tests.ops.replicas import AXIS, mesh_of
from tests.passes.modules import run

EPSILON = float(np.float32(1e-3))
REPLICAS = 4


def local_module(weighted):
    """``y, dx, dscale, doffset`` of four rows."""
    weights = [ir.Type.parse("tensor<4x3xf32>")] * weighted
    tensor, vector = ir.Type.parse("tensor<4x3xf32>"), ir.Type.parse("tensor<3xf32>")
    module = ir.Module.create()
    with ir.InsertionPoint(module.body):
        types = [tensor, vector, vector, tensor, *weights]
        main = func.FuncOp("main", (types, [tensor, tensor, vector, vector]))
    with ir.InsertionPoint(main.add_entry_block()):
        x, scale, offset, grad_output, *weight = main.arguments
        y, mean, variance = BatchNormTraining(EPSILON, 1).emit(x, scale, offset, *weight)
        func.ReturnOp([y, *BatchNormGrad(EPSILON, 1).emit(x, scale, mean, variance, grad_output, *weight)])
    return module


def on_replicas(module, x, scale, offset, grad_output, *weight):
    """Rows cut between four devices; each replica's ``dscale`` and ``doffset`` on top of the other's."""

    def local(x, scale, offset, grad_output, *weight):
        return x, x, scale, offset

    specs = [jax.ShapeDtypeStruct((4, 3), np.float32), *[jax.ShapeDtypeStruct((3,), np.float32)] * 2]
    specs += [specs[0]] * (1 + len(weight))
    exported = jax.export.export(jax.jit(local, keep_unused=True))(*specs)
    exported = dataclasses.replace(exported, mlir_module_serialized=portable_artifact(module))
    rows, shared = PartitionSpec(AXIS), PartitionSpec()
    function = jax.shard_map(
        exported.call,
        mesh=mesh_of(REPLICAS),
        in_specs=(rows, shared, shared, rows, *[rows] * len(weight)),
        out_specs=(rows, rows, rows, rows),
        check_vma=False,
    )
    return jax.jit(function)(x, scale, offset, grad_output, *weight)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("groups", [[[0, 1, 2, 3]], [[0, 2], [1, 3]]])
def test_equals_one_replica_on_the_batch_of_its_group(groups, weighted):
    generator = np.random.default_rng(0)
    x = (1e3 + generator.normal(size=(16, 3))).astype(np.float32)
    grad_output = generator.normal(size=x.shape).astype(np.float32)
    scale, offset = generator.normal(size=(2, 3)).astype(np.float32)
    # The third replica counts nothing.
    weight = generator.choice([0.0, 0.5, 1.0], x.shape).astype(np.float32)
    weight[8:12] = 0
    weights = [weight] * weighted
    with make_context(), ir.Location.unknown():
        module = local_module(weighted)
        run(module, f"synchronize-batch-norm{{replica_groups={groups}}},lower-batch-norm".replace(" ", ""))
    y, dx, dscale, doffset = map(np.asarray, on_replicas(module, x, scale, offset, grad_output, *weights))
    rows = np.arange(16).reshape(4, 4)
    for group in groups:
        chosen = rows[group].reshape(-1)
        part = [array[chosen] for array in weights]
        true_y, mean, variance = BatchNormTraining(EPSILON, 1).reference(x[chosen], scale, offset, *part)
        true_dx, *true_gradients = BatchNormGrad(EPSILON, 1).reference(
            x[chosen], scale, mean, variance, grad_output[chosen], *part
        )
        # Float64 rounds at mean ** 2 = 1e6: 2e-10 of a variance that few elements may make as small as 1e-3. Results,
        # and what is sent backward, are rounded to float32.
        tolerance = 3e-7
        for value, truth in ((y[chosen], true_y), (dx[chosen], true_dx)):
            np.testing.assert_allclose(value, truth, rtol=0, atol=tolerance * np.abs(truth).max())
        for value, truth in zip((dscale, doffset), true_gradients, strict=True):
            for replica in group:
                np.testing.assert_allclose(value.reshape(4, 3)[replica], truth, atol=tolerance * np.abs(truth).max())
