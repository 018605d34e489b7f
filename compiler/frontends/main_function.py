"""Small edits of ``@main`` that every frontend needs."""

from __future__ import annotations

from collections.abc import Sequence

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func

WEIGHT = "stablenorm.weight"


def find_main(module: ir.Module) -> func.FuncOp:
    """The function ``@main``. Raises LookupError where there is none."""
    for operation in module.body.operations:
        if isinstance(operation, func.FuncOp) and operation.name.value == "main":
            return operation
    raise LookupError("the module has no function @main")


def mark_weights(main: func.FuncOp, first: int, names: Sequence[str]) -> None:
    """Gives the arguments from ``first`` on the attribute ``stablenorm.weight = "<name>"``, one name each."""
    attributes = list(main.arg_attrs) if "arg_attrs" in main.attributes else [ir.DictAttr.get({})] * len(main.arguments)
    for position, name in enumerate(names, first):
        kept = {entry.name: entry.attr for entry in ir.DictAttr(attributes[position])}
        attributes[position] = ir.DictAttr.get({**kept, WEIGHT: ir.StringAttr.get(name)})
    main.arg_attrs = ir.ArrayAttr.get(attributes)


def keep_results(main: func.FuncOp, positions: Sequence[int]) -> None:
    """Makes ``@main`` return only the results at these positions, in this order."""
    block = main.entry_block
    old = block.operations[len(block.operations) - 1]
    values = [old.operands[position] for position in positions]
    results = [main.type.results[position] for position in positions]
    if "res_attrs" in main.attributes:
        attributes = list(ir.ArrayAttr(main.attributes["res_attrs"]))
        main.attributes["res_attrs"] = ir.ArrayAttr.get([attributes[position] for position in positions])
    with ir.InsertionPoint(old), old.location:
        func.ReturnOp(values)
    old.erase()
    main.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(main.type.inputs, results))
