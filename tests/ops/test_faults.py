"""A process with a fault ends all processes, within the time that `stablenorm.ops.distributed` says."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from stablenorm.ops.distributed import alike, global_batch, joined

PROCESS = Path(__file__).with_name("fault_process.py")
START = 45  # seconds in which processes start and compile on a busy machine
Limits = tuple[int, int]
LIMITS = HEARTBEAT, COLLECTIVE = 5, 3


class Run:
    """Processes of which one has a fault: exit codes, what each printed, and the seconds from the fault to the end."""

    def __init__(self, folder: Path, fault: str, culprit: int, *more: str, processes: int = 2, limits: Limits = LIMITS):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            common = [sys.executable, str(PROCESS), str(free.getsockname()[1]), str(processes)]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
        outputs = [folder / str(number) for number in range(processes)]
        children = []
        for number, output in enumerate(outputs):
            command = [*common, str(number), *map(str, limits), fault if number == culprit else "none", *more]
            with output.open("w") as stream:
                children.append(subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment))
        try:
            last = time.monotonic() + START
            while "step 2" not in outputs[culprit].read_text() and children[culprit].poll() is None:
                assert time.monotonic() < last
                time.sleep(0.05)
            begin = time.monotonic()
            for child in (child for number, child in enumerate(children) if number != culprit):
                child.wait(START)
            children[culprit].send_signal(signal.SIGCONT)
            children[culprit].wait(START)
            self.seconds = time.monotonic() - begin
        finally:
            for child in children:
                child.kill()
        self.codes = [child.returncode for child in children]
        self.printed = [output.read_text() for output in outputs]


def test_a_killed_process_ends_the_others(tmp_path: Path):
    """Of three others, one has no connection to it in a ring."""
    ran = Run(tmp_path, "killed", 1, processes=4)
    assert ran.codes[1] == -signal.SIGKILL
    assert 0 not in ran.codes
    assert ran.seconds < HEARTBEAT + 5
    assert any("Another process ended" in text for text in ran.printed), ran.printed


@pytest.mark.parametrize("culprit", [0, 1])
def test_a_process_that_raises_prints_why_and_ends_the_others(tmp_path: Path, culprit: int):
    ran = Run(tmp_path, "raises", culprit)
    assert ran.codes[culprit] == 1
    assert ran.codes[1 - culprit] not in (0, None)
    assert ran.seconds < HEARTBEAT + 5
    assert "ArithmeticError: the fault of this test" in ran.printed[culprit]


@pytest.mark.parametrize(
    ("limits", "culprit", "cause"),
    [
        ((60, COLLECTIVE), 1, "Another process did not take part in time"),
        ((HEARTBEAT, 60), 1, "stopped sending heartbeats"),
        ((HEARTBEAT, COLLECTIVE), 0, "Another process did not take part in time"),
    ],
)
def test_a_stopped_process_ends_the_others_and_itself_when_it_goes_on(
    tmp_path: Path, limits: tuple[int, int], culprit: int, cause: str
):
    ran = Run(tmp_path, "stopped", culprit, limits=limits)
    assert 0 not in ran.codes
    # Gloo and heartbeats look at their clocks now and then; and a start of the stopped process's last words.
    assert ran.seconds < min(limits) * 1.5 + 8
    assert cause in ran.printed[1 - culprit]


@pytest.mark.parametrize("culprit", [0, 1])
def test_a_process_that_does_not_take_part_ends_all(tmp_path: Path, culprit: int):
    ran = Run(tmp_path, "absent", culprit)
    assert ran.codes[1 - culprit] == 1
    assert ran.codes[culprit] == -signal.SIGABRT
    assert ran.seconds < HEARTBEAT * 1.5 + COLLECTIVE + 8
    assert "Another process did not take part in time" in ran.printed[1 - culprit]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("rows", "global_batch: got x float32(4, 3) in process 0, x float32(3, 3) in process 1, allowed: equal shapes"),
        ("channels", "alike: got mean float32(3,) with the values"),
        ("values", "alike: got rate float64() with the values"),
    ],
)
def test_a_process_with_other_shapes_or_values_is_an_error_in_all(tmp_path: Path, fault: str, message: str):
    ran = Run(tmp_path, fault, 1)
    assert ran.codes == [1, 1]
    assert all(f"ValueError: {message}" in text for text in ran.printed), ran.printed


@pytest.mark.parametrize("culprit", [0, 1])
def test_other_channels_without_a_look_at_shapes_end_all(tmp_path: Path, culprit: int):
    ran = Run(tmp_path, "channels", culprit, "unchecked")
    assert 0 not in ran.codes
    # The side of fewer channels receives more than it expects.
    assert "collective mismatch" in ran.printed[1 - culprit]


def test_one_process_is_like_itself():
    alike(parameters={"scale": np.ones(3)}, rate=0.5)
    sharding = SingleDeviceSharding(jax.devices()[0])
    batch = global_batch({"x": np.arange(6.0).reshape(2, 3)}, sharding)
    np.testing.assert_array_equal(batch["x"], np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("seconds", [0, -1, 2.5, True])
def test_a_limit_is_whole_seconds(seconds: float):
    with (
        pytest.raises(ValueError, match=r"collective_timeout: got .*, allowed: an int of seconds, 1 and more"),
        joined("localhost:1", 1, 0, collective_timeout=seconds),
    ):
        raise AssertionError("joined")


def test_joining_after_the_devices_have_started_is_an_error(monkeypatch: pytest.MonkeyPatch):
    jax.devices()
    monkeypatch.setenv("XLA_FLAGS", "")
    with pytest.raises(RuntimeError, match="must be called before"), joined("localhost:1", 1, 0):
        raise AssertionError("joined")
    assert os.environ["XLA_FLAGS"] == ""
