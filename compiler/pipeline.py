"""Textual pipelines: ``a,b{k=v},canonicalize``. Our passes and MLIR's stand side by side and run in order."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import os
import re
import shlex
import tempfile
import typing
from collections.abc import Callable

from jax.extend.mlir import ir, passmanager

from stablenorm.compiler.diagnostics import StablenormError, first_line
from stablenorm.passes import PASSES, Pass, PassContext, make_context
from stablenorm.passes.rewriting import run_mlir


@dataclasses.dataclass(frozen=True)
class Stage:
    """One element of a pipeline: its text, and our pass where it names one (else it is MLIR's)."""

    text: str
    ours: Pass | None

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Runs the pass, verifies the module, and checks what the pass ensures.

        Raises:
            MLIRError, ValueError: the pass failed, or the module it left is not valid or not what it ensures.
        """
        if self.ours is None:
            run_mlir(module, self.text)
            return
        self.ours.run(module, context)
        module.operation.verify()
        for contract in self.ours.ensures:
            broken = contract(module)
            if broken is not None:
                raise ValueError(f"{contract.__name__} does not hold: {broken}")


def parse(pipeline: str) -> list[Stage]:
    """The stages of a pipeline.

    Raises:
        StablenormError: an unknown pass, an unknown option or a value of the wrong type.
    """
    return [_stage(text) for text in _split(pipeline)]


def run(
    module: ir.Module,
    pipeline: str,
    context: PassContext,
    *,
    source: str | None = None,
    progress: Callable[[str], None] = lambda stage: None,
) -> None:
    """Runs a pipeline on a module, in place.

    Args:
        source: the file that holds the module as it is now, for the command that reproduces an error.
        progress: called with each stage's text before it runs.

    Raises:
        StablenormError: `parse` does, or a stage fails: the message names it, says why in one line, and holds the
            `stablenorm-opt` command that shows it again.
    """
    stages = parse(pipeline)
    original = module.operation.clone()
    for number, stage in enumerate(stages, start=1):
        progress(stage.text)
        try:
            stage.run(module, context)
        except Exception as error:
            so_far = ",".join(stage.text for stage in stages[:number])
            file = source or _write(original)
            command = f"stablenorm-opt {shlex.quote(file)} --passes={shlex.quote(so_far)}"
            raise StablenormError(f"{stage.text} failed: {first_line(error)}; reproduce: {command}") from error


def _split(pipeline: str) -> list[str]:
    """The elements between the commas that stand in no bracket."""
    pipeline = re.sub(r"^\s*builtin\.module\((.*)\)\s*$", r"\1", pipeline, flags=re.DOTALL)
    elements, depth = [""], 0
    for character in pipeline:
        depth += (character in "({") - (character in ")}")
        if character == "," and depth == 0:
            elements.append("")
        else:
            elements[-1] += character
    if depth != 0:
        raise StablenormError(f"pipeline {pipeline!r}: got brackets that do not match; write a,b{{option=value}},c(d)")
    return [element.strip() for element in elements if element.strip()]


def _stage(text: str) -> Stage:
    name, _, options = text.partition("{")
    ours = {pass_.name: pass_ for pass_ in PASSES}
    if name in ours:
        return Stage(text, _configured(ours[name], options.removesuffix("}").split()))
    try:
        with make_context():  # StableHLO's passes are registered with the first
            passmanager.PassManager.parse(f"builtin.module({text})")
    except ValueError as error:
        raise _unknown(text, name, list(ours), error) from error
    return Stage(text, None)


def _unknown(text: str, name: str, ours: list[str], error: ValueError) -> StablenormError:
    if "does not refer to a registered pass" not in str(error):
        return StablenormError(f"pipeline element {text!r}: {first_line(error)}")
    close = difflib.get_close_matches(name, ours, n=1)
    advice = f"; did you mean {close[0]}?" if close else ""
    return StablenormError(f"got the unknown pass {name!r}, allowed: {', '.join(ours)}, and MLIR's own passes{advice}")


def _configured(pass_: type[Pass], options: list[str]) -> Pass:
    types = typing.get_type_hints(pass_)
    allowed = [field.name for field in dataclasses.fields(pass_)]
    values: dict[str, object] = {}
    for option in options:
        key, _, text = option.partition("=")
        if key not in allowed:
            known = ", ".join(allowed) or "none"
            raise StablenormError(f"{pass_.name}: got the unknown option {key!r}, allowed: {known}")
        values[key] = _value(pass_.name, key, types[key], text)
    for field in dataclasses.fields(pass_):
        if field.name not in values and field.default is dataclasses.MISSING:
            raise StablenormError(f"{pass_.name}: got no {field.name}, allowed: {_allowed(types[field.name])}")
    return pass_(**values)


def _value(pass_name: str, key: str, kind: type, text: str) -> object:
    readers: dict[type, Callable[[str], object]] = {bool: {"true": True, "false": False}.__getitem__}
    try:
        return readers.get(kind, kind)(text)
    except (KeyError, ValueError):
        raise StablenormError(f"{pass_name}: got {key}={text}, allowed: {_allowed(kind)}") from None


def _allowed(kind: type) -> str:
    """An option's type says itself what its text may be, where its name would not."""
    if issubclass(kind, enum.Enum):
        return ", ".join(str(each.value) for each in kind)
    return getattr(kind, "allowed", f"a value of type {kind.__name__}")


def _write(module: ir.Operation) -> str:
    handle, path = tempfile.mkstemp(prefix="stablenorm-", suffix=".mlir")
    with os.fdopen(handle, "w") as file:
        module.print(file=file, enable_debug_info=True)
    return path
