"""``make bench``: every benchmark, or those named on the command line."""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Callable

from bench import accuracy, inference, passes, peers, synchronized, training

BENCHMARKS: dict[str, Callable[[argparse.Namespace], None]] = {
    "passes": lambda options: passes.main(),
    "accuracy": lambda options: accuracy.main(_named(options.json, "accuracy", options)),
    "synchronized": lambda options: synchronized.main(),
    "training": lambda options: training.main(_named(options.json, "training", options)),
    "inference": lambda options: inference.main(_named(options.json, "inference", options), options.picture),
}


def main() -> None:
    """Runs the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measurements, side by side.")
    parser.add_argument("name", nargs="*", help=f"one of {', '.join(BENCHMARKS)}; without a name, all run")
    parser.add_argument(
        "--json", metavar="PATH", help="where a benchmark writes its numbers too; if several, each PATH-name"
    )
    parser.add_argument("--picture", metavar="PATH", help="where inference draws its ratios: .svg, .png or .pdf")
    options = parser.parse_args()
    for name in options.name:
        if name not in BENCHMARKS:
            parser.error(f"got the benchmark {name!r}, allowed: {', '.join(BENCHMARKS)}")
    os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras 3 reads it once, and TensorFlow imports Keras 3
    peers.use_two_cores()
    for name in options.name or BENCHMARKS:
        BENCHMARKS[name](options)


def _named(path: str | None, name: str, options: argparse.Namespace) -> str | None:
    """The path as given where one benchmark runs, else with the benchmark's name: ``out.json``, ``out-name.json``."""
    if path is None or len(options.name) == 1:
        return path
    given = pathlib.Path(path)
    return str(given.with_stem(f"{given.stem}-{name}"))


if __name__ == "__main__":
    main()
