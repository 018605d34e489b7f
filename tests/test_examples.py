"""What `examples` holds runs as its own text says."""

import functools
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "train_synchronized.py"


@functools.cache
def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_take_the_steps_of_one(processes: int):
    ended = run("--processes", str(processes), "--steps", "12")
    assert ended.returncode == 0, ended.stderr
    steps = re.findall(r"loss (\S+)   apart (\S+)", ended.stdout)
    losses, apart = zip(*((float(loss), float(difference)) for loss, difference in steps), strict=True)
    assert len(steps) == 12
    assert losses[-1] < 0.8 * losses[0]
    # Sums of float32 in another order, through two convolutions.
    assert max(apart) < 5e-6


def test_training_goes_on_after_a_process_was_killed(tmp_path: Path):
    """As if nothing had happened: the losses are those of a run that nobody disturbed."""
    undisturbed = losses(run("--processes", "2", "--steps", "12").stdout)
    assert list(undisturbed) == list(range(12))
    common = ["--steps", "12", "--checkpoint-every", "3", "--checkpoint", str(tmp_path / "kept")]
    before = losses(_killed_after(7, tmp_path / "printed", *common))
    after = losses(run("--processes", "2", *common).stdout)
    assert min(after) in (6, 9)  # The last step that was saved; the killed run may have got a little further.
    assert before | after == undisturbed
    assert before.items() <= undisturbed.items()


def losses(printed: str) -> dict[int, str]:
    return {int(step): loss for step, loss in re.findall(r"step +(\d+)   loss (\S+)", printed)}


def _killed_after(step: int, output: Path, *arguments: str) -> str:
    """What process 0 prints when process 1 is killed; each is started by itself, as on a cluster."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        cluster = ["--coordinator", f"localhost:{free.getsockname()[1]}", "--process-count", "2", "--process-id"]
    with output.open("w") as stream:
        children = [
            subprocess.Popen(
                [sys.executable, str(EXAMPLE), *cluster, str(number), *arguments],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ | {"JAX_PLATFORMS": "cpu"},
            )
            for number in range(2)
        ]
    try:
        last = time.monotonic() + 120
        while f"step {step:3}" not in output.read_text():
            assert time.monotonic() < last, output.read_text()
            time.sleep(0.01)
        children[1].kill()
        assert children[0].wait(timeout=60) != 0
    finally:
        for child in children:
            child.kill()
            child.wait()
    return output.read_text()


@pytest.mark.parametrize("arguments", [[], ["--processes", "0"], ["--processes", "2", "--process-id", "0"]])
def test_bad_arguments_get_a_line(arguments: list[str]):
    ended = run(*arguments)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("train_synchronized.py: error: ")
