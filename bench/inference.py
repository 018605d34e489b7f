"""Whole models in inference: ours beside stock XLA, TensorFlow, ONNX Runtime and OpenVINO, on the same two cores.

Interleaved rounds: in each, every engine has a turn, one call that is not counted (not where a call is long: then only
in the first round) and some that are, of which it takes the median; a table holds the medians of rounds. A turn starts
when the engine before is at rest: for up to 0.1 s after a call, threads of ONNX Runtime spin on the cores that the next
would have. NumPy in, NumPy out. Compile time is from the model in memory to the first result; for ONNX Runtime and
OpenVINO without tf2onnx's conversion.
"""

from __future__ import annotations

import importlib.util
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench import peers, results
from bench.turns import rest
from stablenorm.compiler.demo import randomize
from stablenorm.compiler.frontends.tensorflow_runtime import import_tf_keras
from stablenorm.compiler.tables import text_table

MODELS = {
    "ResNet50": 224,
    "MobileNetV2": 224,
    "EfficientNetB0": 224,
    "DenseNet121": 224,
    "InceptionV3": 299,
    "Xception": 299,
    "NASNetMobile": 224,
}
BATCHES = (1, 8)
# Our name and stock XLA's are those that ratios are made of.
ENGINES = {
    "stablenorm": peers.ours,
    "stock XLA": peers.stock_xla,
    "TensorFlow": peers.tensorflow,
    "ONNX Runtime": peers.onnx_runtime,
    "OpenVINO": peers.openvino,
}
NEEDS = {"ONNX Runtime": ("onnxruntime", "tf2onnx"), "OpenVINO": ("openvino", "tf2onnx")}
# Rounds end after this many seconds for a model and a batch size, but not before MINIMUM, and after MAXIMUM anyway.
SECONDS, MINIMUM, MAXIMUM = 3.0, 3, 25
# A turn's calls are counted for as long, one at least.
TURN_SECONDS = 0.05
# Calls of as many seconds are not warmed again: how they start is lost in them.
LONG = 0.3
# Float32 through up to two hundred layers, summed in another order: far less than any wrong model.
TOLERANCE = 1e-4


class Record(NamedTuple):
    """One engine on one model.

    Attributes:
        milliseconds: of one call, the median.
        compile_seconds: from the model in memory to the first result.
    """

    model: str
    batch: int
    engine: str
    milliseconds: float
    compile_seconds: float
    rounds: int


def main(folder: pathlib.Path) -> None:
    """Prints the tables; writes every number, and the times over stock XLA's as bars."""
    peers.keep_pages()
    peers.use_peers()
    engines = _installed()
    records = []
    for name in MODELS:
        print(f"inference: {name}", file=sys.stderr)
        records += measure(name, engines)
    for batch in BATCHES:
        print(tables([record for record in records if record.batch == batch], engines))
    results.write_json(folder, "inference", [record._asdict() for record in records])
    times = {(record.model, record.batch, record.engine): record.milliseconds for record in records}
    panels: dict[str, dict[str, dict[str, float]]] = {f"batch {batch}": {} for batch in BATCHES}
    for (model, batch, engine), milliseconds in times.items():
        bars = panels[f"batch {batch}"].setdefault(model, {})
        bars[engine] = milliseconds / times[model, batch, "stock XLA"]
    results.draw_bars(folder, "inference", panels, "time / stock XLA")


def _installed() -> list[str]:
    missing = [name for name in ENGINES if not all(map(importlib.util.find_spec, NEEDS.get(name, ())))]
    if missing:
        print(f"Left out, not installed: {', '.join(missing)}; `make bench-peers` installs them.")
    installed = [name for name in ENGINES if name not in missing]
    for library in {library for name in installed for library in NEEDS.get(name, ())}:
        importlib.import_module(library)  # now, so that no model's compile time has it
    return installed


def measure(name: str, engines: Sequence[str]) -> Iterator[Record]:
    """Every engine on one model, at each batch size.

    Raises:
        ValueError: an engine computes something else.
    """
    tf_keras, size = import_tf_keras(), MODELS[name]
    build = getattr(tf_keras.applications, name)
    model = build(weights=None, classifier_activation=None, input_shape=(size, size, 3))
    randomize(model)
    if any(engine in NEEDS for engine in engines):
        peers.onnx(model)
    for batch in BATCHES:
        x = np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)
        calls, results, compile_seconds = {}, {}, {}
        for engine in engines:
            start = time.perf_counter()
            calls[engine] = ENGINES[engine](model, batch)
            results[engine] = calls[engine](x)
            compile_seconds[engine] = time.perf_counter() - start
        _agree(name, results)
        for engine, times in rounds(calls, x).items():
            median = statistics.median(times) * 1e3
            yield Record(name, batch, engine, median, compile_seconds[engine], len(times))
    tf_keras.backend.clear_session()


def rounds(calls: dict[str, peers.Call], x: Any) -> dict[str, list[float]]:
    """Seconds of a call in each round, the engines taking turns; a turn's first call warms caches and threads."""
    times: dict[str, list[float]] = {engine: [] for engine in calls}
    end = time.perf_counter() + SECONDS
    for number in range(MAXIMUM):
        if number >= MINIMUM and time.perf_counter() > end:
            break
        for engine, call in calls.items():
            rest()
            if not times[engine] or times[engine][-1] < LONG:
                call(x)
            times[engine].append(_turn(call, x))
    return times


def _turn(call: peers.Call, x: Any) -> float:
    """The median seconds of its calls."""
    times: list[float] = []
    while sum(times) < TURN_SECONDS:
        start = time.perf_counter()
        call(x)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _agree(name: str, results: dict[str, Any]) -> None:
    expected = results["TensorFlow"]
    for engine, got in results.items():
        error = float(np.abs(got - expected).max() / np.abs(expected).max())
        if not error <= TOLERANCE:
            raise ValueError(f"{name}: {engine} differs from TensorFlow by {error:.1e}, allowed: {TOLERANCE:.0e}")


def tables(records: Sequence[Record], engines: Sequence[str]) -> str:
    """For one batch size: milliseconds; the same over ours, with the geometric mean; and seconds to compile."""
    found = {(record.model, record.engine): record for record in records}
    names = list(dict.fromkeys(record.model for record in records))
    milliseconds = {key: record.milliseconds for key, record in found.items()}
    ratios = {(name, engine): time / milliseconds[name, "stablenorm"] for (name, engine), time in milliseconds.items()}
    means = [math.exp(statistics.fmean(math.log(ratios[name, engine]) for name in names)) for engine in engines]
    batch = f"batch {records[0].batch}"
    cells_of = {
        f"{batch}, ms": [[f"{milliseconds[name, engine]:.1f}" for engine in engines] for name in names],
        f"{batch}, time / ours": [[f"{ratios[name, engine]:.2f}" for engine in engines] for name in names],
        f"{batch}, s to compile": [
            [f"{found[name, engine].compile_seconds:.1f}" for engine in engines] for name in names
        ],
    }
    rows = {title: [[name, *row] for name, row in zip(names, cells, strict=True)] for title, cells in cells_of.items()}
    rows[f"{batch}, time / ours"].append(["geometric mean", *(f"{mean:.2f}" for mean in means)])
    return "\n\n".join(text_table([title, *engines], cells) for title, cells in rows.items()) + "\n"
