"""Reads the arrays of a PyTorch checkpoint of before PyTorch 1.6, without PyTorch and without running what it names.

The file is a row of pickles (magic number, version, sizes of types, the dictionary of tensors, the storages' keys) and
then, for each key, the number of elements and the elements.
"""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
TYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Tensor(NamedTuple):
    """A view of a storage, which stands further back in the file."""

    key: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Builds dictionaries and views of storages, and nothing else."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda key, offset, shape, stride, *_: _Tensor(key, offset, shape, stride)
        if module == "torch" and name in TYPES:
            return TYPES[name]
        raise pickle.UnpicklingError(f"got {module}.{name}, allowed: tensors of {', '.join(TYPES)}")

    def persistent_load(self, pid: Any) -> str:
        _, dtype, key, *_ = pid
        self.storages[key] = dtype
        return str(key)


def read_checkpoint(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors by name."""
    with path.open("rb") as file:
        magic_number, _, _ = (_Unpickler(file).load() for _ in range(3))
        assert magic_number == MAGIC_NUMBER
        unpickler = _Unpickler(file)
        tensors = unpickler.load()
        storages = {key: _storage(file, unpickler.storages[key]) for key in _Unpickler(file).load()}
    return {name: _array(tensor, storages[tensor.key]) for name, tensor in tensors.items()}


def _storage(file: BinaryIO, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    (count,) = np.frombuffer(file.read(8), "<i8")
    return np.frombuffer(file.read(int(count) * dtype.itemsize), dtype)


def _array(tensor: _Tensor, storage: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    strides = [step * storage.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides)
