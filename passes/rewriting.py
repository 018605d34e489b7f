"""How a pattern is applied: guards first, then one act, and a reason for every decline.

A pattern is a function of one operation that returns the value which replaces the operation's result, or `NoMatch`
with the reason. It emits at the operation's place. It erases nothing: what it leaves without use is removed by
`sweep` when the whole pass is done, so a Python handle never outlives its operation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from jax.extend.mlir import ir, passmanager
from jax.extend.mlir.dialects import func


@dataclasses.dataclass(frozen=True)
class NoMatch:
    """A pattern declined; ``reason`` reads as the end of "was not folded: ..."."""

    reason: str


Op = TypeVar("Op", bound=ir.OpView)


def functions(module: ir.Module) -> Iterator[func.FuncOp]:
    """The functions of a module that have a body."""
    for operation in module.body.operations:
        if isinstance(operation, func.FuncOp) and not operation.is_external:
            yield operation


def find_function(module: ir.Module, name: str) -> func.FuncOp | None:
    """The function ``@name``, if it has a body."""
    return next((function for function in functions(module) if function.name.value == name), None)


def operations(root: ir.OpView | ir.Operation) -> list[ir.OpView]:
    """``root`` and the operations inside it, in program order, inner regions included."""
    found: list[ir.OpView] = []

    def visit(operation: ir.Operation) -> ir.WalkResult:
        found.append(operation.opview)
        return ir.WalkResult.ADVANCE

    root.walk(visit, ir.WalkOrder.PRE_ORDER)
    return found


def operations_of(root: ir.OpView, kind: type[Op]) -> list[Op]:
    """Those of one kind."""
    return [operation for operation in operations(root) if isinstance(operation, kind)]


def rewrite(operation: Op, pattern: Callable[[Op], ir.Value | NoMatch]) -> NoMatch | None:
    """Applies a pattern to an operation with one result; None says that it matched: all uses see the new value."""
    with ir.InsertionPoint(operation), operation.location:
        outcome = pattern(operation)
    if isinstance(outcome, NoMatch):
        return outcome
    operation.results[0].replace_all_uses_with(outcome)
    return None


def rewrite_each(module: ir.Module, kind: type[Op], pattern: Callable[[Op], ir.Value | NoMatch]) -> None:
    """Applies a pattern to every operation of one kind, and erases what that leaves without use."""
    for function in functions(module):
        for operation in operations_of(function, kind):
            rewrite(operation, pattern)
    sweep(module)


def set_arguments(function: func.FuncOp, attributes: Sequence[ir.Attribute]) -> None:
    """Makes a function's type that of its block's arguments, and gives these the attributes."""
    types = ir.FunctionType.get([argument.type for argument in function.arguments], function.type.results)
    function.attributes["function_type"] = ir.TypeAttr.get(types)
    function.arg_attrs = ir.ArrayAttr.get(list(attributes))


def copy_with(op: ir.OpView, values: dict[ir.Value, ir.Value], place: ir.InsertionPoint) -> None:
    """Copies ``op`` to ``place``, reading ``values[v]`` where it read v, inner regions too; notes its results there."""
    copy = op.operation.clone(ip=place)
    for inner in operations(copy):
        for position, operand in enumerate(inner.operands):
            if operand in values:
                inner.operands[position] = values[operand]
    values.update(zip(op.results, copy.results, strict=True))


def copy_as(type_: ir.Type, op: ir.OpView, operands: Sequence[ir.Value], **attributes: ir.Attribute) -> ir.Value:
    """A copy of ``op``, which has one result, of another type: of these operands, and with these attributes."""
    copy = op.operation.clone()
    for name, attribute in attributes.items():
        copy.attributes[name] = attribute
    for position, operand in enumerate(operands):
        copy.operands[position] = operand
    result: ir.Value = copy.results[0]
    result.set_type(type_)
    return result


def sweep(module: ir.Module) -> None:
    """Erases what is without use and without effect."""
    run_mlir(module, "func.func(trivial-dce)")


def run_mlir(module: ir.Module, pipeline: str) -> None:
    """Runs a textual pipeline of MLIR's own passes on a module."""
    passmanager.PassManager.parse(f"builtin.module({pipeline})", module.context).run(module.operation)
