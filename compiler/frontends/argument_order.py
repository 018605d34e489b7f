"""Arguments of a function in another order."""

from __future__ import annotations

from collections.abc import Sequence

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func

from stablenorm.passes.weights import weight_names


def weights_last(main: func.FuncOp) -> None:
    """Puts the arguments that are weights behind the inputs; each kind keeps its order."""
    is_weight = [name is not None for name in weight_names(main)]
    order = sorted(range(len(is_weight)), key=is_weight.__getitem__)
    if order != sorted(order):
        reorder_arguments(main, order)


def reorder_arguments(function: func.FuncOp, order: Sequence[int]) -> None:
    """Makes argument ``order[i]`` the i-th."""
    block = function.entry_block
    old, attributes = list(block.arguments), list(function.arg_attrs)
    for place in order:
        old[place].replace_all_uses_with(block.add_argument(old[place].type, old[place].location))
    for _ in old:
        block.erase_argument(0)
    with function.context:
        types = ir.FunctionType.get([argument.type for argument in block.arguments], function.type.results)
        function.attributes["function_type"] = ir.TypeAttr.get(types)
        function.arg_attrs = ir.ArrayAttr.get([attributes[place] for place in order])
