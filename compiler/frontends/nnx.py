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
    Arguments that are bools or strings are options, such as ``train=False``, and no inputs of what is compiled.

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
    keys, random_structure = jax.tree.flatten(random)
    names, leaves = _named(state)
    structure = jax.tree.structure(state)
    is_option = [isinstance(argument, bool | str) for argument in arguments]

    def call(weights: Mapping[str, Any], *inputs: Any) -> tuple[Any, dict[str, Any]]:
        values = jax.tree.unflatten(structure, [weights[name] for name in names])
        copy = nnx.merge(graph, values, jax.tree.unflatten(random_structure, keys))
        copy.eval()
        rest = iter(inputs)
        outputs = copy(*(given if option else next(rest) for given, option in zip(arguments, is_option, strict=True)))
        after = dict(zip(*_named(nnx.state(copy)), strict=True))
        return outputs, {name: after.get(name, weights[name]) for name in names}

    weights = dict(zip(names, map(jnp.asarray, leaves), strict=True))
    examples = [given for given, option in zip(arguments, is_option, strict=True) if not option]
    input_names = [name for name, place in _input_names(module, arguments) if not is_option[place]]
    return import_model(JaxModel("Flax", call, weights, examples, input_names), first_line)


def _is_key(path: Sequence[Any], value: Any) -> bool:
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _named(state: Any) -> tuple[list[str], list[Any]]:
    """The leaves of a state, and the path of each; the value of a variable has the variable's."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    names = [jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value") for path, _ in leaves]
    return unique_names(names), [leaf for _, leaf in leaves]


def _input_names(module: Any, arguments: Sequence[Any]) -> list[tuple[str, int]]:
    """``x`` for an array that ``__call__`` calls so, ``x/mask`` for a part of a structure; and which argument it is."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [name for name, kind in inspect.signature(module).parameters.items() if kind.kind in kinds]
    parameters += [f"arg{place}" for place in range(len(parameters), len(arguments))]
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tuple(arguments))]
    inner = [jax.tree_util.keystr(path[1:], simple=True, separator="/") for path in paths]
    places = [path[0].idx for path in paths]
    return [("/".join(filter(None, [parameters[n], rest])), n) for n, rest in zip(places, inner, strict=True)]
