"""Ways in: each frontend turns what a user has into `Imported`, StableHLO with named weights."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stablenorm.compiler import saving
from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.imported import Imported
from stablenorm.compiler.signature import Array


def import_model(
    model: Any,
    arguments: Sequence[Any] = (),
    *,
    input_shape: Any = None,
    weights: Mapping[str, Array] | None = None,
    weight_argnums: int | Sequence[int] = (),
    signature: str | None = None,
) -> Imported:
    """Picks the frontend by what ``model`` is. Arguments as for `stablenorm.compiler.compile`.

    Raises:
        StablenormError: the model is of no known kind, or its frontend cannot import it.
    """
    if isinstance(model, str | os.PathLike):
        return _import_path(Path(model), input_shape, weights, signature)
    if _descends_from(model, "tf_keras.src.engine.training.Model"):
        from stablenorm.compiler.frontends import tf_keras

        return tf_keras.from_model(model, input_shape)
    if _descends_from(model, "keras.src.models.model.Model"):
        from stablenorm.compiler.frontends import keras

        return keras.from_model(model, input_shape, arguments)
    if _descends_from(model, "flax.nnx.module.Module"):
        from stablenorm.compiler.frontends import nnx

        return nnx.from_module(model, arguments)
    if _descends_from(model, "flax.linen.module.Module"):
        raise StablenormError(
            f"got a Flax linen module of type {type(model).__qualname__}, allowed: a function of its variables; "
            "compile(lambda variables, x: module.apply(variables, x), variables, x, weight_argnums=0), "
            "with its batch norms told use_running_average=True"
        )
    if callable(model):
        from stablenorm.compiler.frontends import jax_function

        return jax_function.from_function(model, arguments, weight_argnums)
    raise StablenormError(
        f"got a model of type {type(model).__module__}.{type(model).__qualname__}, "
        "allowed: a tf_keras model, a Keras 3 model, a Flax NNX module, a JAX function, "
        "a path to a .keras, .h5, .mlir or .mlirbc file or to a SavedModel"
    )


def _import_path(path: Path, input_shape: Any, weights: Mapping[str, Array] | None, signature: str | None) -> Imported:
    if not path.exists():
        raise StablenormError(f"{path}: got no such file; pass a .keras, .h5, .mlir or .mlirbc file, or a SavedModel")
    if (path / saving.MODULE).is_file():
        raise StablenormError(f"{path}: got a model that stablenorm compiled; load it, or run it with `stablenorm run`")
    if path.is_dir():
        from stablenorm.compiler.frontends import saved_model

        return saved_model.from_saved_model(path, input_shape, signature)
    if path.suffix in (".keras", ".h5", ".hdf5") or zipfile.is_zipfile(path):
        return _import_keras_file(os.fspath(path), input_shape)
    from stablenorm.compiler.frontends import stablehlo

    return stablehlo.from_file(path, input_shape, weights)


def _import_keras_file(path: str, input_shape: Any) -> Imported:
    from stablenorm.compiler.frontends.keras3_file import is_keras3_file

    if is_keras3_file(path):
        from stablenorm.compiler.frontends import keras

        return keras.from_file(path, input_shape)
    from stablenorm.compiler.frontends import tf_keras

    return tf_keras.from_file(path, input_shape)


def _descends_from(model: Any, name: str) -> bool:
    """Asked of the class's ancestors by name, so that nothing is imported to ask."""
    return name in {f"{parent.__module__}.{parent.__qualname__}" for parent in type(model).__mro__}
