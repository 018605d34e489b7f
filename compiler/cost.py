"""What XLA says of a compiled module, and what its optimized HLO shows."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping

import jax

from stablenorm.compiler.tables import text_table

# An instruction is `%name = type opcode(operands), attributes`; a type may hold brackets of its own.
_OPCODE = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = .*?[\]})] ([a-z][a-z-]*)\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_CALLED_BY_FUSION = re.compile(r" fusion\(.*calls=%?([\w.-]+)")
_COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one call costs, as XLA reckons without running it.

    Attributes:
        bytes_accessed: read from and written to memory; None where XLA does not say.
        flops: floating-point operations; None where XLA does not say.
        argument_bytes, output_bytes, temporary_bytes: memory that it holds.
        fusions: how many fused loops run, one after the other.
        collectives: how many of each kind, by its name in HLO.
    """

    bytes_accessed: int | None
    flops: int | None
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    fusions: int
    collectives: Mapping[str, int]

    def __str__(self) -> str:
        values = dataclasses.asdict(self) | {"collectives": sum(self.collectives.values())}
        cells = [
            (name.replace("_", " "), "not told" if value is None else f"{value:,}") for name, value in values.items()
        ]
        return text_table(
            ("one call, by XLA", ""), cells + [(f"  {kind}", f"{n:,}") for kind, n in self.collectives.items()]
        )


def cost_of(compiled: jax.stages.Compiled) -> Cost:
    """The cost of a compiled function."""
    told = compiled.cost_analysis() or {}
    memory = compiled.memory_analysis()
    assert memory is not None, "XLA tells it on every platform that is a target"
    opcodes = collections.Counter(_opcodes(str(compiled.as_text())))
    collectives = {kind: opcodes[kind] + opcodes[f"{kind}-start"] for kind in _COLLECTIVES}
    return Cost(
        bytes_accessed=int(told["bytes accessed"]) if "bytes accessed" in told else None,
        flops=int(told["flops"]) if "flops" in told else None,
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        fusions=opcodes["fusion"],
        collectives={kind: count for kind, count in collectives.items() if count},
    )


def _opcodes(hlo: str) -> Iterator[str]:
    """The opcodes of all computations but those inside of a fusion."""
    fused = set(_CALLED_BY_FUSION.findall(hlo))
    computation = ""
    for line in hlo.splitlines():
        if header := _COMPUTATION.match(line):
            computation = header[1]
        elif computation not in fused and (instruction := _OPCODE.match(line)):
            yield instruction[1]
