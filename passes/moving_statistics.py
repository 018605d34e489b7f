"""Where the moving statistics of a training batch norm are, and what reads the batch's own."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func

from stablenorm.passes.building import is_float, product, shape_of
from stablenorm.passes.matching import location_name
from stablenorm.passes.moving_averages import Average, Statistic, find_average
from stablenorm.passes.named_forms import BatchNorm, view
from stablenorm.passes.rewriting import NoMatch, operations
from stablenorm.passes.weights import Weights


@dataclasses.dataclass(frozen=True)
class MovingStatistics:
    """What a batch norm's mean and variance are averaged into, and the gradients that read them."""

    mean: Average
    variance: Average
    gradients: tuple[BatchNorm, ...]


# For each value, the data in it: the inputs that it depends on, weights aside, and outputs of training batch norms.
Sources = Mapping[ir.Value, frozenset[ir.Value]]


def sources_of(function: func.FuncOp, weights: Weights) -> Sources:
    found: dict[ir.Value, frozenset[ir.Value]] = {}
    for op in operations(function):
        arguments = [value for region in op.regions for block in region for value in block.arguments]
        found |= {value: frozenset({value} - weights.arguments.keys()) for value in arguments}
        norm = view(op)
        if norm is not None and norm.kind == "training":  # its parameters may be kept with its moving statistics
            found |= dict.fromkeys(op.results, found[norm["operand"]] | {op.results[0]})
        else:
            read = (found[operand] for inner in operations(op) for operand in inner.operands if operand in found)
            found |= dict.fromkeys(op.results, frozenset().union(*read))
    return found


def find_moving_statistics(norm: BatchNorm, weights: Weights, sources: Sources) -> MovingStatistics | NoMatch:
    """By what its statistics are averaged into; where they are averaged into nothing, by name."""
    if not is_float(norm["operand"]):
        return NoMatch(f"its type is not a real floating-point type: {norm['operand'].type}")
    if min(shape_of(norm["scale"])) < 0:
        return NoMatch("its number of features is known only when the program runs; give it a static size")
    if norm.groups is not None:
        return NoMatch("its sums are those of several replicas; freeze it before it is synchronized")
    _, mean, variance = norm.op.results
    gradients = tuple(
        gradient for use in mean.uses if (gradient := _gradient_of(mean, variance, use.owner)) is not None
    )
    exempt = [gradient.op for gradient in gradients]
    named = _named(norm, weights)
    averages: list[Average] = []
    for place, (word, value) in enumerate((("mean", mean), ("variance", variance))):
        statistic = Statistic(value, norm["operand"], norm.axes, is_variance=word == "variance")
        by_name = named if isinstance(named, NoMatch) else named[place]
        found = find_average(statistic, exempt) or by_name
        average = found if isinstance(found, NoMatch) else _within_reach(found, norm, sources)
        if isinstance(average, NoMatch):
            return NoMatch(f"its batch {word} {average.reason}")
        averages.append(average)
    return MovingStatistics(averages[0], averages[1], gradients)


def _gradient_of(mean: ir.Value, variance: ir.Value, user: ir.OpView) -> BatchNorm | None:
    norm = view(user)
    reads_both = norm is not None and norm.kind == "grad" and norm["mean"] == mean and norm["variance"] == variance
    return norm if reads_both else None


def _within_reach(average: Average, norm: BatchNorm, sources: Sources) -> Average | NoMatch:
    """``average``, where its old value can be computed before the batch norm."""
    if any(block_of(value) != norm.op.operation.block for value in average.updated):
        return NoMatch("is averaged inside a branch or a loop; average it outside")
    if sources.get(average.old, frozenset()) & sources[norm.op.results[0]]:
        return NoMatch("is averaged into what depends on the batch too; average it into a moving one")
    return average


def block_of(value: ir.Value) -> ir.Block:
    owner = value.owner
    return owner if isinstance(owner, ir.Block) else owner.operation.block


_NAMES = (("moving_mean", "moving_variance"), ("running_mean", "running_var"))


def _named(norm: BatchNorm, weights: Weights) -> tuple[Average, Average] | NoMatch:
    """The weights that are called as the layer's moving statistics, by its parameters' names or else its location."""
    arguments = {name: value for value, name in weights.arguments.items()}
    names = [name for parameter in ("scale", "offset") for name in weights.names(norm[parameter])]
    layers = dict.fromkeys(re.sub(r"[^/.]+$", "", name) for name in names) or _layers(norm.op.location)
    pairs = [(layer + mean, layer + variance) for layer in layers for mean, variance in _NAMES]
    found = [pair for pair in pairs if all(_fits(arguments.get(name), norm) for name in pair)]
    if not found:
        wanted = f"no weights are called {' and '.join(pairs[0])}" if pairs else "it has no name"
        return NoMatch(f"is averaged into nothing, and {wanted}; return the new moving statistics too")
    mean, variance = found[0]
    if len(found) > 1 or f"{mean}_1" in arguments:  # a frontend has made equal names unique
        return NoMatch(f"belongs to one of several layers with a {mean}; give each layer a name of its own")
    return Average(arguments[mean], ()), Average(arguments[variance], ())


def _layers(location: ir.Location) -> list[str]:
    """``model/block/``, ``block/`` for an operation at ``model/block/operation``."""
    name = location_name(location)
    parts = name.split("/") if name else []
    return ["/".join(parts[start:]) + "/" for start in range(len(parts))]


def _fits(value: ir.Value | None, norm: BatchNorm) -> bool:
    return value is not None and is_float(value) and product(shape_of(value)) == product(shape_of(norm["scale"]))
