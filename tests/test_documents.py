"""What the documents say is true today: their examples run, their IR, tables and links are those of the code."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stablenorm.ops
from stablenorm.compiler import cli, opt
from stablenorm.compiler.frontends import stablehlo
from stablenorm.compiler.targets import TARGETS
from stablenorm.compiler.xla import compile_module
from stablenorm.passes import PASSES, PassContext
from stablenorm.passes.lower_batch_norm import LowerBatchNorm

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted(path.name for path in ROOT.glob("*.md"))

# A fenced block: its language, its content, and where it starts and ends.
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(heading: str) -> str:
    """From a heading to the next one of its level or above."""
    level = heading.split()[0]
    rest = README.partition(f"\n{heading}\n")[2]
    assert rest, f"README has no {heading!r}"
    return re.split(rf"^#{{2,{len(level)}}} ", rest, flags=re.MULTILINE)[0]


def blocks(text: str, language: str) -> list[str]:
    return [match[2] for match in BLOCK.finditer(text) if match[1] == language]


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for block in blocks(text, "sh") for line in block.splitlines()]


def rows(text: str) -> list[list[str]]:
    """The cells of the Markdown tables in a text, without headings' rules."""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.search(r"\w", line)]


def test_the_python_examples_run_and_print_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in blocks(section("## Use"), "python") + blocks(section("## Train with it"), "python"):
        exec(compile(example, "README.md", "exec"), names)
    (shown,) = blocks(section("## Use"), "text")
    assert capsys.readouterr().out == shown
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"module.mlirbc", "weights.safetensors", "report.json"}
    assert all(name in README for name in written)


def test_the_shell_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import tf_keras

    monkeypatch.chdir(tmp_path)
    layers = [tf_keras.layers.Conv2D(4, 3, input_shape=(8, 8, 3)), tf_keras.layers.BatchNormalization()]
    tf_keras.Sequential(layers).save("model.keras")
    np.save("x.npy", np.ones((1, 8, 8, 3), np.float32))
    given = [words[1:] for words in commands(section("## Use")) if words and words[0] == "stablenorm"]
    assert {words[0] for words in given} == {"check", "compile", "run", "demo"}
    for words in given:
        if words[0] == "demo":  # half a minute: `make demo` shows it
            cli._parser().parse_args(words)
        else:
            assert cli.main(words) == 0
    assert Path("y.npy").is_file()


SHOWN = re.findall(
    r"^```sh\n(stablenorm-opt [^\n]*)\n```\n```(?:mlir|text)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command for command, _ in SHOWN])
def test_stablenorm_opt_prints_what_is_shown(
    command: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(ROOT)
    assert opt.main(shlex.split(command)[1:]) == 0
    printed = capsys.readouterr()
    assert (printed.err if "--explain" in command else printed.out) == shown


def test_three_stages_and_the_remarks_are_shown():
    assert len(SHOWN) == 4


def test_the_table_of_passes_names_every_pass_in_order():
    names = [cells[0].strip("`") for cells in rows(section("## Passes").partition("### ")[0])[1:]]
    assert names == [each.name for each in PASSES]


def test_every_argument_has_tests_that_exist():
    """``K::test_a, test_b`` means tests of the file that the section's first lines call K."""
    text = section("## Every argument, and the test that holds it")
    files = dict(re.findall(r"`(\w+)` = `(tests/\S+\.py)`", text))
    names = {
        short: set(re.findall(r"^def (test_\w+)", (ROOT / path).read_text(), re.M)) for short, path in files.items()
    }
    found = 0
    for cell in (cell for row in rows(text) for cell in row):
        short = ""
        for prefix, name in re.findall(r"(?:(\w+)::)?\b(test_\w+)", cell):
            short = prefix or short
            assert name in names[short], f"{short}::{name}"
            found += 1
    assert found > 100


def test_the_default_pipeline_is_that_table_and_two_passes_of_mlir():
    left_out = re.search(
        r"ends in `canonicalize,cse` and leaves out `([a-z-]+)`, for GPUs, and `([a-z-]+)` and `([a-z-]+)`",
        " ".join(README.split()),
    )
    assert left_out
    named = [each.name for each in PASSES if each.name not in left_out.groups()]
    assert TARGETS["cpu"].pipeline == ",".join([*named, "canonicalize", "cse"])


def test_the_example_of_a_new_pass_works(tmp_path: Path):
    """Its three steps, in a copy of the tree, and the lit file run there."""
    text = section("### Add a pass")
    place, test = (re.search(rf"`({folder}/\S+)`", text) for folder in ("passes", "tests/lit"))
    assert place
    assert test
    (code,), (lit,) = blocks(text, "python"), blocks(text, "mlir")
    package = tmp_path / "stablenorm"
    shutil.copytree(ROOT / "passes", package / "passes", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("ops", "compiler"):
        (package / folder).symlink_to(ROOT / folder)
    (package / place[1]).write_text(code)
    listed = package / "passes" / "__init__.py"
    listing = f"from stablenorm.passes.{Path(place[1]).stem} import DropDoubleNegation\n" + listed.read_text()
    listed.write_text(re.sub(r"(PASSES.* = \((?:[^)]*\w)),?\s*\)", r"\1, DropDoubleNegation)", listing))
    (package / "lit").mkdir()
    (package / "lit" / Path(test[1]).name).write_text(lit)
    shutil.copy(ROOT / "tests" / "lit" / "lit.cfg.py", package / "lit")
    # lit starts its tools with a bare environment; the copy comes first on the path all the same.
    with (package / "lit" / "lit.cfg.py").open("a") as config:
        config.write(f"config.environment['PYTHONPATH'] = {str(tmp_path)!r}\n")
    command = [sys.executable, "-c", "from lit.main import main; main()", "-v", f"--param=exec_root={tmp_path / 'run'}"]
    result = subprocess.run([*command, str(package / "lit")], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"Passed: +1\b", result.stdout), result.stdout


BATCH_NORM = """
func.func @main(%x: tensor<64x4x4x2xf32>, %scale: tensor<2xf32>, %offset: tensor<2xf32>, %mean: tensor<2xf32>,
    %variance: tensor<2xf32>) -> tensor<64x4x4x2xf32> {
  %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{epsilon = 1.0e-3 : f32, feature_index = 3 : i64}>
    : (tensor<64x4x4x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<64x4x4x2xf32>
  return %y : tensor<64x4x4x2xf32>
}"""


@pytest.mark.parametrize(
    "claimed", [row for row in rows(section("## Why")) if row[0] != "mean"], ids=lambda row: row[0]
)
def test_the_errors_that_are_claimed_are_those_of_xla_and_of_ours(claimed: list[str]):
    """Within a factor of three: they are the largest of a few thousand roundings."""
    mean = float(claimed[0])
    generator = np.random.default_rng(0)
    x = (generator.normal(size=(64, 4, 4, 2)) + mean).astype(np.float32)
    moments = [f(x, axis=(0, 1, 2), dtype=np.float64).astype(np.float32) for f in (np.mean, np.var)]
    scale, offset = np.array([1.3, -0.7], np.float32), np.array([0.1, 0.2], np.float32)
    exact = (x - moments[0].astype(np.float64)) / np.sqrt(moments[1].astype(np.float64) + 1e-3) * scale + offset
    for passes, error in zip(([], [LowerBatchNorm()]), claimed[1:], strict=True):
        module = stablehlo.from_bytes(BATCH_NORM.encode(), "batch norm").module
        for each in passes:
            each.run(module, PassContext())
        (y,) = compile_module(module, TARGETS["cpu"])(x, scale, offset, *moments)
        assert float(error) / 3 < np.abs(np.asarray(y) - exact).max() < float(error) * 3


def test_xla_alone_keeps_the_batch_norm_that_we_fold():
    from stablenorm import compiler

    example = ROOT / "examples" / "conv_bn_relu.mlir"
    assert " multiply(" in compiler.compile(example, passes="import-cleanup").hlo()
    assert " multiply(" not in compiler.compile(example).hlo()


def test_the_models_of_the_table_are_those_that_are_tested():
    tested = re.search(
        r"^APPLICATIONS = (\{.*?^\})", (ROOT / "tests/models/test_applications.py").read_text(), re.M | re.S
    )
    assert tested
    names, folded, total = rows(section("### What is folded, and what is kept"))
    claimed = {name: (int(a), int(b)) for name, a, b in zip(names[1:], folded[1:], total[1:], strict=True)}
    assert claimed == ast.literal_eval(tested[1])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_local_links_lead_somewhere(name: str):
    text = (ROOT / name).read_text()
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"\w+:", target)]
    missing = [target for target in targets if not (ROOT / target.partition("#")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_that_are_named_exist(name: str):
    targets = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z]+)", (ROOT / name).read_text(), re.MULTILINE))
    assert named <= set(targets[1].split())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name: str):
    """A path in backticks with a known folder in front; the files of the new pass are still to come."""
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
    paths = re.findall(rf"`((?:{folders})/[\w./-]*)`", (ROOT / name).read_text())
    assert [path for path in paths if "drop_double_negation" not in path and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(stablenorm.ops.__path__)])
def test_the_examples_in_docstrings_of_ops_are_true(name: str):
    result = doctest.testmod(importlib.import_module(f"stablenorm.ops.{name}"))
    assert result.failed == 0
