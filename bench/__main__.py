"""``make bench``: every benchmark, or those named on the command line."""

from __future__ import annotations

import sys

from bench import passes

BENCHMARKS = {"passes": passes.main}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"error: got the benchmark {unknown[0]!r}, allowed: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    for name in names or BENCHMARKS:
        BENCHMARKS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
