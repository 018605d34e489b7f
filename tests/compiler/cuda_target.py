"""Models compiled for a GPU that is not there. `make test-cuda-aot` runs this: what it needs takes four gigabytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tf_keras

from stablenorm import compiler

OPTIONS: Any = {"input_shape": (32, 224, 224, 3), "target": "cuda", "topology": "h200"}


@pytest.fixture(scope="module")
def resnet(randomised: Callable[[Any], Any]) -> Any:
    return randomised(tf_keras.applications.ResNet50(weights=None))


@pytest.fixture(scope="module")
def folded(resnet: Any) -> compiler.Executable:
    return compiler.compile(resnet, **OPTIONS)


def test_every_convolution_takes_its_bias_and_activation(folded: compiler.Executable) -> None:
    assert folded.report.folded == folded.report.total == 53
    hlo = folded.hlo()
    assert hlo.count('custom_call_target="__cudnn$convBiasActivationForward"') == 53
    assert hlo.count('custom_call_target="__cudnn$conv') == 53


def test_folding_saves_a_third_of_the_traffic(folded: compiler.Executable, resnet: Any) -> None:
    unfolded = compiler.compile(resnet, fold=False, **OPTIONS)
    assert folded.cost().bytes_accessed <= 2 / 3 * unfolded.cost().bytes_accessed


def test_it_is_saved_and_loaded_and_says_that_there_is_no_gpu(folded: compiler.Executable, tmp_path: Path) -> None:
    folded.save(str(tmp_path / "out"))
    loaded = compiler.load(tmp_path / "out")
    assert loaded.target == folded.target
    assert loaded.cost() == folded.cost()
