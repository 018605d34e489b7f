"""What the passes cost: beside XLA's own compile time on ResNet-50, and as graphs grow."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from jax.extend.mlir import ir

from stablenorm.compiler import pipeline
from stablenorm.compiler.demo import randomize
from stablenorm.compiler.executable import without_prepare
from stablenorm.compiler.frontends.tensorflow_runtime import import_tf_keras
from stablenorm.compiler.frontends.tf_keras import from_model
from stablenorm.compiler.stablehlo_io import copy_module
from stablenorm.compiler.tables import text_table
from stablenorm.compiler.targets import TARGETS
from stablenorm.compiler.xla import compile_module
from stablenorm.passes import PassContext, make_context
from stablenorm.passes.rewriting import functions, operations

_CPU = TARGETS["cpu"]


def main() -> None:
    """Prints both tables."""
    print(resnet50())
    print(growth())


def resnet50() -> str:
    """Each stage of the default pipeline beside XLA's compile time, on ResNet-50 at batch 1, 224x224."""
    model = import_tf_keras().applications.ResNet50(weights=None)
    randomize(model)
    imported = from_model(model)
    best, module = _best_stages(imported.module, PassContext(imported.weights))
    xla = min(_seconds(lambda: compile_module(without_prepare(module), _CPU)) for _ in range(3))
    best |= {"all passes": sum(best.values()), "XLA": xla}
    rows = [(name, f"{seconds * 1e3:.1f}", f"{seconds / xla:.3f}") for name, seconds in best.items()]
    return text_table(["ResNet-50", "ms", "of XLA's compile time"], rows) + "\n"


def growth() -> str:
    """Chains of convolution, bias, batch norm and relu, of about 1,000 and 10,000 operations."""
    columns: dict[int, dict[str, float]] = {}
    for blocks in (125, 1250):
        with make_context() as context:
            module = ir.Module.parse(chain(blocks), context)
        size = len(operations(next(functions(module))))
        columns[size], _ = _best_stages(module, PassContext())
    (small, first), (large, second) = columns.items()
    first["all passes"], second["all passes"] = sum(first.values()), sum(second.values())
    rows = [
        (
            name,
            f"{first[name] * 1e3:.1f}",
            f"{second[name] * 1e3:.1f}",
            f"{second[name] / first[name] / (large / small):.2f}",
        )
        for name in first
    ]
    return text_table(["stage", f"ms, {small} ops", f"ms, {large} ops", "growth / linear"], rows) + "\n"


def chain(blocks: int) -> str:
    """A module of ``blocks`` times convolution, bias, batch norm, relu: eight operations each."""
    tensor, kernel, vector = "tensor<1x8x8x4xf32>", "tensor<3x3x4x4xf32>", "tensor<4xf32>"
    arguments, body = [f"%x0: {tensor}"], []
    for n in range(blocks):
        names = {part: f"%{part}{n}" for part in ("kernel", "bias", "gamma", "beta", "mean", "variance")}
        for part, name in names.items():
            kind = kernel if part == "kernel" else vector
            arguments.append(f'{name}: {kind} {{stablenorm.weight = "layer{n}/{part}"}}')
        parameters = ", ".join(names[part] for part in ("gamma", "beta", "mean", "variance"))
        body.append(f"""
  %c{n} = stablehlo.convolution(%x{n}, {names["kernel"]})
    dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f], window = {{pad = [[1, 1], [1, 1]]}}
    {{batch_group_count = 1 : i64, feature_group_count = 1 : i64}} : ({tensor}, {kernel}) -> {tensor}
  %b{n} = stablehlo.broadcast_in_dim {names["bias"]}, dims = [3] : ({vector}) -> {tensor}
  %s{n} = stablehlo.add %c{n}, %b{n} : {tensor}
  %n{n} = "stablehlo.batch_norm_inference"(%s{n}, {parameters})
    <{{epsilon = 1.0e-03 : f32, feature_index = 3 : i64}}>
    : ({tensor}, {vector}, {vector}, {vector}, {vector}) -> {tensor}
  %z{n} = stablehlo.constant dense<0.0> : tensor<f32>
  %w{n} = stablehlo.broadcast_in_dim %z{n}, dims = [] : (tensor<f32>) -> {tensor}
  %r{n} = stablehlo.maximum %n{n}, %w{n} : {tensor}
  %x{n + 1} = stablehlo.abs %r{n} : {tensor}""")
    lines = "".join(body)
    return f"func.func @main({', '.join(arguments)}) -> {tensor} {{{lines}\n  return %x{blocks} : {tensor}\n}}"


def _best_stages(module: ir.Module, context: PassContext, repeats: int = 5) -> tuple[dict[str, float], ir.Module]:
    """The least seconds of each stage of the default pipeline, and the module that the pipeline leaves."""
    best: dict[str, float] = {}
    for _ in range(repeats):
        copy = copy_module(module)
        for stage in pipeline.parse(_CPU.pipeline):
            seconds = _seconds(functools.partial(stage.run, copy, PassContext(context.weights)))
            best[stage.text] = min(best.get(stage.text, seconds), seconds)
    return best, copy


def _seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start
