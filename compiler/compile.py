"""The whole way of a model: frontend, passes, XLA."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stablenorm.compiler import pipeline, saving
from stablenorm.compiler.executable import Executable
from stablenorm.compiler.frontends import import_model
from stablenorm.compiler.imported import Imported
from stablenorm.compiler.report import left_over, make_report
from stablenorm.compiler.signature import Array
from stablenorm.compiler.targets import Target, find_target, without_folding
from stablenorm.passes import PassContext

Progress = Callable[[str], None]
Reference = Callable[[Sequence[Array]], list[Array]]


def compile(
    model: Any,
    *arguments: Any,
    target: str = "cpu",
    topology: str | None = None,
    input_shape: Any = None,
    passes: str | None = None,
    fold: bool = True,
    weights: Mapping[str, Array] | None = None,
    weight_argnums: int | tuple[int, ...] = (),
    signature: str | None = None,
    donate_inputs: bool = False,
    progress: Progress = lambda step: None,
) -> Executable:
    """A model as an XLA executable with its batch norms folded.

    Args:
        model: a tf_keras model; a Keras 3 model on the JAX backend; a Flax NNX module, which is compiled as it
            computes after ``eval()``; a JAX function; or a path to a ``.keras`` or ``.h5`` file, a SavedModel folder, a
            StableHLO file (``.mlir``, ``.mlirbc``).
        arguments: for a JAX function and an NNX module, example arguments (arrays or `jax.ShapeDtypeStruct`; bools are
            a module's options); for a Keras 3 model, where it does not say what its inputs are.
        target: ``cpu``, ``tpu`` or ``cuda``.
        topology: compiles for a device that need not be attached, by its name, such as ``v5e:2x2`` for ``tpu``,
            ``h200`` for ``cuda``, where the extra of that name is installed. The result can be inspected and saved.
        input_shape: sizes that the model leaves open: a shape such as ``(1, 224, 224, 3)``, one shape for each input,
            or shapes by input name. An open batch size needs none: the executable takes any.
        passes: a pipeline instead of the target's own, such as ``"import-cleanup,lower-batch-norm"``.
        fold: False keeps every batch norm.
        weights: values of the weights that a StableHLO file names.
        weight_argnums: which arguments of a JAX function are weights.
        signature: which signature of a SavedModel.
        donate_inputs: lets a result take the memory of an input of its type. A JAX array is gone after the call that
            it was given to; a NumPy array stays.
        progress: called with a word on each step before it begins.

    Raises:
        StablenormError: the model, a shape, the target or the pipeline cannot be used; the message says what can.
    """
    options: dict[str, Any] = {
        "target": target,
        "topology": topology,
        "input_shape": input_shape,
        "passes": passes,
        "fold": fold,
        "donate_inputs": donate_inputs,
        "progress": progress,
    }
    options |= {"weights": weights, "weight_argnums": weight_argnums, "signature": signature}
    return build_with_reference(model, *arguments, **options)[0]


def build_with_reference(
    model: Any,
    *arguments: Any,
    target: str = "cpu",
    topology: str | None = None,
    input_shape: Any = None,
    passes: str | None = None,
    fold: bool = True,
    donate_inputs: bool = False,
    progress: Progress = lambda step: None,
    **sources: Any,
) -> tuple[Executable, Reference]:
    """As `compile`, and what the model's own framework computes: flat outputs from flat inputs."""
    platform = find_target(target, topology)
    text = passes if passes is not None else platform.pipeline if fold else without_folding(platform.pipeline)
    pipeline.parse(text)  # a misspelt pass is told before the model is imported

    def frontend(shape: Any) -> Imported:
        progress("importing the model")
        return import_model(model, arguments, input_shape=shape, **sources)

    original = frontend(input_shape)

    def finish(imported: Imported, platform: Target) -> Executable:
        context = PassContext(weights=original.weights)
        pipeline.run(imported.module, text, context, progress=progress)
        report = make_report([*context.remarks, *left_over(imported.module)])
        progress("compiling with XLA")
        return Executable(
            imported.signature, report, platform, original.weights, imported.module, donate_inputs, specialize
        )

    def for_batch(batch: int) -> Executable:
        # A call asks for it, which needs an attached device.
        return finish(
            frontend({spec.name: spec.shape for spec in original.signature.with_batch(batch).inputs}),
            platform.attached(),
        )

    specialize = for_batch if original.open_batch else None
    return finish(original, platform), original.reference


def load(path: str | os.PathLike[str], donate_inputs: bool = False) -> Executable:
    """The executable that `Executable.save` wrote, compiled again for its target. No code in the folder runs.

    ``donate_inputs`` as in `compile`.

    Raises:
        StablenormError: it is not such a folder, a file in it is broken, or its target is not here.
    """
    saved = saving.load(path)
    return Executable(saved.signature, saved.report, saved.target, saved.weights, saved.module, donate_inputs)
