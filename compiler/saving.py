"""The folder of a compiled model: ``module.mlirbc``, ``weights.safetensors``, ``report.json``."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend.mlir import ir

from stablenorm.compiler.cost import Cost
from stablenorm.compiler.diagnostics import StablenormError, first_line
from stablenorm.compiler.report import Report
from stablenorm.compiler.signature import Array, Signature
from stablenorm.compiler.stablehlo_io import portable_artifact, read_module
from stablenorm.compiler.targets import Target, find_target
from stablenorm.passes.context import make_context
from stablenorm.passes.dtypes import DTYPES, dtype_of
from stablenorm.passes.rewriting import find_function

MODULE, WEIGHTS, REPORT = "module.mlirbc", "weights.safetensors", "report.json"
SIGNATURE, TARGET, TOPOLOGY = "stablenorm.signature", "stablenorm.target", "stablenorm.topology"


@dataclasses.dataclass(frozen=True)
class Saved:
    """What the folder holds. The signature and the target's names stand in the module, as attributes."""

    module: ir.Module
    signature: Signature
    weights: Mapping[str, Array]
    report: Report
    target: Target


def save(path: str | os.PathLike[str], saved: Saved, cost: Cost) -> None:
    """Writes the folder beside its place, then moves it there."""
    place = Path(path).resolve()  # a link keeps pointing there
    check_replaceable(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as scratch:
            fresh, old = Path(scratch, "new"), Path(scratch, "old")
            fresh.mkdir()
            (fresh / MODULE).write_bytes(_artifact(saved))
            write_weights(fresh / WEIGHTS, saved.weights)
            (fresh / REPORT).write_text(saved.report.to_json(cost=dataclasses.asdict(cost)))
            _exchange(place, fresh, old)
    except OSError as error:
        raise StablenormError(f"{place}: cannot be written: {error.strerror}; choose another folder") from error


def load(path: str | os.PathLike[str]) -> Saved:
    """Reads the folder written by `save`. No code in it runs.

    Raises:
        StablenormError: it is not such a folder, or a file in it is broken.
    """
    place = Path(path)
    missing = [name for name in (MODULE, WEIGHTS, REPORT) if not (place / name).is_file()]
    if missing:
        raise StablenormError(f"{place}: got no {missing[0]}, allowed: a folder written by `stablenorm compile -o`")
    module = read_module((place / MODULE).read_bytes(), str(place / MODULE), make_context())
    attributes = module.operation.attributes
    try:
        signature = Signature.from_json(ir.StringAttr(attributes[SIGNATURE]).value)
        topology = ir.StringAttr(attributes[TOPOLOGY]).value if TOPOLOGY in attributes else None
        target = find_target(ir.StringAttr(attributes[TARGET]).value, topology)
        report = Report.from_json((place / REPORT).read_text())
        _check_signature(signature, module)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StablenormError(f"{place}: got a broken folder ({first_line(error)}); compile the model again") from error
    return Saved(module, signature, read_weights(place / WEIGHTS), report, target)


def _check_signature(signature: Signature, module: ir.Module) -> None:
    """Raises ValueError where it is not that of ``@main``, whose arguments begin with the inputs."""
    main = find_function(module, "main")
    if main is None:
        raise ValueError("its module has no @main")
    sides = (
        (signature.inputs, list(main.type.inputs)[: len(signature.inputs)], signature.input_tree),
        (signature.outputs, list(main.type.results), signature.output_tree),
    )
    for specs, types, tree in sides:
        told = [(spec.shape, spec.dtype) for spec in specs]
        real = [(tuple(ir.RankedTensorType(type_).shape), str(dtype_of(type_))) for type_ in types]
        if told != real or sorted(jax.tree.leaves(tree)) != list(range(len(specs))):
            raise ValueError("its signature is not its module's")


def write_weights(path: Path, weights: Mapping[str, Array]) -> None:
    import safetensors.numpy

    contiguous = {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in weights.items()}
    path.write_bytes(safetensors.numpy.save(contiguous))


def read_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays in a safetensors file, by name.

    Raises:
        StablenormError: there is no such file, or it is no safetensors file.
    """
    import safetensors

    try:
        tensors = safetensors.deserialize(Path(path).read_bytes())
        return {name: _array(entry) for name, entry in tensors}
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
        raise StablenormError(f"{path}: got no safetensors file: {first_line(error)}") from error


def _array(entry: Mapping[str, Any]) -> Array:
    """Safetensors' own NumPy reader lacks bfloat16; the names of its types are MLIR's in capitals, but for a few."""
    name = entry["dtype"].lower()
    element = {"bool": "i1", "c64": "complex<f32>", "f8_e4m3": "f8E4M3FN", "f8_e5m2": "f8E5M2"}.get(name)
    dtype = DTYPES[element or name.replace("u", "ui")]
    return np.frombuffer(entry["data"], dtype).reshape(entry["shape"])


def _artifact(saved: Saved) -> bytes:
    with saved.module.context:
        saved.module.operation.attributes[SIGNATURE] = ir.StringAttr.get(saved.signature.to_json())
        saved.module.operation.attributes[TARGET] = ir.StringAttr.get(saved.target.name)
        if saved.target.topology is not None:
            saved.module.operation.attributes[TOPOLOGY] = ir.StringAttr.get(saved.target.topology)
    return portable_artifact(saved.module)


def _exchange(place: Path, fresh: Path, old: Path) -> None:
    """Puts ``fresh`` where ``place`` is, and that, if it is there, to ``old``; puts it back where that fails."""
    if place.exists():
        place.rename(old)
    try:
        fresh.rename(place)
    except OSError:
        if old.exists():
            old.rename(place)
        raise


def check_replaceable(place: Path) -> None:
    """Only what an earlier save wrote is replaced: nobody's other files are lost.

    Raises:
        StablenormError: something else stands at ``place``.
    """
    if place.is_dir():
        foreign = {entry.name for entry in place.iterdir()} - {MODULE, WEIGHTS, REPORT}
        if foreign:
            raise StablenormError(f"{place}: got a folder with other files ({min(foreign)}); choose a new folder")
    elif place.exists():
        raise StablenormError(f"{place}: got a file, allowed: a new folder, or one written by stablenorm")
