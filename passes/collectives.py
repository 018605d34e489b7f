"""Traffic between replicas: one array, one all-reduce."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import product, reshape, shape_of, tensor_type
from stablenorm.passes.rewriting import operations


class ReplicaGroups(tuple[tuple[int, ...], ...]):
    """Replicas that share statistics, as StableHLO writes them: ``[[0,1],[2,3]]``. Each stands in one group.

    Raises:
        ValueError: the text is nothing of the kind.
    """

    allowed = "groups of one size that hold each replica's number once, e.g. [[0,1],[2,3]]"

    def __new__(cls, text: str) -> ReplicaGroups:
        rows = json.loads(text)
        if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
            raise ValueError(text)
        numbers = [number for row in rows for number in row]
        integers = all(type(number) is int and number >= 0 for number in numbers)
        if not integers or len(set(numbers)) != len(numbers) or len({len(row) for row in rows}) != 1:
            raise ValueError(text)
        return super().__new__(cls, (tuple(row) for row in rows))

    @classmethod
    def of(cls, attribute: ir.Attribute) -> ReplicaGroups:
        """The groups that `attribute` wrote."""
        return cls(json.dumps(np.array(ir.DenseIntElementsAttr(attribute)).tolist()))

    def attribute(self) -> ir.Attribute:
        rows = [list(row) for row in self]
        return ir.Attribute.parse(f"dense<{rows}> : tensor<{len(rows)}x{len(rows[0])}xi64>")


def add_over_replicas(values: Sequence[ir.Value], groups: ReplicaGroups) -> list[ir.Value]:
    """The sums of several tensors of one element type over each replica's group, sent as one array.

    Replicas are numbered across the whole program: a partitioned program's devices count one by one.
    """
    flat = [reshape(value, [product(shape_of(value))]) for value in values]
    packed = hlo.concatenate(flat, 0)
    element_type = tensor_type(packed).element_type
    op = hlo.AllReduceOp(
        [packed.type],
        [packed],
        groups.attribute(),
        channel_handle=hlo.ChannelHandle.get(_free_channel(), 1),
        use_global_device_ids=True,
    )
    scalar = ir.RankedTensorType.get([], element_type)
    block = op.computation.blocks.append(scalar, scalar)
    with ir.InsertionPoint(block):
        hlo.ReturnOp([hlo.add(*block.arguments)])
    ends = list(itertools.accumulate(product(shape_of(value)) for value in values))
    cuts = zip([0, *ends], ends, values, strict=False)
    return [reshape(hlo.slice(op.results[0], [start], [end], [1]), shape_of(like)) for start, end, like in cuts]


def _free_channel() -> int:
    """A number that no other collective of the module has."""
    module = ir.InsertionPoint.current.block.owner.operation
    while module.parent is not None:
        module = module.parent
    handles = (op.attributes["channel_handle"] for op in operations(module) if "channel_handle" in op.attributes)
    return 1 + max((hlo.ChannelHandle(handle).handle for handle in handles), default=0)
