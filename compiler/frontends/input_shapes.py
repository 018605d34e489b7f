"""Which shape every input of a model has: what the model fixes, what the caller gives, batch 1 where neither does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsIndex

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.signature import TensorSpec, describe

Shape = Sequence[int | None]
InputShape = Shape | Sequence[Shape] | Mapping[str, Shape]


@dataclasses.dataclass(frozen=True)
class InputType:
    """An input as the model declares it: sizes may be None, and ``shape`` is None where even the rank is unknown."""

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str

    def __str__(self) -> str:
        return describe(self.dtype, self.shape) if self.shape is not None else f"{self.dtype} of unknown shape"


def resolve_shapes(
    inputs: Sequence[InputType], input_shape: InputShape | None, batch: int | None = 1
) -> tuple[TensorSpec, ...]:
    """The inputs with every size known; an unknown first size becomes ``batch``, unless that is None.

    ``input_shape`` is one shape (one input), one shape for each input in order, or shapes by input name. A size of None
    in it is as the model declares it.

    Raises:
        StablenormError: a size stays unknown, or a given shape contradicts the model.
    """
    return tuple(_resolve(declared, batch) for declared in _narrowed(inputs, input_shape))


def has_open_batch(inputs: Sequence[InputType], input_shape: InputShape | None) -> bool:
    """Whether the model and ``input_shape`` leave the first size of every input open."""
    return bool(inputs) and all(each.shape and each.shape[0] is None for each in _narrowed(inputs, input_shape))


def _narrowed(inputs: Sequence[InputType], input_shape: InputShape | None) -> list[InputType]:
    """The inputs with the sizes that ``input_shape`` gives."""
    given = _by_name(inputs, input_shape)
    return [_narrow(declared, given.get(declared.name)) for declared in inputs]


def _by_name(inputs: Sequence[InputType], input_shape: InputShape | None) -> dict[str, Shape]:
    names = [declared.name for declared in inputs]
    if input_shape is None:
        return {}
    if isinstance(input_shape, Mapping):
        unknown = sorted(set(input_shape) - set(names))
        if unknown:
            raise StablenormError(
                f"input_shape: got names {', '.join(unknown)}, allowed: {', '.join(names)}; use the model's input names"
            )
        return dict(input_shape)
    shapes = split_shapes(input_shape)
    if len(shapes) != len(names):
        raise StablenormError(
            f"input_shape: got {len(shapes)} shapes for {len(names)} inputs ({', '.join(names)}); "
            "give one shape for each input, in this order or as a dict from name to shape"
        )
    return dict(zip(names, shapes, strict=True))


def split_shapes(input_shape: Any) -> list[Shape]:
    """One shape as a list of one; several shapes as they are."""
    if isinstance(input_shape, str) or not isinstance(input_shape, Iterable):
        raise StablenormError(f"input_shape: got {input_shape!r}, allowed: a shape such as (1, 224, 224, 3)")
    entries = list(input_shape)
    if entries and all(isinstance(entry, Sequence) for entry in entries):
        return entries
    return [entries]


def _narrow(declared: InputType, given: Sequence[Any] | None) -> InputType:
    if given is None:
        return declared
    least = [0] + [1] * len(given)  # a batch may be empty
    sizes = all(
        size is None or (isinstance(size, SupportsIndex) and int(size) >= low)
        for size, low in zip(given, least, strict=False)
    )
    known = (None,) * len(given) if declared.shape is None else declared.shape
    fits = len(given) == len(known) and all(a in (None, b) or b is None for a, b in zip(known, given, strict=True))
    if not (sizes and fits):
        raise StablenormError(
            f"input {declared.name!r}: got the shape {tuple(given)}, allowed: {declared} with positive sizes; "
            f"{_advice(declared.shape)}"
        )
    shape = tuple(a if b is None else int(b) for a, b in zip(known, given, strict=True))
    return dataclasses.replace(declared, shape=shape)


def _resolve(declared: InputType, batch: int | None) -> TensorSpec:
    shape = declared.shape
    if shape and shape[0] is None:
        shape = (batch, *shape[1:])
    if shape is None or None in shape:
        known = "every size known" if batch is None else f"every size known but the first (the batch, then {batch})"
        raise StablenormError(f"input {declared.name!r}: got {declared}, allowed: {known}; {_advice(declared.shape)}")
    return TensorSpec(declared.name, tuple(size for size in shape if size is not None), declared.dtype)


def _advice(shape: tuple[int | None, ...] | None) -> str:
    """A shape that the model takes, in both spellings; 224 stands for a size that the model leaves open."""
    example = (1, 224, 224, 3)
    if shape is not None:
        example = tuple((size or (224 if axis else 1)) for axis, size in enumerate(shape))  # type: ignore[assignment]
    return f"pass for example --input-shape {','.join(map(str, example))} or input_shape={example}"
