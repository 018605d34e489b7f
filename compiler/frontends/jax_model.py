"""A model on JAX that keeps its weights in objects, as `Imported`: the objects' values become named arguments."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.jax_function import export, from_exported
from stablenorm.compiler.frontends.names import unique_names
from stablenorm.compiler.frontends.structures import paths
from stablenorm.compiler.imported import Imported
from stablenorm.compiler.signature import Array, Signature, TensorSpec, describe


@dataclasses.dataclass(frozen=True)
class JaxModel:
    """``call(weights, *arguments)`` returns any structure of arrays, and the weights as they are after the call.

    ``arguments`` are arrays or shapes; ``input_names`` names their leaves. ``output_names`` names the outputs where
    these are a flat sequence of as many.
    """

    kind: str
    call: Callable[..., tuple[Any, Mapping[str, Any]]]
    weights: Mapping[str, Any]
    arguments: Sequence[Any]
    input_names: Sequence[str]
    output_names: Sequence[str] = ()
    open_batch: bool = False


def import_model(model: JaxModel, explain: Callable[[BaseException], str]) -> Imported:
    """The model as StableHLO. ``explain`` says in a line what an exception of the model's own code means.

    Variables that a call updates are not updated by ``@main``; a warning names them.

    Raises:
        StablenormError: the model cannot be called with these arguments.
    """
    suspects: list[str] = []

    def main(weights: Mapping[str, Any], *arguments: Any) -> Any:
        outputs, after = model.call(weights, *arguments)
        suspects[:] = [name for name in after if after[name] is not weights[name]]
        return outputs

    arguments = (dict(model.weights), *model.arguments)
    try:
        exported = export(main, arguments)
    except StablenormError:
        raise
    except Exception as error:
        raise StablenormError(
            f"{model.kind} cannot call the model with inputs ({_inputs(model)}): {explain(error)}; "
            "check that the model runs on inputs of these shapes and dtypes"
        ) from error
    imported = from_exported(exported, arguments, {0})
    updated = _updated(model.call, arguments) if suspects else []
    if updated:
        warnings.warn(f"a compiled call does not update these variables: {', '.join(updated)}", stacklevel=4)
    signature = _named(imported.signature, model)
    return Imported(imported.module, imported.weights, signature, _reference(main, arguments), model.open_batch)


def _updated(call: Callable[..., tuple[Any, Mapping[str, Any]]], arguments: Sequence[Any]) -> list[str]:
    """The weights that a call gives other values; a function that is jitted inside of it hands all on as new arrays."""
    names = sorted(arguments[0])
    jaxpr = jax.make_jaxpr(lambda *every: [call(*every)[1][name] for name in names])(*arguments).jaxpr
    places = zip(names, jaxpr.invars, jaxpr.outvars, strict=False)  # the weights are the first arguments
    return [name for name, before, after in places if _origin(jaxpr, after) is not before]


def _origin(jaxpr: Any, value: Any) -> Any:
    """The value that calls of jitted functions hand on as this one."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "jit" and any(value is result for result in equation.outvars):
            inner = equation.params["jaxpr"].jaxpr
            origin = _origin(inner, inner.outvars[equation.outvars.index(value)])
            places = [place for place, argument in enumerate(inner.invars) if argument is origin]
            return _origin(jaxpr, equation.invars[places[0]]) if places else value
    return value


def _inputs(model: JaxModel) -> str:
    leaves = zip(model.input_names, jax.tree.leaves(tuple(model.arguments)), strict=True)
    return ", ".join(f"{name}: {_kind(leaf)}" for name, leaf in leaves)


def _kind(leaf: Any) -> str:
    return describe(leaf.dtype, leaf.shape) if hasattr(leaf, "dtype") and hasattr(leaf, "shape") else repr(leaf)


def _named(signature: Signature, model: JaxModel) -> Signature:
    names: Sequence[str] = model.output_names
    if len(names) != len(signature.outputs) or isinstance(signature.output_tree, dict):
        names = paths(signature.output_tree, "output")
    return dataclasses.replace(
        signature, inputs=_renamed(signature.inputs, model.input_names), outputs=_renamed(signature.outputs, names)
    )


def _renamed(specs: Sequence[TensorSpec], names: Sequence[str]) -> tuple[TensorSpec, ...]:
    return tuple(dataclasses.replace(spec, name=name) for spec, name in zip(specs, unique_names(names), strict=True))


def _reference(main: Callable[..., Any], arguments: Sequence[Any]) -> Callable[[Sequence[Array]], list[Array]]:
    """The model compiled by JAX itself, as its framework does: called eagerly, each operation is compiled by itself."""
    weights, *inputs = arguments
    structure = jax.tree.structure(tuple(inputs))
    compiled = jax.jit(main)

    def reference(arrays: Sequence[Array]) -> list[Array]:
        outputs = compiled(weights, *jax.tree.unflatten(structure, arrays))
        return [np.asarray(output) for output in jax.tree.leaves(outputs)]

    return reference
