"""What is installed is what pyproject.toml says, the lock pins all of it, and a plain import stays light."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
LOCK = (ROOT / "requirements.lock").read_text()

FRAMEWORKS = ("tensorflow", "tf_keras", "keras", "flax", "torch")


def normalized(requirement: str) -> str:
    """The name in a requirement, in the form in which two spellings of it are equal."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, f"no name in {requirement!r}"
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def locked() -> dict[str, str]:
    """Each requirement of the lock, name to everything that follows it."""
    logical_lines = LOCK.replace("\\\n", " ").splitlines()
    return {normalized(line): line for line in logical_lines if line.strip() and not line.startswith("#")}


def test_metadata_is_that_of_pyproject():
    metadata = importlib.metadata.metadata("stablenorm")
    assert metadata["Version"] == PROJECT["project"]["version"]
    assert metadata["Requires-Python"] == PROJECT["project"]["requires-python"]
    assert metadata["License-Expression"] == "Apache-2.0"


@pytest.mark.parametrize("name", PROJECT["project"]["scripts"])
def test_script_is_installed_and_callable(name: str):
    (script,) = importlib.metadata.entry_points(group="console_scripts", name=name)
    assert script.value == PROJECT["project"]["scripts"][name]
    assert callable(script.load())


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_this_tree(package: str):
    folder = ROOT / PROJECT["tool"]["setuptools"]["package-dir"][package]
    assert Path(str(importlib.resources.files(package))).resolve() == folder


@pytest.mark.parametrize("package", PACKAGES)
def test_package_ships_its_types(package: str):
    top_level = ".".join(package.split(".")[:2])
    assert importlib.resources.files(top_level).joinpath("py.typed").is_file()


def test_every_folder_with_code_is_packaged():
    folders = {path.parent for top in ("ops", "passes", "compiler") for path in (ROOT / top).rglob("*.py")}
    packaged = {ROOT / folder for folder in PROJECT["tool"]["setuptools"]["package-dir"].values()}
    assert folders == packaged
    assert set(PROJECT["tool"]["setuptools"]["package-dir"]) == set(PACKAGES)
    assert all((folder / "__init__.py").is_file() for folder in folders)


@pytest.mark.parametrize("package", PACKAGES)
def test_import_brings_in_no_framework(package: str):
    program = f"import sys, {package}; print(*sorted(set({FRAMEWORKS}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_lock_pins_every_dependency():
    project = PROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values(), PROJECT["build-system"]["requires"]]
    wanted = [requirement for group in groups for requirement in group]
    assert {normalized(requirement) for requirement in wanted} - {"stablenorm"} <= set(locked())


def test_lock_holds_only_exact_hashed_versions():
    loose = [line for line in locked().values() if not re.match(r"[a-z0-9.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)]
    assert not loose


def test_lock_names_no_place():
    assert not re.findall(r"https?:|file:|//|\.\./|@ |index|find-links|\.whl", LOCK)


def test_private_imports_stand_in_one_file():
    """What JAX does not promise is used in one place, so that a new JAX breaks one file."""
    private = re.compile(r"_mlir_libs|\bjax\._src|\bjaxlib\._")
    code = {path for top in ("ops", "passes", "compiler", "bench", "tests") for path in (ROOT / top).rglob("*.py")}
    code.remove(Path(__file__).resolve())
    users = sorted(str(path.relative_to(ROOT)) for path in code if private.search(path.read_text()))
    assert len(users) <= 1, f"private imports in {users}: keep them in one file that says why"
