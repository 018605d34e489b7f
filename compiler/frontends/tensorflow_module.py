"""A TensorFlow function as `Imported`: traced, compiled to StableHLO by XLA's bridge, its captures named as weights."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.mlir import ir

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.main_function import find_main, keep_results, mark_weights
from stablenorm.compiler.frontends.names import unique_names
from stablenorm.compiler.frontends.structures import flatten, paths
from stablenorm.compiler.frontends.tensorflow_captures import Captures, read_captures
from stablenorm.compiler.frontends.tensorflow_runtime import first_useful_line, import_tensorflow
from stablenorm.compiler.imported import Imported
from stablenorm.compiler.signature import Array, Signature, TensorSpec, Tree
from stablenorm.passes.context import make_context


@dataclasses.dataclass(frozen=True)
class TensorFlowModel:
    """``call(*tensors)`` takes the flat inputs and returns any structure of tensors.

    ``labels`` names tensors that the model holds as plain attributes, by ``id``; variables carry their own names.
    ``output_names`` is empty where the model does not name its outputs.
    """

    call: Callable[..., Any]
    inputs: tuple[TensorSpec, ...]
    input_tree: Tree
    labels: Mapping[int, str] = dataclasses.field(default_factory=dict)
    output_names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Traced:
    """The compiled function, its structure of outputs (positions) and their dtypes."""

    function: Any
    concrete: Any
    specs: tuple[Any, ...]
    output_tree: Tree


def import_model(model: TensorFlowModel) -> Imported:
    """The model as StableHLO: ``@main(inputs..., captures...)``, unused inputs and captures kept.

    Raises:
        StablenormError: TensorFlow cannot trace the model for these inputs, or XLA cannot compile it.
    """
    traced = _trace(model)
    module = _parse(_stablehlo(traced))
    captures = read_captures(traced.concrete, model.labels)
    outputs = _finish_main(module, len(model.inputs), len(traced.concrete.outputs), captures)
    names = model.output_names if len(model.output_names) == len(outputs) else paths(traced.output_tree, "output")
    specs = tuple(
        TensorSpec(name, shape, _numpy_name(tensor.dtype))
        for name, shape, tensor in zip(unique_names(names), outputs, traced.concrete.outputs, strict=True)
    )
    signature = Signature(model.inputs, specs, model.input_tree, traced.output_tree)
    return Imported(module, captures.weights, signature, _reference(model.call, traced.function))


def _trace(model: TensorFlowModel) -> _Traced:
    tf = import_tensorflow()
    trees: list[Tree] = []

    def main(*tensors: Any) -> list[Any]:
        leaves: list[Any] = []
        trees.append(flatten(model.call(*tensors), leaves))
        return [tf.convert_to_tensor(leaf) for leaf in leaves]

    specs = tuple(tf.TensorSpec(spec.shape, tf.dtypes.as_dtype(spec.dtype)) for spec in model.inputs)
    function = tf.function(main, jit_compile=True)
    try:
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
        serialized: bytes = traced.function.experimental_get_compiler_ir(*traced.specs)(stage="stablehlo_serialized")
    except Exception as error:
        raise StablenormError(
            f"XLA cannot compile the model: {first_useful_line(error)}; "
            "allowed: numeric operations with static shapes; leave what it names out of the exported model"
        ) from error
    return serialized


def _parse(serialized: bytes) -> ir.Module:
    return ir.Module.parse(serialized, make_context())


def _finish_main(module: ir.Module, inputs: int, outputs: int, captures: Captures) -> list[tuple[int, ...]]:
    """Names the weights, drops updated variables from the results; the shapes of the outputs."""
    with module.context, ir.Location.unknown():
        main = find_main(module)
        mark_weights(main, inputs, list(captures.weights))
        if len(main.type.results) > outputs:
            warnings.warn(f"variables that a call updates stay as they are: {captures.updated()}", stacklevel=4)
            keep_results(main, range(outputs))
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


def _numpy_name(dtype: Any) -> str:
    return np.dtype(dtype.as_numpy_dtype).name
