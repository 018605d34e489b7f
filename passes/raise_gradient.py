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
from collections.abc import Container, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.ops.batch_norm_grad import BatchNormGrad
from stablenorm.ops.batch_norm_training import BatchNormTraining
from stablenorm.passes.base import Remark
from stablenorm.passes.building import arithmetic_type, convert, shape_of, tensor_type
from stablenorm.passes.matching import defining_op, layer_name, where
from stablenorm.passes.moments import Atom, Formula, InverseRoot, Sum, Tensor, Vector, atom, feature_sum, number
from stablenorm.passes.normalizations import LAYOUT, epsilon, is_rewritten, vectors
from stablenorm.passes.placing import make_room, owner
from stablenorm.passes.reading import Reading
from stablenorm.passes.sources import Source, find_sources
from stablenorm.passes.weights import Weights
from stablenorm.passes.writing import attribute, feature_index, laid_out, product_of, replace


class Part(NamedTuple):
    """A gradient, by its place among the results of the named form, and what a value adds to it."""

    which: int
    added: Formula


@dataclasses.dataclass(frozen=True)
class Gradients:
    """The values that are gradients by ``output``. ``scale`` is what multiplies the operand's; None without one."""

    reading: Reading
    output: ir.Value
    root: InverseRoot
    scale: tuple[Vector, ...] | None
    parts: dict[ir.Value, Part]


def raise_gradients(function: func.FuncOp, weights: Weights) -> Iterator[Remark]:
    """Names the gradients of a function's batch norms."""
    for source in find_sources(function, weights):
        # Where d and a product of d are both the gradient by some result, the one that explains more is.
        for found in sorted(_find(source, weights), key=_kinds, reverse=True):
            if _replace(found):
                op = owner(list(found.parts)[-1])
                name = layer_name(op, weights, *(factor.value for factor in found.scale or ()))
                axes = ", ".join(map(str, source.axes))
                yield Remark("raise-batch-norm", "raised", name, f"gradient, feature_index = {axes}", where(op))


def _kinds(found: Gradients) -> int:
    return len({part.which for part in found.parts.values()})


def _find(source: Source, weights: Weights) -> Iterator[Gradients]:
    """The gradients by every tensor that is multiplied with what is computed from x."""
    around = Reading(source, weights)
    if not around.named and (len(source.axes) > 1 or source.axes[0] == 0):
        return  # each row is normalized, or each image: no batch norm, unless its parameters said so
    roots = [each for each in _atoms(around) if isinstance(each, InverseRoot) and epsilon(around, each) is not None]
    tensors = [each.value for each in _correlated(around, roots) if each.place == around.place]
    factors = dict.fromkeys(factor for tensor in tensors for factor in _factors(tensor, source.x, 3))
    for output in (factor for factor in factors if factor != source.x):
        reading = Reading(source, weights, output)
        for root in roots:
            found = _gradients(reading, output, root)
            if _is_used(found):
                yield found


def _atoms(reading: Reading) -> dict[Atom, None]:
    return {each: None for term in reading.terms.values() for each in term.formula.atoms}


def _correlated(reading: Reading, roots: Container[Atom]) -> Iterator[Tensor]:
    """The tensors ``d`` of which a root is multiplied with ``S(d * x)``: every gradient but the offset's has that."""
    x = (reading.tensor, 1)
    for monomial in dict.fromkeys(each for term in reading.terms.values() for each in term.formula.terms):
        if any(each in roots for each, _ in monomial):
            sums = [each.factors - {x} for each, _ in monomial if isinstance(each, Sum) and x in each.factors]
            yield from (each for factors in sums for each, _ in factors if len(factors) == 1)


def _factors(value: ir.Value, x: ir.Value, depth: int) -> Iterator[ir.Value]:
    """A tensor of the shape of x, and those that it is a product of."""
    if shape_of(value) == shape_of(x):
        yield value
        op = defining_op(value)
        if depth > 0 and isinstance(op, hlo.MulOp | hlo.NegOp):
            for operand in op.operands:
                yield from _factors(operand, x, depth - 1)


def _gradients(reading: Reading, output: ir.Value, root: InverseRoot) -> Gradients:
    d, r, centered = reading.terms[output].formula, atom(root), atom(reading.tensor) - reading.mean
    grad_offset, grad_scale = feature_sum(d, reading.count), r * feature_sum(d * centered, reading.count)
    unscaled = r * (d - (grad_offset + centered * r * grad_scale) * number(Fraction(1, reading.count)))
    found = Gradients(reading, output, root, None, {})
    for value, (formula, place) in reading.terms.items():
        op = defining_op(value)
        if op is None or value == output or not is_rewritten(value, reading):
            continue
        if formula in (grad_scale, grad_offset):
            found.parts[value] = Part(1 if formula == grad_scale else 2, number(0))
            continue
        scale = _scale(formula, d * r) if place == reading.place and not _reads(op, found.parts) else None
        added = None if scale is None else formula - unscaled * _product(scale)
        if added is not None and found.scale in (None, scale) and _are_tensors(added):
            found = dataclasses.replace(found, scale=scale)
            found.parts[value] = Part(0, added)
    return found


def _scale(formula: Formula, unscaled: Formula) -> tuple[Vector, ...] | None:
    """The vectors that multiply a product in a formula."""
    (factors,) = unscaled.terms
    products = [monomial for monomial in formula.terms if factors <= monomial]
    return vectors(products[0] - factors) if len(products) == 1 else None


def _product(factors: tuple[Vector, ...]) -> Formula:
    return functools.reduce(operator.mul, map(atom, factors), number(1))


def _are_tensors(formula: Formula) -> bool:
    """Whether a formula adds and subtracts tensors, and nothing else: the gradients of what else reads x."""
    return all(
        abs(sign) == 1 and [(type(each), times) for each, times in monomial] == [(Tensor, 1)]
        for monomial, sign in formula.terms.items()
    )


def _reads(op: ir.OpView, values: Container[ir.Value]) -> bool:
    """Whether an operation reads one of ``values``, laid out in another way or not."""
    for operand in op.operands:
        while isinstance(inner := defining_op(operand), LAYOUT):
            operand = inner.operands[0]
        if operand in values:
            return True
    return False


def _is_used(found: Gradients) -> bool:
    """Whether a gradient of the scale or of x is read; that of the offset may be any sum."""
    return any(part.which < 2 and next(iter(value.uses), None) is not None for value, part in found.parts.items())


def _replace(found: Gradients) -> bool:
    """Lets all that reads the gradients read the results of the named form; False where it can stand nowhere."""
    used = [value for value in found.parts if next(iter(value.uses), None) is not None]
    if not _is_used(found):  # any more: a product of this output explained more
        return False
    statistics = [result for named in found.reading.named[:1] for result in named.op.results]
    factors = [factor.value for factor in found.scale or ()]
    place = make_room(used, [found.reading.x, found.output, *statistics, *factors])
    if place is None:
        return False
    with ir.InsertionPoint(place), owner(used[-1]).location:
        results = _emit(found)
    for value in used:
        which, added = found.parts[value]
        with ir.InsertionPoint(owner(value)), owner(value).location:
            new = _add(results[which], added, found.reading)
            replace(value, found.reading.terms[value].place, new, found.reading.axes if which else found.reading.place)
    return True


def _emit(found: Gradients) -> tuple[ir.Value, ...]:
    """The named form, of the statistics of a named batch norm of x; one that is used for nothing else, if need be."""
    reading, axes = found.reading, found.reading.axes
    x = convert(reading.x, arithmetic_type(reading.x))
    element_type = tensor_type(x).element_type
    added, index = attribute(epsilon(reading, found.root), element_type), feature_index(axes)
    one, zero = (product_of((), x, axes, element_type, sign) for sign in (1, 0))
    named: Sequence[ir.Value] = reading.named[0].op.results if reading.named else ()
    _, mean, variance = named or BatchNormTraining(added, index).emit(x, one, zero)
    scale = product_of(found.scale or (), x, axes, element_type)
    return BatchNormGrad(added, index).emit(x, scale, mean, variance, convert(found.output, element_type))


def _add(gradient: ir.Value, added: Formula, reading: Reading) -> ir.Value:
    """A gradient, and the tensors of a formula."""
    total = gradient
    for monomial, sign in added.terms.items():
        for tensor in (each for each, _ in monomial if isinstance(each, Tensor)):
            value = laid_out(tensor.value, tensor.place, shape_of(gradient), reading.place)
            value = convert(value, tensor_type(gradient).element_type)
            total = hlo.add(total, value) if sign > 0 else hlo.subtract(total, value)
    return total
