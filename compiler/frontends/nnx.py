"""Flax NNX modules with example arguments, for inference."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stablenorm.compiler.diagnostics import StablenormError, first_line
from stablenorm.compiler.frontends.jax_model import JaxModel, import_model
from stablenorm.compiler.frontends.names import unique_names
from stablenorm.compiler.imported import Imported


def from_module(module: Any, arguments: Sequence[Any]) -> Imported:
    """``module(*arguments)`` after ``module.eval()`` as StableHLO; the module itself stays in its mode.

    Its variables are weights, named by their path (``layers/0/kernel``); random keys and their counts are constants.

    Raises:
        StablenormError: no arguments, or the module cannot be called with these.
    """
    from flax import nnx

    if not arguments:
        raise StablenormError(
            f"got a Flax module of type {type(module).__qualname__} without example arguments; "
            "pass an example for each argument of its __call__: compile(module, x)"
        )
    graph, *states = nnx.split(module, nnx.Any(nnx.RngState, _is_key), ...)
    random, state = states
    names, leaves = _named(state)
    structure = jax.tree.structure(state)

    def call(weights: Mapping[str, Any], *inputs: Any) -> tuple[Any, list[str]]:
        copy = nnx.merge(graph, random, jax.tree.unflatten(structure, [weights[name] for name in names]))
        copy.eval()
        outputs = copy(*inputs)
        after = dict(zip(*_named(nnx.state(copy)), strict=True))
        return outputs, [name for name in names if after.get(name) is not weights[name]]

    weights = dict(zip(names, map(jnp.asarray, leaves), strict=True))
    return import_model(JaxModel("Flax", call, weights, tuple(arguments), _input_names(module, arguments)), first_line)


def _is_key(path: Sequence[Any], value: Any) -> bool:
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _named(state: Any) -> tuple[list[str], list[Any]]:
    """The leaves of a state, and the path of each; the value of a variable has the variable's."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    names = [jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value") for path, _ in leaves]
    return unique_names(names), [leaf for _, leaf in leaves]


def _input_names(module: Any, arguments: Sequence[Any]) -> list[str]:
    """``x`` for an array that ``__call__`` calls so, ``x/mask`` for a part of a structure."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [name for name, kind in inspect.signature(module).parameters.items() if kind.kind in kinds]
    parameters += [f"arg{place}" for place in range(len(parameters), len(arguments))]
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tuple(arguments))]
    inner = (jax.tree_util.keystr(path[1:], simple=True, separator="/") for path in paths)
    return ["/".join(filter(None, [parameters[path[0].idx], rest])) for path, rest in zip(paths, inner, strict=True)]
