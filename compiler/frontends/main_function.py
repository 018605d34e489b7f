"""Edits of ``@main`` that frontends need."""

from __future__ import annotations

from collections.abc import Sequence

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func

from stablenorm.passes.rewriting import find_function, set_arguments
from stablenorm.passes.weights import WEIGHT, weight_names

_ALIAS = "mhlo.input_output_alias"


def find_main(module: ir.Module) -> func.FuncOp:
    """The function ``@main``. Raises LookupError where there is none."""
    main = find_function(module, "main")
    if main is None:
        raise LookupError("the module has no function @main")
    return main


def mark_weights(main: func.FuncOp, names: Sequence[str | None]) -> None:
    """Gives each argument with a name the attribute ``stablenorm.weight``, and puts these behind the inputs."""
    if len(main.arguments) != len(names):
        raise ValueError(f"@main has {len(main.arguments)} arguments, not {len(names)}")
    with main.context:
        marks: list[dict[str, ir.Attribute]] = [
            {} if name is None else {WEIGHT: ir.StringAttr.get(name)} for name in names
        ]
        main.arg_attrs = ir.ArrayAttr.get(list(map(ir.DictAttr.get, marks)))
    weights_last(main)


def weights_last(main: func.FuncOp) -> None:
    """Puts the arguments that are weights behind the inputs; each kind keeps its order."""
    is_weight = [name is not None for name in weight_names(main)]
    order = sorted(range(len(is_weight)), key=is_weight.__getitem__)
    if order == sorted(order):
        return
    block = main.entry_block
    old, attributes = list(block.arguments), list(main.arg_attrs)
    for place in order:
        old[place].replace_all_uses_with(block.add_argument(old[place].type, old[place].location))
    for _ in old:
        block.erase_argument(0)
    with main.context:
        set_arguments(main, [attributes[place] for place in order])


def keep_results(main: func.FuncOp, count: int) -> None:
    """Makes ``@main`` return only its first ``count`` results."""
    block = main.entry_block
    old = block.operations[len(block.operations) - 1]
    with ir.InsertionPoint(old), old.location:
        func.ReturnOp(list(old.operands)[:count])
    old.operation.erase()
    types = main.type
    main.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types.inputs, types.results[:count]))
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
