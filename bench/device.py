"""``make bench-device``: batch norm on whatever device JAX has, its numbers checked and its times taken.

Times of training are ratios to the floor, a copy from the device to the device, which makes 2 passes of the array:
forward cannot but make 3, a step 8. So the floors are 1.5 and 4 copies of the same run. Nothing is donated. What is
missing, or fails, is told in one line and left out.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bench import device_checks, device_networks, results
from bench.device_peers import PEERS, Peer
from bench.device_timing import Start, Wait, guarded, medians, reason
from bench.training import COPIES
from stablenorm.compiler.tables import text_table

# Of ResNet-50: height, width, features. The batch is as large as the array is to be.
PLACES = ((112, 112, 64), (56, 56, 256), (14, 14, 1024))
DTYPES = ("float32", "bfloat16")
COPY = "copy"
LeftOut = Callable[[str, str], None]


class Record(NamedTuple):
    """Median milliseconds of one implementation on one array, the floor of that run, and the array's bytes."""

    shape: tuple[int, ...]
    dtype: str
    implementation: str
    what: str
    milliseconds: float
    floor: float
    bytes: int

    @property
    def ratio(self) -> float:
        return self.milliseconds / self.floor

    @property
    def rate(self) -> float:
        """Bytes that cannot but be moved, in a second."""
        return 2 * COPIES[self.what] * self.bytes / (1e-3 * self.milliseconds)


def main(arguments: Sequence[str]) -> int:
    """Prints the tables; 1 where a number is wrong or could not be checked in float32, else 0."""
    options = _options(arguments)
    # JAX would take most of a GPU's memory for itself, and torch has to have some.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    first = jax.devices()[0]
    print(
        f"{len(jax.devices())} x {first.device_kind} ({first.platform}), JAX {jax.__version__}; one of them is used\n"
    )
    missing: list[str] = []

    def left_out(what: str, why: str) -> None:
        missing.append(f"{what}: {why}")
        print(f"Left out: {missing[-1]}", flush=True)

    checks = list(device_checks.measure(options.checked, left_out))
    print(f"\n{checks_table(checks)}\n", flush=True)
    trained = list(_train(options, left_out))
    print(f"\n{training_table(trained)}\n", flush=True)
    networks: list[device_networks.Record] = []
    for dtype in options.dtypes:
        # The first activation, 64 features on half as many places each way, is as large as the arrays above.
        batch = _batch((options.image // 2, options.image // 2, 64), dtype, options.megabytes)
        for name in options.networks:
            networks += device_networks.measure(name, batch, options.image, dtype, options.rounds, left_out)
    print(f"\n{networks_table(networks)}")
    _write(options, checks, trained, networks, missing)
    wrong = [record for record in checks if not record.is_right]
    return int(bool(wrong) or not any(record.dtype == "float32" for record in checks))


def _options(arguments: Sequence[str]) -> Any:
    parser = argparse.ArgumentParser(prog="python -m bench.device", description="Batch norm on the device JAX has.")
    add = parser.add_argument
    add("--megabytes", type=float, default=256, help="of each array that is timed (default: %(default)s)")
    add("--rounds", type=int, default=15, help="of which a time is the median (default: %(default)s)")
    add("--image", type=int, default=224, help="height and width of the networks' images (default: %(default)s)")
    add("--checked", type=int, default=2**18, help="values of a feature in the numbers (default: %(default)s)")
    networks = tuple(device_networks.NETWORKS)
    add("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, help="that are timed (default: both)")
    add("--networks", nargs="*", choices=networks, default=networks, help="that are timed (default: both)")
    add("--json", type=_path_of(".json"), metavar="PATH.json", help="where all numbers go")
    picture = "where the ratios go as bars; needs matplotlib"
    add("--picture", type=_path_of(".svg"), metavar="PATH.svg", help=picture)
    options = parser.parse_args(arguments)
    if options.megabytes <= 0 or min(options.rounds, options.image, options.checked) < 1:
        parser.error(
            "--megabytes, --rounds, --image, --checked: got a number that is not positive, allowed: positive ones"
        )
    return options


def _path_of(suffix: str) -> Callable[[str], pathlib.Path]:
    def path(text: str) -> pathlib.Path:
        if not text.endswith(suffix):
            raise argparse.ArgumentTypeError(f"got {text!r}, allowed: a path that ends in {suffix}")
        return pathlib.Path(text)

    return path


def _batch(place: tuple[int, int, int], dtype: str, megabytes: float) -> int:
    return max(1, round(megabytes * 1e6 / (math.prod(place) * jnp.dtype(dtype).itemsize)))


def _train(options: Any, left_out: LeftOut) -> Iterator[Record]:
    absent: set[str] = set()
    for dtype in options.dtypes:
        for place in PLACES:
            shape = (_batch(place, dtype, options.megabytes), *place)
            title = f"training, {_name(shape)} {dtype}"
            makers = {name: make for name, make in PEERS.items() if name not in absent}
            found = guarded(functools.partial(_measure, shape, dtype, makers, options.rounds, absent, left_out, title))
            if isinstance(found, str):
                left_out(title, found)
            else:
                yield from found


def _measure(
    shape: tuple[int, ...],
    dtype: str,
    makers: dict[str, Peer],
    rounds: int,
    absent: set[str],
    left_out: LeftOut,
    title: str,
) -> list[Record]:
    """Every implementation on one array; what is not installed is told once and put into ``absent``."""
    print(title, file=sys.stderr)
    keys = jax.random.split(jax.random.key(0), 4)
    x, grad_output = (jax.random.normal(key, shape, jnp.dtype(dtype)) for key in keys[:2])
    scale, offset = (jax.random.normal(key, shape[-1:], jnp.float32) for key in keys[2:])
    copied = jax.jit(jnp.copy)
    calls: dict[str, tuple[Start, Wait]] = {COPY: (lambda: copied(x), jax.block_until_ready)}
    for name, make in makers.items():
        try:
            made = make(x, scale, offset, grad_output)
        except ImportError as error:
            absent.add(name)
            left_out(name, str(error))
        except Exception as error:
            left_out(f"{name}, {title}", reason(error))
        else:
            calls |= {f"{what}/{name}": call for what, call in made.items()}
    seconds = medians(calls, rounds, lambda call, why: left_out(f"{call}, {title}", why))
    if COPY not in seconds:  # which is told by now; without a floor there is no ratio
        return []
    return [
        Record(shape, dtype, name, what, 1e3 * time, 1e3 * COPIES[what] * seconds[COPY], x.nbytes)
        for call, time in seconds.items()
        if call != COPY
        for what, name in [call.split("/", 1)]
    ]


def checks_table(records: Sequence[device_checks.Record]) -> str:
    """Each type's largest errors over all means, the errors that are too large marked."""
    names = list(dict.fromkeys(record.result for record in records))
    rows = []
    for dtype in dict.fromkeys(record.dtype for record in records):
        own = [record for record in records if record.dtype == dtype]
        cells = [_worst([record for record in own if record.result == name]) for name in names]
        wrong = sum(not record.is_right for record in own)
        verdict = f"{wrong} of {len(own)} WRONG" if wrong else f"all {len(own)} right"
        rows.append([dtype, f"10^{max(record.power for record in own)}", *cells, verdict])
    return table(["largest errors", "mean/std up to", *names, ""], rows)


def _worst(records: Sequence[device_checks.Record]) -> str:
    return f"{float(np.max([record.error for record in records])):.0e}"  # NaN, where there is one


def training_table(records: Sequence[Record]) -> str:
    """A row for each array and each of forward and step: the floor, and the ratios to it."""
    names = list(dict.fromkeys(record.implementation for record in records))
    found = {(r.what, r.dtype, r.shape, r.implementation): r for r in records}
    rows = []
    for what, dtype, shape in dict.fromkeys((r.what, r.dtype, r.shape) for r in records):
        own = [found.get((what, dtype, shape, name)) for name in names]
        floor = next(record for record in own if record)
        copied = 2 * COPIES[what] * floor.bytes / (1e-3 * floor.floor)
        cells = [f"{each.ratio:.2f}" if each else "" for each in own]
        ours = next((f"{each.rate / 1e9:.0f}" for each in own if each and each.implementation == "stablenorm"), "")
        rows.append([what, dtype, _name(shape), f"{floor.floor:.3f}", f"{copied / 1e9:.0f}", ours, *cells])
    return table(["time / floor", "type", "shape", "floor, ms", "copy, GB/s", "ours, GB/s", *names], rows)


def networks_table(records: Sequence[device_networks.Record]) -> str:
    """A row for each network and type: milliseconds, and how much of the time under ``jit`` the others take."""
    ways = (device_networks.STOCK, device_networks.KEPT, device_networks.FOLDED)
    found = {(record.network, record.dtype, record.way): record for record in records}
    rows = []
    for network, dtype, batch in dict.fromkeys((r.network, r.dtype, r.batch) for r in records):
        own = [found.get((network, dtype, way)) for way in ways]
        stock, kept, folded = own
        cells = [f"{each.milliseconds:.2f}" if each else "" for each in own]
        shares = [
            f"{folded.milliseconds / other.milliseconds:.2f}" if folded and other else "" for other in (stock, kept)
        ]
        rows.append([network, dtype, str(batch), *cells, *shares, f"{folded.difference:.0e}" if folded else ""])
    units = [f"{way}, ms" for way in ways]
    return table(["inference", "type", "batch", *units, "folded / jit", "folded / kept", "difference"], rows)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """As `text_table`, which has rich draw it; without rich, lines of cells."""
    if not rows:
        return f"{columns[0]}: nothing could be measured"
    try:
        return text_table(columns, rows)
    except ImportError:
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        lines = ((cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (columns, *rows))
        return "\n".join("  ".join(line).rstrip() for line in lines)


def _write(
    options: Any,
    checks: Sequence[device_checks.Record],
    trained: Sequence[Record],
    networks: Sequence[device_networks.Record],
    missing: Sequence[str],
) -> None:
    if options.json is not None:
        own = {"device": jax.devices()[0].device_kind, "platform": jax.default_backend(), "left_out": list(missing)}
        plain = [
            {"kind": "number", **each._asdict(), "error": each.error if math.isfinite(each.error) else str(each.error)}
            for each in checks
        ]
        plain += [{"kind": "training", **each._asdict(), "ratio": each.ratio, "rate": each.rate} for each in trained]
        plain += [
            {
                "kind": "network",
                **each._asdict(),
                "difference": None if math.isnan(each.difference) else each.difference,
            }
            for each in networks
        ]
        results.write_json(options.json.parent, options.json.stem, [{"kind": "run", **own}, *plain])
    if options.picture is not None and trained:
        panels: dict[str, dict[str, dict[str, float]]] = {what: {} for what in COPIES}
        for record in trained:
            group = panels[record.what].setdefault(f"{record.dtype}\n{_name(record.shape)}", {})
            group[record.implementation] = record.ratio
        results.draw_bars(options.picture.parent, options.picture.stem, panels, "time / floor")


def _name(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
