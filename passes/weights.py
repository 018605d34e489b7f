"""Which values of a function depend on weights alone, what they are called, and what they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func

from stablenorm.passes.base import Array
from stablenorm.passes.evaluating import EVALUATORS, Unknown
from stablenorm.passes.rewriting import operations

WEIGHT = "stablenorm.weight"
_SMALL = 4096  # elements: vectors of features, not kernels
# Not a function of the operands alone, or not ours to move.
_OPAQUE = frozenset(
    {
        "stablehlo.after_all",
        "stablehlo.all_gather",
        "stablehlo.all_reduce",
        "stablehlo.all_to_all",
        "stablehlo.collective_broadcast",
        "stablehlo.collective_permute",
        "stablehlo.composite",
        "stablehlo.create_token",
        "stablehlo.custom_call",
        "stablehlo.infeed",
        "stablehlo.optimization_barrier",
        "stablehlo.outfeed",
        "stablehlo.partition_id",
        "stablehlo.recv",
        "stablehlo.reduce_scatter",
        "stablehlo.replica_id",
        "stablehlo.rng",
        "stablehlo.rng_bit_generator",
        "stablehlo.send",
    }
)


def weight_names(function: func.FuncOp) -> list[str | None]:
    """For each argument of a function, the name it carries as ``stablenorm.weight``, or None."""
    with function.operation.context:  # where no argument has an attribute, the bindings make empty ones
        attributes = [ir.DictAttr(entry) for entry in function.arg_attrs]
    return [ir.StringAttr(entry[WEIGHT]).value if WEIGHT in entry else None for entry in attributes]


class Weights:
    """The weights of one function: its marked arguments, its constants, and all that is computed from these alone.

    Values are remembered by identity, so no operation of the function may be erased while this object is in use.

    Attributes:
        arguments: the marked arguments, with their names.
    """

    def __init__(self, function: func.FuncOp, values: Mapping[str, Array]) -> None:
        names = zip(function.arguments, weight_names(function), strict=True)
        self.arguments: dict[ir.Value, str] = {value: name for value, name in names if name is not None}
        self._values = values
        self._is_weight: dict[ir.Value, bool] = {}
        self._numbers: dict[ir.Value, Array] = {}  # of small values: a chain of folds would compute them ever again

    def is_weight(self, value: ir.Value) -> bool:
        """Whether ``value`` depends on weight arguments and constants alone."""
        pending = [value]
        while pending:
            current = pending[-1]
            sources = None if current in self._is_weight else _sources(current)
            unknown = [source for source in sources or () if source not in self._is_weight]
            if unknown:
                pending.extend(unknown)
                continue
            pending.pop()
            if sources is not None:
                self._is_weight[current] = all(self._is_weight[source] for source in sources)
            elif current not in self._is_weight:
                self._is_weight[current] = current in self.arguments
        return self._is_weight[value]

    def is_varied(self, value: ir.Value) -> bool:
        """Whether a weight value comes from an argument, or from a constant that is not one repeated number."""
        return any(source in self.arguments or _is_varied_constant(source) for source in self._expression(value))

    def is_parameter(self, value: ir.Value) -> bool:
        """Whether a batch norm's scale or offset can be a layer's: TensorFlow writes layer norm with constant ones."""
        return not self.is_weight(value) or self.is_varied(value)

    def names(self, value: ir.Value) -> list[str]:
        """The names of the weight arguments that a weight value is computed from, first met first."""
        return [self.arguments[source] for source in self._expression(value) if source in self.arguments]

    def first_name(self, value: ir.Value) -> str | None:
        """The first of `names`, without a look at the others: what was folded often is computed from many."""
        return next((self.arguments[source] for source in self._expression(value) if source in self.arguments), None)

    def evaluate(self, value: ir.Value) -> Array | None:
        """The numbers in a weight value, or None where a weight's value, or an operation's meaning, is not known."""
        try:
            with np.errstate(all="ignore"):
                return self._evaluate(value)
        except Unknown:
            return None

    def _evaluate(self, value: ir.Value) -> Array:
        known: dict[ir.Value, Array] = {}
        pending = [value]
        while pending:
            current = pending[-1]
            if current in self._numbers:
                known[pending.pop()] = self._numbers[current]
                continue
            sources = self._evaluated_sources(current)
            unknown = [source for source in sources if source not in known]
            pending.extend(unknown)
            if not unknown:
                known[pending.pop()] = numbers = self._compute(current, [known[source] for source in sources])
                if numbers.size <= _SMALL:
                    self._numbers[current] = numbers
        return known[value]

    def _evaluated_sources(self, value: ir.Value) -> list[ir.Value]:
        sources = _sources(value)
        if sources is None and self.arguments.get(value) in self._values:
            return []
        if sources is None or isinstance(value.owner, ir.Block) or value.owner.operation.name not in EVALUATORS:
            raise Unknown
        return sources

    def _compute(self, value: ir.Value, operands: list[Array]) -> Array:
        if isinstance(value.owner, ir.Block):
            return self._values[self.arguments[value]]
        return EVALUATORS[value.owner.operation.name](value.owner, *operands)

    def _expression(self, value: ir.Value) -> Iterator[ir.Value]:
        """``value`` and all it is computed from, each once, depth first."""
        seen: set[ir.Value] = set()
        pending = [value]
        while pending:
            current = pending.pop()
            if current not in seen:
                seen.add(current)
                yield current
                pending.extend(reversed(_sources(current) or []))


def _sources(value: ir.Value) -> list[ir.Value] | None:
    """The values that alone decide about ``value``; None where it is no arithmetic (an argument, a custom call)."""
    if isinstance(value.owner, ir.Block):
        return None
    inner = operations(value.owner)
    if any(op.operation.name in _OPAQUE or not op.operation.name.startswith("stablehlo.") for op in inner):
        return None
    if len(inner) == 1:
        return list(value.owner.operands)
    defined: set[ir.Value] = {result for op in inner for result in op.results}
    defined |= {argument for op in inner for region in op.regions for block in region for argument in block.arguments}
    return [operand for op in inner for operand in op.operands if operand not in defined]


def _is_varied_constant(value: ir.Value) -> bool:
    if isinstance(value.owner, ir.Block) or value.owner.operation.name != "stablehlo.constant":
        return False
    try:
        attribute = value.owner.attributes["value"]
    except TypeError:  # the bindings have no class for complex elements
        return True
    return not (isinstance(attribute, ir.DenseElementsAttr) and attribute.is_splat)
