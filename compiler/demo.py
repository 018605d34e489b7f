"""``stablenorm demo``: one model of tf_keras.applications, all its weights random, folded and compared."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from stablenorm.compiler.check import compare, table
from stablenorm.compiler.compile import build_with_reference
from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.tensorflow_runtime import import_tf_keras, quiet_stderr


def run(name: str, size: int, progress: Callable[[str], None]) -> tuple[str, bool]:
    """What the demo prints, and whether the outputs agree."""
    progress(f"building {name}")
    with quiet_stderr():
        model = _application(name, size)
        randomize(model)
    start = time.perf_counter()
    executable, reference = build_with_reference(model, input_shape=(1, size, size, 3), progress=progress)
    seconds = time.perf_counter() - start
    progress("comparing with tf_keras")
    comparisons = compare(executable, reference)
    lines = [
        str(executable.report),
        f"{name}, {size}x{size}, every weight random: imported, folded and compiled in {seconds:.1f} s",
        table(comparisons),
    ]
    return "\n".join(lines), all(comparison.is_match for comparison in comparisons)


def randomize(model: Any, seed: int = 0) -> None:
    """Random values for every weight: biases of zero and variances of one would hide a wrong fold.

    Kernels keep the size of a layer's output near that of its input, so that deep models stay finite.
    """
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(_values(weight.name.rsplit("/", 1)[-1], tuple(weight.shape), generator))


def _values(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> Any:
    if "kernel" in name:
        fan_in = int(np.prod(shape[:2] if "depthwise" in name else shape[:-1]))
        return generator.normal(0.0, np.sqrt(2.0 / max(1, fan_in)), shape)
    if "variance" in name:
        return generator.uniform(0.5, 2.0, shape)
    if "gamma" in name:
        return generator.uniform(0.5, 1.5, shape) * generator.choice([-1.0, 1.0], shape)
    return generator.normal(0.0, 0.2, shape)


def _application(name: str, size: int) -> Any:
    applications = import_tf_keras().applications
    build: Any = getattr(applications, name, None)
    if not inspect.isfunction(build) or not name[:1].isupper():
        names = sorted(entry for entry in vars(applications) if entry[:1].isupper())
        raise StablenormError(f"got the model {name!r}, allowed: {', '.join(names)}")
    try:
        return build(weights=None, classifier_activation=None, input_shape=(size, size, 3))
    except ValueError as error:
        raise StablenormError(f"{name} cannot be built for {size}x{size} images: {error}") from error
