"""What a pass is, and what passes share while a pipeline runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from jax.extend.mlir import ir
from numpy.typing import NDArray

Array = NDArray[Any]

# A property of a module: None where it holds, else one line that says what breaks it and where.
Kind = Literal["batch norm", "scale", "shift"]
Contract = Callable[[ir.Module], str | None]


@dataclasses.dataclass(frozen=True)
class Remark:
    """What a pass did with one batch norm or another per-channel map, or why it did nothing.

    Attributes:
        pass_name: who says it.
        verdict: ``raised``, ``frozen``, ``folded``, ``lowered``: done; ``declined``: left as it was, for ``detail``.
        subject: the batch norm's layer, by its weights' names or its location.
        detail: into what it went, or the reason why it did not.
        location: where the operation stands, as MLIR prints it.
        kind: a batch norm, a multiplication or division (a scale), an addition or subtraction (a shift).
        removed: how many elementwise operations on activations per call are gone.
    """

    pass_name: str
    verdict: Literal["raised", "frozen", "folded", "lowered", "declined"]
    subject: str
    detail: str
    location: str
    kind: Kind = "batch norm"
    removed: int = 0

    def __str__(self) -> str:
        text = f"{self.location}: remark: {self.pass_name}: {self.subject}: {self.verdict}: {self.detail}"
        return f"{text} (elementwise operations less per call: {self.removed})" if self.removed else text


@dataclasses.dataclass
class PassContext:
    """What passes share in one run of a pipeline.

    Attributes:
        weights: known values of weight arguments, by name. A weight without a value is legal: what needs the value
            is then not checked.
        remarks: what the passes said so far, in order.
    """

    weights: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    remarks: list[Remark] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Pass:
    """A rewrite of a module, in place. A subclass is a frozen dataclass whose fields are the pass's options.

    Attributes:
        name: the file's name in kebab-case, as written in a pipeline.
        ensures: what holds of every module that the pass has run on.
    """

    name: ClassVar[str]
    ensures: ClassVar[tuple[Contract, ...]] = ()

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Rewrites ``module``; says in ``context.remarks`` what was done and what was not, and why."""
        raise NotImplementedError
