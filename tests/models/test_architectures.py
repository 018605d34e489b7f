"""Five kinds of networks from files at the shell: what folds, why the rest stays, and tf_keras's outputs.

`stablenorm check` allows a difference of 1e-5 of the largest output, and returns 1 where it is larger.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras

from stablenorm.compiler import cli, demo
from tests.models import architectures

Check = Callable[[Any], None]

# How many batch norms of each network fold, and which stay.
NETWORKS: dict[str, tuple[int, set[str]]] = {
    "mobilenet_v1": (27, set()),
    "resnet_v2": (13, {f"batch_normalization_{number}" for number in (3, 6, 9, 12, 15, 18)}),
    "unet": (17, set()),
    "conv1d_stack": (10, set()),
    "mlp": (5, set()),
}
# They are those of ResNet v2 that read the running sum, as the next sum does too, and that a ReLU reads.
REASON = re.compile(r"has another consumer; behind it, stablehlo\.maximum\b")


@pytest.mark.parametrize("name", NETWORKS)
def test_random_weights(name: str, check_file: Check) -> None:
    model = getattr(architectures, name)()
    demo.randomize(model)
    check_file(model)


@pytest.mark.parametrize("name", NETWORKS)
def test_scales_of_every_sign_and_variances_of_nothing(name: str, check_file: Check) -> None:
    model = getattr(architectures, name)()
    demo.randomize(model)
    norms = [layer for layer in model.layers if isinstance(layer, tf_keras.layers.BatchNormalization)]
    for number, norm in enumerate(norms):
        generator = np.random.default_rng(number)
        set_some_scales_to_zero(norm, generator)
        if number % 3 == 0:
            set_some_variances(norm, generator)
    check_file(model)


def set_some_scales_to_zero(norm: Any, generator: np.random.Generator) -> None:
    """In a quarter of the channels, beside those of either sign."""
    gamma = norm.gamma.numpy()
    gamma[generator.random(gamma.size) < 0.25] = 0
    norm.gamma.assign(gamma)


def set_some_variances(norm: Any, generator: np.random.Generator) -> None:
    """0, 1e-12 and 1e4, in a channel each.

    A small variance makes its channel larger by 1 / sqrt(epsilon), about 30, and the rounding of all layers before it
    as much. Were it so in most channels of each batch norm, ReLU6 would cut off all but that rounding: of such a
    MobileNet, tf_keras's own outputs differ from those in float64 in the second digit.
    """
    variance = norm.moving_variance.numpy()
    channels = generator.permutation(variance.size)[:3]
    variance[channels] = np.array([0, 1e-12, 1e4])[: channels.size]
    norm.moving_variance.assign(variance)


@pytest.fixture
def check_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """`stablenorm check` on the saved model: same outputs, its batch norms folded but for those that stay."""

    def run(model: Any) -> None:
        path = tmp_path / f"{model.name}.keras"
        model.save(path)
        assert cli.main(["check", str(path)]) == 0
        rows = [re.split(r" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
        kept = {row[0]: row[-1] for row in rows if row[1:3] == ["batch norm", "kept"]}
        assert (sum(row[1:3] == ["batch norm", "folded"] for row in rows), set(kept)) == NETWORKS[model.name]
        assert all(map(REASON.search, kept.values()))

    return run
