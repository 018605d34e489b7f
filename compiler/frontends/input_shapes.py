"""Which shape every input of a model has: what the model fixes, what the caller gives, batch 1 where neither does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.signature import TensorSpec, describe

Shape = Sequence[int]
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

    ``input_shape`` is one shape (one input), one shape for each input in order, or shapes by input name.

    Raises:
        StablenormError: a size stays unknown, or a given shape contradicts the model.
    """
    given = _by_name(inputs, input_shape)
    return tuple(_resolve(declared, given.get(declared.name), batch) for declared in inputs)


def has_open_batch(inputs: Sequence[InputType]) -> bool:
    """Whether the model leaves the first size of every input open."""
    return bool(inputs) and all(declared.shape and declared.shape[0] is None for declared in inputs)


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


def split_shapes(input_shape: Shape | Sequence[Shape]) -> list[Shape]:
    """One shape as a list of one; several shapes as they are."""
    shapes = [entry for entry in input_shape if isinstance(entry, Sequence)]
    if shapes and len(shapes) == len(input_shape):
        return shapes
    return [[entry for entry in input_shape if not isinstance(entry, Sequence)]]


def _resolve(declared: InputType, given: Shape | None, batch: int | None) -> TensorSpec:
    if given is not None:
        _check(declared, given)
        return TensorSpec(declared.name, tuple(given), declared.dtype)
    shape = declared.shape
    if shape and shape[0] is None:
        shape = (batch, *shape[1:])
    if shape is None or None in shape:
        known = "every size known" if batch is None else f"every size known but the first (the batch, then {batch})"
        raise StablenormError(f"input {declared.name!r}: got {declared}, allowed: {known}; {_advice(declared.shape)}")
    return TensorSpec(declared.name, tuple(size for size in shape if size is not None), declared.dtype)


def _check(declared: InputType, given: Shape) -> None:
    sizes = all(size > 0 for size in given)
    fits = declared.shape is None or (
        len(given) == len(declared.shape)
        and all(known in (None, size) for known, size in zip(declared.shape, given, strict=True))
    )
    if not (sizes and fits):
        raise StablenormError(
            f"input {declared.name!r}: got the shape {tuple(given)}, allowed: {declared} with positive sizes; "
            f"{_advice(declared.shape)}"
        )


def _advice(shape: tuple[int | None, ...] | None) -> str:
    """A shape that the model takes, in both spellings; 224 stands for a size that the model leaves open."""
    example = (1, 224, 224, 3)
    if shape is not None:
        example = tuple((size or (224 if axis else 1)) for axis, size in enumerate(shape))  # type: ignore[assignment]
    return f"pass for example --input-shape {','.join(map(str, example))} or input_shape={example}"
