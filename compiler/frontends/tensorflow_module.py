"""A TensorFlow function as `Imported`: traced, compiled to StableHLO by XLA's bridge, its captures named as weights."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.mlir import ir

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.main_function import (
    find_main,
    keep_results,
    mark_weights,
    take_aliased_arguments,
)
from stablenorm.compiler.frontends.names import unique_names
from stablenorm.compiler.frontends.structures import flatten, paths
from stablenorm.compiler.frontends.tensorflow_captures import inline_integer_constants, read_captures
from stablenorm.compiler.frontends.tensorflow_runtime import first_useful_line, import_tensorflow, quiet_stderr
from stablenorm.compiler.imported import Imported
from stablenorm.compiler.signature import Array, Signature, TensorSpec, Tree
from stablenorm.passes.context import make_context


@dataclasses.dataclass(frozen=True)
class TensorFlowModel:
    """``call(*tensors)`` takes the flat inputs and returns any structure of tensors.

    ``labels`` names captured variables (by the ``id`` of their handles) and constants (by ``id``), where it can.
    ``output_names`` gives nothing where the model does not name its outputs. Both are asked after the first call.
    """

    call: Callable[..., Any]
    inputs: tuple[TensorSpec, ...]
    input_tree: Tree
    labels: Callable[[], Mapping[int, str]] = dict
    output_names: Callable[[], Sequence[str]] = tuple
    open_batch: bool = False


@dataclasses.dataclass(frozen=True)
class _Traced:
    """``function`` compiles itself with XLA; ``concrete`` is it, traced for ``specs``."""

    function: Any
    concrete: Any
    specs: tuple[Any, ...]
    output_tree: Tree


def import_model(model: TensorFlowModel) -> Imported:
    """The model as StableHLO: ``@main(inputs..., captures...)``, unused inputs and captures kept.

    Variables that a call updates are not updated by ``@main``; a warning names them.

    Raises:
        StablenormError: TensorFlow cannot trace the model for these inputs, or XLA cannot compile it.
    """
    traced = _trace(model)
    weights = read_captures(traced.concrete, model.labels())
    module = ir.Module.parse(_stablehlo(traced), make_context())
    outputs = traced.concrete.outputs
    shapes = _finish_main(module, len(model.inputs), len(outputs), list(weights))
    names = model.output_names()
    if len(names) != len(outputs) or isinstance(traced.output_tree, dict):
        names = paths(traced.output_tree, "output")
    specs = tuple(
        TensorSpec(name, shape, numpy_name(tensor.dtype))
        for name, shape, tensor in zip(unique_names(names), shapes, outputs, strict=True)
    )
    signature = Signature(model.inputs, specs, model.input_tree, traced.output_tree)
    return Imported(module, weights, signature, _reference(model.call, traced.function), model.open_batch)


def numpy_name(dtype: Any) -> str:
    """The NumPy name of a TensorFlow dtype: ``bfloat16``, ``bool``; ``object`` for strings."""
    return str(np.dtype(dtype.as_numpy_dtype).name)


def _trace(model: TensorFlowModel) -> _Traced:
    tf = import_tensorflow()
    trees: list[Tree] = []

    def main(*tensors: Any) -> list[Any]:
        inline_integer_constants(tf.compat.v1.get_default_graph(), tf.constant)
        leaves: list[Any] = []
        trees.append(flatten(model.call(*tensors), leaves))
        return [tf.convert_to_tensor(leaf) for leaf in leaves]

    try:
        specs = tuple(tf.TensorSpec(spec.shape, tf.dtypes.as_dtype(spec.dtype)) for spec in model.inputs)
        function = tf.function(main, jit_compile=True)
        with quiet_stderr():
            concrete = function.get_concrete_function(*specs)
    except StablenormError:
        raise
    except Exception as error:
        raise StablenormError(
            f"TensorFlow cannot trace the model for inputs ({', '.join(map(str, model.inputs))}): "
            f"{first_useful_line(error)}; check that the model runs on inputs of these shapes and dtypes"
        ) from error
    return _Traced(function, concrete, specs, trees[-1])


def _stablehlo(traced: _Traced) -> bytes:
    try:
        with quiet_stderr():
            compiler_ir = traced.function.experimental_get_compiler_ir(*traced.specs)
            serialized: bytes = compiler_ir(stage="stablehlo_serialized")
    except Exception as error:
        raise StablenormError(
            f"XLA cannot compile the model: {first_useful_line(error)}; allowed: numeric operations with static "
            "shapes; leave the operation that it names out of the model"
        ) from error
    return serialized


def _finish_main(module: ir.Module, inputs: int, outputs: int, weights: Sequence[str]) -> list[tuple[int, ...]]:
    """Names the weights, drops updated variables from the results; the shapes of the outputs."""
    with module.context, ir.Location.unknown():
        main = find_main(module)
        mark_weights(main, [None] * inputs + list(weights))
        # XLA would let updated variables overwrite their arguments; here no argument is overwritten.
        updated = [weights[argument - inputs] for argument in take_aliased_arguments(module) if argument >= inputs]
        if len(main.type.results) > outputs:
            keep_results(main, outputs)
            warnings.warn(f"a compiled call does not update these variables: {', '.join(updated)}", stacklevel=4)
        return [tuple(ir.RankedTensorType(kind).shape) for kind in main.type.results]


def _reference(call: Callable[..., Any], compiled: Callable[..., Any]) -> Callable[[Sequence[Array]], list[Array]]:
    """Eager TensorFlow; XLA's compilation by TensorFlow where an operation has no eager kernel (NCHW on CPU)."""
    tf = import_tensorflow()

    def reference(arrays: Sequence[Array]) -> list[Array]:
        tensors = [tf.convert_to_tensor(array) for array in arrays]
        leaves: list[Any] = []
        try:
            flatten(call(*tensors), leaves)
        except (tf.errors.UnimplementedError, tf.errors.InvalidArgumentError):
            leaves = compiled(*tensors)
        return [np.asarray(tf.convert_to_tensor(leaf)) for leaf in leaves]

    return reference
