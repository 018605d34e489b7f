"""Modules of the tests: parsed, cut to one function, given random numbers, run by XLA and by the interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo
from numpy.typing import NDArray

from stablenorm.compiler import pipeline
from stablenorm.compiler.targets import find_target
from stablenorm.compiler.xla import compile_module
from stablenorm.passes import PassContext, make_context
from stablenorm.passes.dtypes import dtype_of
from stablenorm.passes.rewriting import functions, run_mlir
from stablenorm.passes.weights import weight_names

Array = NDArray[Any]


def parse(text: str) -> ir.Module:
    return ir.Module.parse(text, make_context())


def copy(module: ir.Module) -> ir.Module:
    return ir.Module.parse(module.operation.get_asm(binary=True), module.context)


def run(module: ir.Module, passes: str, weights: dict[str, Array] | None = None) -> PassContext:
    """Runs a pipeline on a module, in place; the answer holds the remarks."""
    context = PassContext(weights=weights or {})
    pipeline.run(module, passes, context)
    return context


def only(module: ir.Module, name: str) -> ir.Module:
    """A copy of a module in which function ``name`` is ``@main`` and nothing is left that it does not need."""
    copied = copy(module)
    with copied.context:
        for function in functions(copied):
            is_main = function.name.value == name
            function.attributes["sym_visibility"] = ir.StringAttr.get("public" if is_main else "private")
        main_function(copied, name).attributes["sym_name"] = ir.StringAttr.get("main")
    run_mlir(copied, "symbol-dce")
    return copied


def main_function(module: ir.Module, name: str = "main") -> Any:
    return next(function for function in functions(module) if function.name.value == name)


def random_arguments(module: ir.Module, seed: int = 0) -> list[Array]:
    """Arrays for ``@main``. Those with "variance" in their names are positive; integers are small."""
    rng = np.random.default_rng(seed)
    main = main_function(module)
    with module.context:
        names = weight_names(main)
        types = [(list(ir.RankedTensorType(type_).shape), dtype_of(type_)) for type_ in main.type.inputs]
    return [_draw(rng, shape, dtype, name or "") for (shape, dtype), name in zip(types, names, strict=True)]


def _draw(rng: np.random.Generator, shape: Sequence[int], dtype: Any, name: str) -> Array:
    if dtype.kind in "iub":
        return np.asarray(rng.integers(0, 2 if dtype.kind == "b" else 5, shape)).astype(dtype)
    if "variance" in name:
        return np.asarray(rng.uniform(0.3, 2.0, shape)).astype(dtype)
    return np.asarray(rng.normal(0.2, 1.0, shape)).astype(dtype)


def by_xla(module: ir.Module, arguments: Sequence[Array]) -> list[Array]:
    return [np.asarray(result) for result in compile_module(module, find_target("cpu"))(*arguments)]


def by_interpreter(module: ir.Module, arguments: Sequence[Array]) -> list[Array]:
    """StableHLO's reference interpreter. It ends the process on a batch norm: lower these before.

    The bindings cannot read bfloat16 results.
    """
    assert "stablehlo.batch_norm" not in str(module)
    with module.context:
        types = main_function(module).type
        given = [_attribute(array, type_) for array, type_ in zip(arguments, types.inputs, strict=True)]
        results = hlo.eval_module(module, given)
        return [_array(result, type_) for result, type_ in zip(results, types.results, strict=True)]


def _attribute(array: Array, type_: ir.Type) -> ir.Attribute:
    plain = array.view(np.uint8) if array.dtype == np.bool_ else array
    return ir.DenseElementsAttr.get(np.ascontiguousarray(plain), type=type_)


def _array(attribute: ir.Attribute, type_: ir.Type) -> Array:
    return np.array(attribute, dtype=dtype_of(type_)).reshape(ir.RankedTensorType(type_).shape)


def weight_flags(module: ir.Module) -> list[bool]:
    """For each argument of ``@main``, whether it is a weight."""
    with module.context:
        return [name is not None for name in weight_names(main_function(module))]
