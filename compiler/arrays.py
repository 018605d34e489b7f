"""NumPy arrays in ``.npy`` and ``.npz`` files. Never pickled: such a file could run code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stablenorm.compiler.diagnostics import StablenormError, first_line
from stablenorm.compiler.signature import Array


def read(path: str | os.PathLike[str]) -> Array:
    """The array in a ``.npy`` file.

    Raises:
        StablenormError: there is no such file, or it holds no plain array.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StablenormError(f"{path}: got no .npy file: {first_line(error)}; write one with numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise StablenormError(
            f"{path}: got an archive of arrays, allowed: a .npy file; pass --input once for each input"
        )
    return array


def write(path: str | os.PathLike[str], outputs: Any) -> None:
    """One array as ``.npy``; several as ``.npz``, named by their place in the structure.

    Raises:
        StablenormError: the file cannot be written, or several outputs would go into a ``.npy``.
    """
    leaves = jax.tree_util.tree_leaves_with_path(outputs)
    is_archive = Path(path).suffix == ".npz"
    if len(leaves) != 1 and not is_archive:
        raise StablenormError(f"{path}: the model has {len(leaves)} outputs; give a file that ends in .npz")
    named = {jax.tree_util.keystr(place, simple=True, separator="/") or "output": leaf for place, leaf in leaves}
    try:
        with Path(path).open("wb") as file:
            if is_archive:
                np.savez(file, **named)
            else:
                np.save(file, leaves[0][1], allow_pickle=False)
    except OSError as error:
        raise StablenormError(f"{path}: cannot be written: {error.strerror}") from error
