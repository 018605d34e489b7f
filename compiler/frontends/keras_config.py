"""Refuses a tf_keras model's configuration that would make tf_keras run code which is not Keras's own.

Keras builds a model by looking up classes and functions named in the file. Three of its ways lead outside: bytecode
(Lambda layers), any importable Python module, and any TensorFlow symbol, also those that write files or load
programs. Only objects that the caller registered with Keras are taken from outside.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.tensorflow_runtime import import_tensorflow, import_tf_keras

# What rebuilds code, an arbitrary operation, a method or a program from the configuration.
_REFUSED = {
    "Lambda": "a Lambda layer, which holds Python code",
    "__lambda__": "a Python lambda",
    **{
        name: f"the object {name}"
        for name in (
            "TensorFlowOpLayer",
            "ClassMethod",
            "InstanceMethod",
            "InstanceProperty",
            "TFSMLayer",
            "__typespec__",
        )
    },
}
# Where the operations on arrays are defined. Files, programs and Python callbacks are defined elsewhere.
_ARRAY_OPERATIONS = re.compile(
    r"tensorflow\.python\.ops\.((gen_)?(array|bitwise|clip|image|linalg|manip|math|nn|sort|special_math)_ops"
    r"|array_ops_stack|image_ops_impl|linalg\.\w+|nn_impl(_distribute)?|signal\.\w+|tensor_\w+|weak_tensor_\w+)"
)
FUNCTION_MODULES = ("activations", "constraints", "initializers", "losses", "metrics", "regularizers")


def check_config(config: Any, path: str) -> None:
    """Returns where every object named in the configuration is Keras's own or registered by the caller.

    Raises:
        StablenormError: one is not.
    """
    for entry in named_objects(config):
        name = str(entry["class_name"])
        if name in _REFUSED:
            raise refusal(path, _REFUSED[name], "layers without code of their own")
        if name in ("TFOpLambda", "SlicingOpLambda") and not _is_array_operation(_inner(entry).get("function")):
            raise refusal(path, f"the operation {_inner(entry).get('function')!r}", "TensorFlow's array operations")
        if entry.get("module") is not None and not _is_known(entry):
            raise refusal(
                path,
                f"the object {entry['module']}.{object_name(entry)}",
                "tf_keras's own and those registered with tf_keras.saving.register_keras_serializable",
            )


def refusal(path: str, got: str, allowed: str) -> StablenormError:
    """The error of a file that holds or names what it must not."""
    return StablenormError(
        f"{path}: got {got}, allowed: {allowed}, because loading a file must not run code that it names; "
        "if you trust it, load the model yourself and pass it to stablenorm"
    )


def named_objects(config: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping in the configuration, at any depth, that names a class or a function."""
    left = [config]
    while left:
        entry = left.pop()
        if isinstance(entry, Mapping):
            left.extend(entry.values())
            if "class_name" in entry:
                yield entry
        elif isinstance(entry, list):
            left.extend(entry)


def _inner(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = entry.get("config")
    return inner if isinstance(inner, Mapping) else {}


def object_name(entry: Mapping[str, Any]) -> str:
    """What the entry names in its module."""
    return str(entry.get("config") if entry["class_name"] == "function" else entry["class_name"])


def _is_array_operation(symbol: Any) -> bool:
    """``math.add``, ``nn.relu6``, ``__operators__.getitem``: functions on arrays, by where they are defined."""
    target = import_tensorflow()
    for part in str(symbol).split("."):
        target = getattr(target, part, None)
    module = getattr(target, "__module__", None) or ""
    return "raw_ops" not in str(symbol) and _ARRAY_OPERATIONS.fullmatch(module) is not None


def _is_known(entry: Mapping[str, Any]) -> bool:
    tf_keras = import_tf_keras()
    name = object_name(entry)
    # The same look-up as Keras's: a name that it would not find registered, it imports from the module.
    registered = name if entry["class_name"] == "function" else entry.get("registered_name", name)
    if tf_keras.saving.get_registered_object(registered) is not None:
        return True
    if entry["class_name"] == "function":
        return any(is_function(getattr(tf_keras, module), name) for module in FUNCTION_MODULES)
    return _is_keras_class(str(entry["module"]), name)


def is_function(module: Any, name: str) -> bool:
    """Whether a module of Keras's own has the function, other than those that look objects up."""
    return name not in ("deserialize", "get", "serialize") and callable(vars(module).get(name))


def _is_keras_class(module: str, name: str) -> bool:
    root, _, rest = module.partition(".")
    if root not in ("keras", "tf_keras"):
        return False
    try:
        found = vars(importlib.import_module(f"tf_keras.{rest}".rstrip("."))).get(name)
    except ImportError:
        return False
    own = isinstance(found, type) and found.__name__ == name and found.__module__.startswith("tf_keras.")
    return own and hasattr(found, "from_config")
