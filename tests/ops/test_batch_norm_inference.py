"""The oracle against arithmetic done by hand, the emission against the oracle, and each constraint broken once."""

import numpy as np
import pytest
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func

from stablenorm.compiler.targets import TARGETS
from stablenorm.compiler.xla import compile_module
from stablenorm.ops import BatchNormInference, TensorType
from stablenorm.passes import PassContext, make_context
from stablenorm.passes.lower_batch_norm import LowerBatchNorm

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def operands(shape, axis, dtype, mean=0.0):
    generator = np.random.default_rng(0)
    channels = shape[axis]
    values = (
        generator.normal(mean, 1.0, shape),
        generator.normal(0.0, 1.0, channels),
        generator.normal(0.0, 1.0, channels),
        generator.normal(mean, 1.0, channels),
        generator.uniform(0.1, 2.0, channels),
    )
    return [value.astype(dtype) for value in values]


def emitted(op, arrays):
    """The operation's StableHLO, lowered by the pass, run by XLA."""
    with make_context(), ir.Location.unknown():
        module = ir.Module.create()
        element = {"float32": ir.F32Type, "float64": ir.F64Type}[arrays[0].dtype.name].get()
        types = [ir.RankedTensorType.get(array.shape, element) for array in arrays]
        with ir.InsertionPoint(module.body):
            main = func.FuncOp("main", (types, types[:1]))
        with ir.InsertionPoint(main.add_entry_block()):
            func.ReturnOp(list(op.emit(*main.arguments)))
        LowerBatchNorm().run(module, PassContext())
    (result,) = compile_module(module, TARGETS["cpu"])(*arrays)
    return np.asarray(result)


def test_reference_is_the_formula_by_hand():
    op = BatchNormInference(epsilon=1.0, feature_index=0)
    (y,) = op.reference(*map(np.array, ([5.0, 1.0], [2.0, -1.0], [10.0, 0.5], [1.0, 4.0], [3.0, 0.0])))
    np.testing.assert_array_equal(y, [(5 - 1) / 2 * 2 + 10, (1 - 4) / 1 * -1 + 0.5])


@pytest.mark.parametrize(("shape", "axis"), [((7,), 0), ((4, 3), 1), ((2, 5, 3), 1), ((2, 4, 4, 3), 3), ((3, 2, 2), 0)])
def test_emission_computes_the_reference(shape, axis):
    op = BatchNormInference(epsilon=1e-3, feature_index=axis)
    arrays = operands(shape, axis, np.float32)
    (expected,) = op.reference(*arrays)
    # Five roundings to float32 of values of order ten.
    np.testing.assert_allclose(emitted(op, arrays), expected, atol=1e-5, rtol=1e-6)


def test_emission_does_not_cancel_at_a_large_mean():
    """At mean/std = 1e4, x * s + t would be wrong by about 1e4 * 6e-8 = 6e-4; subtracting first is exact."""
    op = BatchNormInference(epsilon=1e-3, feature_index=1)
    arrays = operands((64, 8), 1, np.float32, mean=1e4)
    (expected,) = op.reference(*arrays)
    np.testing.assert_allclose(emitted(op, arrays), expected, atol=1e-5, rtol=1e-6)


def test_float64_keeps_an_epsilon_that_float32_cannot_hold():
    """float32(1e-3) is off by 5e-8, relative: the variance 1e-6 makes that visible far above float64's rounding."""
    op = BatchNormInference(epsilon=1e-3, feature_index=1)
    arrays = operands((4, 3), 1, np.float64)
    arrays[4][:] = 1e-6
    (expected,) = op.reference(*arrays)
    np.testing.assert_allclose(emitted(op, arrays), expected, rtol=1e-13)


def test_signature_is_the_operand_type():
    x, c = TensorType((None, 3), FLOAT32), TensorType((3,), FLOAT32)
    assert BatchNormInference(1e-3, 1).signature(x, c, c, c, c) == (x,)


@pytest.mark.parametrize(
    ("constraint", "axis", "parameter"),
    [
        ("C1", 2, TensorType((3,), FLOAT32)),
        ("C1", -1, TensorType((3,), FLOAT32)),
        ("C2", 1, TensorType((4,), FLOAT32)),
        ("C2", 1, TensorType((1, 3), FLOAT32)),
        ("C3", 1, TensorType((3,), FLOAT64)),
    ],
)
def test_broken_constraint_is_named(constraint, axis, parameter):
    x, c = TensorType((2, 3), FLOAT32), TensorType((3,), FLOAT32)
    with pytest.raises(ValueError, match=constraint):
        BatchNormInference(1e-3, axis).signature(x, c, parameter, c, c)
