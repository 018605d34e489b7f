"""``stablenorm``: compile, run, check and demo at the shell."""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stablenorm.compiler.diagnostics import ArgumentParser, StablenormError, exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0; 1 where `check` finds a mismatch; 2 after one line that says what was wrong."""
    options = _parser().parse_args(arguments)
    warnings.showwarning = _show_warning
    return exit_code(lambda: int(options.command(options)))


def _compile(options: argparse.Namespace) -> int:
    from stablenorm.compiler import compile, saving

    saving.check_replaceable(Path(options.output))  # before the work, not after it
    with _progress() as progress:
        executable = compile(**_model(options), progress=progress)
        progress("writing the folder")
        executable.save(options.output)
    print(executable.report)
    if options.report:
        print(executable.cost())
    print(f"{options.output}: {', '.join((saving.MODULE, saving.WEIGHTS, saving.REPORT))}")
    print(f"takes ({executable.signature})")
    return 0


def _run(options: argparse.Namespace) -> int:
    from stablenorm.compiler import arrays, load

    inputs = [arrays.read(path) for path in options.input]
    with _progress() as progress:
        progress("compiling with XLA")
        executable = load(options.folder)
        progress("running")
        outputs = executable(*inputs)
    arrays.write(options.output, outputs)
    return 0


def _check(options: argparse.Namespace) -> int:
    from stablenorm.compiler.check import compare, table
    from stablenorm.compiler.compile import build_with_reference

    with _progress() as progress:
        executable, reference = build_with_reference(**_model(options), progress=progress)
        progress("comparing")
        comparisons = compare(executable, reference, options.seed)
    print(executable.report)
    print(table(comparisons))
    return 0 if all(comparison.is_match for comparison in comparisons) else 1


def _demo(options: argparse.Namespace) -> int:
    from stablenorm.compiler import demo

    with _progress() as progress:
        text, is_match = demo.run(options.model, options.size, progress)
    print(text)
    return 0 if is_match else 1


def _model(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `compile` that the command line gives."""
    import jax

    from stablenorm.compiler.saving import read_weights

    if options.target == "cpu" or options.topology is not None:
        jax.config.update("jax_platforms", "cpu")  # JAX need not start other devices, or log that it found none
    return {
        "model": options.model,
        "input_shape": _shapes(options.input_shape),
        "target": options.target,
        "topology": options.topology,
        "passes": options.passes,
        "fold": not options.no_fold,
        "weights": read_weights(options.weights) if options.weights else None,
        "signature": options.signature,
    }


def _shapes(texts: Sequence[str]) -> Any:
    """``1,224,224,3`` or, once for each input, ``name=1,224,224,3``."""
    try:
        pairs = [(name, tuple(map(int, sizes.split(",")))) for name, _, sizes in (t.rpartition("=") for t in texts)]
    except ValueError:
        raise StablenormError(
            f"--input-shape: got {' '.join(texts)!r}, allowed: sizes such as 1,224,224,3, or name=1,224,224,3"
        ) from None
    if all(name for name, _ in pairs):
        return dict(pairs) or None
    return pairs[0][1] if len(pairs) == 1 else [shape for _, shape in pairs]


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}, allowed: whole numbers from 0")
    return int(text)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Shows the step under way while standard error is a terminal; says nothing elsewhere."""
    import rich.console

    console = rich.console.Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: None
        return
    with console.status("starting") as status:
        yield lambda step: status.update(step)


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="stablenorm",
        description="Folds the batch norms of a model into the weights beside them, and compiles it by XLA.",
        epilog="""
examples:
  stablenorm demo                            fold MobileNetV2 and compare it with tf_keras
  stablenorm check model.keras               what became of each batch norm; are the outputs the framework's?
  stablenorm compile model.keras -o out      the same model as a folder
  stablenorm run out --input x.npy --output y.npy
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    compile_ = _command(commands, "compile", "compile a model into a folder")
    _add_model(compile_)
    compile_.add_argument("-o", "--output", required=True, metavar="OUT", help="the folder to write")
    compile_.add_argument("--report", action="store_true", help="print what XLA made of it; report.json always has it")
    compile_.set_defaults(command=_compile)

    run = _command(commands, "run", "run a compiled model on arrays in .npy files")
    run.add_argument("folder", metavar="OUT", help="a folder written by `stablenorm compile`")
    run.add_argument("--input", action="append", required=True, metavar="X.npy", help="once for each input, in order")
    run.add_argument("--output", required=True, metavar="Y.npy", help=".npy for one output, .npz for several")
    run.set_defaults(command=_run)

    check = _command(
        commands,
        "check",
        "compile a model and compare its outputs with the framework's own; exit code 1 if they differ",
    )
    _add_model(check)
    check.add_argument("--seed", type=_seed, default=0, help="of the random inputs (default 0)")
    check.set_defaults(command=_check)

    demo = _command(commands, "demo", "fold and check a model of tf_keras.applications with random weights")
    demo.add_argument("--model", default="MobileNetV2", help="its name in tf_keras.applications (default MobileNetV2)")
    demo.add_argument("--size", type=int, default=224, help="height and width of the image (default 224)")
    demo.set_defaults(command=_demo)
    return parser


def _command(commands: Any, name: str, does: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.")
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a .keras, .h5, .mlir or .mlirbc file, or a SavedModel folder")
    parser.add_argument(
        "--input-shape",
        action="append",
        default=[],
        metavar="[NAME=]SIZES",
        help="sizes that the model leaves open, such as 1,224,224,3; once for each input",
    )
    parser.add_argument("--target", default="cpu", help="where it will run: cpu (the default), tpu or cuda")
    parser.add_argument(
        "--topology",
        metavar="NAME",
        help="compile for a device that is not attached: for tpu such as v5e:2x4, for cuda such as h200",
    )
    parser.add_argument(
        "--passes",
        metavar="PIPELINE",
        help="the passes to run, instead of the target's own; stablenorm-opt --help lists them",
    )
    parser.add_argument("--no-fold", action="store_true", help="keep every batch norm, to compare")
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors file: values for a StableHLO file's weights")
    parser.add_argument("--signature", metavar="NAME", help="which signature of a SavedModel (default serving_default)")


if __name__ == "__main__":
    sys.exit(main())
