"""hoist-weights: all arithmetic on weights moves into ``@prepare``, which runs once per set of weights.

``@main(inputs..., weights...)`` becomes ``@main(inputs..., prepared...)`` and ``@prepare(weights...) -> prepared``.
One compiled ``@main`` then serves any weights, and a call pays for no weight arithmetic.

Before::

    func.func public @main(%x: tensor<2x3xf32>, %w: tensor<3xf32> {stablenorm.weight = "w"}) -> tensor<2x3xf32> {
      %s = stablehlo.rsqrt %w : tensor<3xf32>
      %b = stablehlo.broadcast_in_dim %s, dims = [1] : (tensor<3xf32>) -> tensor<2x3xf32>
      %y = stablehlo.multiply %x, %b : tensor<2x3xf32>

After::

    func.func public @prepare(%w: tensor<3xf32> {stablenorm.weight = "w"}) -> tensor<3xf32> {
      %s = stablehlo.rsqrt %w : tensor<3xf32>
    func.func public @main(%x: tensor<2x3xf32>, %s: tensor<3xf32> {stablenorm.prepared = "w"}) -> tensor<2x3xf32> {
      %b = stablehlo.broadcast_in_dim %s, dims = [1] : (tensor<3xf32>) -> tensor<2x3xf32>
      %y = stablehlo.multiply %x, %b : tensor<2x3xf32>

Constants count as weights where arithmetic is done on them. What only repeats a value (a broadcast, a splat constant)
or a part of it stays in ``@main``: it costs nothing there, and a stored copy would cost memory.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, TypeGuard

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Pass, PassContext
from stablenorm.passes.building import is_float, product, shape_of
from stablenorm.passes.contracts import weights_are_prepared
from stablenorm.passes.matching import defining_op
from stablenorm.passes.rewriting import copy_with, find_function, set_arguments, sweep
from stablenorm.passes.weights import WEIGHT, Weights, weight_names

PREPARED = "stablenorm.prepared"


@dataclasses.dataclass(frozen=True)
class HoistWeights(Pass):
    """Splits ``@main`` into ``@prepare``, on weights alone, and a ``@main`` that takes what it prepared."""

    name: ClassVar[str] = "hoist-weights"
    ensures = (weights_are_prepared,)

    def run(self, module: ir.Module, context: PassContext) -> None:
        main = find_function(module, "main")
        if main is None:
            return
        if find_function(module, "prepare") is not None:
            raise ValueError("the module has a function @prepare of its own: rename it")
        weights = Weights(main, context.weights)
        prepared = _frontier(main, weights)
        if not prepared and not weights.arguments:
            return
        with module.context, main.location:
            _emit_prepare(main, weights, prepared)
            _take_prepared(main, weights, prepared)
            sweep(module)
            _drop_weight_arguments(main)


def _frontier(main: func.FuncOp, weights: Weights) -> list[ir.Value]:
    """The weight values that other operations read, each once, in the order of their first use."""
    found: dict[ir.Value, None] = {}
    for op in _split(main, weights)[1]:
        for operand in op.operands:
            value = _without_repetition(operand)
            if weights.is_weight(value) and _is_hoisted(value, weights):
                found[value] = None
    return list(found)


def _split(main: func.FuncOp, weights: Weights) -> tuple[list[ir.OpView], list[ir.OpView]]:
    """The operations that are arithmetic on weights, and the others; inner regions too, except the former's."""
    arithmetic: list[ir.OpView] = []
    others: list[ir.OpView] = []

    def visit(operation: ir.Operation) -> ir.WalkResult:
        is_arithmetic = _is_weight_arithmetic(operation.opview, weights)
        (arithmetic if is_arithmetic else others).append(operation.opview)
        return ir.WalkResult.SKIP if is_arithmetic else ir.WalkResult.ADVANCE

    main.walk(visit, ir.WalkOrder.PRE_ORDER)
    return arithmetic, others


def _is_weight_arithmetic(op: ir.OpView, weights: Weights) -> bool:
    return len(op.results) > 0 and all(weights.is_weight(result) for result in op.results)


def _without_repetition(value: ir.Value) -> ir.Value:
    """What a broadcast repeats, be it only a part of that; without a broadcast, the value."""
    op = defining_op(value)
    if not _repeats(op):
        return value
    while _repeats(op) or isinstance(op, hlo.ReshapeOp | hlo.SliceOp):
        value = op.operand
        op = defining_op(value)
    return value


def _repeats(op: ir.OpView | None) -> TypeGuard[hlo.BroadcastInDimOp]:
    return isinstance(op, hlo.BroadcastInDimOp) and product(shape_of(op.operand)) < product(shape_of(op.result))


def _is_hoisted(value: ir.Value, weights: Weights) -> bool:
    """What is computed from arguments, which ``@main`` loses; of constants, arithmetic on floats that vary."""
    if weights.names(value):
        return True
    is_constant = isinstance(defining_op(value), hlo.ConstantOp)
    return is_float(value) and not is_constant and weights.is_varied(value)


def _emit_prepare(main: func.FuncOp, weights: Weights, prepared: list[ir.Value]) -> None:
    arguments = weights.arguments
    signature = [value.type for value in arguments], [value.type for value in prepared]
    prepare = func.FuncOp("prepare", signature, visibility="public", ip=ir.InsertionPoint(main))
    prepare.arg_attrs = ir.ArrayAttr.get([_named(WEIGHT, name) for name in arguments.values()])
    block = prepare.add_entry_block()
    values: dict[ir.Value, ir.Value] = dict(zip(arguments, block.arguments, strict=True))
    for op in _split(main, weights)[0]:
        copy_with(op, values, ir.InsertionPoint(block))
    func.ReturnOp([values[value] for value in prepared], ip=ir.InsertionPoint(block))


def _take_prepared(main: func.FuncOp, weights: Weights, prepared: list[ir.Value]) -> None:
    """Appends one argument for each prepared value, and makes every reader read it."""
    names = [(weights.names(value) or ["constant"])[0] for value in prepared]
    arguments = [main.entry_block.add_argument(value.type, value.location) for value in prepared]
    for value, argument in zip(prepared, arguments, strict=True):
        value.replace_all_uses_with(argument)
    set_arguments(main, [*main.arg_attrs, *(_named(PREPARED, name) for name in names)])


def _drop_weight_arguments(main: func.FuncOp) -> None:
    kept = [place for place, name in enumerate(weight_names(main)) if name is None]
    block, attributes = main.entry_block, list(main.arg_attrs)
    for place in reversed(range(len(block.arguments))):
        if place not in kept:
            block.erase_argument(place)
    set_arguments(main, [attributes[place] for place in kept])


def _named(attribute: str, name: str) -> ir.Attribute:
    return ir.DictAttr.get({attribute: ir.StringAttr.get(name)})
