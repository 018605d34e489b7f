"""Statistics by sums that need no shift, run by XLA:CPU and by StableHLO's interpreter, against long double."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func, stablehlo

from stablenorm.compiler.targets import find_target
from stablenorm.compiler.xla import compile_module
from stablenorm.passes import make_context
from stablenorm.passes.building import convert
from stablenorm.passes.exact_sums import moments, scaled_sums
from stablenorm.passes.pair_batch_norm import pair_statistics
from tests.ops.test_accuracy import HARD, normal
from tests.passes.pair_steps import ELEMENTS


def module_of(function, *shapes, dtype="float32"):
    """A function of tensors as a module, its results in float64."""
    with make_context(), ir.Location.unknown():
        module, f64 = ir.Module.create(), ir.F64Type.get()
        inputs = [ir.RankedTensorType.get(shape, ir.Type.parse(ELEMENTS[dtype])) for shape in shapes]
        with ir.InsertionPoint(module.body):
            main = func.FuncOp("main", (inputs, []))
        with ir.InsertionPoint(main.add_entry_block()):
            results = [convert(value, f64) for value in function(*main.arguments)]
            func.ReturnOp(results)
        types = [value.type for value in results]
        main.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(inputs, types))
        module.operation.verify()
    return module


def run(function, *arrays):
    module = module_of(function, *(array.shape for array in arrays), dtype=arrays[0].dtype.name)
    return [np.asarray(value) for value in compile_module(module, find_target("cpu"))(*arrays)]


def truth(x, axis=-1):
    x = np.moveaxis(x.astype(np.longdouble), axis, -1).reshape(-1, x.shape[axis])
    mean = x.mean(0)
    return mean, ((x - mean) ** 2).mean(0)


def assert_right(got, true, tolerance=1e-12):
    """Pairs have 48 digits, of which many roundings take some; the mean may lack float64's last digit too."""
    mean, variance = got
    assert np.all(np.abs(mean - true[0]) <= 2.0**-52 * np.abs(true[0]) + tolerance * np.sqrt(true[1]))
    assert np.all(np.abs(variance - true[1]) <= tolerance * true[1])


def ours(axis):
    def function(x):
        result = pair_statistics(x, 1e-3, [axis])
        return result.mean, result.variance

    return function


@pytest.mark.parametrize("rows", [1000, 130_001])
@pytest.mark.parametrize("power", range(8))
def test_right_at_any_mean(rows, power):
    x = (normal(rows) + 10.0**power).astype(np.float32)
    assert_right(run(ours(1), x), truth(x))


@pytest.mark.parametrize("name", HARD)
def test_right_on_hard_data(name):
    x = HARD[name](normal(100_000)).astype(np.float32)
    x[np.abs(x) < np.finfo(np.float32).smallest_normal] = 0
    # Small numbers after large ones: each addition may lose half of the last digit.
    assert_right(run(ours(1), x), truth(x), len(x) * 2.0**-49)


def test_right_where_one_digit_differs():
    near = np.float32([1e6, 2**20, 3e38, 1e-30])
    x = np.where(normal(10_000)[:, :1] > 0, near, np.nextafter(near, np.float32(0)))
    assert_right(run(ours(1), x), truth(x))


@pytest.mark.parametrize("axis", [0, 1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_feature_may_be_any_dimension_of_any_type(axis, dtype):
    x = np.random.default_rng(0).normal(100, 1, (6, 5, 7, 4)).astype(dtype)
    assert_right(run(ours(axis), x), truth(x, axis))


@pytest.mark.parametrize("number", [0.0, 0.1, -1234.567, 1e-30, 3e38])
def test_a_constant_has_no_variance(number):
    mean, variance = run(ours(1), np.full((1000, 3), number, np.float32))
    assert np.all(mean == np.float32(number))
    assert np.all(variance == 0)


@pytest.mark.parametrize("spoiling", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_spoils_its_own_feature_only(spoiling):
    x = normal(1000).astype(np.float32)
    x[500, 1] = spoiling
    for value in run(ours(1), x):
        assert np.array_equal(np.isnan(value), [False, True, False])


@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e-15, 1.0, 1e15, 3e38])
@pytest.mark.parametrize("epsilon", [1e-61, 1e-20, 1e-3, 1.0, 1e5])
def test_moments_have_order_one(size, epsilon):
    """What follows may be computed in float32's range: power, mean, and the sum under the root."""
    x = (normal(1000) / 4 * size).astype(np.float32)
    x[np.abs(x) < np.finfo(np.float32).smallest_normal] = 0
    power, mean, variance, scaled_epsilon = run(lambda x: moments(scaled_sums(x, [1]), 1000, epsilon), x)
    mean_, variance_ = truth(x)
    assert np.all((variance + scaled_epsilon >= 0.1) & (variance + scaled_epsilon <= 20))
    y = (x * power.astype(np.longdouble) - mean) / np.sqrt(variance + scaled_epsilon)
    np.testing.assert_allclose(y, (x - mean_) / np.sqrt(variance_ + epsilon), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("number", [0.0, 1e-30, 0.1, 3e38])
def test_moments_of_a_constant_are_of_order_epsilon(number):
    x = np.full((1000, 3), number, np.float32)
    power, mean, variance, epsilon = run(lambda x: moments(scaled_sums(x, [1]), 1000, 1e-3), x)
    assert np.all(x * power == mean)
    assert np.all(variance == 0)
    np.testing.assert_allclose(epsilon / power**2, 1e-3, rtol=1e-15)


def test_the_interpreter_agrees():
    """Its arithmetic is each operation's alone: nothing is fused, and nothing flushed."""
    x = (normal(300) + 1e6).astype(np.float32)
    module = module_of(ours(1), x.shape)
    with module.context:
        got = [np.array(value) for value in stablehlo.eval_module(module, [ir.DenseElementsAttr.get(x)])]
    assert_right(got, truth(x))
