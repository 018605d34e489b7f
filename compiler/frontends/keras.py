"""Keras 3 models on the JAX backend: Functional, Sequential and subclassed, for inference."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.input_shapes import InputShape, InputType, has_open_batch, resolve_shapes
from stablenorm.compiler.frontends.jax_model import JaxModel, import_model
from stablenorm.compiler.frontends.keras_inputs import KerasInputs, from_shapes
from stablenorm.compiler.frontends.names import unique_names
from stablenorm.compiler.frontends.structures import flatten, rebuild
from stablenorm.compiler.frontends.tensorflow_runtime import first_useful_line
from stablenorm.compiler.imported import Imported


def from_model(model: Any, input_shape: InputShape | None = None, arguments: Sequence[Any] = ()) -> Imported:
    """``model(*inputs, training=False)`` as StableHLO.

    What `stablenorm.compiler.frontends.tf_keras.from_model` says of shapes holds here. Example ``arguments`` (arrays or
    `jax.ShapeDtypeStruct`) say what the inputs of a subclassed model are where Keras does not know: integers, or
    more than one argument. The state of random generators is no weight but a constant: what is random in inference is
    the same at each call.

    Raises:
        StablenormError: another backend than JAX, a model without weights yet, unknown or contradicting shapes, or
            inputs that the model does not take.
    """
    import keras

    require_jax(keras)
    if not model.built:
        raise _unbuilt(model)
    declared = _examples(arguments) if arguments else _declared_inputs(model)
    specs = resolve_shapes(declared.types, input_shape)
    leaves = [jax.ShapeDtypeStruct(spec.shape, spec.dtype) for spec in specs]
    variables = dict(zip(unique_names(v.path for v in model.weights), model.weights, strict=True))
    imported = JaxModel(
        "Keras",
        functools.partial(_call, model, variables),
        {name: np.asarray(variable.value) for name, variable in variables.items()},
        rebuild(declared.arguments, leaves),
        [spec.name for spec in specs],
        getattr(model, "output_names", None) or (),
        has_open_batch(declared.types, input_shape),
    )
    with keras.StatelessScope():  # what the call creates gets its values here, not in JAX's trace
        return import_model(imported, explain)


def from_file(path: str, input_shape: InputShape | None = None) -> Imported:
    """A ``.keras`` file that Keras 3 wrote, as `from_model`. No code in the file runs.

    Raises:
        StablenormError: as `from_model`; also not a whole model, or one that holds or names foreign code.
    """
    from stablenorm.compiler.frontends.keras3_file import load_keras3_file

    return from_model(load_keras3_file(path), input_shape)


def require_jax(keras: Any) -> None:
    """Raises StablenormError where Keras computes with another backend."""
    if keras.backend.backend() != "jax":
        raise StablenormError(
            f"got a Keras 3 model on the backend {keras.backend.backend()!r}, allowed: 'jax'; set KERAS_BACKEND=jax in "
            "the environment before keras is first imported"
        )


def _call(
    model: Any, variables: Mapping[str, Any], weights: Mapping[str, Any], *inputs: Any
) -> tuple[Any, dict[str, Any]]:
    """What ``stateless_call`` does, with the casts of inputs that a caller of the model gets."""
    import keras

    with keras.StatelessScope([(variable, weights[name]) for name, variable in variables.items()]) as scope:
        given = {name: scope.get_current_value(variable) for name, variable in variables.items()}
        outputs = model(*inputs, training=False)
        if len(model.weights) != len(variables):
            raise _unbuilt(model)
        left = {name: scope.get_current_value(variable) for name, variable in variables.items()}
    return outputs, {name: weights[name] if left[name] is given[name] else left[name] for name in variables}


def _unbuilt(model: Any) -> StablenormError:
    return StablenormError(
        f"model {model.name!r}: got a Keras 3 model that has layers without weights yet; "
        "call it once on an input, or give it keras.Input"
    )


def _declared_inputs(model: Any) -> KerasInputs:
    """From the Input layers; else from the shape that the model was built for, of its variable dtype."""
    inputs = getattr(model, "inputs", None)  # of a Sequential model built for nested inputs, an error
    if inputs:
        structure = getattr(model, "input", inputs[0])
        leaves: list[Any] = []
        flatten(structure, leaves)
        declared = KerasInputs((structure,), {}, tuple(map(_input_type, leaves)))
        return _with_open_batch(declared) if _noted_its_batch(model) else declared
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None:
        raise StablenormError(
            f"model {model.name!r}: got a Keras 3 model that does not say what its inputs are; "
            "pass an example for each: compile(model, x)"
        )
    return _with_open_batch(from_shapes(shapes, str(model.variable_dtype), are_known=True))


def _noted_its_batch(model: Any) -> bool:
    """Whether a batch size is that of the first call, and not one that a layer relies on."""
    return hasattr(model, "add") and not any(getattr(layer, "stateful", False) for layer in model.layers)


def _with_open_batch(inputs: KerasInputs) -> KerasInputs:
    """Keras notes the batch size of the first call, and takes others all the same."""
    types = tuple(dataclasses.replace(kind, shape=(None, *(kind.shape or ())[1:])) for kind in inputs.types)
    return dataclasses.replace(inputs, types=types)


def _input_type(tensor: Any) -> InputType:
    if tensor.sparse or tensor.ragged:
        raise StablenormError(f"got the input {tensor!r}, allowed: dense tensors; convert it before the model")
    if tensor.dtype == "string":
        raise StablenormError(
            f"input {tensor.name!r}: got strings, allowed: numbers; turn them into numbers before the model"
        )
    return InputType(tensor.name, tuple(tensor.shape), str(tensor.dtype))


def _examples(arguments: Sequence[Any]) -> KerasInputs:
    leaves: list[Any] = []
    flatten(tuple(arguments), leaves)
    names = [f"input_{place}" for place, _ in enumerate(leaves, 1)]
    arrays = [jax.eval_shape(lambda x: x, leaf) for leaf in leaves]
    types = [InputType(n, leaf.shape, leaf.dtype.name) for n, leaf in zip(names, arrays, strict=True)]
    return KerasInputs(tuple(arguments), {}, tuple(types))


def explain(error: BaseException) -> str:
    """What an error of Keras says, in one line without colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", first_useful_line(error))
