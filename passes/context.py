"""The MLIR context in which every module of stablenorm lives."""

from __future__ import annotations

import jax.interpreters.mlir
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo


def make_context() -> ir.Context:
    """A context with the dialects that JAX itself uses, and with StableHLO's passes registered."""
    hlo.register_stablehlo_passes()
    return jax.interpreters.mlir.make_ir_context()
