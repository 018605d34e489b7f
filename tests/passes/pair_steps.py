"""Training steps in pairs of float32, as modules, that tests share."""

from __future__ import annotations

from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func

from stablenorm.passes import make_context
from stablenorm.passes.building import convert
from stablenorm.passes.pair_batch_norm import gradient_in_pairs, train_in_pairs

ELEMENTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def module_of(shape, dtype, axis, epsilon, with_gradient=True, again=lambda batch, x, epsilon, axes: batch):
    """``y, mean, variance`` of x, scale and offset; and of the output's gradient, the three gradients.

    ``again``: what the gradient takes for statistics.
    """
    with make_context(), ir.Location.unknown():
        module, f32 = ir.Module.create(), ir.F32Type.get()
        tensor = ir.RankedTensorType.get(shape, ir.Type.parse(ELEMENTS[dtype]))
        vector = ir.RankedTensorType.get([shape[axis]], f32)
        gradients = [tensor] if with_gradient else []
        results = [tensor, vector, vector, *[type_ for grad in gradients for type_ in (grad, vector, vector)]]
        with ir.InsertionPoint(module.body):
            main = func.FuncOp("main", ([tensor, vector, vector, *gradients], results))
        with ir.InsertionPoint(main.add_entry_block()):
            x, scale, offset, *grad_output = main.arguments
            operands = {"operand": x, "scale": scale, "offset": offset}
            y, batch = train_in_pairs(operands, epsilon, [axis])
            known = again(batch, x, epsilon, [axis])
            values = [y, convert(batch.mean, f32), convert(batch.variance, f32)]
            for each in grad_output:
                dx, *vectors = gradient_in_pairs({"grad_output": each, **operands}, known, [axis])
                values += [dx, *(convert(value, f32) for value in vectors)]
            func.ReturnOp(values)
        module.operation.verify()
    return module
