"""A StableHLO module through XLA, by JAX's public ahead-of-time interface."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.export
import jax.numpy as jnp
from jax.extend.mlir import ir

from stablenorm.compiler.cost import Cost, cost_of
from stablenorm.compiler.devices import device_for
from stablenorm.compiler.diagnostics import StablenormError, first_line
from stablenorm.compiler.stablehlo_io import portable_artifact
from stablenorm.compiler.targets import Target
from stablenorm.passes.dtypes import dtype_of
from stablenorm.passes.rewriting import find_function


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled module: call it on flat arrays, get a list of flat arrays."""

    executable: jax.stages.Compiled

    def __call__(self, *arrays: jax.typing.ArrayLike) -> list[jax.Array]:
        """Raises StablenormError where XLA cannot run it: no memory, for one."""
        try:
            with jax.enable_x64(True):  # otherwise JAX rounds float64 arguments to float32 before the call
                return list(self.executable(*arrays))
        except jax.errors.JaxRuntimeError as error:
            raise StablenormError(f"XLA cannot run the module: {first_line(error)}") from error

    def hlo(self) -> str:
        """XLA's optimized HLO."""
        return str(self.executable.as_text())

    def cost(self) -> Cost:
        """What a call costs, as XLA reckons."""
        return cost_of(self.executable)


def compile_module(module: ir.Module, target: Target, donated: Sequence[int] = ()) -> Compiled:
    """Compiles the one public function of a module; of arguments ``donated``, results may take the memory.

    Raises:
        StablenormError: a tensor has no static shape or no NumPy dtype, XLA refuses the module, or there is no device
            to compile for.
    """
    main = find_function(module, "main")
    assert main is not None, "every pipeline and frontend leaves @main"
    # Named, because JAX would take another device where the machine has one.
    device = jax.sharding.SingleDeviceSharding(device_for(target))
    arguments, results = (_specs(types, device) for types in (main.type.inputs, main.type.results))
    with jax.enable_x64(True):
        # An export of a stand-in with the same types, into which the module is put: the public way to hand XLA a
        # module of one's own. Every argument is kept, read or not.
        stand_in = jax.jit(lambda *_: [jnp.zeros(spec.shape, spec.dtype) for spec in results], keep_unused=True)
        exported = dataclasses.replace(
            jax.export.export(stand_in, platforms=[target.name])(*arguments),
            mlir_module_serialized=portable_artifact(module),
        )
        call = jax.jit(exported.call, keep_unused=True, donate_argnums=tuple(donated))
        try:
            return Compiled(call.lower(*arguments).compile(compiler_options=dict(target.compiler_options)))
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            raise StablenormError(f"XLA cannot compile the module: {first_line(error)}") from error


def _specs(types: Sequence[ir.Type], device: jax.sharding.Sharding) -> list[jax.ShapeDtypeStruct]:
    return [_spec(ir.RankedTensorType(type_), device) for type_ in types]


def _spec(type_: ir.RankedTensorType, device: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    dtype = dtype_of(type_)
    if dtype is None or not type_.has_static_shape:
        raise StablenormError(f"got a tensor of type {type_}, allowed: static shapes, and element types that NumPy has")
    return jax.ShapeDtypeStruct(tuple(type_.shape), dtype, sharding=device)
