"""What benchmarks leave behind: a file of numbers with the versions that they are of, and a picture of them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

PACKAGES = (
    "jax",
    "jaxlib",
    "numpy",
    "tensorflow",
    "tf_keras",
    "keras",
    "flax",
    "torch",
    "onnxruntime",
    "openvino",
    "tf2onnx",
)
# Of a picture: the panels by title, their groups of bars by name, the bars by what they stand for.
Panels = Mapping[str, Mapping[str, Mapping[str, float]]]


def write_json(folder: pathlib.Path, name: str, records: Sequence[Mapping[str, Any]]) -> None:
    """``name.json`` in the folder: the machine, the versions, and the records."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {"machine": platform.machine(), "cores": cores, "system": platform.platform()}
    content = {"machine": machine, "versions": dict(_versions()), "records": list(records)}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"Numbers: {path}")


def draw_bars(folder: pathlib.Path, name: str, panels: Panels, unit: str) -> None:
    """``name.svg`` in the folder: panels of grouped bars, with a line at 1."""
    try:
        import matplotlib.figure
    except ImportError:
        print("No picture: matplotlib is not installed; `make bench-peers` installs it.")
        return
    figure = matplotlib.figure.Figure(figsize=(13, 4 * len(panels)), layout="constrained")
    for axes, (title, groups) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items(), strict=True):
        names = list(dict.fromkeys(bar for bars in groups.values() for bar in bars))
        width = 0.85 / len(names)
        for place, bar in enumerate(names):
            heights = [bars.get(bar, 0.0) for bars in groups.values()]
            axes.bar([at + place * width for at in range(len(groups))], heights, width, label=bar)
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_xticks([at + 0.425 - width / 2 for at in range(len(groups))], list(groups))
        axes.set_ylabel(unit)
        axes.set_title(title)
    figure.axes[0].legend(ncols=5, fontsize="small")
    path = folder / f"{name}.svg"
    figure.savefig(path)
    print(f"Picture: {path}")


def _versions() -> Any:
    for package in PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
