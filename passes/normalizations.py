"""Which formulas normalize a tensor by statistics of a batch, and which of these are batch norms."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator
from fractions import Fraction

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes.building import shape_of
from stablenorm.passes.matching import defining_op
from stablenorm.passes.moments import Formula, InverseRoot, Monomial, Sum, Tensor, Vector, atom, number, power
from stablenorm.passes.reading import Reading
from stablenorm.passes.rewriting import NoMatch

# What changes how a value lies or is rounded, not what it is.
LAYOUT = (hlo.BroadcastInDimOp, hlo.ConvertOp, hlo.ReshapeOp, hlo.TransposeOp)


@dataclasses.dataclass(frozen=True)
class Normalization:
    """``(tensor - mean) * scale * root + sign * offset``. Scale and offset are products; a sign of 0: no offset."""

    tensor: Tensor
    root: InverseRoot
    scale: tuple[Vector, ...]
    mean: Formula
    offset: tuple[Vector, ...]
    sign: int


def find_normalizations(reading: Reading, impossible: Container[ir.Value]) -> Iterator[tuple[ir.Value, Normalization]]:
    """Batch norms and what is nearly one, each as large as it goes without those that turn out to be ``impossible``."""
    found = {value: normalization(term.formula) for value, term in reading.terms.items()}
    forms = {value: form for value, form in found.items() if form is not None}

    def is_part(value: ir.Value) -> bool:
        results = [result for use in value.uses for result in use.owner.results if result in forms]
        return any(
            result not in impossible and (forms[result] != forms[value] or is_part(result)) for result in results
        )

    for value, form in reversed(forms.items()):
        whole = reading.terms[value].place == reading.place and not isinstance(defining_op(value), LAYOUT)
        if whole and not is_part(value) and _is_near(reading, form):
            yield value, form


def is_rewritten(value: ir.Value, reading: Reading) -> bool:
    """Whether readers of a value should read a named form: of its layouts, only the one that named forms have."""
    plain = [shape_of(reading.x)[axis] for axis in reading.axes]
    return not isinstance(defining_op(value), LAYOUT) or list(shape_of(value)) == plain


def normalization(formula: Formula) -> Normalization | None:
    """A formula read as a normalization; None where it is none."""
    slopes = [monomial for monomial in formula.terms if any(isinstance(each, Tensor) for each, _ in monomial)]
    if len(slopes) != 1 or formula.terms[slopes[0]] != 1:
        return None
    (slope,) = slopes
    tensors = [each for each, times in slope if isinstance(each, Tensor) and times == 1]
    roots = [each for each, times in slope if isinstance(each, InverseRoot) and times == 1]
    if len(tensors) != 1 or len(roots) != 1:
        return None
    factor = Formula({slope - {(tensors[0], 1)}: Fraction(1)})
    inverse = power(factor, Fraction(-1))
    rest = formula - factor * atom(tensors[0])
    shift = Formula({monomial: number for monomial, number in rest.terms.items() if (roots[0], 1) in monomial})
    (addend, sign), *more = list((rest - shift).terms.items()) or [(frozenset(), Fraction(0))]
    scale, offset = vectors(slope - {(tensors[0], 1), (roots[0], 1)}), vectors(addend)
    if scale is None or offset is None or inverse is None or not shift.terms or sign not in (-1, 0, 1) or more:
        return None
    return Normalization(tensors[0], roots[0], scale, -shift * inverse, offset, int(sign))


def vectors(monomial: Monomial) -> tuple[Vector, ...] | None:
    """The vectors in a product of given vectors; None where something else is in it."""
    found: list[Vector] = []
    for each, times in monomial:
        if not isinstance(each, Vector) or each.derived or times < 1:
            return None
        found.extend([each] * times)
    return tuple(sorted(found, key=lambda vector: str(vector.value)))


def decline(reading: Reading, form: Normalization) -> NoMatch | None:
    """Why what is nearly a batch norm is none."""
    if form.tensor != reading.tensor:
        return NoMatch("its mean is not that of what it normalizes: it is another tensor's, or weighted by a mask")
    return None if epsilon(reading, form.root) is not None else NoMatch("its variance is divided by n - 1, not by n")


def epsilon(reading: Reading, root: InverseRoot, factor: Fraction = Fraction(1)) -> Fraction | None:
    """The number that stands in a root beside ``factor`` times the variance; None where something else does."""
    rest = (root.radicand - reading.variance * number(factor)).constant
    return rest if rest is not None and rest >= 0 else None


def _is_near(reading: Reading, form: Normalization) -> bool:
    """Whether a normalization is a batch norm, or one in which one thing is different."""
    along = {place for vector in (*form.scale, *form.offset) for place in vector.place}
    # A normalization of each row, or of each image, is no batch norm, unless its parameters say so.
    if (len(reading.axes) > 1 or reading.axes[0] == 0) and not along >= set(reading.axes):
        return False
    if form.tensor != reading.tensor:
        return _has_sums(form.mean) and not _has_sums_of(form.tensor, form.mean)
    unbiased = Fraction(reading.count, reading.count - 1)
    of_variance = any(epsilon(reading, form.root, factor) is not None for factor in (Fraction(1), unbiased))
    return form.mean == reading.mean and of_variance


def _has_sums(formula: Formula) -> bool:
    return any(isinstance(each, Sum) or (isinstance(each, Vector) and each.derived) for each in formula.atoms)


def _has_sums_of(tensor: Tensor, formula: Formula) -> bool:
    sums = [each for each in formula.atoms if isinstance(each, Sum)]
    return any(factor == tensor for each in sums for factor, _ in each.factors)
