"""Generated batch norms: the float64 oracle, StableHLO's interpreter and XLA agree, on results and derivatives."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, seed, settings
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func

from stablenorm.ops import BatchNormGrad, BatchNormTraining, batch_norm
from stablenorm.passes import make_context
from tests.ops.cases import DTYPES, arrays, cases, truth, weights_of
from tests.passes.modules import by_interpreter, by_xla, run

RESULTS = ("y", "mean", "variance", "dx", "dscale", "doffset")


def step(case, named):
    """The three results of a batch norm, and what a loss with the given derivatives by them has by its operands."""
    x = named["x"].astype(DTYPES[case.dtype])

    def forward(x, scale, offset):
        moving = named["moving_mean"], named["moving_variance"]
        flags = {"training": case.training, "unbiased": case.unbiased, "mask": named.get("mask")}
        numbers = {"axis": case.axis, "epsilon": case.epsilon, "momentum": case.momentum}
        return batch_norm(x, scale, offset, *moving, **flags, **numbers)

    results, pull = jax.vjp(forward, x, named.get("scale"), named.get("offset"))
    gradients = pull((named["grad_y"].astype(x.dtype), named["grad_mean"], named["grad_variance"]))
    by_name = dict(zip(RESULTS, (*results, *gradients), strict=True))
    return {name: _readable(value) for name, value in by_name.items() if value is not None}


def _readable(value):
    """The bindings cannot read bfloat16."""
    return value.astype(jnp.float32) if value.dtype == jnp.bfloat16 else value


@pytest.mark.parametrize("dtype", DTYPES)
def test_oracle_interpreter_and_xla_agree(dtype):
    @seed(list(DTYPES).index(dtype))
    @settings(max_examples=20, deadline=None, database=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(case=cases(dtype))
    def agree(case):
        # Half of hypothesis's examples are others with a number changed, and compiling is what takes time here.
        assume(case.form not in seen)
        named = [{name: _plain(array) for name, array in arrays(case, seed).items()} for seed in range(3)]
        lowered = jax.jit(functools.partial(step, case), keep_unused=True).lower(named[0])
        module, compiled = lowered.compiler_ir(), lowered.compile()
        for operands in named:
            expected, results = truth(case, operands), compiled(operands)
            for name, value in results.items():
                expected[name].assert_close(case, name, value, "XLA")
            interpreted = by_interpreter(module, jax.tree.leaves(operands))
            for name, value in zip(sorted(results), interpreted, strict=True):
                expected[name].assert_close(case, name, value, "interpreter")
        seen.add(case.form)

    seen = set()
    with jax.enable_x64(dtype == "float64"):
        agree()


def _plain(array):
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def emitted(case, operands):
    """A module of the training operation and its gradient: StableHLO's own, or composites where they cannot say it."""
    index = case.axes if len(case.axes) > 1 else case.axes[0]
    training, gradient = BatchNormTraining(case.epsilon, index), BatchNormGrad(case.epsilon, index)
    with make_context(), ir.Location.unknown():
        module = ir.Module.create()
        element = {"float32": ir.F32Type.get(), "float64": ir.F64Type.get()}[case.dtype]
        types = [ir.RankedTensorType.get(operand.shape, element) for operand in operands]
        tensor, vector = types[:2]
        with ir.InsertionPoint(module.body):
            main = func.FuncOp("main", (types, [tensor, vector, vector, tensor, vector, vector]))
        with ir.InsertionPoint(main.add_entry_block()):
            x, scale, offset, grad_y, *weight = main.arguments
            y, mean, variance = training.emit(x, scale, offset, *weight)
            func.ReturnOp([y, mean, variance, *gradient.emit(x, scale, mean, variance, grad_y, *weight)])
    return module


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lowered_operations_are_what_the_oracle_says(dtype):
    @seed(0)
    @settings(max_examples=12, deadline=None, database=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(case=cases(dtype))
    def agree(case):
        assume(case.form not in seen and 0 not in case.shape)
        # An epsilon that is a float32: StableHLO's operations have no other.
        epsilon = float(np.float32(case.epsilon))
        plain = {"training": True, "unbiased": False, "has_scale": True, "has_offset": True, "momentum": 0.0}
        case = dataclasses.replace(case, epsilon=epsilon, **plain)
        named = arrays(case, 0)
        named |= {name: np.zeros_like(named[name]) for name in ("grad_mean", "grad_variance", "moving_mean")}
        named["moving_variance"] = named["moving_mean"]  # so that they are 0 where nothing counts, as the operation's
        operands = [named[name] for name in ("x", "scale", "offset", "grad_y")]
        operands += [weight.astype(dtype) for weight in weights_of(case, named)]
        module, expected = emitted(case, operands), truth(case, named)
        run(module, "lower-batch-norm")
        for how, results in (("XLA", by_xla(module, operands)), ("interpreter", by_interpreter(module, operands))):
            for name, value in zip(RESULTS, results, strict=True):
                expected[name].assert_close(case, name, value, how)
        seen.add(case.form)

    seen = set()
    agree()
