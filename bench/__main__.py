"""``make bench``: training and inference, or the benchmarks that the command line names."""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Callable

from bench import accuracy, inference, passes, peers, synchronized, training

BENCHMARKS: dict[str, Callable[[pathlib.Path], None]] = {
    "training": training.main,
    "inference": inference.main,
    "accuracy": accuracy.main,
    "passes": lambda folder: passes.main(),
    "synchronized": lambda folder: synchronized.main(),
}


def main() -> None:
    """Runs the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measurements, side by side.")
    parser.add_argument(
        "name", nargs="*", help=f"one of {', '.join(BENCHMARKS)}; without a name, training and inference run"
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=pathlib.Path,
        default=pathlib.Path("build/bench"),
        help="where numbers go as JSON, and pictures as SVG (default: %(default)s)",
    )
    options = parser.parse_args()
    for name in options.name:
        if name not in BENCHMARKS:
            parser.error(f"got the benchmark {name!r}, allowed: {', '.join(BENCHMARKS)}")
    os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras 3 reads it once, and TensorFlow imports Keras 3
    peers.use_two_cores()
    for name in options.name or ("training", "inference"):
        BENCHMARKS[name](options.output)


if __name__ == "__main__":
    main()
