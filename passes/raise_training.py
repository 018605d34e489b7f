"""Decomposed batch norms with the statistics of their own batch become the named form.

Read forward from x (`reading.py`), a value is one where its formula is

    x * g * r - mean(x) * g * r + offset        with r = rsqrt(variance(x) + epsilon)

in whatever way mean, variance and the rest are written. What else reads mean or variance (moving averages, a backward
pass) then reads the results of the named form.
"""

from __future__ import annotations

from collections.abc import Iterator

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.ops.batch_norm_training import BatchNormTraining
from stablenorm.passes.base import Remark
from stablenorm.passes.building import arithmetic_type, convert, integers, shape_of, tensor_type
from stablenorm.passes.leaves import is_sum, unrounded
from stablenorm.passes.matching import defining_op, layer_name, where
from stablenorm.passes.normalizations import LAYOUT, Normalization, decline, epsilon, find_normalizations
from stablenorm.passes.placing import make_room, owner
from stablenorm.passes.reading import Reading
from stablenorm.passes.rewriting import NoMatch, operations_of
from stablenorm.passes.weights import Weights
from stablenorm.passes.writing import attribute, feature_index, product_of, replace


def raise_training(function: func.FuncOp, weights: Weights) -> Iterator[Remark]:
    """Names the batch norms of a function that normalize with the statistics of their batch."""
    declined: set[ir.Value] = set()
    for reading in readings(function, weights):
        for value, form in find_normalizations(reading):
            op = owner(value)
            name = layer_name(op, weights, *(factor.value for factor in (*form.scale, *form.offset)))
            outcome = decline(reading, form) or _replace(reading, value, form)
            if outcome is None:
                axes = ", ".join(map(str, reading.axes))
                yield Remark("raise-batch-norm", "raised", name, f"training, feature_index = {axes}", where(op))
            elif value not in declined:
                declined.add(value)
                yield Remark("raise-batch-norm", "declined", name, outcome.reason, where(op))


def readings(function: func.FuncOp, weights: Weights) -> Iterator[Reading]:
    """What is computed from each tensor that is summed over all dimensions but its features'."""
    seen: set[tuple[ir.Value, tuple[int, ...], ir.Block]] = set()
    for op in operations_of(function, hlo.ReduceOp):
        x, block = unrounded(op.inputs[0]), op.operation.block
        axes = tuple(sorted(set(range(len(shape_of(x)))) - set(integers(op, "dimensions"))))
        if is_sum(op) and axes and tensor_type(x).has_static_shape and (x, axes, block) not in seen:
            seen.add((x, axes, block))
            reading = None if weights.is_weight(x) else Reading(x, axes, block, weights)
            if reading is not None and reading.count > 1:
                yield reading


def _replace(reading: Reading, y: ir.Value, form: Normalization) -> NoMatch | None:
    """Lets all that reads y, and the mean and variance of x, read the results of the named form."""
    statistics = [reading.mean, reading.variance]
    named = {result for each in reading.named for result in each.op.results}
    replaced = {
        value: statistics.index(term.formula)
        for value, term in reading.terms.items()
        if term.formula in statistics and not isinstance(defining_op(value), LAYOUT) and value not in named
    }
    factors = [factor.value for factor in (*form.scale, *form.offset)]
    place = make_room([y, *replaced], [reading.x, *factors])
    if isinstance(place, NoMatch):
        return place
    with ir.InsertionPoint(place), owner(y).location:
        output, *moments = _emit(reading, form)
        replace(y, reading.place, output, reading.place)
        for value, which in replaced.items():
            replace(value, reading.terms[value].place, moments[which], reading.axes)
    return None


def _emit(reading: Reading, form: Normalization) -> tuple[ir.Value, ...]:
    """The named form, in float32 at least."""
    x = convert(reading.x, arithmetic_type(reading.x))
    element_type = tensor_type(x).element_type
    scale = product_of(form.scale, x, reading.axes, element_type)
    offset = product_of(form.offset, x, reading.axes, element_type, form.sign)
    op = BatchNormTraining(attribute(epsilon(reading, form.root), element_type), feature_index(reading.axes))
    return op.emit(x, scale, offset)
