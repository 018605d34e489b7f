"""Decomposed gradients of named training batch norms become the named form.

Read forward from x (`reading.py`), values are the three gradients, by a tensor ``d``, where their formulas are, with S
for the sum over a feature's n elements,

    grad_offset  = S(d)
    grad_scale   = r * S(d * (x - mean(x)))                  with r = rsqrt(variance(x) + epsilon)
    grad_operand = g * r * (d - grad_offset / n - (x - mean(x)) * r * grad_scale / n)

in whatever way automatic differentiation has written them.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Iterator
from fractions import Fraction

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func

from stablenorm.ops.batch_norm_grad import BatchNormGrad
from stablenorm.passes.base import Remark
from stablenorm.passes.building import convert, shape_of, tensor_type
from stablenorm.passes.leaves import unrounded
from stablenorm.passes.matching import defining_op, layer_name, where
from stablenorm.passes.moments import Atom, Formula, InverseRoot, Tensor, Vector, atom, feature_sum, number
from stablenorm.passes.named_forms import batch_norms
from stablenorm.passes.normalizations import LAYOUT, epsilon, vectors
from stablenorm.passes.placing import make_room, owner
from stablenorm.passes.reading import Reading
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.weights import Weights
from stablenorm.passes.writing import attribute, feature_index, product_of, replace


@dataclasses.dataclass(frozen=True)
class Gradients:
    """The values that are gradients by ``output``: 0 for the operand's, 1 for the scale's, 2 for the offset's."""

    reading: Reading
    output: ir.Value
    root: InverseRoot
    scale: tuple[Vector, ...] | None
    values: dict[ir.Value, int]


def raise_gradients(function: func.FuncOp, weights: Weights) -> Iterator[Remark]:
    """Names the gradients of a function's named batch norms."""
    seen: set[tuple[ir.Value, tuple[int, ...], ir.Block]] = set()
    for named in list(batch_norms(function)):
        key = (unrounded(named["operand"]), named.axes, named.op.operation.block)
        if named.kind != "training" or key in seen or not tensor_type(named["operand"]).has_static_shape:
            continue
        seen.add(key)
        # Where d and a product of d are both the gradient by some result, the one that explains more is.
        for found in sorted(_find(*key, weights), key=lambda found: -len(set(found.values.values()))):
            if _replace(found):
                op = owner(list(found.values)[-1])
                name, axes = layer_name(op, weights, named["scale"]), ", ".join(map(str, named.axes))
                yield Remark("raise-batch-norm", "raised", name, f"gradient, feature_index = {axes}", where(op))


def _find(x: ir.Value, axes: tuple[int, ...], block: ir.Block, weights: Weights) -> Iterator[Gradients]:
    """The gradients by every tensor that is multiplied with what is computed from x."""
    around = Reading(x, axes, block, weights)
    for output in [each.value for each in _atoms(around) if isinstance(each, Tensor) and each.place == around.place]:
        if output != x and shape_of(output) == shape_of(x):
            reading = Reading(x, axes, block, weights, output)
            for root in [each for each in _atoms(reading) if isinstance(each, InverseRoot)]:
                if reading.named and epsilon(reading, root) is not None:
                    yield from _gradients(reading, output, root)


def _atoms(reading: Reading) -> dict[Atom, None]:
    return {each: None for term in reading.terms.values() for each in term.formula.atoms}


def _gradients(reading: Reading, output: ir.Value, root: InverseRoot) -> Iterator[Gradients]:
    """The gradients by ``output``, if there are any but the offset's, which may be any sum."""
    d, r, centered = reading.terms[output].formula, atom(root), atom(reading.tensor) - reading.mean
    grad_offset, grad_scale = feature_sum(d, reading.count), r * feature_sum(d * centered, reading.count)
    unscaled = r * (d - (grad_offset + centered * r * grad_scale) * number(Fraction(1, reading.count)))
    found = Gradients(reading, output, root, None, {})
    for value, (formula, place) in reading.terms.items():
        if isinstance(defining_op(value), LAYOUT) or value in (reading.x, output):
            continue
        scale = _scale(formula, d * r) if place == reading.place else None
        if formula in (grad_scale, grad_offset):
            found.values[value] = 1 if formula == grad_scale else 2
        elif scale is not None and found.scale in (None, scale) and formula == unscaled * _product(scale):
            found.values[value] = 0
            found = dataclasses.replace(found, scale=scale)
    if {0, 1} & set(found.values.values()):
        yield found


def _scale(formula: Formula, unscaled: Formula) -> tuple[Vector, ...] | None:
    """The vectors that multiply a product in a formula."""
    (factors,) = unscaled.terms
    products = [monomial for monomial in formula.terms if factors <= monomial]
    return vectors(products[0] - factors) if len(products) == 1 else None


def _product(factors: tuple[Vector, ...]) -> Formula:
    return functools.reduce(operator.mul, map(atom, factors), number(1))


def _replace(found: Gradients) -> bool:
    """Lets all that reads the gradients read the results of the named form; False where it can stand nowhere."""
    reading, named = found.reading, found.reading.named[0]
    x, (_, mean, variance) = named["operand"], named.op.results
    read = {value: which for value, which in found.values.items() if next(iter(value.uses), None) is not None}
    factors = [factor.value for factor in found.scale or ()]
    operands = [x, mean, variance, named["scale"], found.output, *factors]
    place = make_room(list(read), operands) if {0, 1} & set(read.values()) else NoMatch("nothing reads it")
    if isinstance(place, NoMatch):
        return False
    with ir.InsertionPoint(place), owner(list(read)[-1]).location:
        element_type = tensor_type(x).element_type
        scale = named["scale"] if found.scale is None else product_of(found.scale, x, reading.axes, element_type)
        op = BatchNormGrad(attribute(epsilon(reading, found.root), element_type), feature_index(reading.axes))
        results = op.emit(x, scale, mean, variance, convert(found.output, element_type))
        for value, which in read.items():
            replace(value, reading.terms[value].place, results[which], reading.axes if which else reading.place)
    return True
