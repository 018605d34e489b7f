"""``make bench``: every benchmark, or those named on the command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from bench import accuracy, passes, synchronized

BENCHMARKS: dict[str, Callable[[argparse.Namespace], None]] = {
    "passes": lambda options: passes.main(),
    "accuracy": lambda options: accuracy.main(options.json),
    "synchronized": lambda options: synchronized.main(),
}


def main() -> None:
    """Runs the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measurements, side by side.")
    parser.add_argument("name", nargs="*", help=f"one of {', '.join(BENCHMARKS)}; without a name, all run")
    parser.add_argument("--json", metavar="PATH", help="where accuracy also writes its numbers")
    options = parser.parse_args()
    for name in options.name:
        if name not in BENCHMARKS:
            parser.error(f"got the benchmark {name!r}, allowed: {', '.join(BENCHMARKS)}")
    os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras 3 reads it once, and TensorFlow imports Keras 3
    for name in options.name or BENCHMARKS:
        BENCHMARKS[name](options)


if __name__ == "__main__":
    main()
