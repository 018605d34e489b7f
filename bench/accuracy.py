"""Errors of a training step against the float64 oracle on the same inputs, ours beside those of other batch norms.

For y, dx, dscale and doffset: the largest error, over the largest true value. For mean and variance: the largest
relative error of a feature. Scale, offset and grad_output are random; grad_output has no relation to x. Differences
below the smallest normal float32 are none: XLA:CPU and TensorFlow run with denormal numbers flushed to zero.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bench import results
from bench.accuracy_cases import CASES, HALF_PRECISION, LARGEST, SMALLEST, Case
from bench.implementations import EPSILON, IMPLEMENTATIONS, RESULTS, Array, Step
from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.tables import text_table
from stablenorm.ops import BatchNormGrad, BatchNormTraining

_SMALLEST_NORMAL = float(np.finfo(np.float32).smallest_normal)


class Record(NamedTuple):
    """One number of the tables. ``error`` is None where the implementation is not installed."""

    case: str
    n: int
    implementation: str
    result: str
    error: float | None


def main(folder: pathlib.Path) -> None:
    """Prints the tables; writes every number, one record for each."""
    records = list(measure(CASES))
    print(tables(records))
    plain = [record._asdict() | {"error": _plain(record.error)} for record in records]
    results.write_json(folder, "accuracy", plain)


def measure(cases: Iterable[Case]) -> Iterator[Record]:
    """Every implementation on every case."""
    steps: dict[tuple[str, tuple[int, ...], str], Step | None] = {}
    for case in cases:
        for n in case.sizes:
            operands = case.operands(n)
            x = operands[0]
            truth = true_results(*operands)
            for name in IMPLEMENTATIONS:
                key = name, x.shape, x.dtype.name
                if key not in steps:
                    steps[key] = _made(*key)
                step = steps[key]
                errors = [None] * len(RESULTS) if step is None else _errors(step(*operands), truth)
                for result, error in zip(RESULTS, errors, strict=True):
                    yield Record(case.name, n, name, result, error)


def _made(name: str, shape: tuple[int, ...], dtype: str) -> Step | None:
    try:
        return IMPLEMENTATIONS[name](shape, dtype)
    except (ImportError, StablenormError):
        return None


def true_results(x: Array, scale: Array, offset: Array, grad_output: Array) -> list[Array]:
    """`RESULTS` in float64, of inputs as they are."""
    axis = x.ndim - 1
    y, mean, variance = BatchNormTraining(EPSILON, axis).reference(x, scale, offset)
    return [y, *BatchNormGrad(EPSILON, axis).reference(x, scale, mean, variance, grad_output), mean, variance]


def _errors(got: Sequence[Array], truth: Sequence[Array]) -> list[float]:
    return [
        error(value, true, each=name in ("mean", "variance"))
        for name, value, true in zip(RESULTS, got, truth, strict=True)
    ]


def error(got: Array, truth: Array, each: bool) -> float:
    """The largest error, over each true value or over the largest of them; an overflow that is one of the type is none.

    NaN where ``got`` has one.
    """
    with np.errstate(all="ignore"):
        difference = np.abs(got.astype(np.float64) - truth)
        difference[(difference < _SMALLEST_NORMAL) | np.isinf(got) & (got == truth.astype(np.float32))] = 0
        relative = difference / (np.abs(truth) if each else np.abs(truth).max())
    return float(np.where(difference == 0, 0, relative).max())


def tables(records: Sequence[Record]) -> str:
    """All tables as text."""
    at_means = [record for record in records if record.case.startswith("10^")]
    ours = [record for record in at_means if record.implementation == "stablenorm"]
    hard = [record for record in records if not record.case.startswith("10^") and not _is_rounding(record)]
    parts = [
        "float32, stablenorm.ops.batch_norm under jit: largest errors over mean/std = 1 to 1e6",
        _pivot(ours, ["n"], "result", RESULTS, _number),
        f"float32, largest errors over n = {SMALLEST:,} to {LARGEST:,}",
        _pivot(sorted(at_means, key=_place), ["result", "mean/std"], "implementation", tuple(IMPLEMENTATIONS), _number),
        "Hard cases: the largest error of a step, and the result that has it",
        _pivot(hard, ["case"], "implementation", tuple(IMPLEMENTATIONS), _number_and_result),
        "y and dx of half precision are left out: a rounding to their type alone is 5e-4 in float16, 4e-3 in bfloat16.",
        "inf: the result is infinite and should not be, or is not the 0 that it should be.",
        "Differences below float32's smallest normal number are not counted: XLA:CPU and TensorFlow flush denormals.",
    ]
    return "\n".join(f"{part}\n" for part in parts)


def _place(record: Record) -> int:
    return RESULTS.index(record.result)


def _is_rounding(record: Record) -> bool:
    return record.case in HALF_PRECISION and record.result in ("y", "dx")


def _pivot(
    records: Sequence[Record],
    rows: Sequence[str],
    column: str,
    columns: Sequence[str],
    text: Callable[[Record], str],
) -> str:
    """A row for each combination of ``rows``, a column for each value of ``column``: the worst record of each cell."""
    cells: dict[tuple[str, ...], dict[str, Record]] = {}
    for record in records:
        fields = record._asdict() | {"mean/std": record.case, "n": f"{record.n:,}"}
        row = cells.setdefault(tuple(fields[name] for name in rows), {})
        row[fields[column]] = max(row.get(fields[column], record), record, key=_badness)
    return text_table([*rows, *columns], [[*key, *(text(row[name]) for name in columns)] for key, row in cells.items()])


def _badness(record: Record) -> float:
    return -1.0 if record.error is None else math.inf if math.isnan(record.error) else record.error


def _number_and_result(record: Record) -> str:
    return f"{_number(record)} {record.result}" if record.error else _number(record)


def _number(record: Record) -> str:
    """``4e-8``"""
    if record.error is None:
        return "not installed"
    if record.error == 0 or not math.isfinite(record.error):
        return {0.0: "0", math.inf: "inf"}.get(record.error, "NaN")
    mantissa, exponent = f"{record.error:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _plain(error: float | None) -> float | str | None:
    """JSON has no NaN and no infinity."""
    return error if error is None or math.isfinite(error) else str(error)
