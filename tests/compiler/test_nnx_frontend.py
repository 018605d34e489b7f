"""compiler/frontends/nnx.py: a module comes in as it computes in evaluation mode, its variables as weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stablenorm import compiler
from stablenorm.compiler.check import compare
from stablenorm.compiler.compile import build_with_reference
from stablenorm.compiler.frontends.main_function import find_main
from stablenorm.compiler.frontends.nnx import from_module
from stablenorm.passes.weights import weight_names

Fixture = Callable[..., Any]
GENERATOR = np.random.default_rng(5)


def normal(*shape: int) -> Any:
    return GENERATOR.normal(size=shape).astype(np.float32)


class Network(nnx.Module):
    """A layer that is called twice, layers in a list, dropout that counts its keys."""

    def __init__(self, rngs: nnx.Rngs, **options: Any) -> None:
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs, **options)
        self.norm = nnx.BatchNorm(4, rngs=rngs, **options)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.layers = nnx.List(
            [nnx.Linear(4, 4, rngs=rngs, **options), nnx.BatchNorm(4, use_scale=False, rngs=rngs, **options)]
        )
        self.shared = self.layers[0]

    def __call__(self, image: Any) -> Any:
        x = self.dropout(nnx.relu(self.norm(self.conv(image))))
        for layer in self.layers:
            x = layer(x)
        return {"scores": self.shared(x), "features": (x, None)}


def randomized(module: Any) -> Any:
    """Variances from 0.5 on, all other weights of any sign: fresh ones would hide mistakes."""
    for path, variable in nnx.to_flat_state(nnx.state(module, nnx.Not(nnx.RngState))):
        low, high = (0.5, 2.0) if path[-1] == "var" else (-1.0, 1.0)
        variable[...] = jnp.asarray(GENERATOR.uniform(low, high, variable.shape), variable.dtype)
    return module


def network(**options: Any) -> Network:
    module = Network(nnx.Rngs(0), **options)
    nnx.update(module, nnx.state(randomized(module)))
    return module


def evaluated(module: Any, *arguments: Any) -> Any:
    return nnx.view(module, deterministic=True, use_running_average=True)(*arguments)


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    """Rounding of a few layers, relative to the largest value."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        exact = np.asarray(b, np.float64)
        np.testing.assert_allclose(np.asarray(a, np.float64), exact, rtol=0, atol=tolerance * np.abs(exact).max())


def test_it_folds_and_computes_what_the_module_does_in_evaluation() -> None:
    module, x = network(), normal(2, 6, 6, 3)
    expected = evaluated(module, x)
    executable = compiler.compile(module, x)
    assert_close(executable(x), expected)
    assert_close(executable(image=x), expected)
    assert [row.name for row in executable.report.rows] == ["norm", "layers/1"]
    assert {row.into for row in executable.report.rows} <= {"conv", "layers/0"}
    assert set(executable(x)) == {"scores", "features"}
    assert [str(spec) for spec in executable.signature.inputs] == ["image: float32[2,6,6,3]"]


def test_weights_are_named_arguments_that_hold_their_values() -> None:
    module = network()
    imported = from_module(module, (normal(2, 6, 6, 3),))
    names = {"conv/kernel", "conv/bias", "norm/scale", "norm/bias", "norm/mean", "norm/var"}
    names |= {"layers/1/bias", "layers/1/mean", "layers/1/var", "layers/0/kernel", "layers/0/bias"}
    assert set(imported.weights) == names
    assert weight_names(find_main(imported.module)) == [None, *imported.weights]
    np.testing.assert_array_equal(imported.weights["norm/var"], module.norm.var[...])


def test_the_module_stays_as_it_is(assert_same: Fixture) -> None:
    module, x = network(), normal(2, 6, 6, 3)
    before = jax.tree.leaves(nnx.state(module, nnx.Not(nnx.RngState)))
    assert_same(from_module(module, (x,)))
    assert not module.norm.use_running_average
    assert not module.dropout.deterministic
    after = jax.tree.leaves(nnx.state(module, nnx.Not(nnx.RngState)))
    assert all(old is new for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("narrow", ["dtype", "param_dtype"])
def test_narrow_types(dtype: Any, narrow: str) -> None:
    module, x = network(**{narrow: dtype}), normal(2, 6, 6, 3)
    executable = compiler.compile(module, x)
    # The roundings of a few layers.
    assert_close(executable(x), evaluated(module, x), 20 * float(jnp.finfo(dtype).eps))
    assert executable.report.folded == 2


def test_any_pytree_goes_in() -> None:
    class Sum(nnx.Module):
        def __init__(self) -> None:
            self.factor = nnx.Param(jnp.asarray(normal(3)))

        def __call__(self, x: Any, pair: Any = None, *rest: Any) -> Any:
            return x * self.factor + pair["left"] - pair["right"] + sum(rest)

    module, x, pair = Sum(), normal(2, 3), {"left": normal(2, 3), "right": normal(2, 3)}
    executable = compiler.compile(module, jax.ShapeDtypeStruct((2, 3), np.float32), pair, x)
    assert [spec.name for spec in executable.signature.inputs] == ["x", "pair/left", "pair/right", "arg2"]
    assert_close(executable(x, pair, x), module(x, pair, x))


def test_random_keys_and_numbers_that_are_no_variables() -> None:
    class Noise(nnx.Module):
        def __init__(self) -> None:
            self.key = nnx.Variable(jax.random.key(3))
            self.scale = nnx.Param(0.5)
            self.raw = nnx.data(jnp.asarray(normal(3)))
            self.nested = nnx.Variable({"a": jnp.asarray(normal(3))})

        def __call__(self, x: Any) -> Any:
            noise = jax.random.normal(self.key[...], x.shape)
            return x * self.scale + noise * self.raw + self.nested["a"]

    module, x = Noise(), normal(2, 3)
    executable = compiler.compile(module, x)
    assert set(executable.weights) == {"nested/value/a", "raw", "scale"}
    assert_close(executable(x), module(jnp.asarray(x)))


def test_updated_variables_are_dropped_with_a_warning(assert_same: Fixture) -> None:
    class Counting(nnx.Module):
        def __init__(self) -> None:
            self.count = nnx.Variable(jnp.asarray(2.0))
            self.kernel = nnx.Param(jnp.asarray(normal(3, 3)))

        def __call__(self, x: Any) -> Any:
            self.count[...] += 1
            self.seen = nnx.Intermediate(x)
            return x @ self.kernel * self.count

    module = Counting()
    with pytest.warns(UserWarning, match="does not update these variables: count$"):
        imported = from_module(module, (normal(2, 3),))
    assert float(module.count[...]) == 2.0
    assert_same(imported)


def test_a_jitted_call_updates_only_what_it_changes(assert_same: Fixture) -> None:
    class Jitted(nnx.Module):
        def __init__(self) -> None:
            self.dense, self.norm = nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(0))
            self.count = nnx.Variable(jnp.asarray(0.0))

        @nnx.jit
        def __call__(self, x: Any) -> Any:
            return self.inner(x)

        @nnx.jit
        def inner(self, x: Any) -> Any:
            self.count[...] += x.sum()
            return self.norm(self.dense(x))

    with pytest.warns(UserWarning, match="does not update these variables: count$"):
        imported = from_module(randomized(Jitted()), (normal(2, 3),))
    assert_same(imported)


def test_options_are_no_inputs() -> None:
    class Flagged(nnx.Module):
        def __init__(self) -> None:
            self.dense, self.norm = nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(0))

        def __call__(self, x: Any, train: bool = True, y: Any = 0.0) -> Any:
            return self.norm(self.dense(x), use_running_average=not train) + y

    module, x, y = randomized(Flagged()), normal(2, 3), normal(2, 4)
    executable = compiler.compile(module, x, False, y)
    assert [spec.name for spec in executable.signature.inputs] == ["x", "y"]
    assert_close(executable(x, y), module(x, False, y))
    assert executable.report.folded == 1


def test_a_recurrent_layer_counts_keys_of_the_copy_only() -> None:
    module, x = nnx.RNN(nnx.LSTMCell(3, 4, rngs=nnx.Rngs(0))), normal(2, 5, 3)
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(module, nnx.RngCount))]
    executable = compiler.compile(module, x)
    after = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(module, nnx.RngCount))]
    np.testing.assert_array_equal(before, after)
    assert_close(executable(x), module(x))


def test_a_module_that_overrides_eval_is_asked() -> None:
    class Own(nnx.Module):
        def __init__(self) -> None:
            self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
            self.sign = 1

        def eval(self, **attributes: Any) -> None:
            super().eval(**attributes)
            self.sign = -1

        def __call__(self, x: Any) -> Any:
            return self.norm(x) * self.sign

    module, x = Own(), normal(2, 3)
    assert_close(compiler.compile(module, x)(x), -nnx.view(module.norm, use_running_average=True)(x))
    assert module.sign == 1


def test_the_check_compares_with_flax_itself() -> None:
    module = network()
    executable, reference = build_with_reference(module, normal(2, 6, 6, 3))
    comparisons = compare(executable, reference)
    assert [comparison.name for comparison in comparisons] == ["features_0", "scores"]
    assert all(comparison.is_match for comparison in comparisons)
    assert min(comparison.largest for comparison in comparisons) > 0


def refused(model: Any, *arguments: Any) -> str:
    with pytest.raises(compiler.StablenormError) as caught:
        compiler.compile(model, *arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_arguments_are_told() -> None:
    assert "pass an example for each argument of its __call__: compile(module, x)" in refused(network())
    message = refused(network(), normal(2, 6, 6, 5))
    assert message.startswith("Flax cannot call the model with inputs (image: float32[2,6,6,5]): ")
    assert "Flax cannot call the model with inputs ()" in refused(network(), "text")
    assert "Flax cannot call the model with inputs (image: <object" in refused(network(), object())
    assert "Flax cannot call the model" in refused(network(), normal(1), normal(1))


def test_a_linen_module_is_told_how_to_come_in() -> None:
    class Linen(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x: Any) -> Any:
            return flax.linen.BatchNorm(use_running_average=True)(flax.linen.Dense(3)(x))

    module, x = Linen(), normal(2, 4)
    message = refused(module, x)
    call = "compile(lambda variables, x: module.apply(variables, x), variables, x, weight_argnums=0)"
    assert "a Flax linen module of type " in message
    assert call in message
    names = {"compile": compiler.compile, "module": module, "variables": module.init(jax.random.key(0), x), "x": x}
    executable = eval(call, names)
    assert_close(executable(x), module.apply(names["variables"], x))
    assert executable.report.folded == 1
