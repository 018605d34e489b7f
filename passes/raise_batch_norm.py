"""raise-batch-norm: arithmetic that is a batch norm becomes the named operation.

With given statistics (here): the expression is expanded to a polynomial (`polynomials.py`); it is a batch norm of ``x``
where that reads

    x * g * r - mean * g * r + offset        with r = rsqrt(variance + epsilon), and g, offset absent or weights

in whatever order and grouping it was written: TensorFlow's ``x * inv + (offset - mean * inv)``, Keras 3's
``x * inv + (offset + -mean * inv)``, Flax's ``(x - mean) * (r * g) + offset``, ``(x - mean) / sqrt(...) * g + offset``.
With the statistics of the batch, `raise_training.py` does the same, and `raise_gradient.py` for what automatic
differentiation makes of it; parameters may then be any vectors over the features.

Before::

    %r = stablehlo.rsqrt (%variance + 1.0e-03)
    %inv = stablehlo.multiply %r, %scale
    %t = %offset - %mean * %inv
    %y = %x * broadcast(%inv) + broadcast(%t)

After::

    %y = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
        <{epsilon = 1.0e-03 : f32, feature_index = 1 : i64}>
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import ClassVar

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.ops.batch_norm_inference import BatchNormInference
from stablenorm.passes.base import Pass, PassContext, Remark
from stablenorm.passes.building import (
    arithmetic_type,
    convert,
    is_float,
    product,
    reshape,
    shape_of,
    splat,
    tensor_type,
)
from stablenorm.passes.matching import defining_op, layer_name, single_use, splat_number, where
from stablenorm.passes.polynomials import Atom, Monomial, NotPolynomial, Polynomial, expand, has_inverse_root, without
from stablenorm.passes.raise_gradient import raise_gradients
from stablenorm.passes.raise_training import raise_training
from stablenorm.passes.rewriting import functions, operations, rewrite, sweep
from stablenorm.passes.weights import Weights


@dataclasses.dataclass(frozen=True)
class RaiseBatchNorm(Pass):
    """Names decomposed batch norms: inference, training and its gradient."""

    name: ClassVar[str] = "raise-batch-norm"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for function in [each for each in functions(module) if not each.name.value.startswith(_DECOMPOSITION)]:
            for stage in (raise_training, raise_gradients, raise_left_over_training, raise_inference):
                context.remarks.extend(stage(function, Weights(function, context.weights)))
                sweep(module)


def raise_left_over_training(function: func.FuncOp, weights: Weights) -> Iterator[Remark]:
    """Parts of raised batch norms that something else reads; most are gone once gradients have their name."""
    return (remark for remark in raise_training(function, weights) if remark.verdict == "raised")


def raise_inference(function: func.FuncOp, weights: Weights) -> Iterator[Remark]:
    """Names the batch norms of a function that normalize with given statistics."""
    raised: set[ir.Value] = set()
    # Last operations first: the whole formula is met before its parts.
    for op in reversed(operations(function)):
        if isinstance(op, _ROOTS) and op.result not in raised:
            yield from _raise(op, weights, raised)


_DECOMPOSITION = "stablenorm.batch_norm_"  # what a composite of that name is made of needs no other name
_ROOTS = (hlo.AddOp, hlo.SubtractOp, hlo.MulOp, hlo.DivOp, hlo.NegOp)


@dataclasses.dataclass(frozen=True)
class Form:
    """A batch norm as found: ``x`` and the factors of its parameters; ``epsilon`` is still inside ``radicand``."""

    x: ir.Value
    radicand: Atom
    scale: Monomial
    mean: Monomial
    mean_sign: int
    offset: Monomial
    offset_sign: int


def _raise(op: ir.OpView, weights: Weights, inside: set[ir.Value]) -> Iterator[Remark]:
    path = _path(op, weights)
    form = match(op.result, path, weights)
    if form is None:
        return
    inside.update(path[: path.index(form.x)])
    axis = _feature_index(form)
    subject, location = layer_name(op, weights, form.radicand.value), where(op)
    if axis is None:
        reason = "its parameters vary along several dimensions, which batch_norm_inference cannot say"
        yield Remark("raise-batch-norm", "declined", subject, reason, location)
    else:
        rewrite(op, lambda _: emit(form, axis))
        yield Remark("raise-batch-norm", "raised", subject, f"feature_index = {axis}", location)


def _path(op: ir.OpView | None, weights: Weights) -> list[ir.Value]:
    """The tensors that may be the batch norm's operand: down from ``op``, through arithmetic with weights only.

    Empty where no weight on the way has an inverse root in it: most arithmetic is no batch norm, and leaves here.
    """
    path: list[ir.Value] = []
    rooted = False
    while isinstance(op, _ROOTS) and len(path) < 6:
        tensors = [operand for operand in op.operands if not weights.is_weight(operand)]
        rooted = rooted or any(has_inverse_root(operand) for operand in op.operands if operand not in tensors)
        if len(tensors) != 1 or not is_float(tensors[0]):
            break
        path.append(tensors[0])
        if not single_use(tensors[0]):  # what else reads it would still need it: it may be the operand, or a result
            break
        op = defining_op(tensors[0])
    return path if rooted else []


def match(value: ir.Value, path: Sequence[ir.Value], weights: Weights) -> Form | None:
    """``value`` as a batch norm of one of the tensors on its path; None where it is no batch norm of any."""
    for x in path:
        try:
            form = _form(x, expand(value, x, weights))
        except NotPolynomial:
            continue
        if form is not None:
            return form
    return None


def _form(x: ir.Value, polynomial: Polynomial) -> Form | None:
    """The polynomial read as ``x g r - mean g r + offset``."""
    groups: dict[str, list[tuple[Monomial, int]]] = {"x": [], "mean": [], "offset": []}
    for monomial, coefficient in polynomial.items():
        if any(atom.value == x for atom in monomial):
            groups["x"].append((monomial, coefficient))
        else:
            rooted = any(atom.inverse_root for atom in monomial)
            groups["mean" if rooted else "offset"].append((monomial, coefficient))
    if len(groups["x"]) != 1 or len(groups["mean"]) != 1 or len(groups["offset"]) > 1:
        return None
    ((x_term, one),), ((mean_term, mean_sign),) = groups["x"], groups["mean"]
    ((offset, offset_sign),) = groups["offset"] or [((), 1)]
    factors = tuple(atom for atom in x_term if atom.value != x)
    roots = [atom for atom in factors if atom.inverse_root]
    mean = without(mean_term, factors)
    if (
        len(x_term) - len(factors) != 1
        or len(roots) != 1
        or not shape_of(roots[0].value)  # a number for all channels, as attention divides by: no variance
        or not mean
        or any(atom.inverse_root for atom in mean)
        or one != 1
        or {abs(mean_sign), abs(offset_sign)} != {1}
    ):
        return None
    scale = tuple(atom for atom in factors if not atom.inverse_root)
    return Form(x, roots[0], scale, mean, -mean_sign, offset, offset_sign)


def _feature_index(form: Form) -> int | None:
    """The one dimension of x that the parameters vary along."""
    sizes = shape_of(form.x)
    atoms = (form.radicand, *form.scale, *form.mean, *form.offset)
    varying = set().union(*(_varies_along(atom) for atom in atoms if splat_number(atom.value) is None))
    if not varying:  # every parameter is one number: where its tensor lies says which dimension is meant
        varying = set().union(*(along for atom in atoms if len(along := _varies_along(atom)) == 1))
    if not varying:  # one channel, or numbers that were broadcast to the whole shape: any dimension, if there is one
        ones = [place for atom in atoms for place in atom.place if place is not None and sizes[place] == 1]
        return max(ones, default=len(sizes) - 1 if sizes else None)
    return varying.pop() if len(varying) == 1 else None


def _varies_along(atom: Atom) -> set[int | None]:
    return {place for place, size in zip(atom.place, shape_of(atom.value), strict=True) if size != 1}


def emit(form: Form, axis: int) -> ir.Value:
    """The named operation, in float32 at least."""
    x = convert(form.x, arithmetic_type(form.x))
    element_type, size = tensor_type(x).element_type, shape_of(x)[axis]

    def vector(value: ir.Value) -> ir.Value:
        number = splat_number(value)
        if number is not None:
            return splat(number, [size], element_type)
        if product(shape_of(value)) == size:
            return convert(reshape(value, [size]), element_type)
        vector_type = ir.RankedTensorType.get([size], tensor_type(value).element_type)
        return convert(hlo.broadcast_in_dim(vector_type, reshape(value, []), []), element_type)

    def product_of(factors: Monomial, sign: int, empty: float) -> ir.Value:
        if not factors:
            return splat(empty, [size], element_type)
        result = functools.reduce(hlo.multiply, [vector(atom.value) for atom in factors])
        return result if sign == 1 else hlo.negate(result)

    scale, mean = product_of(form.scale, 1, 1.0), product_of(form.mean, form.mean_sign, 0.0)
    offset = product_of(form.offset, form.offset_sign, 0.0)
    variance, epsilon = _split_epsilon(form.radicand.value)
    (y,) = BatchNormInference(epsilon, axis).emit(x, scale, offset, mean, vector(variance))
    return convert(y, tensor_type(form.x).element_type)


def _split_epsilon(radicand: ir.Value) -> tuple[ir.Value, float]:
    """``(variance, epsilon)`` of ``variance + epsilon``; epsilon is 0 where nothing constant is added."""
    op = defining_op(radicand)
    if isinstance(op, hlo.AddOp):
        for variance, added in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
            number = splat_number(added)
            if number is not None:
                return variance, number
    return radicand, 0.0
