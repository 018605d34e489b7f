"""Questions that patterns ask of the IR before they act."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import integers, product, shape_of
from stablenorm.passes.dtypes import dtype_of
from stablenorm.passes.weights import Weights


def single_use(value: ir.Value) -> bool:
    uses = iter(value.uses)
    return next(uses, None) is not None and next(uses, None) is None


def defining_op(value: ir.Value) -> ir.OpView | None:
    """The operation that computes ``value``; None for an argument of a function or a block."""
    return None if isinstance(value.owner, ir.Block) else value.owner.opview


def splat_number(value: ir.Value) -> float | None:
    """The number that a floating-point constant repeats, broadcast or converted; None where it is not one."""
    op = defining_op(value)
    if isinstance(op, hlo.BroadcastInDimOp | hlo.ReshapeOp):
        return splat_number(op.operand)
    if isinstance(op, hlo.ConvertOp):
        number, dtype = splat_number(op.operand), dtype_of(op.result.type)
        return None if number is None or dtype is None else float(np.array(number).astype(dtype))
    if not isinstance(op, hlo.ConstantOp) or not isinstance(op.attributes["value"], ir.DenseFPElementsAttr):
        return None
    elements = op.attributes["value"]
    return ir.FloatAttr(elements.get_splat_value()).value if elements.is_splat else None


def axis_before_reshape(before: Sequence[int], after: Sequence[int], axis: int) -> int | None:
    """The dimension of ``before`` that a reshape carries, whole and alone, to dimension ``axis`` of ``after``."""
    for candidate in reversed(range(len(before))):
        if before[candidate] == after[axis] and product(before[:candidate]) == product(after[:axis]):
            return candidate
    return None


def owner_name(name: str | None) -> str | None:
    """The layer that a weight belongs to: ``conv1/kernel`` and ``conv1.weight`` belong to ``conv1``."""
    return name and (re.split(r"[/.](?=[^/.]*$)", name)[0] or name)


def layer_name(operation: ir.OpView, weights: Weights, *parameters: ir.Value) -> str:
    """What to call an operation in a remark: the owner of the first parameter that is a weight, else its location."""
    owners = (owner_name(weights.first_name(parameter)) for parameter in parameters if weights.is_weight(parameter))
    return next(filter(None, owners), None) or location_name(operation.location) or operation.operation.name


def location_name(location: object) -> str | None:
    """The layer that a named location speaks of: a framework names it ``<model>/<layer>/<operation>``."""
    if isinstance(location, ir.NameLoc):
        *outer, operation = location.name_str.split("/")
        layers = [name for name in outer if "(" not in name]  # JAX's jit(f)
        return "/".join(layers) if layers else None if outer else operation
    if isinstance(location, ir.FusedLoc):
        return next((name for name in map(location_name, location.locations) if name), None)
    return None


def where(operation: ir.OpView) -> str:
    """The operation's location, without MLIR's ``loc(...)`` around it."""
    text = str(operation.location)
    return text.removeprefix("loc(").removesuffix(")").replace('"', "")


def windowed_dims(op: hlo.ReduceWindowOp) -> frozenset[int]:
    """The dimensions that a window moves along, or that it pads, thins or dilates."""
    rank = len(shape_of(op.operands[0]))
    found = {d for d, size in enumerate(integers(op, "window_dimensions")) if size != 1}
    for name in ("window_strides", "base_dilations", "window_dilations"):
        if name in op.attributes:
            found |= {d for d, size in enumerate(integers(op, name)) if size != 1}
    if "padding" in op.attributes:
        found |= {d for d, pair in enumerate(np.array(op.attributes["padding"]).reshape(rank, 2)) if pair.any()}
    return frozenset(found)


def reducer(op: ir.OpView) -> str | None:
    """The one operation of a reduction's body, on its two arguments; None where it is anything else."""
    block = op.regions[0].blocks[0]
    operations = list(block.operations)
    inner, end = operations[0], operations[-1]
    if set(inner.operands) != set(block.arguments) or list(end.operands) != list(inner.results):
        return None
    return str(inner.operation.name)


def gathered_whole(op: hlo.GatherOp) -> dict[int, int]:
    """The dimensions of a gather's operand that it takes whole, and where they are in its result."""
    numbers, sizes = hlo.GatherDimensionNumbers(op.dimension_numbers), integers(op, "slice_sizes")
    dropped = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [dim for dim in range(len(sizes)) if dim not in dropped]
    places = dict(zip(kept, numbers.offset_dims, strict=True))
    return {dim: place for dim, place in places.items() if sizes[dim] == shape_of(op.operand)[dim]}
