"""In a training step, a scale passes a product of two tensors that both depend on the model's inputs.

So the gradient of a weight is written: ``grad_W = conv(x, s * grad_y) = s * conv(x, grad_y)``. The scale lies along the
output features, which the gradient keeps; the gradient has no batch. `pushing.py` lets the scale stay behind what is so
much smaller. Where the other operand is a weight, the laws of `consumers_linear.py` hold as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo as hlo

from stablenorm.passes import consumers_linear
from stablenorm.passes.building import reshape, shape_of, tensor_type
from stablenorm.passes.consumers import CONSUMERS
from stablenorm.passes.copies import with_operand
from stablenorm.passes.matching import layer_name
from stablenorm.passes.pending import Form, Pending, Step
from stablenorm.passes.producers_linear import origins
from stablenorm.passes.rewriting import NoMatch
from stablenorm.passes.weights import Weights


def through_convolution(op: hlo.ConvolutionOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """``conv(x, s*g) = s * conv(x, g)``, s along g's output features: the result's, one by one, in any groups.

    ``conv(s*g, x) = s * conv(g, x)``, s along g's batch, where it is not in groups.
    """
    if weights.is_weight(op.operands[1 - place]):
        return consumers_linear.into_convolution(op, place, form, weights)
    numbers = hlo.ConvDimensionNumbers(op.dimension_numbers)
    if place == 1:
        kept = {numbers.kernel_output_feature_dimension: numbers.output_feature_dimension}
    elif ir.IntegerAttr(op.attributes["batch_group_count"]).value == 1:
        kept = {numbers.input_batch_dimension: numbers.output_batch_dimension}
    else:
        kept = {}
    return _through_product(op, place, form, weights, kept)


def through_dot_general(op: hlo.DotGeneralOp, place: int, form: Form, weights: Weights) -> Step | NoMatch:
    """``dot(x, s*g) = s * dot(x, g)``, s along free or batching dimensions of g, on either side"""
    if weights.is_weight(op.operands[1 - place]):
        return consumers_linear.into_dot_general(op, place, form, weights)
    kept = {dim: position for position, dim in origins(op, place).items()}
    return _through_product(op, place, form, weights, kept)


def _through_product(
    op: ir.OpView, place: int, form: Form, weights: Weights, kept: Mapping[int, int]
) -> Step | NoMatch:
    """Behind a product that keeps the operand's dimensions ``kept``, at these places of its result."""
    name = op.operation.name
    if form.scale is None or form.shift is not None:
        return NoMatch(f"a shift would have to pass {name} with a tensor that depends on the model's inputs")
    if not form.scale <= set(kept):
        return NoMatch(f"it scales along a dimension that {name}, with a tensor that depends on the inputs, sums over")

    def act(pending: Pending) -> Pending:
        assert pending.scale is not None
        return Pending(with_operand(op, place, pending.value), _moved(pending.scale, kept, op.results[0]), None)

    after = frozenset(kept[dim] for dim in form.scale)
    return Step(form.after(after, None), act, layer_name(op, weights))


def _moved(scale: ir.Value, kept: Mapping[int, int], result: ir.Value) -> ir.Value:
    """A compact of the operand as one of the result."""
    sizes = {dim: size for dim, size in enumerate(shape_of(scale)) if size != 1}
    target = [1] * len(shape_of(result))
    for dim, size in sizes.items():
        target[kept[dim]] = size
    type_ = ir.RankedTensorType.get(target, tensor_type(scale).element_type)
    return hlo.broadcast_in_dim(type_, reshape(scale, list(sizes.values())), [kept[dim] for dim in sizes])


TRAINING_CONSUMERS: dict[type[ir.OpView], Callable[..., Step | NoMatch]] = {
    **CONSUMERS,
    hlo.ConvolutionOp: through_convolution,
    hlo.DotGeneralOp: through_dot_general,
}
