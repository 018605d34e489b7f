"""StableHLO in and out of files: text, MLIR bytecode, portable artifacts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.compiler.diagnostics import StablenormError, first_line

_BYTECODE = b"ML\xefR"


def read_module(data: bytes, name: str, context: ir.Context) -> ir.Module:
    """The module in ``data``: StableHLO text, MLIR bytecode or a portable artifact. ``name`` is for messages.

    Raises:
        StablenormError: it is empty, or no valid module.
    """
    if not data.strip():
        raise StablenormError(f"{name}: got an empty file, allowed: StableHLO as text, bytecode or portable artifact")
    try:
        if data.startswith(_BYTECODE):
            return _read_bytecode(data, context)
        with context:
            return ir.Module.parse(data.decode(), context)
    except UnicodeDecodeError:
        raise StablenormError(
            f"{name}: got neither text nor MLIR bytecode, allowed: StableHLO in one of them"
        ) from None
    except (ir.MLIRError, ValueError, MemoryError) as error:
        told = first_line(error).replace('"-":0:0: ', "").replace('"-":', "line ")  # MLIR calls every text "-"
        raise StablenormError(f"{name}: got no valid StableHLO module: {told}") from error


def portable_artifact(module: ir.Module) -> bytes:
    """The module as a portable artifact in StableHLO's current version.

    Raises:
        StablenormError: something in it is not StableHLO.
    """
    try:
        with module.context, _first_diagnostic_raised(module.context):  # of a copy: serializing changes the module
            return bytes(hlo.serialize_portable_artifact(copy_module(module), hlo.get_current_version()))
    except ValueError as error:
        raise StablenormError(
            f"got a module that is not StableHLO alone: {first_line(error)}; run import-cleanup on it"
        ) from error


def copy_module(module: ir.Module) -> ir.Module:
    """Another module with the same content, in the same context."""
    bytecode = module.operation.get_asm(binary=True)
    assert isinstance(bytecode, bytes)
    return ir.Module.parse(bytecode, module.context)


def _read_bytecode(data: bytes, context: ir.Context) -> ir.Module:
    producer = data[4:].split(b"\0", 1)[0]
    if b"StableHLO" in producer:
        with _first_diagnostic_raised(context):
            return hlo.deserialize_portable_artifact(context, data)
    with context:
        return ir.Module.parse(data, context)


@contextlib.contextmanager
def _first_diagnostic_raised(context: ir.Context) -> Iterator[None]:
    """Portable artifacts are read and written by functions that print what is wrong, and raise that something is."""
    told: list[str] = []

    def hold(diagnostic: ir.Diagnostic) -> bool:
        with contextlib.suppress(RuntimeError):  # broken bytes in it
            told.append(diagnostic.message)
        return True

    handler: Any = context.attach_diagnostic_handler(hold)
    try:
        yield
    except ValueError as error:
        raise ValueError(*told[:1] or error.args) from error
    finally:
        handler.detach()
