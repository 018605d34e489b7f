"""What XLA says that a call costs, and what is counted in its HLO."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec

from stablenorm import compiler
from stablenorm.compiler.cost import cost_of, entry_bytes

X = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)


def test_elementwise_operations_are_one_fusion_that_reads_and_writes_once() -> None:
    cost = compiler.compile(lambda x: jnp.sin(x) * 2 + 1, X).cost()
    assert (cost.fusions, cost.collectives) == (1, {})
    assert cost.argument_bytes == cost.output_bytes == X.nbytes
    assert cost.bytes_accessed == 2 * X.nbytes


def test_fusions_in_a_loop_count_and_those_inside_of_fusions_do_not() -> None:
    def loop(x: Any) -> Any:
        return jax.lax.fori_loop(0, 3, lambda _, y: jnp.sin(y) * 2 + x, x)

    executable = compiler.compile(loop, X)
    assert executable.hlo().count(" fusion(") == executable.cost().fusions >= 1


@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_collectives_are_counted_by_kind(platform: str) -> None:
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4").devices
    mesh = Mesh(np.array(devices if platform == "tpu" else jax.devices("cpu")[:8]), ("i",), axis_types=(AxisType.Auto,))

    def exchanges(x: Any) -> Any:
        return jax.lax.psum(x, "i"), jax.lax.ppermute(x, "i", [(i, (i + 1) % 8) for i in range(8)])

    rows = PartitionSpec("i")
    sharding = jax.sharding.NamedSharding(mesh, rows)
    x = jax.ShapeDtypeStruct((64, 128), np.float32, sharding=sharding)
    step = jax.jit(jax.shard_map(exchanges, mesh=mesh, in_specs=rows, out_specs=(PartitionSpec(), rows)))
    assert cost_of(step.lower(x).compile()).collectives == {"all-reduce": 1, "collective-permute": 1}


def test_a_table_shows_every_number() -> None:
    cost = compiler.compile(lambda x: jnp.sin(x) * 2, X).cost()
    for value in (cost.bytes_accessed, cost.argument_bytes, cost.fusions):
        assert f"{value:,}" in str(cost)


def test_entry_bytes_are_operands_and_results_of_what_runs() -> None:
    hlo = """
%inside (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %n = f32[8]{0} negate(%p)
}

ENTRY %main (a: f32[8], b: bf16[4,2]) -> (f32[8], pred[]) {
  %a = f32[8]{0} parameter(0)
  %b = bf16[4,2]{1,0} parameter(1)
  %f = f32[8]{0} fusion(%a), kind=kLoop, calls=%inside
  %c = (f32[8]{0}, u8[4096]{0}) custom-call(%f, %b), custom_call_target="__cudnn$convForward"
  %g = f32[8]{0} get-tuple-element(%c), index=0
  %w = (f32[2]{0}, u8[2]{0}) fusion(%g), kind=kLoop, calls=%inside
  ROOT %t = (f32[8]{0}) tuple(%g)
}
"""
    fusion, call, tuple_result = 32 + 32, 32 + 16 + 32, 32 + 8 + 2
    assert entry_bytes(hlo) == fusion + call + tuple_result
