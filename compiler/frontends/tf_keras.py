"""tf_keras models (Functional, Sequential, subclassed) and their files, for inference."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.names import unique_names
from stablenorm.compiler.frontends.structures import flatten, rebuild
from stablenorm.compiler.frontends.tensorflow_module import TensorFlowModel, import_model
from stablenorm.compiler.frontends.tensorflow_runtime import import_tf_keras
from stablenorm.compiler.imported import Imported
from stablenorm.compiler.signature import TensorSpec

InputShape = Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]]


def from_model(model: Any, input_shape: InputShape | None = None) -> Imported:
    """``model(*inputs, training=False)`` as StableHLO."""
    import_tf_keras()
    structure = (model._nested_inputs,)
    leaves: list[Any] = []
    tree = flatten(structure, leaves)
    names = unique_names(model.input_names)
    specs = tuple(
        TensorSpec(name, (1, *leaf.shape[1:]), np.dtype(leaf.dtype.as_numpy_dtype).name)
        for name, leaf in zip(names, leaves, strict=True)
    )

    def call(*tensors: Any) -> Any:
        return model(*rebuild(structure, tensors), training=False)

    return import_model(TensorFlowModel(call, specs, tree, output_names=tuple(model.output_names)))
