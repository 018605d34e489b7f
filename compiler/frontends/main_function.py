"""Edits of ``@main`` that frontends need."""

from __future__ import annotations

from collections.abc import Sequence

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func

from stablenorm.passes.weights import WEIGHT

_ALIAS = "mhlo.input_output_alias"


def find_main(module: ir.Module) -> ir.OpView:
    """The function ``@main``. Raises LookupError where there is none."""
    for operation in module.body.operations:
        if isinstance(operation, func.FuncOp) and ir.StringAttr(operation.attributes["sym_name"]).value == "main":
            main: ir.OpView = operation
            return main
    raise LookupError("the module has no function @main")


def function_type(function: ir.OpView) -> ir.FunctionType:
    """Its type."""
    return ir.FunctionType(ir.TypeAttr(function.attributes["function_type"]).value)


def mark_weights(main: ir.OpView, first: int, names: Sequence[str]) -> None:
    """Gives the arguments from ``first`` on the attribute ``stablenorm.weight = "<name>"``, one name each."""
    inputs = len(function_type(main).inputs)
    if inputs != first + len(names):
        raise ValueError(f"@main has {inputs} arguments, not {first} inputs and {len(names)} weights")
    attributes = [ir.DictAttr.get({})] * first
    attributes += [ir.DictAttr.get({WEIGHT: ir.StringAttr.get(name)}) for name in names]
    main.attributes["arg_attrs"] = ir.ArrayAttr.get(attributes)


def keep_results(main: ir.OpView, count: int) -> None:
    """Makes ``@main`` return only its first ``count`` results."""
    block = main.regions[0].blocks[0]
    old = block.operations[len(block.operations) - 1]
    with ir.InsertionPoint(old), old.location:
        func.ReturnOp(list(old.operands)[:count])
    old.operation.erase()
    kind = function_type(main)
    main.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(kind.inputs, kind.results[:count]))
    if "res_attrs" in main.attributes:
        main.attributes["res_attrs"] = ir.ArrayAttr.get(list(ir.ArrayAttr(main.attributes["res_attrs"]))[:count])


def take_aliased_arguments(module: ir.Module) -> list[int]:
    """The arguments of ``@main`` that XLA lets results overwrite, in order. The module no longer says so."""
    attributes = module.operation.attributes
    if _ALIAS not in attributes:
        return []
    aliases = [ir.DictAttr(entry)["alias"] for entry in ir.ArrayAttr(attributes[_ALIAS])]
    del attributes[_ALIAS]
    return sorted(ir.IntegerAttr(ir.DictAttr(alias)["parameter_number"]).value for alias in aliases)
