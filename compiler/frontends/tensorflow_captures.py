"""What a traced TensorFlow function holds on to: its variables and its constant tensors, named and read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.names import unique_names
from stablenorm.compiler.signature import Array


def read_captures(concrete: Any, labels: Mapping[int, str]) -> dict[str, Array]:
    """The captured inputs of a concrete function, in order, as arrays with unique names.

    Raises:
        StablenormError: one is neither a variable nor a tensor of numbers (a lookup table).
    """
    variables = {id(variable.handle): variable for variable in concrete.graph.variables}
    held = [variables.get(id(capture), capture) for capture in concrete.captured_inputs]
    for value in held:
        if value.dtype.name in ("resource", "variant", "string"):
            raise StablenormError(
                f"XLA cannot compile the model: it holds a table or another object of type {value.dtype.name}; "
                "allowed: variables and tensors of numbers; take such layers (lookups, hashing) out of the model"
            )
    given = [labels.get(id(capture)) for capture in concrete.captured_inputs]
    names = unique_names(map(_name, held, given))
    return {name: np.asarray(value) for name, value in zip(names, held, strict=True)}


def variable_labels(variables: Iterable[Any]) -> dict[int, str]:
    """``<layer>/<variable>`` by the ``id`` of every variable's handle; equal names get suffixes in this order."""
    unique = {id(variable.handle): variable for variable in variables if hasattr(variable, "handle")}
    names = unique_names(str(variable.name).removesuffix(":0") for variable in unique.values())
    return dict(zip(unique, names, strict=True))


def constant_labels(module: Any) -> dict[int, str]:
    """``<layer>/<attribute>`` by the ``id`` of every tensor that a layer of the model holds as a plain attribute."""
    return {
        id(value): f"{owner.name}/{attribute.lstrip('_')}"
        for owner in (module, *module.submodules)
        for attribute, value in vars(owner).items()
        if hasattr(value, "numpy") and not hasattr(value, "handle")
    }


def inline_integer_constants(graph: Any, constant: Any) -> None:
    """Makes a graph under construction take captured integer tensors as constants instead of arguments.

    XLA needs the shapes, axes and paddings that a model keeps as tensors while it compiles.
    """
    capture = graph.capture

    def capture_or_inline(tensor: Any, name: str | None = None, shape: Any = None) -> Any:
        if hasattr(tensor, "numpy") and tensor.dtype.is_integer:
            return constant(tensor.numpy())
        return capture(tensor, name, shape)

    graph.capture = capture_or_inline


def _name(value: Any, label: str | None) -> str:
    return label or (str(value.name).removesuffix(":0") if hasattr(value, "handle") else "constant")
