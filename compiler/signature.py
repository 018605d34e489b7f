"""How a caller hands inputs to a compiled model, and how its outputs come back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from stablenorm.compiler.diagnostics import StablenormError

Array = NDArray[Any]
# A nested dict / tuple whose leaves are positions in the flat sequence of tensors. JSON turns tuples into lists and
# back: to a caller of a model every sequence is a tuple.
Tree = Any


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One tensor at the border of a model: its name, its shape (every size known) and its NumPy dtype's name."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name}: {describe(self.dtype, self.shape)}"


@dataclasses.dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, flat and in order, and the structures that a caller sees.

    ``input_tree`` is the tuple of positional arguments: ``(0,)`` for ``model(x)``, ``((0, 1),)`` for
    ``model([a, b])``, ``({"a": 0, "b": 1},)`` for ``model({"a": a, "b": b})``. ``output_tree`` is what is returned:
    ``0`` for one tensor, ``(0, 1)`` for a sequence, ``{"logits": 0}`` for a dict.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_tree: Tree
    output_tree: Tree

    def leaves(self, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> list[Any]:
        """The inputs of a call, flat: given in the model's own structure, one by one in order, or by name.

        Raises:
            StablenormError: the inputs fit none of these.
        """
        leaves = self._leaves(arguments, keywords)
        if leaves is None:
            got = ", ".join([*map(_kind, arguments), *(f"{name}={_kind(value)}" for name, value in keywords.items())])
            raise StablenormError(f"got inputs ({got}), allowed: ({self}); pass them in this order or by name")
        return leaves

    def checked(self, leaves: Sequence[Any]) -> list[Any]:
        """The flat inputs as arrays: JAX's stay where they are.

        Raises:
            StablenormError: a shape or a dtype is not the model's.
        """
        return [_checked(spec, leaf) for spec, leaf in zip(self.inputs, leaves, strict=True)]

    def batch_of(self, leaves: Sequence[Any]) -> int:
        """The first size of the first input that has one; 1 where none has."""
        return next((np.shape(leaf)[0] for leaf in leaves if np.ndim(leaf) > 0), 1)

    def with_batch(self, batch: int) -> Signature:
        """The same inputs, their first size replaced."""
        inputs = [dataclasses.replace(spec, shape=(batch, *spec.shape[1:])) for spec in self.inputs]
        return dataclasses.replace(self, inputs=tuple(inputs))

    def unflatten(self, outputs: Sequence[Array]) -> Any:
        """The flat outputs in the structure of ``output_tree``."""
        return jax.tree.map(lambda position: outputs[position], self.output_tree)

    def __str__(self) -> str:
        return ", ".join(map(str, self.inputs))

    def _leaves(self, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> list[Any] | None:
        named = keywords if not arguments else arguments[0] if len(arguments) == 1 and not keywords else None
        if isinstance(named, Mapping) and set(named) == {spec.name for spec in self.inputs}:
            return [named[spec.name] for spec in self.inputs]
        given = _tuples(tuple(arguments))
        leaves = jax.tree.leaves(given)
        positions = jax.tree.leaves(self.input_tree)
        if keywords or len(leaves) != len(positions):
            return None
        if str(jax.tree.structure(given)) == str(jax.tree.structure(self.input_tree)):
            return [leaf for _, leaf in sorted(zip(positions, leaves, strict=True), key=lambda pair: int(pair[0]))]
        return leaves if not any(isinstance(argument, Mapping) for argument in arguments) else None

    def to_json(self) -> str:
        """A text that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Signature:
        """The signature written by `to_json`.

        Raises:
            ValueError, KeyError, TypeError: the text is not one.
        """
        fields = json.loads(text)
        specs = {
            side: tuple(TensorSpec(spec["name"], tuple(spec["shape"]), spec["dtype"]) for spec in fields[side])
            for side in ("inputs", "outputs")
        }
        return cls(specs["inputs"], specs["outputs"], _tuples(fields["input_tree"]), _tuples(fields["output_tree"]))


def describe(dtype: object, shape: Sequence[int | None]) -> str:
    """``float32[2,?,3]``"""
    return f"{dtype}[{','.join('?' if size is None else str(size) for size in shape)}]"


def _tuples(tree: Tree) -> Tree:
    if isinstance(tree, Mapping):
        return {key: _tuples(child) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        return tuple(_tuples(child) for child in tree)
    return tree


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_kind(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_kind(child) for child in value[:4]) + (", ...]" if len(value) > 4 else "]")
    return describe(value.dtype, value.shape) if hasattr(value, "dtype") and hasattr(value, "shape") else repr(value)


def _checked(spec: TensorSpec, value: Any) -> Any:
    array = value if isinstance(value, jax.Array) else np.asarray(value)
    if array.shape != spec.shape or array.dtype.name != spec.dtype:
        raise StablenormError(
            f"input {spec.name!r}: got {describe(array.dtype.name, array.shape)}, "
            f"allowed {describe(spec.dtype, spec.shape)}; convert the input, or compile for its shape (--input-shape)"
        )
    return array
