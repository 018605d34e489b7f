"""The three operations of `ops`: what they emit, run as it stands and lowered, is what their references say."""

import numpy as np
import pytest
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func

from stablenorm.ops import BatchNormGrad, BatchNormInference, BatchNormTraining, TensorType
from stablenorm.passes import make_context
from stablenorm.passes.named_forms import batch_norms
from tests.passes.modules import by_interpreter, by_xla, copy, main_function, run

# 1e-3 is no float32, so the operation of StableHLO, whose epsilon is one, would be off by 5e-11.
EPSILON = 1e-3
# The features of x, and whether elements have weights.
FORMS = [(1, False), (1, True), ((1,), False), ((0, 2), False), ((0, 2), True), ((0, 1, 2), True)]
ROUNDING = {"float32": 2e-7, "float64": 1e-12}  # a rounding or two of the result to its type


def arrays(kind, feature_index, weighted, dtype):
    """Operands, none of them trivial; a weight of 0 hides a NaN."""
    generator = np.random.default_rng(0)
    x = generator.normal(3.0, 2.0, size=(4, 3, 5)).astype(dtype)
    axes = feature_index if isinstance(feature_index, tuple) else (feature_index,)
    a, b, mean = (generator.normal(size=[x.shape[axis] for axis in axes]).astype(dtype) for _ in range(3))
    variance = generator.uniform(0.5, 2.0, mean.shape).astype(dtype)
    weight = generator.choice([0.0, 0.25, 1.0, 2.0], x.shape).astype(dtype)
    if weighted:
        x[weight == 0] = np.nan
    grad_output = generator.normal(size=x.shape).astype(dtype)
    operands = {
        "inference": [x, a, b, mean, variance],
        "training": [x, a, b],
        "grad": [np.nan_to_num(x), a, mean, variance, grad_output],
    }[kind]
    return operands + [weight] * (weighted and kind != "inference")


def module_of(op, operands):
    with make_context(), ir.Location.unknown():
        module = ir.Module.create()
        element = {"float32": ir.F32Type.get(), "float64": ir.F64Type.get()}[operands[0].dtype.name]
        types = [ir.RankedTensorType.get(array.shape, element) for array in operands]
        results = op.signature(*(TensorType(array.shape, array.dtype) for array in operands))
        result_types = [ir.RankedTensorType.get(type_.shape, element) for type_ in results]
        with ir.InsertionPoint(module.body):
            main = func.FuncOp("main", (types, result_types))
        with ir.InsertionPoint(main.add_entry_block()):
            func.ReturnOp(op.emit(*main.arguments))
        module.operation.verify()
        return module


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("feature_index", "weighted"), FORMS)
@pytest.mark.parametrize("kind", ["training", "grad", "inference"])
def test_what_is_emitted_says_what_the_reference_says(kind, feature_index, weighted, dtype):
    op = {"training": BatchNormTraining, "grad": BatchNormGrad, "inference": BatchNormInference}[kind]
    op = op(EPSILON, feature_index)
    operands = arrays(kind, feature_index, weighted, dtype)
    expected = op.reference(*operands)
    module = module_of(op, operands)
    lowered = copy(module)
    run(lowered, "import-cleanup,lower-batch-norm")
    results = {"lowered, by XLA": by_xla(lowered, operands), "lowered": by_interpreter(lowered, operands)}
    if "stablehlo.batch_norm" not in str(module):  # the interpreter ends the process on these
        results["as it stands"] = by_interpreter(module, operands)
    for name, got in results.items():
        for value, truth in zip(got, expected, strict=True):
            scale = np.abs(truth[np.isfinite(truth)]).max()
            # x is NaN where its weight is 0; y is too, and nothing else.
            np.testing.assert_allclose(value, truth, rtol=0, atol=ROUNDING[value.dtype.name] * scale, err_msg=name)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_reads_the_statistics_of_its_training_unrounded(weighted):
    generator = np.random.default_rng(1)
    x = (1e6 + generator.normal(size=(64, 3))).astype(np.float32)
    scale, offset = generator.normal(size=(2, 3)).astype(np.float32)
    grad_output = generator.normal(size=x.shape).astype(np.float32)
    weight = [generator.choice([0.0, 1.0], x.shape).astype(np.float32)] * weighted
    training, grad = BatchNormTraining(EPSILON, (1,)), BatchNormGrad(EPSILON, (1,))
    with make_context(), ir.Location.unknown():
        module = ir.Module.create()
        tensor, vector = (ir.RankedTensorType.get(array.shape, ir.F32Type.get()) for array in (x, scale))
        with ir.InsertionPoint(module.body):
            types = [tensor, vector, vector, tensor, *[tensor] * weighted]
            main = func.FuncOp("main", (types, [tensor, vector, vector]))
        with ir.InsertionPoint(main.add_entry_block()):
            operand, scale_, offset_, grad_output_, *weight_ = main.arguments
            _, mean, variance = training.emit(operand, scale_, offset_, *weight_)
            func.ReturnOp(grad.emit(operand, scale_, mean, variance, grad_output_, *weight_))
    run(module, "lower-batch-norm")
    got = by_xla(module, [x, scale, offset, grad_output, *weight])
    _, mean, variance = training.reference(x, scale, offset, *weight)
    for value, truth in zip(got, grad.reference(x, scale, mean, variance, grad_output, *weight), strict=True):
        np.testing.assert_allclose(value, truth, rtol=0, atol=2e-7 * np.abs(truth).max())


def test_the_name_says_all_that_a_pass_needs():
    operands = arrays("training", (0, 2), True, np.float32)
    module = module_of(BatchNormTraining(EPSILON, (0, 2)), operands)
    (norm,) = batch_norms(main_function(module))
    assert (norm.kind, norm.epsilon, norm.axes) == ("training", EPSILON, (0, 2))
    assert list(norm.operands) == ["operand", "scale", "offset", "weight"]


def test_decompositions_have_names_of_their_own_and_go_when_lowered():
    operands = arrays("training", (1,), False, np.float32)
    op = BatchNormTraining(EPSILON, (1,))
    module = module_of(op, operands)
    with module.context, ir.Location.unknown():
        main = main_function(module)
        with ir.InsertionPoint.at_block_begin(main.entry_block):
            op.emit(*main.arguments)
    assert str(module).count("func.func private @stablenorm.batch_norm_training") == 2
    run(module, "lower-batch-norm")
    assert "private" not in str(module)


@pytest.mark.parametrize(
    ("index", "shapes", "message"),
    [
        ((2, 1), [(2, 3, 4), (4, 3), (4, 3)], r"C1: got feature_index \(2, 1\) of float32\[2,3,4\]"),
        ((), [(2, 3), (), ()], "C1"),
        (2, [(2, 3), (3,), (3,)], "C1"),
        (1, [(2, 3), (2,), (3,)], r"C2: got scale float32\[2\], allowed: float32\[3\]"),
        (1, [(2, 3), (3,), (3,), (2, 1)], r"C4: got weight float32\[2,1\] for an operand float32\[2,3\]"),
    ],
)
def test_a_broken_constraint_is_named(index, shapes, message):
    with pytest.raises(ValueError, match=message):
        BatchNormTraining(EPSILON, index).signature(*(TensorType(shape, np.dtype(np.float32)) for shape in shapes))
