"""Standard streams that are closed, full, or of an encoding that lacks some characters."""

from __future__ import annotations

import contextlib
import io
import os
import sys


def open_streams() -> None:
    """Lets a closed stream read as empty and swallow what is written, and writes ? for what an encoding lacks."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def drop_unwritable_output() -> None:
    """Forgets what standard output does not take: Python would try again at exit, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(io.UnsupportedOperation):  # a stream without a number has nothing to retry
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
