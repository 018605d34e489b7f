"""``stablenorm-opt``: reads StableHLO, runs passes one after the other, prints the IR."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from stablenorm.compiler import pipeline
from stablenorm.compiler.diagnostics import ArgumentParser, StablenormError, exit_code
from stablenorm.compiler.stablehlo_io import read_module
from stablenorm.passes import PASSES, PassContext, make_context

_SEPARATOR = re.compile(rb"^// -----[ \t\r]*$", re.MULTILINE)  # a line of its own, as in mlir-opt


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, or 2 after one line on standard error that says what was wrong."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    name, data = _read(options.file)
    chunks = _split(data) if options.split_input_file else [data]
    texts = [_optimize(chunk, name, options, single=len(chunks) == 1) for chunk in chunks]
    sys.stdout.write("// -----\n".join(texts))
    return 0


def _split(data: bytes) -> list[bytes]:
    """The parts of a file, each behind as many empty lines as stand before it: line numbers stay the file's."""
    parts = _SEPARATOR.split(data)
    lines = itertools.accumulate((part.count(b"\n") for part in parts), initial=0)
    padded = [b"\n" * before + part for before, part in zip(lines, parts, strict=False)]
    return [part for part in padded if part.strip()] or [data]


def _optimize(data: bytes, name: str, options: argparse.Namespace, *, single: bool) -> str:
    module = read_module(data, name, make_context())
    context = PassContext()
    pipeline.run(module, options.passes, context, source=name if single and name != "<stdin>" else None)
    if options.explain:
        for remark in context.remarks:
            place = re.sub(r"^-(?=:\d)", name, remark.location)  # MLIR calls every text "-"
            print(dataclasses.replace(remark, location=place), file=sys.stderr)
    return str(module.operation.get_asm(enable_debug_info=options.locations))


def _read(file: str) -> tuple[str, bytes]:
    if file == "-":
        return "<stdin>", sys.stdin.buffer.read()
    try:
        return file, Path(file).read_bytes()
    except OSError as error:
        raise StablenormError(f"{file}: {error.strerror}; pass a StableHLO file, or - for standard input") from error


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="stablenorm-opt",
        description="Runs passes on StableHLO (text, bytecode or portable artifact) and prints the result.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", default="-", help="a file; - or nothing: standard input")
    parser.add_argument(
        "--passes",
        default="",
        metavar="PIPELINE",
        help='such as "fold-batch-norm,canonicalize"; none: only reads, verifies and prints',
    )
    parser.add_argument("--explain", action="store_true", help="say on standard error what was folded, or why not")
    parser.add_argument(
        "--split-input-file",
        action="store_true",
        help="treat the parts between lines of // ----- as files of their own",
    )
    parser.add_argument("--locations", action="store_true", help="print the operations' locations too")
    return parser


def _epilog() -> str:
    passes = "\n".join(f"  {pass_.name:29}{(pass_.__doc__ or '').splitlines()[0].replace('`', '')}" for pass_ in PASSES)
    return f"passes, in the order of a pipeline (MLIR's own, such as canonicalize, go too):\n{passes}"


if __name__ == "__main__":
    sys.exit(main())
