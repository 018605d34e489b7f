"""A compiled model: call it, look at it, save it, load it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend.mlir import ir

from stablenorm.compiler import saving
from stablenorm.compiler.cost import Cost
from stablenorm.compiler.devices import attached_device
from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.report import Report
from stablenorm.compiler.signature import Array, Signature, describe
from stablenorm.compiler.stablehlo_io import copy_module
from stablenorm.compiler.targets import Target, find_target
from stablenorm.compiler.xla import Compiled, compile_module
from stablenorm.passes.dtypes import dtype_of
from stablenorm.passes.rewriting import functions
from stablenorm.passes.weights import weight_names

# Compiles the same model for another batch size.
Specialize = Callable[[int], "Executable"]


@dataclasses.dataclass(eq=False)
class Executable:
    """A model compiled by XLA for one target.

    Call it as the model itself is called: ``executable(x)``, ``executable([a, b])``, ``executable({"a": a})``, or by
    input names, ``executable(a=a)``. NumPy or JAX arrays have the shapes and dtypes of ``signature.inputs``; results
    are NumPy arrays in the structure that the model returns. Where the model leaves the batch size open, a call with
    another one compiles for it, once.

    Attributes:
        signature: the inputs and outputs.
        report: what became of each batch norm.
        target: where it runs.
        weights: the weights by name, as the model had them.
        module: the final module; `stablehlo` prints it.
        donate_inputs: whether results may take the memory of JAX arrays that a call is given.
    """

    signature: Signature
    report: Report
    target: Target
    weights: Mapping[str, Array]
    module: ir.Module
    donate_inputs: bool = False
    _specialize: Specialize | None = None
    _by_batch: dict[int, Executable] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        # For the topology, where the target names one: to look at, not to run.
        self._compiled = self._compile_for(self.target)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Runs the model.

        Raises:
            StablenormError: an input's structure, shape or dtype is not the model's, a weight has no value, or no
                device of the target is attached.
        """
        leaves = self.signature.leaves(arguments, keywords)
        device = attached_device(self.target)  # before another batch size is compiled for
        variant = self._for_batch_of(leaves)
        inputs = [
            jax.device_put(array, device) if isinstance(array, jax.Array) else array
            for array in variant.signature.checked(leaves)
        ]
        outputs = variant._runnable(*inputs, *variant._prepared)
        return self.signature.unflatten([np.asarray(output) for output in outputs])

    def stablehlo(self) -> str:
        """The final module, as StableHLO text."""
        return str(self.module)

    def hlo(self) -> str:
        """What XLA made of it: the optimized HLO, as text."""
        return self._compiled.hlo()

    def cost(self) -> Cost:
        """What a call costs, as XLA reckons: bytes accessed, memory, fusions, collectives. Nothing runs."""
        return self._compiled.cost()

    def save(self, path: str) -> None:
        """Writes a folder with ``module.mlirbc``, ``weights.safetensors`` and ``report.json``, with the cost.

        A folder of an earlier save is replaced, and only when the new one is complete.

        Raises:
            StablenormError: something else stands at ``path``, or the folder cannot be written.
        """
        saved = saving.Saved(self.module, self.signature, self.weights, self.report, self.target)
        saving.save(path, saved, self.cost())

    @functools.cached_property
    def _runnable(self) -> Compiled:
        """What was compiled for a device that is attached."""
        if self.target.topology is None:
            return self._compiled
        return self._compile_for(self.target.attached())

    def _compile_for(self, target: Target) -> Compiled:
        return compile_module(without_prepare(self.module), target, self._donated() if self.donate_inputs else ())

    def _donated(self) -> list[int]:
        """The inputs whose memory fits a result: XLA complains of others."""
        results = [(output.shape, output.dtype) for output in self.signature.outputs]
        donated = []
        for number, spec in enumerate(self.signature.inputs):
            if (spec.shape, spec.dtype) in results:
                results.remove((spec.shape, spec.dtype))
                donated.append(number)
        return donated

    @functools.cached_property
    def _prepared(self) -> list[jax.Array]:
        """What ``@main`` takes after the inputs, computed once from the weights."""
        by_name = {function.name.value: function for function in functions(self.module)}
        taker = by_name.get("prepare", by_name["main"])
        names = [name for name in weight_names(taker) if name is not None]
        missing = [name for name in names if name not in self.weights]
        if missing:
            raise StablenormError(
                f"got no value for the weights {', '.join(missing[:5])}; "
                "give them: compile(..., weights={name: array}), or --weights FILE.safetensors"
            )
        types = [type_ for type_, name in zip(taker.type.inputs, weight_names(taker), strict=True) if name is not None]
        values = [_fitting(name, self.weights[name], type_) for name, type_ in zip(names, types, strict=True)]
        if "prepare" in by_name:
            # Once, in float64: on the CPU, so that every target gets the same weights.
            values = [
                np.asarray(value) for value in compile_module(_only_prepare(self.module), find_target("cpu"))(*values)
            ]
        with jax.enable_x64(True):
            return [jax.device_put(value, attached_device(self.target)) for value in values]

    def _for_batch_of(self, leaves: list[Any]) -> Executable:
        if self._specialize is None:
            return self
        batch = self.signature.batch_of(leaves)
        if batch == self.signature.inputs[0].shape[0]:
            return self
        if batch not in self._by_batch:
            self.signature.with_batch(batch).checked(leaves)
            self._by_batch[batch] = self._specialize(batch)
        return self._by_batch[batch]


def _fitting(name: str, value: Array, type_: ir.Type) -> Array:
    """The value of a weight, which has its type."""
    allowed = describe(dtype_of(type_), ir.RankedTensorType(type_).shape)
    got = describe(value.dtype, value.shape)
    if got != allowed:
        raise StablenormError(f"weight {name!r}: got {got}, allowed {allowed}; give the weights of this model")
    return value


def without_prepare(module: ir.Module) -> ir.Module:
    """What XLA compiles: the module less ``@prepare``."""
    return _keep(module, lambda name: name != "prepare")


def _only_prepare(module: ir.Module) -> ir.Module:
    """The module of ``@prepare`` alone, renamed ``@main`` as XLA expects."""
    kept = _keep(module, lambda name: name == "prepare")
    with module.context:
        next(functions(kept)).attributes["sym_name"] = ir.StringAttr.get("main")
    return kept


def _keep(module: ir.Module, is_kept: Callable[[str], bool]) -> ir.Module:
    copy = copy_module(module)
    for function in list(functions(copy)):
        if not is_kept(function.name.value):
            function.operation.erase()
    return copy
