"""The inputs that a Keras model declares, or was called with, as a structure of `InputType`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.input_shapes import InputShape, InputType, split_shapes
from stablenorm.compiler.frontends.names import unique_names
from stablenorm.compiler.frontends.structures import flatten
from stablenorm.compiler.frontends.tensorflow_runtime import import_tensorflow
from stablenorm.compiler.signature import Tree


@dataclasses.dataclass(frozen=True)
class KerasInputs:
    """What a call of the model takes: ``model(*arguments, **keywords)``, each a structure with a leaf per tensor.

    ``types`` describes the leaves of ``arguments`` and then of ``keywords``. A caller of the compiled model passes the
    keywords, sorted by name, as further positional arguments.
    """

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    types: tuple[InputType, ...]

    @property
    def tree(self) -> Tree:
        """The tree of ``(*arguments, *keywords)``."""
        return flatten((*self.arguments, *(self.keywords[key] for key in sorted(self.keywords))), [])


def declared_inputs(model: Any, input_shape: InputShape | None) -> KerasInputs:
    """From the Input layers; else from the first call; else from `build`; else from ``input_shape`` alone.

    The last two know no dtype: the model's variable dtype is assumed (float32 under a mixed policy).

    Raises:
        StablenormError: an input is sparse, ragged or of strings, or nothing says how many inputs there are.
    """
    if model.inputs:
        return _from_input_layers(model)
    if model.save_spec() is not None:
        return _from_first_call(model)
    return _from_shapes(model, input_shape)


def _from_input_layers(model: Any) -> KerasInputs:
    leaves: list[Any] = []
    flatten(model.input, leaves)
    by_tensor = {id(tensor): name for tensor, name in zip(model.inputs, model.input_names, strict=True)}
    names = unique_names(by_tensor[id(leaf)] for leaf in leaves)
    specs = [_checked(leaf.type_spec) for leaf in leaves]
    types = tuple(_input_type(name, spec, spec.dtype.name) for name, spec in zip(names, specs, strict=True))
    # A Sequential model that was told no shape notes the batch size of its first call, and takes others all the same.
    if not getattr(model, "_has_explicit_input_shape", True):
        types = tuple(dataclasses.replace(kind, shape=(None, *(kind.shape or ())[1:])) for kind in types)
    return KerasInputs((model.input,), {}, types)


def _from_first_call(model: Any) -> KerasInputs:
    recorded, recorded_keywords = model.save_spec()
    keywords = {key: value for key, value in recorded_keywords.items() if _is_tensor(value)}
    arguments = tuple(recorded)
    leaves: list[Any] = []
    flatten(arguments, leaves)
    names = [getattr(leaf, "name", None) or f"input_{position}" for position, leaf in enumerate(leaves, 1)]
    leaves += [keywords[key] for key in sorted(keywords)]
    # Keras records the inputs after casting them to the compute dtype; a caller passes the variable dtype.
    types = tuple(
        _input_type(name, leaf, str(model.dtype) if leaf.dtype.name == model.compute_dtype else leaf.dtype.name)
        for name, leaf in zip(unique_names([*names, *sorted(keywords)]), map(_checked, leaves), strict=True)
    )
    return KerasInputs(arguments, keywords, types)


def _from_shapes(model: Any, input_shape: InputShape | None) -> KerasInputs:
    built = getattr(model, "_build_input_shape", None)
    shapes = built if built is not None else input_shape
    if shapes is None:
        raise StablenormError(
            f"model {model.name!r}: got a model that was never called, so its inputs are unknown; call it once, or "
            "pass for example --input-shape 1,224,224,3 or input_shape=(1, 224, 224, 3)"
        )
    return from_shapes(shapes, str(model.dtype), are_known=built is not None)


def from_shapes(shapes: Any, dtype: str, *, are_known: bool) -> KerasInputs:
    """One argument, a shape, a sequence or a dict of shapes; where they are not known, only their number is."""
    structure: Any = _with_leaves(shapes)
    leaves: list[_Leaf] = []
    flatten(structure, leaves)
    names = sorted(structure) if isinstance(structure, dict) else [f"input_{n}" for n in range(1, len(leaves) + 1)]
    types = tuple(
        InputType(name, leaf.shape if are_known else None, dtype) for name, leaf in zip(names, leaves, strict=True)
    )
    return KerasInputs((structure,), {}, types)


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """A shape that `flatten` does not look into."""

    shape: tuple[int | None, ...]


def _with_leaves(shapes: Any) -> Any:
    if isinstance(shapes, Mapping):
        return {key: _Leaf(tuple(shape)) for key, shape in shapes.items()}
    split = [_Leaf(tuple(shape)) for shape in split_shapes(shapes)]
    return split if isinstance(shapes[0], Sequence) else split[0]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, import_tensorflow().TensorSpec)


def _checked(spec: Any) -> Any:
    """The spec of a dense tensor."""
    if not _is_tensor(spec):
        raise StablenormError(f"got an input of type {spec!r}, allowed: dense tensors; convert it before the model")
    return spec


def _input_type(name: str, spec: Any, dtype: str) -> InputType:
    if dtype == "string":
        raise StablenormError(f"input {name!r}: got strings, allowed: numbers; turn them into numbers before the model")
    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
    return InputType(name, shape, dtype)
