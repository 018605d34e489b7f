"""import-cleanup: whatever a frontend wrote becomes plain StableHLO in one function.

Private helpers are inlined, and composites but for stablenorm's own (`named_forms.py`). ``mhlo.copy`` (TensorFlow wraps
results in it; XLA's GPU plugin refuses it) is dropped, deprecated operations, CHLO and ``mhlo.erf`` become StableHLO,
and reshapes that change nothing go.

Before::

    func.func public @main(%x: tensor<2xf32>) -> tensor<2xf32> {
      %0 = call @relu(%x) : (tensor<2xf32>) -> tensor<2xf32>

After::

    func.func public @main(%x: tensor<2xf32>) -> tensor<2xf32> {
      %0 = stablehlo.maximum %x, %zero : tensor<2xf32>
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.base import Pass, PassContext
from stablenorm.passes.contracts import no_calls, no_foreign_operations
from stablenorm.passes.named_forms import view
from stablenorm.passes.rewriting import copy_with, functions, operations, run_mlir


@dataclasses.dataclass(frozen=True)
class ImportCleanup(Pass):
    """Inlines helpers and rewrites what is not plain StableHLO."""

    name: ClassVar[str] = "import-cleanup"
    ensures = (no_calls, no_foreign_operations)

    def run(self, module: ir.Module, context: PassContext) -> None:
        _inline_calls(module)
        for function in functions(module):
            for op in operations(function):
                _replace(op)
        # Deprecated operations without a successor stay: stablehlo.rng is what TensorFlow writes for random numbers.
        deprecated = "stablehlo-legalize-deprecated-ops{fail-on-unused=false}"
        run_mlir(module, f"symbol-dce,func.func({deprecated},chlo-legalize-to-stablehlo),canonicalize,cse")


def _replace(op: ir.OpView) -> None:
    """Reshapes to the same shape, and what TensorFlow writes in MHLO: copies, an error function that CHLO has too."""
    match op.operation.name:
        case "mhlo.copy":
            value = op.operands[0]
        case "stablehlo.reshape" if op.operands[0].type == op.results[0].type:
            value = op.operands[0]
        case "mhlo.erf":
            place = ir.InsertionPoint(op)
            types = [result.type for result in op.results]
            value = ir.Operation.create("chlo.erf", types, list(op.operands), loc=op.location, ip=place).results[0]
        case _:
            return
    op.results[0].replace_all_uses_with(value)
    op.operation.erase()


def _inline_calls(module: ir.Module) -> None:
    """Callees before callers, so that each body is complete when it is copied."""
    callees = {function.name.value: function for function in functions(module)}
    done: set[str] = set()

    def inline_into(name: str, path: tuple[str, ...]) -> None:
        if name in done:
            return
        if name in path:
            raise ValueError(f"@{name} calls itself: a recursive function cannot be inlined")
        for op in operations(callees[name]):
            callee = _callee(op)
            if callee is not None and callee in callees:
                inline_into(callee, (*path, name))
                _inline(op, callees[callee])
        done.add(name)

    for name in callees:
        inline_into(name, ())


def _callee(op: ir.OpView) -> str | None:
    if isinstance(op, func.CallOp):
        return ir.FlatSymbolRefAttr(op.attributes["callee"]).value
    if (
        op.operation.name == hlo.CompositeOp.OPERATION_NAME and view(op) is None
    ):  # by name: `hlo` exports a subclass, which no op is one of
        return ir.FlatSymbolRefAttr(op.attributes["decomposition"]).value
    return None


def _inline(call: ir.OpView, callee: func.FuncOp) -> None:
    """Copies the callee's body to the place of the call."""
    values: dict[ir.Value, ir.Value] = dict(zip(callee.arguments, call.operands, strict=True))
    *body, terminator = callee.entry_block.operations
    for op in body:
        copy_with(op, values, ir.InsertionPoint(call))
    for result, value in zip(call.results, terminator.operands, strict=True):
        result.replace_all_uses_with(values[value])
    call.operation.erase()
