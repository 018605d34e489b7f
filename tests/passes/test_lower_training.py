"""Training and its gradient, lowered and run by XLA, against the float64 oracle on the same inputs."""

import ml_dtypes
import numpy as np
import pytest
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func

from stablenorm.compiler.targets import TARGETS
from stablenorm.compiler.xla import compile_module
from stablenorm.ops import BatchNormGrad, BatchNormTraining
from stablenorm.passes import PassContext, make_context
from stablenorm.passes.lower_batch_norm import LowerBatchNorm
from stablenorm.passes.platforms import Platform

EPSILON = float(np.float32(1e-3))
ELEMENTS = {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def step(x, axis, platform="cpu"):
    """``y, mean, variance, grad_operand, grad_scale, grad_offset`` by XLA and by the oracle, all weights random."""
    generator = np.random.default_rng(1)
    scale, offset = (generator.normal(size=x.shape[axis]).astype(x.dtype) for _ in range(2))
    grad_output = generator.normal(size=x.shape).astype(x.dtype)
    training, gradient = BatchNormTraining(EPSILON, axis), BatchNormGrad(EPSILON, axis)
    with make_context(), ir.Location.unknown():
        module = ir.Module.create()
        element = ir.Type.parse(ELEMENTS[x.dtype.name])
        tensor = ir.RankedTensorType.get(x.shape, element)
        vector = ir.RankedTensorType.get([x.shape[axis]], element)
        with ir.InsertionPoint(module.body):
            results = [tensor, vector, vector, tensor, vector, vector]
            main = func.FuncOp("main", ([tensor, vector, vector, tensor], results))
        with ir.InsertionPoint(main.add_entry_block()):
            operand, scale_, offset_, grad_ = main.arguments
            y, mean, variance = training.emit(operand, scale_, offset_)
            func.ReturnOp([y, mean, variance, *gradient.emit(operand, scale_, mean, variance, grad_)])
        LowerBatchNorm(Platform(platform)).run(module, PassContext())
    got = compile_module(module, TARGETS["cpu"])(x, scale, offset, grad_output)
    y, mean, variance = training.reference(x, scale, offset)
    expected = [y, mean, variance, *gradient.reference(x, scale, mean, variance, grad_output)]
    return [np.asarray(value).astype(np.float64) for value in got], expected


def assert_right(x, axis, tolerance, platform="cpu"):
    """Each result within ``tolerance`` of its largest value; mean and variance, feature by feature."""
    got, expected = step(x, axis, platform)
    for place, (value, truth) in enumerate(zip(got, expected, strict=True)):
        scale = np.abs(truth) if place in (1, 2) else np.abs(truth).max()
        assert np.all(np.abs(value - truth) <= tolerance * scale), f"result {place}"


@pytest.fixture(params=list(Platform))
def platform(request):
    """Each platform's arithmetic is right on all: XLA:CPU runs it here."""
    return request.param


def normal(rows, columns, mean=0.0, dtype=np.float32):
    return (np.random.default_rng(0).normal(size=(rows, columns)) + mean).astype(dtype)


# One rounding of the result to its type is half a unit in the last place: 6e-8 for float32.
ROUNDING = {"float64": 2e-12, "float32": 1e-7, "float16": 5e-4, "bfloat16": 4e-3}


# Summed at once; blocks of several stretches, and a rest; several steps of blocks.
AT_ONCE, BLOCKS, STEPS = 1024, 8427, 1_000_000


@pytest.mark.parametrize("rows", [AT_ONCE, BLOCKS, STEPS])
@pytest.mark.parametrize("power", range(7))
def test_right_at_any_mean(rows, power, platform):
    assert_right(normal(rows, 3, 10.0**power), 1, ROUNDING["float32"], platform)


HARD = {
    "first row an outlier": lambda x: np.concatenate([np.full_like(x[:1], 1e6), x[1:]]),
    "two far clusters": lambda x: np.concatenate([x[:512] + 1e5, x[512:]]),
    "drift": lambda x: x + np.linspace(0, 1e4, len(x))[:, None],
    "near float32's limit": lambda x: x * 1e19,
    "variance below epsilon": lambda x: x * 1e-15,
}


@pytest.mark.parametrize("rows", [AT_ONCE, BLOCKS])
@pytest.mark.parametrize("name", HARD)
def test_right_on_hard_data(name, rows, platform):
    assert_right(HARD[name](normal(rows, 3)).astype(np.float32), 1, ROUNDING["float32"], platform)


@pytest.mark.parametrize("rows", [AT_ONCE, BLOCKS])
@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_other_types_are_rounded_once(dtype, rows, platform):
    assert_right(normal(rows, 3, 100.0, dtype), 1, ROUNDING[np.dtype(dtype).name], platform)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((6,), 0),
        ((5, 4), 0),
        ((3, 4, 5), 1),
        ((2, 3, 4, 5), 3),
        ((2, 5, 3, 2, 2), 1),
        ((64, 8, 7, 7), 1),
        ((130, 4, 4, 16), 3),
        ((25, 25, 3, 64), 3),
        ((8, 17, 17, 64), 3),
        ((4, 4, 7, 7, 32), 4),
        ((2, 3, 40, 41), 1),
    ],
)
def test_any_rank_and_feature(shape, axis, platform):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    got, expected = step(x, axis, platform)
    for value, truth in zip(got, expected, strict=True):
        np.testing.assert_allclose(value, truth, atol=1e-6 * max(1.0, np.abs(truth).max()))


@pytest.mark.parametrize("rows", [AT_ONCE, BLOCKS])
def test_a_constant_feature_is_its_offset_exactly(rows, platform):
    (y, mean, variance, *_), _ = step(np.full((rows, 3), 1234.567, np.float32), 1, platform)
    assert np.array_equal(y, np.broadcast_to(y[0], y.shape))
    assert np.all(variance == 0)
    assert np.all(mean == np.float32(1234.567))


@pytest.mark.parametrize(("rows", "row"), [(AT_ONCE, 3), (BLOCKS, 3), (BLOCKS, 29), (BLOCKS, -1)])
def test_nan_and_infinity_spoil_their_own_feature_only(rows, row, platform):
    x = normal(rows, 4)
    x[row, 1], x[row, 2] = np.nan, np.inf
    got, _ = step(x, 1, platform)
    for value in got[:5]:
        assert np.isfinite(value[..., [0, 3]]).all()
    y, mean, variance = got[:3]
    assert np.isnan(y[:, 1]).all()
    assert np.isnan(mean[1])
    assert np.isnan(variance[1:3]).all()
    assert not np.isfinite(mean[2])


def test_the_gradient_is_that_of_the_oracle():
    """The oracle's own gradient against central differences of the oracle, in float64."""
    generator = np.random.default_rng(0)
    x, grad_output = generator.normal(size=(6, 2)), generator.normal(size=(6, 2))
    scale, offset = generator.normal(size=2), generator.normal(size=2)
    training, gradient = BatchNormTraining(EPSILON, 1), BatchNormGrad(EPSILON, 1)

    def loss(x, scale, offset):
        return (training.reference(x, scale, offset)[0] * grad_output).sum()

    _, mean, variance = training.reference(x, scale, offset)
    operands = [x, scale, offset]
    for place, exact in enumerate(gradient.reference(x, scale, mean, variance, grad_output)):
        for index in np.ndindex(operands[place].shape):
            ends = []
            for sign in (1, -1):
                moved = [operand.copy() for operand in operands]
                moved[place][index] += sign * 1e-6
                ends.append(loss(*moved))
            # Rounding of the loss, 1e-16, over the step; the truncation error is a square of the step.
            np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, exact[index], atol=1e-8)


SHAPES = {(1024, 3): 1, (33, 5, 7, 4): 3, (20, 3, 5, 5): 1, (3, 4, 17, 16): 1, (5, 3): 1, (7,): 0}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mean", [0.0, 1e2, 1e4, 1e6])
def test_what_a_gpu_computes_is_right_at_any_mean(shape, mean):
    x = (np.random.default_rng(0).normal(size=shape) + mean).astype(np.float32)
    assert_right(x, SHAPES[shape], ROUNDING["float32"], "cuda")


@pytest.mark.parametrize("name", HARD)
def test_what_a_gpu_computes_is_right_on_hard_data(name):
    assert_right(HARD[name](normal(1024, 3)).astype(np.float32), 1, ROUNDING["float32"], "cuda")


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_what_a_gpu_computes_is_right_in_every_type(dtype):
    assert_right(normal(1024, 3, 10.0, dtype), 1, ROUNDING[np.dtype(dtype).name], "cuda")


@pytest.mark.parametrize("rows", [999, 20011])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("number", [0.1, -1e30, 3e-20, 3e38])
def test_a_constant_has_no_variance_on_a_gpu(number, dtype, rows):
    """Its squares are so large that the last digit of their sum is more than float32's largest number."""
    got, _ = step(np.full((rows, 2), number, dtype), 1, "cuda")
    assert not got[2].any()


def test_what_is_not_finite_stays_in_its_feature_on_a_gpu():
    x = normal(1024, 3)
    x[5, 1] = np.inf
    got, _ = step(x, 1, "cuda")
    for value in got[:3]:
        assert np.isfinite(value[..., [0, 2]]).all()
        assert not np.isfinite(value[..., 1]).any()
