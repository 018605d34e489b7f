"""Times of calls on a device: warm, in interleaved rounds, each call made often enough to hide its start."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

# Starts a computation and returns what to wait for.
Start = Callable[[], Any]
Wait = Callable[[Any], Any]
# A turn lasts about so long, so that what starting and waiting take is a small part of it, but has no more calls than
# MOST, because the results of all of them may be in memory at once.
TURN_SECONDS, MOST = 0.02, 8


def medians(
    calls: Mapping[str, tuple[Start, Wait]], rounds: int, left_out: Callable[[str, str], None]
) -> dict[str, float]:
    """Median seconds of each call; a call that fails is told to ``left_out`` with its reason, and has none."""
    repeats: dict[str, int] = {}
    for name, call in calls.items():
        with_reason = guarded(lambda call=call: _repeats(call))
        if isinstance(with_reason, str):
            left_out(name, with_reason)
        else:
            repeats[name] = with_reason
    times: dict[str, list[float]] = {name: [] for name in repeats}
    for _ in range(rounds):
        for name in list(times):
            seconds = guarded(lambda name=name: _turn(calls[name], repeats[name]))
            if isinstance(seconds, str):
                left_out(name, seconds)
                del times[name]
            else:
                times[name].append(seconds)
    return {name: statistics.median(each) for name, each in times.items()}


def guarded(act: Callable[[], Any]) -> Any:
    """What the act returns, or, where it fails, why, as one line: one case that fails does not end a run."""
    try:
        return act()
    except Exception as error:  # whatever a framework or a driver raises
        return reason(error)


def reason(error: Exception) -> str:
    """An exception as one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def _repeats(call: tuple[Start, Wait]) -> int:
    """How many calls make a turn; the first call compiles, the second is warm."""
    start, wait = call
    wait(start())
    begin = time.perf_counter()
    wait(start())
    seconds = time.perf_counter() - begin
    # The calls of one turn could run side by side on a CPU.
    return 1 if jax.default_backend() == "cpu" else max(1, min(MOST, round(TURN_SECONDS / seconds)))


def _turn(call: tuple[Start, Wait], repeats: int) -> float:
    """Seconds of one call: one that is not counted, then ``repeats`` of them, of which the last is waited for."""
    start, wait = call
    wait(start())
    begin = time.perf_counter()
    for _ in range(repeats):
        result = start()
    wait(result)
    return (time.perf_counter() - begin) / repeats
