"""Decomposed batch norms with the statistics of their own batch become the named form.

Read forward from x (`reading.py`), a value is one where its formula is

    x * g * r - mean(x) * g * r + offset        with r = rsqrt(variance(x) + epsilon)

in whatever way mean, variance and the rest are written. What else reads mean or variance (moving averages, a backward
pass) then reads the results of the named form.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.ops.batch_norm_training import BatchNormTraining
from stablenorm.passes.base import Remark
from stablenorm.passes.building import arithmetic_type, convert, shape_of, splat, tensor_type
from stablenorm.passes.matching import layer_name, where
from stablenorm.passes.moments import number
from stablenorm.passes.normalizations import Normalization, decline, epsilon, find_normalizations, is_rewritten
from stablenorm.passes.placing import make_room, owner
from stablenorm.passes.reading import Reading
from stablenorm.passes.sources import find_sources
from stablenorm.passes.weights import Weights
from stablenorm.passes.writing import attribute, feature_index, product_of, replace


def raise_training(function: func.FuncOp, weights: Weights) -> Iterator[Remark]:
    """Names the batch norms of a function that normalize with the statistics of their batch."""
    declined: set[ir.Value] = set()
    for source in find_sources(function, weights):
        reading = Reading(source, weights)
        impossible: set[ir.Value] = set()
        for value, form in find_normalizations(reading, impossible):
            op, axes = owner(value), ", ".join(map(str, source.axes))
            name = layer_name(op, weights, *(factor.value for factor in (*form.scale, *form.offset)))
            refusal = decline(reading, form)
            if refusal is not None and value not in declined:
                declined.add(value)
                yield Remark("raise-batch-norm", "declined", name, refusal.reason, where(op))
            elif refusal is None and _replace(reading, value, form):
                yield Remark("raise-batch-norm", "raised", name, f"training, feature_index = {axes}", where(op))
            elif refusal is None:  # its scale or offset needs its statistics; what it multiplies or adds to may not
                impossible.add(value)


def _replace(reading: Reading, y: ir.Value, form: Normalization) -> bool:
    """Lets all that reads y, and the mean and variance of x, read the named form; False where it can stand nowhere."""
    bessel = Fraction(reading.count, reading.count - 1)
    statistics = [reading.mean, reading.variance, reading.variance * number(bessel)]
    named = {result for each in reading.named for result in each.op.results}
    replaced = {
        value: statistics.index(term.formula)
        for value, term in reading.terms.items()
        if term.formula in statistics and is_rewritten(value, reading) and value not in named
    }
    factors = [factor.value for factor in (*form.scale, *form.offset)]
    place = make_room([y, *replaced], [reading.x, *factors])
    if place is None:
        return False
    with ir.InsertionPoint(place), owner(y).location:
        output, *moments = _emit(reading, form)
        if 2 in replaced.values():
            element_type = tensor_type(moments[1]).element_type
            moments.append(hlo.multiply(moments[1], splat(float(bessel), shape_of(moments[1]), element_type)))
        replace(y, reading.place, output, reading.place)
        for value, which in replaced.items():
            replace(value, reading.terms[value].place, moments[which], reading.axes)
    return True


def _emit(reading: Reading, form: Normalization) -> tuple[ir.Value, ...]:
    """The named form, in float32 at least."""
    x = convert(reading.x, arithmetic_type(reading.x))
    element_type = tensor_type(x).element_type
    scale = product_of(form.scale, x, reading.axes, element_type)
    offset = product_of(form.offset, x, reading.axes, element_type, form.sign)
    op = BatchNormTraining(attribute(epsilon(reading, form.root), element_type), feature_index(reading.axes))
    return op.emit(x, scale, offset)
