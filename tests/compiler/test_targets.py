"""The lit files of targets hold one module, and run what targets run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stablenorm import compiler
from stablenorm.compiler.targets import TARGETS, without_folding

FILES = {path.stem: path for path in (Path(__file__).parents[1] / "lit" / "targets").glob("*.mlir")}


def module_text(name: str) -> str:
    text = FILES[name].read_text()
    return text[text.index("\nfunc.func @main(") :]


def test_every_target_has_a_lit_file_that_runs_its_pipeline() -> None:
    assert set(FILES) == set(TARGETS)
    for name, path in FILES.items():
        assert f"--passes='{TARGETS[name].pipeline}' " in path.read_text()


def test_one_module_goes_through_the_pipeline_of_every_target_and_means_the_same(tmp_path: Path) -> None:
    (text,) = {module_text(name) for name in FILES}
    file, generator = tmp_path / "module.mlir", np.random.default_rng(0)
    file.write_text(text)
    shapes = {"conv/kernel": (3, 4, 6), "project/kernel": (1, 6, 5), "depthwise/kernel": (3, 1, 5)}
    shapes |= dict.fromkeys(("bn/mean", "bn/variance", "bn/gamma", "bn/beta"), (6,))
    weights = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights["bn/variance"] = abs(weights["bn/variance"])
    x = generator.normal(size=(2, 8, 4)).astype(np.float32)

    def run(passes: str) -> np.ndarray:
        return np.asarray(compiler.compile(str(file), weights=weights, passes=passes)(x))

    expected = run(without_folding(TARGETS["cpu"].pipeline))
    for target in TARGETS.values():
        # float32: sums of up to 12 products, of numbers up to some tens where a variance is small
        np.testing.assert_allclose(run(target.pipeline), expected, atol=1e-5 * np.abs(expected).max())
