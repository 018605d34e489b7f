"""Refuses a Keras 3 model's configuration that would make Keras run code which is not Keras's own.

Keras's safe mode refuses what holds code and what lies outside of Keras. Here fewer of its objects are let through:
those that a model is made of, and none that opens a file or holds a program.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from stablenorm.compiler.frontends.keras_config import (
    FUNCTION_MODULES,
    is_function,
    named_objects,
    object_name,
    refusal,
)

# Plain values, which Keras writes as objects.
_VALUES = ("__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__keras_tensor__")
_REFUSED = {
    "Lambda": "a Lambda layer, which holds Python code",
    "__lambda__": "a Python lambda",
    **{
        name: f"the layer {name}, which holds a program of another library"
        for name in ("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper")
    },
    **{
        name: f"the layer {name}, which reads its table from a file"
        for name in ("IndexLookup", "IntegerLookup", "StringLookup", "TextVectorization")
    },
}


def check_config(keras: Any, config: Any, path: str) -> None:
    """Returns where every object named in the configuration is a part of models, or registered by the caller.

    Raises:
        StablenormError: one is not.
    """
    for entry in named_objects(config):
        name = str(entry["class_name"])
        if name in _REFUSED:
            raise refusal(path, _REFUSED[name], "layers without code or files of their own")
        if name not in _VALUES and not _is_known(keras, entry):
            raise refusal(
                path,
                f"the object {entry.get('module')}.{object_name(entry)}",
                "Keras's own and those registered with keras.saving.register_keras_serializable",
            )


def _is_known(keras: Any, entry: Mapping[str, Any]) -> bool:
    is_a_function = entry["class_name"] == "function"
    name, module = object_name(entry), str(entry.get("module"))
    # The same look-up as Keras's, which asks here first.
    registered = name if is_a_function else entry.get("registered_name", name)
    if keras.saving.get_registered_object(registered) is not None:
        return True
    if is_a_function:
        modules = FUNCTION_MODULES if module == "builtins" else [module.removeprefix("keras.")]
        return any(known in FUNCTION_MODULES and is_function(getattr(keras, known), name) for known in modules)
    return _is_part_of_a_model(keras, module, name)


def _is_part_of_a_model(keras: Any, module: str, name: str) -> bool:
    if module.partition(".")[0] != "keras":
        return False
    try:
        found = vars(importlib.import_module(module)).get(name)
    except ImportError:
        return False
    parts = (
        *(keras.Operation, keras.DTypePolicy, keras.initializers.Initializer, keras.random.SeedGenerator),
        *(keras.constraints.Constraint, keras.regularizers.Regularizer, keras.quantizers.Quantizer),
        *(keras.Loss, keras.Metric, keras.Optimizer, keras.optimizers.schedules.LearningRateSchedule),
    )
    if not isinstance(found, type) or found.__name__ != name:
        return False
    return found.__module__.startswith("keras.src.") and issubclass(found, parts)
