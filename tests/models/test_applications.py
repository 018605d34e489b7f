"""The real architectures of tf_keras.applications, every weight random: all of the whole way, at once."""

from __future__ import annotations

import gc

import jax
import numpy as np
import pytest

from stablenorm import compiler
from stablenorm.compiler import demo

# Batch norms folded, and all of them, with scales of both signs. DenseNet's others read a concatenation that the next
# layers read too, and a ReLU reads them, which lets only a positive scale pass.
APPLICATIONS = {
    "ResNet50": (53, 53),
    "MobileNetV2": (52, 52),
    "EfficientNetB0": (49, 49),
    "DenseNet121": (59, 121),
    "InceptionV3": (94, 94),
    "Xception": (40, 40),
    "NASNetMobile": (192, 192),
}
POSITIVE = {"DenseNet121": (121, 121), "ResNet50V2": (49, 49)}
SIZE = 96  # height and width of the images: what all seven take, and quick
# Float32 through up to two hundred layers, summed in another order by another compiler.
TOLERANCE = 1e-5


@pytest.mark.parametrize(
    ("name", "folds", "positive"),
    [(name, folds, False) for name, folds in APPLICATIONS.items()]
    + [(name, POSITIVE[name], True) for name in POSITIVE],
)
def test_the_compiled_model_computes_what_tf_keras_does_with_its_batch_norms_folded(
    name: str, folds: tuple[int, int], positive: bool
) -> None:
    import tf_keras

    build = getattr(tf_keras.applications, name)
    model = build(weights=None, classifier_activation=None, input_shape=(SIZE, SIZE, 3))
    demo.randomize(model)
    for gamma in (weight for weight in model.weights if positive and "gamma" in weight.name):
        gamma.assign(abs(gamma))
    executable = compiler.compile(model)
    x = np.random.default_rng(1).normal(size=(1, SIZE, SIZE, 3)).astype(np.float32)
    expected = model(x, training=False).numpy()
    largest = np.abs(expected).max()
    assert largest > 0
    np.testing.assert_allclose(executable(x), expected, rtol=0, atol=TOLERANCE * largest)
    report = executable.report
    norms = [layer.name for layer in model.layers if isinstance(layer, tf_keras.layers.BatchNormalization)]
    assert sorted(row.name for row in report.rows if row.kind == "batch norm") == sorted(norms)
    assert (report.folded, report.total) == folds
    assert report.removed >= report.folded
    assert all(row.into for row in report.rows if row.status == "folded")
    assert all(row.reason for row in report.rows if row.status == "kept")
    tf_keras.backend.clear_session()
    jax.clear_caches()
    gc.collect()
