"""What the tests on whole models share: random weights, the framework's own outputs, and the comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest

from stablenorm import compiler
from stablenorm.compiler import demo

Check = Callable[..., compiler.Executable]
# A few layers in float32, summed in another order by another compiler.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def _fresh_keras() -> Iterator[None]:
    import tf_keras

    tf_keras.backend.clear_session()
    yield
    tf_keras.mixed_precision.set_global_policy("float32")
    tf_keras.backend.set_floatx("float32")


@pytest.fixture
def check() -> Check:
    """Randomises the model, compiles it, compares its outputs with eager tf_keras and its counts with ``folds``."""

    def run(model: Any, *inputs: Any, folds: tuple[int, int], tolerance: float = TOLERANCE) -> compiler.Executable:
        demo.randomize(model)
        executable = compiler.compile(model)
        assert_close(executable(*inputs), eager(model, *inputs), tolerance)
        report = executable.report
        assert (report.folded, report.total) == folds, str(report)
        assert all(row.into if row.status == "folded" else row.reason for row in report.rows)
        return executable

    return run


def eager(model: Any, *inputs: Any) -> Any:
    """What tf_keras computes, without any compiler."""
    import tensorflow as tf

    return jax.tree.map(np.asarray, model(*jax.tree.map(tf.convert_to_tensor, inputs), training=False))


def assert_close(ours: Any, theirs: Any, tolerance: float = TOLERANCE) -> None:
    """Same structure, shapes and dtypes; the largest difference is within ``tolerance`` of the largest value."""
    ours, theirs = ([leaf for _, leaf in sorted(flat(tree))] for tree in (ours, theirs))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        exact = b.astype(np.float64)
        assert np.isfinite(exact).all()
        largest = np.abs(exact).max()
        assert largest > 0
        np.testing.assert_allclose(a.astype(np.float64), exact, rtol=0, atol=tolerance * largest)


def flat(tree: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.random.default_rng(7).normal(size=shape).astype(dtype)
