"""The architectures of keras.applications, every weight random: what folds in tf_keras's folds in Keras 3's."""

from __future__ import annotations

import gc

import jax
import keras
import numpy as np
import pytest

from stablenorm import compiler
from stablenorm.compiler import demo
from tests.models.test_applications import APPLICATIONS, SIZE, TOLERANCE


@pytest.fixture(autouse=True)
def _zero_initializers(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX would compile a generator of random numbers for each shape, for numbers that are replaced anyway."""
    zeros = lambda self, shape, dtype=None: np.zeros(shape, dtype)  # noqa: E731
    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", zeros)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_compiled_model_computes_what_keras_does_with_its_batch_norms_folded(name: str) -> None:
    build = getattr(keras.applications, name)
    model = build(weights=None, classifier_activation=None, input_shape=(SIZE, SIZE, 3))
    demo.randomize(model)
    executable = compiler.compile(model)
    x = np.random.default_rng(1).normal(size=(1, SIZE, SIZE, 3)).astype(np.float32)
    expected = model.predict_on_batch(x)
    largest = np.abs(expected).max()
    assert largest > 0
    np.testing.assert_allclose(executable(x), expected, rtol=0, atol=TOLERANCE * largest)
    report = executable.report
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    # A layer's name with the scopes that it was made in, as NASNet's blocks are.
    assert sorted(row.name for row in report.rows if row.kind == "batch norm") == sorted(
        norm.moving_mean.path.rpartition("/")[0] for norm in norms
    )
    assert (report.folded, report.total) == APPLICATIONS[name]
    assert all(row.into for row in report.rows if row.status == "folded")
    assert all(row.reason for row in report.rows if row.status == "kept")
    keras.backend.clear_session()
    jax.clear_caches()
    gc.collect()
