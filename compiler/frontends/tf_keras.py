"""tf_keras models: Functional, Sequential and subclassed, for inference."""

from __future__ import annotations

import inspect
import os
from typing import Any

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.input_shapes import InputShape, has_open_batch, resolve_shapes
from stablenorm.compiler.frontends.keras_file import load_keras_file
from stablenorm.compiler.frontends.keras_inputs import declared_inputs
from stablenorm.compiler.frontends.structures import rebuild
from stablenorm.compiler.frontends.tensorflow_captures import constant_labels, variable_labels
from stablenorm.compiler.frontends.tensorflow_module import TensorFlowModel, import_model
from stablenorm.compiler.frontends.tensorflow_runtime import import_tf_keras
from stablenorm.compiler.imported import Imported


def from_model(model: Any, input_shape: InputShape | None = None) -> Imported:
    """``model(*inputs, training=False)`` as StableHLO.

    An unknown batch size becomes 1; other unknown sizes come from ``input_shape``: one shape, one for each input, or
    shapes by input name. Inputs have the dtypes that Keras expects (float32 for the mixed policies); a subclassed
    model that was never called takes inputs of its variable dtype. Keyword tensors of the first call of a subclassed
    model follow its positional inputs, sorted by name.

    Raises:
        StablenormError: not a tf_keras model, unknown or contradicting shapes, or a model that XLA cannot compile.
    """
    if not isinstance(model, import_tf_keras().Model):
        raise StablenormError(
            f"got {type(model).__module__}.{type(model).__qualname__}, allowed: a tf_keras model; "
            "build the model with tf_keras"
        )
    declared = declared_inputs(model, input_shape)
    specs = resolve_shapes(declared.types, input_shape)
    structure = (declared.arguments, declared.keywords)
    mode = {"training": False} if _takes_training(model) else {}

    def call(*tensors: Any) -> Any:
        arguments, keywords = rebuild(structure, tensors)
        return model(*arguments, **keywords, **mode)

    def labels() -> dict[int, str]:
        return constant_labels(model) | variable_labels(model.weights)

    def output_names() -> list[str]:
        return list(model.output_names or ())

    open_batch = has_open_batch(declared.types, input_shape)
    return import_model(TensorFlowModel(call, specs, declared.tree, labels, output_names, open_batch))


def from_file(path: str | os.PathLike[str], input_shape: InputShape | None = None) -> Imported:
    """A ``.keras`` or ``.h5`` file, as `from_model`. No code in the file runs.

    Raises:
        StablenormError: as `from_model`; also no such file, not a whole model, or one that holds or names foreign code.
    """
    return from_model(load_keras_file(os.fspath(path)), input_shape)


def _takes_training(model: Any) -> bool:
    parameters = inspect.signature(model.call).parameters.values()
    return any(p.name == "training" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
