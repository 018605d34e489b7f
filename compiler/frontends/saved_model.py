"""SavedModel folders, any signature, whatever wrote them."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.input_shapes import InputShape, InputType, has_open_batch, resolve_shapes
from stablenorm.compiler.frontends.names import unique_names
from stablenorm.compiler.frontends.saved_model_program import check_program
from stablenorm.compiler.frontends.structures import flatten, rebuild
from stablenorm.compiler.frontends.tensorflow_captures import variable_labels
from stablenorm.compiler.frontends.tensorflow_module import TensorFlowModel, import_model
from stablenorm.compiler.frontends.tensorflow_runtime import first_useful_line, import_tensorflow, quiet_stderr
from stablenorm.compiler.imported import Imported

_DEFAULT = "serving_default"


@dataclasses.dataclass(frozen=True)
class _Entry:
    """What is compiled: ``function(*arguments, **keywords)``; leaves that are no `TensorSpec` are passed as they are.

    ``owner`` is the loaded model: its variables live as long as it does.
    """

    owner: Any
    function: Callable[..., Any]
    concrete: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


def from_saved_model(
    path: str | os.PathLike[str], input_shape: InputShape | None = None, signature: str | None = None
) -> Imported:
    """One signature of a SavedModel as StableHLO: ``signature``, else ``serving_default``, else the only one.

    Without signatures, what the model's ``__call__`` was traced for, with ``training=False`` rather than True.
    Signatures take and return tensors by name: their result is a dict. No Python code of the model runs; TensorFlow
    runs the graph that initializes its tables, after a check that it holds nothing else.

    Raises:
        StablenormError: no SavedModel, no such signature, unknown or contradicting shapes, or XLA cannot compile it.
    """
    name = os.fspath(path)
    entry = _choose(_load(name), name, signature)
    leaves: list[Any] = []
    structure = (entry.arguments, entry.keywords)
    flatten(structure, leaves)
    types = _input_types(leaves)
    specs = resolve_shapes(types, input_shape)

    def call(*tensors: Any) -> Any:
        given = iter(tensors)
        arguments, keywords = rebuild(structure, [next(given) if _is_tensor(leaf) else leaf for leaf in leaves])
        return entry.function(*arguments, **keywords)

    taken = [argument for argument in entry.arguments if _has_tensor(argument)]
    tree = flatten((*taken, entry.keywords) if entry.keywords else tuple(taken), [])
    labels = functools.partial(variable_labels, entry.concrete.graph.variables)
    open_batch = has_open_batch(types, input_shape)
    return import_model(TensorFlowModel(call, specs, tree, labels, open_batch=open_batch))


def _load(path: str) -> Any:
    program = Path(path) / "saved_model.pb"
    if not program.is_file():
        raise StablenormError(
            f"{path}: got no saved_model.pb in it, allowed: a SavedModel folder; pass the folder itself"
        )
    tf = import_tensorflow()
    check_program(program)
    try:
        with quiet_stderr():
            return tf.saved_model.load(path)
    except Exception as error:
        raise StablenormError(
            f"{path}: TensorFlow cannot load the SavedModel: {first_useful_line(error)}; export it again"
        ) from error


def _choose(loaded: Any, path: str, signature: str | None) -> _Entry:
    signatures = dict(loaded.signatures)
    if signature is None and not signatures:
        return _traced_call(loaded, path)
    if signature is None:
        signature = _DEFAULT if _DEFAULT in signatures or len(signatures) > 1 else next(iter(signatures))
    if signature not in signatures:
        raise StablenormError(
            f"{path}: got the signature {signature!r}, allowed: {', '.join(sorted(signatures)) or 'none are there'}; "
            "choose one with --signature or signature="
        )
    concrete = signatures[signature]
    arguments, keywords = concrete.structured_input_signature
    return _Entry(loaded, concrete, concrete, tuple(arguments), dict(keywords))


def _traced_call(loaded: Any, path: str) -> _Entry:
    """The trace of ``__call__`` for inference with the fewest sizes fixed."""
    # A loaded model is callable only where its class was: then this is a restored function.
    traces = loaded.__call__.concrete_functions if callable(loaded) else []
    entries = [_Entry(loaded, loaded, trace, *trace.structured_input_signature) for trace in traces]
    entries = [entry for entry in entries if True not in _constants(entry)]
    if not entries:
        raise StablenormError(
            f"{path}: got a SavedModel without signatures and without a traced __call__ for inference; "
            "export it with signatures=..."
        )
    return max(entries, key=lambda entry: (False in _constants(entry), _open_sizes(entry)))


def _leaves(entry: _Entry) -> list[Any]:
    leaves: list[Any] = []
    flatten((entry.arguments, entry.keywords), leaves)
    return leaves


def _constants(entry: _Entry) -> list[bool]:
    return [leaf for leaf in _leaves(entry) if isinstance(leaf, bool)]


def _open_sizes(entry: _Entry) -> int:
    shapes = [leaf.shape for leaf in _leaves(entry) if _is_tensor(leaf)]
    return sum(shape.rank is None or sum(size is None for size in shape) for shape in shapes)


def _input_types(leaves: list[Any]) -> list[InputType]:
    specs = [leaf for leaf in leaves if _is_tensor(leaf)]
    names = unique_names(spec.name or f"input_{position}" for position, spec in enumerate(specs, 1))
    for name, spec in zip(names, specs, strict=True):
        if spec.dtype.name == "string":
            raise StablenormError(
                f"input {name!r}: got strings, allowed: numbers; choose another signature, or export the model without "
                "the step that reads strings"
            )
    shapes = [None if spec.shape.rank is None else tuple(spec.shape.as_list()) for spec in specs]
    return [InputType(name, shape, spec.dtype.name) for name, shape, spec in zip(names, shapes, specs, strict=True)]


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, import_tensorflow().TensorSpec)


def _has_tensor(argument: Any) -> bool:
    leaves: list[Any] = []
    flatten(argument, leaves)
    return any(map(_is_tensor, leaves))
