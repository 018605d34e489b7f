"""Emission of what StableHLO's batch norm operations cannot say: several feature dimensions, weights, any epsilon."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.collectives import ReplicaGroups
from stablenorm.passes.named_forms import Kind, composite_name


def emit_composite(
    kind: Kind,
    operands: Mapping[str, ir.Value],
    results: Sequence[ir.Type],
    epsilon: float,
    axes: Sequence[int],
    body: Callable[[Mapping[str, ir.Value]], Sequence[ir.Value]],
    groups: ReplicaGroups | None = None,
) -> tuple[ir.Value, ...]:
    """``stablehlo.composite "stablenorm.batch_norm_<kind>"`` at the current insertion point.

    ``body`` emits the decomposition, plain StableHLO, into a private function that is added to the module.
    """
    symbol = _decomposition(kind, operands, results, body)
    attributes: dict[str, ir.Attribute] = {
        "epsilon": ir.FloatAttr.get(ir.F64Type.get(), epsilon),
        "feature_indices": ir.DenseI64ArrayAttr.get(list(axes)),
        "operands": ir.ArrayAttr.get([ir.StringAttr.get(name) for name in operands]),
    }
    if groups is not None:
        attributes["replica_groups"] = groups.attribute()
    op = hlo.CompositeOp(
        results,
        list(operands.values()),
        composite_name(kind),
        decomposition=symbol,
        num_composite_regions=0,
        composite_attributes=ir.DictAttr.get(attributes),
    )
    return tuple(op.results)


def _decomposition(
    kind: Kind,
    operands: Mapping[str, ir.Value],
    results: Sequence[ir.Type],
    body: Callable[[Mapping[str, ir.Value]], Sequence[ir.Value]],
) -> str:
    module = ir.InsertionPoint.current.block.owner.operation
    while module.name != "builtin.module":
        module = module.parent
    block = module.regions[0].blocks[0]
    symbol = _free_name(composite_name(kind), block)
    types = [operand.type for operand in operands.values()]
    function = func.FuncOp(symbol, (types, list(results)), visibility="private", ip=ir.InsertionPoint(block))
    with ir.InsertionPoint(function.add_entry_block()):
        func.ReturnOp(list(body(dict(zip(operands, function.arguments, strict=True)))))
    return symbol


def _free_name(wanted: str, block: ir.Block) -> str:
    taken = {ir.StringAttr(op.attributes["sym_name"]).value for op in block if "sym_name" in op.attributes}
    candidates = (wanted if number == 0 else f"{wanted}_{number}" for number in itertools.count())
    return next(name for name in candidates if name not in taken)
