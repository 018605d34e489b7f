"""StableHLO files: text, MLIR bytecode, portable artifacts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func

from stablenorm.compiler.diagnostics import StablenormError, first_line
from stablenorm.compiler.frontends.input_shapes import InputShape, InputType, resolve_shapes
from stablenorm.compiler.frontends.main_function import find_main, weights_last
from stablenorm.compiler.imported import Imported
from stablenorm.compiler.signature import Array, Signature, TensorSpec, describe
from stablenorm.compiler.stablehlo_io import copy_module, read_module
from stablenorm.compiler.targets import find_target
from stablenorm.compiler.xla import compile_module
from stablenorm.passes.context import make_context
from stablenorm.passes.dtypes import DTYPES, dtype_of
from stablenorm.passes.rewriting import functions, run_mlir
from stablenorm.passes.weights import weight_names


def from_file(
    path: str | os.PathLike[str],
    input_shape: InputShape | None = None,
    weights: Mapping[str, Array] | None = None,
) -> Imported:
    """A StableHLO file. Its entry is ``@main``, or its only public function.

    Arguments marked ``{stablenorm.weight = "<name>"}`` are weights, the others inputs ``arg0``, ``arg1``, ... by their
    position. Sizes that the file leaves open (``?``) come from ``input_shape``.

    Raises:
        StablenormError: no such file, no valid module, no entry, an open size, or weights of other names or types.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise StablenormError(f"{path}: {error.strerror}; pass a StableHLO file") from error
    return from_bytes(data, os.fspath(path), input_shape, weights)


def from_bytes(
    data: bytes,
    name: str,
    input_shape: InputShape | None = None,
    weights: Mapping[str, Array] | None = None,
) -> Imported:
    """The content of a StableHLO file, as `from_file`."""
    module = read_module(data, name, make_context())
    main = _entry(module, name)
    try:
        weights_last(main)
    except ValueError as error:
        raise StablenormError(f'{name}: allowed: stablenorm.weight = "name"; {first_line(error)}') from error
    is_weight = [weight is not None for weight in weight_names(main)]
    declared = [_declared(place, type_) for place, type_ in enumerate(main.type.inputs) if not is_weight[place]]
    inputs = resolve_shapes(declared, input_shape, batch=None)
    if not all(ir.RankedTensorType(type_).has_static_shape for type_ in main.type.inputs):
        refine(module, main, inputs)
    results = main.type.results
    outputs = tuple(
        TensorSpec(f"output{n}", *_shape_and_dtype(f"result {n}", type_)) for n, type_ in enumerate(results)
    )
    tree = tuple(range(len(outputs))) if len(outputs) != 1 else 0
    signature = Signature(inputs, outputs, tuple(range(len(inputs))), tree)
    values = _checked_weights(main, weights or {}, name)
    return Imported(module, values, signature, reference(module, values))


def refine(module: ir.Module, main: func.FuncOp, inputs: Sequence[TensorSpec]) -> None:
    """Replaces open sizes by those of the inputs, all through the module.

    Raises:
        StablenormError: a size stays open all the same.
    """
    arguments = [*map(_tensor_type, inputs), *list(main.type.inputs)[len(inputs) :]]
    types = ",".join(map(str, arguments))
    try:
        run_mlir(
            module,
            f"stablehlo-refine-arguments{{types={types}}},stablehlo-refine-shapes,"
            "func.func(stablehlo-canonicalize-dynamism),canonicalize",
        )
    except ir.MLIRError as error:
        raise StablenormError(f"the module does not take inputs of these sizes: {first_line(error)}") from error


def _tensor_type(spec: TensorSpec) -> str:
    element = next(text for text, dtype in DTYPES.items() if dtype.name == spec.dtype)
    return f"tensor<{'x'.join([*map(str, spec.shape), element])}>"


def reference(module: ir.Module, weights: Mapping[str, Array]) -> Callable[[Sequence[Array]], list[Array]]:
    """The module as it is now, compiled by XLA without any pass of ours."""
    original = copy_module(module)
    names = [name for name in weight_names(find_main(module)) if name is not None]

    def run(inputs: Sequence[Array]) -> list[Array]:
        plain = copy_module(original)
        run_mlir(plain, "func.func(chlo-legalize-to-stablehlo)")
        compiled = compile_module(plain, find_target("cpu"))
        return [np.asarray(output) for output in compiled(*inputs, *(weights[name] for name in names))]

    return run


def _entry(module: ir.Module, name: str) -> func.FuncOp:
    """Makes ``@main``, or the only public function, the only public one, and calls it ``main``."""
    by_name = {function.name.value: function for function in functions(module)}
    public = [
        key for key, function in by_name.items() if "private" not in str(function.attributes.get("sym_visibility"))
    ]
    if "prepare" in public:
        raise StablenormError(f"{name}: got a module that stablenorm compiled; load its folder (`stablenorm run`)")
    entry = "main" if "main" in public else public[0] if len(public) == 1 else None
    if entry is None:
        raise StablenormError(f"{name}: got the public functions {public}, allowed: @main, or one; rename one to main")
    with module.context:
        for key in public:
            by_name[key].attributes["sym_visibility"] = ir.StringAttr.get("public" if key == entry else "private")
        by_name[entry].attributes["sym_name"] = ir.StringAttr.get("main")
    return by_name[entry]


def _declared(place: int, type_: ir.Type) -> InputType:
    return InputType(f"arg{place}", *_shape_and_dtype(f"argument {place}", type_))


def _shape_and_dtype(what: str, type_: ir.Type) -> tuple[tuple[Any, ...], str]:
    dtype = dtype_of(type_) if isinstance(type_, ir.RankedTensorType) else None
    if dtype is None or not isinstance(type_, ir.RankedTensorType):
        raise StablenormError(f"{what}: got the type {type_}, allowed: ranked tensors of element types that NumPy has")
    sizes = [None if type_.is_dynamic_dim(place) else size for place, size in enumerate(type_.shape)]
    return tuple(sizes), dtype.name


def _checked_weights(main: func.FuncOp, weights: Mapping[str, Array], name: str) -> dict[str, Array]:
    types = {w: t for w, t in zip(weight_names(main), main.type.inputs, strict=True) if w is not None}
    unknown = sorted(set(weights) - set(types))
    if unknown:
        raise StablenormError(f"{name}: got a value for the unknown weight {unknown[0]!r}, allowed: {', '.join(types)}")
    values = {key: np.asarray(weights[key]) for key in types if key in weights}
    for key, value in values.items():
        shape, dtype = _shape_and_dtype(f"weight {key!r}", types[key])
        if (value.shape, value.dtype.name) != (shape, dtype):
            got, allowed = describe(value.dtype.name, value.shape), describe(dtype, shape)
            raise StablenormError(f"weight {key!r}: got {got}, allowed {allowed}")
    return values
