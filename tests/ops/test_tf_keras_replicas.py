"""The tf_keras layer with ``synchronized=True`` under strategies of tf.distribute, on two CPU replicas."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

PROCESS = Path(__file__).with_name("tensorflow_replicas_process.py")


def start(*arguments):
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, str(PROCESS), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def cases(child):
    printed, errors = child.communicate(timeout=240)
    assert child.returncode == 0, errors[-2000:]
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def assert_right(case):
    # Float32, rounded twice on the way; at mean/deviation 1e4, float64 moved to 0 adds 2e-8 of the variance.
    assert max(case["errors"]) < 1e-6, case
    assert case["collectives"] == 2, case


def test_replicas_of_one_process_are_one_batch():
    *ours, stock = cases(start("mirrored"))
    assert len(ours) == 8
    for case in ours:
        assert_right(case)
    # The stock layer: five arrays, and a replica without rows spoils the moving mean.
    assert stock["collectives"] == 5
    assert stock["errors"][4] > 0.1


def test_processes_are_one_batch():
    free = [socket.socket() for _ in range(2)]
    for each in free:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in free]
    for each in free:
        each.close()
    children = [start(number, *ports) for number in range(2)]
    try:
        for child in children:
            ours = cases(child)
            assert len(ours) == 8
            for case in ours:
                assert_right(case)
    finally:
        for child in children:
            child.kill()
