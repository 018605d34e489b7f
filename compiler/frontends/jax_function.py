"""JAX functions, with example arguments."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import jax
import jax.export
import numpy as np

from stablenorm.compiler.diagnostics import StablenormError, first_line
from stablenorm.compiler.frontends import stablehlo
from stablenorm.compiler.frontends.main_function import find_main, mark_weights
from stablenorm.compiler.frontends.names import unique_names
from stablenorm.compiler.imported import Imported
from stablenorm.compiler.signature import Array, Signature, TensorSpec, Tree
from stablenorm.compiler.stablehlo_io import read_module
from stablenorm.passes.context import make_context


def from_function(
    function: Callable[..., Any], arguments: Sequence[Any], weight_argnums: int | Sequence[int] = ()
) -> Imported:
    """``function(*arguments)`` as StableHLO.

    The leaves of the arguments in ``weight_argnums`` are weights, named by their path (``params/bn/scale``); arrays
    that the function closes over are constants. The other arguments are the inputs.

    Raises:
        StablenormError: no arguments, a weight without a value, or JAX cannot trace the function for them.
    """
    argnums = {weight_argnums} if isinstance(weight_argnums, int) else set(weight_argnums)
    if not arguments or not argnums <= set(range(len(arguments))):
        raise StablenormError(
            f"got a JAX function with {len(arguments)} example arguments and weight_argnums {sorted(argnums)}; "
            "pass an example for each argument: compile(function, x), or compile(function, params, x, weight_argnums=0)"
        )
    try:
        exported = export(function, arguments)
    except Exception as error:
        raise StablenormError(f"JAX cannot trace the function for these arguments: {first_line(error)}") from error
    return from_exported(exported, arguments, argnums)


def export(function: Callable[..., Any], arguments: Sequence[Any]) -> jax.export.Exported:
    """``function(*arguments)`` as JAX exports it, unused arguments kept. Raises whatever the function raises."""
    return jax.export.export(jax.jit(function, keep_unused=True), platforms=["cpu"])(*arguments)


def from_exported(exported: jax.export.Exported, arguments: Sequence[Any], weight_argnums: Container[int]) -> Imported:
    """What `export` made of these arguments, as `from_function`.

    Raises:
        StablenormError: a weight without a value.
    """
    module = read_module(exported.mlir_module_serialized, "the exported function", make_context())
    leaves = jax.tree_util.tree_leaves_with_path(tuple(arguments))
    is_weight = [path[0].idx in weight_argnums for path, _ in leaves]
    names = unique_names(_name(path, weight) for (path, _), weight in zip(leaves, is_weight, strict=True))
    every = list(zip(names, leaves, exported.in_avals, is_weight, strict=True))
    weights = {name: _value(name, leaf, aval) for name, (_, leaf), aval, is_one in every if is_one}
    mark_weights(find_main(module), [name if is_one else None for name, _, _, is_one in every])
    outputs, output_tree = _outputs(exported)
    inputs = [_spec(name, aval) for name, _, aval, is_one in every if not is_one]
    skeleton = [argument for place, argument in enumerate(arguments) if place not in weight_argnums]
    tree = _tree(jax.tree.unflatten(jax.tree.structure(skeleton), range(len(inputs))))
    signature = Signature(tuple(inputs), outputs, tree, output_tree)
    return Imported(module, weights, signature, stablehlo.reference(module, weights))


def _value(name: str, leaf: Any, aval: Any) -> Array:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise StablenormError(f"weight {name!r}: got a shape without values; pass the array itself")
    return np.asarray(leaf, aval.dtype)  # JAX reads a Python number, or float64, as float32


def _spec(name: str, aval: Any) -> TensorSpec:
    return TensorSpec(name, tuple(aval.shape), np.dtype(aval.dtype).name)


def _outputs(exported: jax.export.Exported) -> tuple[tuple[TensorSpec, ...], Tree]:
    skeleton = jax.tree.unflatten(exported.out_tree, range(len(exported.out_avals)))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(skeleton)]
    names = unique_names(_joined(path) or "output" for path in paths)
    return tuple(map(_spec, names, exported.out_avals)), _tree(skeleton)


def _tree(skeleton: Any) -> Tree:
    """A pytree of positions as nested dicts and tuples; nodes of other types become tuples of their children."""
    if skeleton is None or isinstance(skeleton, int):
        return skeleton
    if isinstance(skeleton, Mapping):
        return {str(key): _tree(skeleton[key]) for key in sorted(skeleton)}
    children, _ = jax.tree_util.default_registry.flatten_one_level(skeleton)
    return tuple(map(_tree, children))


def _name(path: tuple[Any, ...], is_weight: bool) -> str:
    """``params/bn/scale`` for ``({"params": {"bn": {"scale": ...}}}, x)``; ``arg1`` for x, ``arg1/mask`` for a part."""
    inner = _joined(path[1:])
    return inner if is_weight and inner else "/".join(filter(None, [f"arg{path[0].idx}", inner]))


def _joined(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
