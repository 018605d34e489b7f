"""What XLA says of a compiled module, and what its optimized HLO shows."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

import jax

from stablenorm.compiler.tables import text_table

# An instruction is `%name = type opcode(operands), attributes`; a type may hold brackets of its own.
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?[\]})]) ([a-z][a-z-]*)\(([^)]*)\)")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_CALLED_BY_FUSION = re.compile(r" fusion\(.*calls=%?([\w.-]+)")
_COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one call costs, as XLA reckons without running it.

    Attributes:
        bytes_accessed: read from and written to memory. For CUDA, where XLA does not say: operands and results of
            what the entry computation runs, which takes a loop for one operation.
        flops: floating-point operations; None where XLA does not say.
        argument_bytes, output_bytes, temporary_bytes: memory that it holds.
        fusions: how many fused loops run, one after the other.
        collectives: how many of each kind, by its name in HLO.
    """

    bytes_accessed: int
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
    hlo = str(compiled.as_text())
    opcodes = collections.Counter(_opcodes(hlo))
    collectives = {kind: opcodes[kind] + opcodes[f"{kind}-start"] for kind in _COLLECTIVES}
    return Cost(
        bytes_accessed=int(told["bytes accessed"]) if "bytes accessed" in told else entry_bytes(hlo),
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
        elif computation not in fused and (instruction := _INSTRUCTION.match(line)):
            yield instruction[3]


def entry_bytes(hlo: str) -> int:
    """Operands and results of what the entry computation runs, a custom call's scratch memory left out."""
    entry = hlo.partition("\nENTRY ")[2].partition("\n}")[0]
    found = [instruction.groups() for line in entry.splitlines() if (instruction := _INSTRUCTION.match(line))]
    sizes = {name: _sizes(type_) for name, type_, _, _ in found}
    total = 0
    for name, type_, opcode, operands in found:
        if opcode in _FREE or opcode.endswith("-done"):  # its start counts
            continue
        scratch = sizes[name][-1] if opcode == "custom-call" and _SCRATCH.search(type_) else 0
        total += sum(sizes[name]) - scratch
        total += sum(sum(sizes.get(operand, [])) for operand in re.findall(r"%([\w.-]+)", operands))
    return total


_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
_SCRATCH = re.compile(r", [us]8\[\d+\][^,]*\)$")
_ARRAY = re.compile(r"(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")


def _sizes(type_: str) -> list[int]:
    """The bytes of each array in a type."""
    return [
        math.prod(int(size) for size in sizes.split(",") if size) * int(bits or 8) // 8
        for _, bits, sizes in _ARRAY.findall(type_)
    ]
