"""What a frontend hands to the pipeline."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from jax.extend.mlir import ir

from stablenorm.compiler.signature import Array, Signature


@dataclasses.dataclass(frozen=True)
class Imported:
    """A model as StableHLO.

    ``module`` holds ``@main(inputs..., weights...)``: first the tensors of ``signature.inputs``, in order, then one
    argument for each weight, marked ``{stablenorm.weight = "<name>"}``, in the order of ``weights``. Its results are
    the tensors of ``signature.outputs``. ``weights`` may lack values (a StableHLO file names weights, it does not
    hold them). ``reference`` computes the flat outputs from the flat inputs the way the framework itself does.
    ``open_batch`` says that the model takes any first size, the same for all inputs, and was imported for 1.
    """

    module: ir.Module
    weights: Mapping[str, Array]
    signature: Signature
    reference: Callable[[Sequence[Array]], list[Array]]
    open_batch: bool = False
