"""Nested inputs and outputs as a flat list of leaves and a tree of positions (`stablenorm.compiler.signature.Tree`).

The leaves of a mapping are in the order of its sorted keys, as in TensorFlow and JAX.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stablenorm.compiler.signature import Tree


def flatten(structure: Any, leaves: list[Any]) -> Tree:
    """The tree of a structure; its leaves are appended to ``leaves``. None stays None and takes no position."""
    if structure is None:
        return None
    if isinstance(structure, Mapping):
        return {str(key): flatten(structure[key], leaves) for key in sorted(structure)}
    if isinstance(structure, list | tuple):
        return tuple(flatten(child, leaves) for child in structure)
    leaves.append(structure)
    return len(leaves) - 1


def rebuild(structure: Any, leaves: Sequence[Any]) -> Any:
    """The structure with its leaves replaced, one by one in the order of `flatten`; its containers keep their kinds."""
    return _rebuild(structure, iter(leaves))


def paths(tree: Tree, prefix: str) -> list[str]:
    """A name for each leaf, in order: the last key on the way to it, else ``prefix``; positions follow it."""
    if tree is None:
        return []
    if isinstance(tree, Mapping):
        return [name for key, child in tree.items() for name in paths(child, str(key))]
    if isinstance(tree, tuple):
        return [name for position, child in enumerate(tree) for name in paths(child, f"{prefix}_{position}")]
    return [prefix]


def _rebuild(structure: Any, leaves: Iterator[Any]) -> Any:
    if structure is None:
        return None
    if isinstance(structure, Mapping):
        return {key: _rebuild(structure[key], leaves) for key in sorted(structure)}
    if isinstance(structure, list | tuple):
        children = [_rebuild(child, leaves) for child in structure]
        if hasattr(structure, "_fields"):
            return type(structure)(*children)
        return children if isinstance(structure, list) else tuple(children)
    return next(leaves)
