"""What a traced TensorFlow function holds on to: its variables and its constant tensors, named and read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from stablenorm.compiler.frontends.names import unique_names
from stablenorm.compiler.signature import Array


@dataclasses.dataclass(frozen=True)
class Captures:
    """``weights`` in the order of the function's captured inputs."""

    weights: dict[str, Array]

    def updated(self) -> str:
        return ", ".join(self.weights)


def read_captures(concrete: Any, labels: Mapping[int, str]) -> Captures:
    """The captured inputs of a concrete function as named arrays."""
    variables = {id(variable.handle): variable for variable in concrete.graph.variables}
    held = [variables.get(id(capture), capture) for capture in concrete.captured_inputs]
    names = unique_names(_name(value, labels) for value in held)
    return Captures({name: np.asarray(value) for name, value in zip(names, held, strict=True)})


def _name(value: Any, labels: Mapping[int, str]) -> str:
    if id(value) in labels:
        return labels[id(value)]
    return str(value.name).removesuffix(":0") if hasattr(value, "handle") else "constant"
