"""``stablenorm-opt``: reads StableHLO, runs passes one after the other, prints the IR."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stablenorm.compiler import pipeline
from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.stablehlo_io import read_module
from stablenorm.passes import PASSES, PassContext, make_context

_SEPARATOR = b"// -----"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, or 2 after one line on standard error that says what was wrong."""
    options = _parser().parse_args(arguments)
    try:
        name, data = _read(options.file)
        chunks = data.split(_SEPARATOR) if options.split_input_file else [data]
        texts = [_optimize(chunk, name, options, single=len(chunks) == 1) for chunk in chunks]
    except StablenormError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sys.stdout.write("// -----\n".join(texts))
    return 0


def _optimize(data: bytes, name: str, options: argparse.Namespace, *, single: bool) -> str:
    module = read_module(data, name, make_context())
    context = PassContext()
    pipeline.run(module, options.passes, context, source=name if single and name != "<stdin>" else None)
    if options.explain:
        for remark in context.remarks:
            print(remark, file=sys.stderr)
    return str(module.operation.get_asm(enable_debug_info=options.locations))


def _read(file: str) -> tuple[str, bytes]:
    if file == "-":
        return "<stdin>", sys.stdin.buffer.read()
    try:
        return file, Path(file).read_bytes()
    except OSError as error:
        raise StablenormError(f"{file}: {error.strerror}; pass a StableHLO file, or - for standard input") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stablenorm-opt",
        description="Runs passes on StableHLO (text, bytecode or portable artifact) and prints the result.",
        epilog=f"Passes of stablenorm: {', '.join(pass_.name for pass_ in PASSES)}. MLIR's own may stand among them.",
    )
    parser.add_argument("file", nargs="?", default="-", help="a file; - or nothing: standard input")
    parser.add_argument("--passes", default="", metavar="PIPELINE", help='such as "fold-batch-norm,canonicalize,cse"')
    parser.add_argument("--explain", action="store_true", help="say on standard error what was folded, or why not")
    parser.add_argument(
        "--split-input-file", action="store_true", help="treat parts between // ----- as files of their own"
    )
    parser.add_argument("--locations", action="store_true", help="print locations")
    return parser


if __name__ == "__main__":
    sys.exit(main())
