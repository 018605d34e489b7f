"""``make bench-device`` on a CPU, with small arrays."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import device, device_checks, device_timing, mobilenet, resnet

ROOT = Path(__file__).parents[1]
SMALL = ["--megabytes", "0.01", "--rounds", "1", "--image", "32", "--checked", "256"]
# Runs the benchmark where no framework can be imported, nor what the package needs for other things.
WITHOUT = """
import sys
for name in ("flax", "torch", "tensorflow", "tf_keras", "keras", "rich", "safetensors", "matplotlib"):
    sys.modules[name] = None
from bench import device
sys.exit(device.main(sys.argv[1:]))
"""


def test_runs_with_jax_and_numpy_alone_and_says_what_is_missing(tmp_path: Path):
    few = ["--dtypes", "float32", "--networks", "MobileNetV2"]
    options = [*SMALL, *few, "--json", str(tmp_path / "all.json"), "--picture", str(tmp_path / "all.svg")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *options], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    left_out = [line for line in done.stdout.splitlines() if line.startswith("Left out: ")]
    assert [line.split(": ")[1] for line in left_out] == ["Flax NNX", "torch"]
    assert "No picture: matplotlib" in done.stdout
    records = json.loads((tmp_path / "all.json").read_text())["records"]
    kinds = [record["kind"] for record in records]
    # Two peers, forward and step, on three shapes; three ways for a network.
    assert (kinds.count("training"), kinds.count("network")) == (12, 3)
    assert {record["dtype"] for record in records if record["kind"] == "number"} == set(device_checks.LIMITS)
    # float32 through 52 layers, summed in another order.
    assert all(record["difference"] <= 1e-4 for record in records if record["kind"] == "network")
    assert all(record["milliseconds"] > 0 for record in records if "milliseconds" in record)


def test_numbers_that_are_wrong_are_told():
    right = device_checks.Record("float32", 0, "y", 1e-7, 1e-6)
    text = device.checks_table([right, right._replace(power=6, error=math.nan)])
    assert "1 of 2 WRONG" in text
    assert "nan" in text
    assert "all 1 right" in device.checks_table([right])


def test_numbers_are_judged_against_the_oracle(monkeypatch: pytest.MonkeyPatch):
    inference = device_checks._inference
    monkeypatch.setattr(device_checks, "_inference", lambda *operands: inference(*operands) * 1.01)
    records = list(device_checks.measure(256, pytest.fail))
    assert {record.is_right for record in records if record.result == device_checks.INFERENCE} == {False}
    assert {record.is_right for record in records if record.result != device_checks.INFERENCE} == {True}


def test_a_call_that_fails_costs_one_line():
    told = []

    def fail():
        raise MemoryError("no memory\nand a long trace")

    calls = {"fails": (fail, lambda result: None), "runs": (lambda: None, lambda result: None)}
    seconds = device_timing.medians(calls, 3, lambda what, why: told.append((what, why)))
    assert list(seconds) == ["runs"]
    assert told == [("fails", "MemoryError: no memory")]


@pytest.mark.parametrize(("network", "number"), [(resnet, 53), (mobilenet, 52)])
def test_networks_have_all_their_layers(network, number):
    """And as many numbers as the published ones, less a thousand biases of the dense layer."""
    params, _ = network.shapes()
    assert len(params["layers"]) == number
    sizes = [math.prod(each.shape) for each in (*flat(params["layers"]), params["dense"])]
    assert sum(sizes) == {resnet: 25_557_032, mobilenet: 3_504_872}[network] - 1000


def flat(layers):
    return [each for layer in layers for each in layer.values()]


def test_half_types_are_timed_too(capsys: pytest.CaptureFixture[str]):
    assert device.main([*SMALL, "--dtypes", "bfloat16", "--networks"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"bfloat16 +1x", out)) == 6  # forward and step of three shapes
    assert "Flax NNX" in out
    assert "inference: nothing could be measured" in out


@pytest.mark.parametrize("options", [["--json", "numbers.txt"], ["--rounds", "0"], ["--megabytes", "-1"]])
def test_options_that_mean_nothing_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        device.main(options)
    assert "allowed: " in capsys.readouterr().err
