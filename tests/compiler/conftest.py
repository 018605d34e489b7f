"""What the tests of the frontends share."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stablenorm.compiler.imported import Imported
from stablenorm.compiler.signature import Array
from stablenorm.compiler.targets import find_target
from stablenorm.compiler.xla import compile_module
from stablenorm.passes.base import PassContext
from stablenorm.passes.import_cleanup import ImportCleanup


@pytest.fixture(scope="session")
def assert_same() -> Callable[..., list[Array]]:
    """Compiles an imported module with XLA and compares it with the framework's own results, which it returns."""

    def check(imported: Imported, *, tolerance: float = 1e-5, high: int = 3) -> list[Array]:
        rng = np.random.default_rng(0)
        inputs = [_draw(rng, spec.shape, np.dtype(spec.dtype), high) for spec in imported.signature.inputs]
        ImportCleanup().run(imported.module, PassContext(weights=imported.weights))
        got = compile_module(imported.module, find_target("cpu"))(*inputs, *imported.weights.values())
        expected = imported.reference(inputs)
        assert len(got) == len(expected) == len(imported.signature.outputs)
        for ours, theirs, spec in zip(got, expected, imported.signature.outputs, strict=True):
            assert (theirs.shape, theirs.dtype.name) == (spec.shape, spec.dtype)
            assert (ours.shape, ours.dtype.name) == (spec.shape, spec.dtype)
            exact = theirs.astype("float64")
            scale = max(1.0, float(np.abs(exact).max(initial=0.0)))
            np.testing.assert_allclose(np.asarray(ours).astype("float64"), exact, rtol=0, atol=tolerance * scale)
        return expected

    return check


@pytest.fixture(scope="session")
def randomised() -> Callable[[Any], Any]:
    """Gives every weight of a built Keras model a random value: fresh biases and statistics would hide mistakes."""

    def randomise(model: Any) -> Any:
        rng = np.random.default_rng(1)
        for weight in model.weights:
            name = weight.name.lower()
            low, high = (0.5, 2.0) if "variance" in name else (-0.7, 0.9)
            weight.assign(rng.uniform(low, high, weight.shape).astype(weight.dtype.as_numpy_dtype))
        return model

    return randomise


@pytest.fixture(scope="session")
def libtpu() -> Iterator[None]:
    """XLA for TPUs can be imported, from where `make setup` installs what tpu.lock names."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("XLA for TPUs exists for Linux on x86-64 only")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(sys.prefix) / "tpu"))
        patch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # workers compile at the same time
        yield


def _draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any], high: int) -> Array:
    if dtype.kind in "iu":
        return rng.integers(0, high, shape).astype(dtype)
    return rng.normal(size=shape).astype(dtype)
