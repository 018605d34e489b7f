"""Seconds of batch norm in training, as ratios to the floor: the bytes that it cannot but move.

Forward reads x twice and writes y, backward reads x and the gradient of y twice and writes that of x: 3 and 5 passes of
one array. A copy, into memory that was written before, makes 2, so the floors are 1.5 and 4 copies of the same run.
`keep_pages` keeps the pages of what was freed. Rounds are interleaved, so that what else runs on the machine meets all
alike; a time is the median of the rounds.
"""

from __future__ import annotations

import math
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bench import peers, results
from bench.training_peers import PEERS, Peer
from bench.turns import rest
from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.tables import text_table

# Of ResNet-50: batch, height, width, features.
SHAPES = (
    (8, 112, 112, 64),
    (32, 56, 56, 64),
    (8, 56, 56, 256),
    (32, 28, 28, 128),
    (16, 28, 28, 512),
    (64, 14, 14, 256),
    (32, 14, 14, 1024),
    (64, 7, 7, 512),
    (64, 7, 7, 2048),
    (1, 56, 56, 256),
)
COPIES = {"forward": 1.5, "step": 4.0}
OURS = "stablenorm"


class Record(NamedTuple):
    """Median milliseconds of one implementation on one shape, the floor of that run, seconds to compile."""

    shape: tuple[int, ...]
    implementation: str
    what: str
    milliseconds: float
    floor: float
    compile_seconds: float

    @property
    def ratio(self) -> float:
        return self.milliseconds / self.floor


def main(folder: pathlib.Path, rounds: int = 11) -> None:
    """Prints the tables; writes every number, one record for each, and the ratios as bars."""
    peers.use_peers()
    peers.keep_pages()
    makers = dict(_installed())
    records = []
    for shape in SHAPES:
        print(f"training: {_name(shape)}", file=sys.stderr)
        records += measure(shape, rounds, makers)
    print(tables(records))
    results.write_json(folder, "training", [record._asdict() | {"ratio": record.ratio} for record in records])
    panels: dict[str, dict[str, dict[str, float]]] = {what: {} for what in COPIES}
    for record in records:
        panels[record.what].setdefault(_name(record.shape), {})[record.implementation] = record.ratio
    results.draw_bars(folder, "training", panels, "time / floor")


def _installed() -> Iterator[tuple[str, Callable[[tuple[int, ...]], Peer]]]:
    for name, make in PEERS.items():
        try:
            make(SHAPES[0])
        except (ImportError, StablenormError) as error:
            print(f"Left out: {name}: {error}")
        else:
            yield name, make


def measure(
    shape: tuple[int, ...], rounds: int, makers: Mapping[str, Callable[[tuple[int, ...]], Peer]]
) -> Iterator[Record]:
    """Every implementation, on one shape of float32, channels last."""
    generator = np.random.default_rng(0)
    x, grad_output = generator.normal(size=(2, *shape)).astype(np.float32)
    scale, offset = generator.normal(size=(2, shape[-1])).astype(np.float32)
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    compile_seconds: dict[tuple[str, str], float] = {}
    for name, make in makers.items():
        for what, call in make(shape)(x, scale, offset, grad_output).items():
            start = time.perf_counter()
            call()
            calls[name, what], compile_seconds[name, what] = call, time.perf_counter() - start
    copy = np.zeros_like(x)
    seconds = interleaved({("copy", ""): lambda: np.copyto(copy, x), **calls}, rounds)
    for name, what in calls:
        floor = COPIES[what] * seconds["copy", ""]
        yield Record(shape, name, what, 1e3 * seconds[name, what], 1e3 * floor, compile_seconds[name, what])


def interleaved(calls: dict[tuple[str, str], Callable[[], Any]], rounds: int) -> dict[tuple[str, str], float]:
    """The median seconds of each call, over rounds of all calls, each made twice: the first warms its caches.

    Each starts when the threads of the one before are at rest.
    """
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            rest()
            call()
            start = time.perf_counter()
            call()
            seconds[key].append(time.perf_counter() - start)
    return {key: statistics.median(each) for key, each in seconds.items()}


def tables(records: Sequence[Record]) -> str:
    """A table of forward and one of a whole step: a row for each shape, and the geometric mean."""
    names = list(dict.fromkeys(record.implementation for record in records))
    parts = [f"{jax.device_count()} CPU device, float32, channels last; median time / floor"]
    for what in COPIES:
        ratios = {(r.shape, r.implementation): r.ratio for r in records if r.what == what}
        floors = {record.shape: record.floor for record in records if record.what == what}
        rows = [
            [_name(shape), f"{floors[shape]:.1f}", *(_text(ratios.get((shape, name))) for name in names)]
            for shape in floors
        ]
        columns = [[ratio for (_, each), ratio in ratios.items() if each == name] for name in names]
        rows.append(["geometric mean", "", *map(_text, map(_geometric_mean, columns))])
        parts.append(text_table([what, "floor, ms", *names], rows))
    seconds = [
        f"{statistics.mean(r.compile_seconds for r in records if r.implementation == name and r.what == 'step'):.2f}"
        for name in names
    ]
    parts.append(text_table(["first call of a step", *names], [["mean seconds", *seconds]]))
    return "\n".join(f"{part}\n" for part in parts)


def _name(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _geometric_mean(ratios: Sequence[float]) -> float | None:
    return math.exp(statistics.mean(map(math.log, ratios))) if ratios else None


def _text(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
