"""Processes whose parts of the batch differ in size: JAX lets them, and each process compiles its own program."""

import os
import socket
import subprocess
import sys
from pathlib import Path

PROCESS = Path(__file__).with_name("uneven_process.py")


def test_the_count_is_sent():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    children = [
        subprocess.Popen([sys.executable, str(PROCESS), port, str(number)], stdout=subprocess.PIPE, env=environment)
        for number in range(2)
    ]
    try:
        printed = [child.communicate(timeout=120)[0].decode() for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0, 0]
    for text in printed:
        mean, variance = map(float, text.splitlines()[-1].split())
        assert mean < 1e-7  # one rounding to float32
        assert variance < 2e-7  # float64 at mean ** 2 = 1e8, and one rounding
