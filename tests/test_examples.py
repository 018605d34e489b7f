"""What `examples` holds runs as its own text says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "train_synchronized.py"


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


@pytest.mark.parametrize("arguments", [[], ["--processes", "0"], ["--processes", "2", "--process-id", "0"]])
def test_bad_arguments_get_a_line(arguments: list[str]):
    ended = run(*arguments)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("train_synchronized.py: error: ")
