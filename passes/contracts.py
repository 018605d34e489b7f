"""What must hold of a module between two stages of a pipeline: None where it does, else one line that says why not."""

from __future__ import annotations

from collections.abc import Iterable

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func

from stablenorm.passes.matching import where
from stablenorm.passes.named_forms import view
from stablenorm.passes.rewriting import functions, operations
from stablenorm.passes.weights import weight_names


def no_batch_norm(module: ir.Module) -> str | None:
    """No batch norm operation is left."""
    return _first(op for op in _all(module) if view(op) is not None)


def no_calls(module: ir.Module) -> str | None:
    """Every helper function is inlined."""
    return _first(op for op in _all(module) if isinstance(op, func.CallOp))


def no_foreign_operations(module: ir.Module) -> str | None:
    """Only ``func`` and ``stablehlo`` are left: no mhlo, chlo, tf or shape operations."""
    allowed = ("func.", "stablehlo.", "sdy.")
    return _first(op for op in _all(module) if not op.operation.name.startswith(allowed))


def weights_are_prepared(module: ir.Module) -> str | None:
    """No function but ``@prepare`` takes a weight."""
    for function in functions(module):
        if function.name.value != "prepare" and any(weight_names(function)):
            return f"@{function.name.value} still takes weights"
    return None


def _all(module: ir.Module) -> Iterable[ir.OpView]:
    return (op for function in functions(module) for op in operations(function))


def _first(offenders: Iterable[ir.OpView]) -> str | None:
    offender = next(iter(offenders), None)
    return None if offender is None else f"{offender.operation.name} is left at {where(offender)}"
