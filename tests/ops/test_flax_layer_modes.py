"""The Flax layer in both modes, under masks, inside of Flax's transforms, and beside the stock module."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stablenorm import compiler
from stablenorm.ops.flax import BatchNorm

Stock = nnx.BatchNorm
GENERATOR = np.random.default_rng(0)


def normal(*shape: int, mean: float = 0.0) -> Any:
    return jnp.asarray(GENERATOR.normal(size=shape) + mean, jnp.float32)


def pair(features: int, **arguments: Any) -> tuple[Any, Any]:
    """Ours and the stock module, with the same random state."""
    ours, stock = (cls(features, **arguments, rngs=nnx.Rngs(0)) for cls in (BatchNorm, Stock))
    for one, other in zip(variables(ours), variables(stock), strict=True):
        one[...] = other[...] = jnp.asarray(GENERATOR.uniform(0.5, 2.0, one[...].shape), one[...].dtype)
    return ours, stock


def variables(layer: Any) -> list[Any]:
    return [variable for variable in (layer.scale, layer.bias, layer.mean, layer.var) if variable is not None]


def running(layer: Any) -> list[Any]:
    return [np.asarray(layer.mean[...]), np.asarray(layer.var[...])]


def close(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Relative to the largest value of each array: float32 sums of a hundred terms in two orders, as a rule."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(initial=0.0))


def test_modes() -> None:
    """``train``, ``eval``, the constructor, the call, which goes before both, and a view."""
    x = normal(6, 3)
    layer, stock = pair(3, momentum=0.5)
    inferred, trained = stock(x, use_running_average=True), stock(x)
    before = running(layer)
    for mode in (lambda: layer.eval(), lambda: layer.set_attributes(use_running_average=True)):
        mode()
        close(layer(x), inferred)
    close(nnx.view(layer, use_running_average=True)(x), inferred)
    assert np.array_equal(running(layer), before)
    layer.train()
    close(layer(x, use_running_average=True), inferred)
    close(layer(x), trained)
    close(running(layer), running(stock))


def test_without_a_mode() -> None:
    """In the constructor or the call, one has to say it."""
    ours, stock = pair(3, use_running_average=None)
    x = normal(6, 3)
    close(ours(x, use_running_average=False), stock(x, use_running_average=False))
    with pytest.raises(ValueError, match="use_running_average: got None, allowed: True or False"):
        ours(x)


@pytest.mark.parametrize(
    ("shape", "axis", "mask"),
    [
        ((6, 5, 3), -1, (6, 5, 1)),
        ((6, 5, 3), -1, (5, 1)),
        ((6, 5, 3), -1, (6, 5, 3)),
        ((6, 3, 5), 1, (6, 1, 5)),
        ((8, 4, 1), -1, (8, 1, 1)),
    ],
)
def test_a_mask_says_what_counts(shape: Any, axis: int, mask: Any) -> None:
    x, kept = normal(*shape, mean=0.5), jnp.asarray(GENERATOR.uniform(size=mask) > 0.3)
    ours, stock = pair(shape[axis], axis=axis)
    close(ours(x, mask=kept), stock(x, mask=kept))
    close(running(ours), running(stock))
    assert np.array_equal(ours(x, use_running_average=True, mask=kept), ours(x, use_running_average=True))


def test_a_mask_may_hold_weights() -> None:
    """A weight of 2 is an element twice; the stock module takes booleans only."""
    x, weight = normal(4, 3), jnp.array([1.0, 2.0, 0.0, 1.0])[:, None]
    layer, stock = pair(3)
    close(layer(x, mask=weight)[0], stock(x[jnp.array([0, 1, 1, 3])])[0])
    close(running(layer), running(stock))


@pytest.mark.parametrize("rows", [0, 4])
def test_nothing_to_count_leaves_the_running_statistics(rows: int) -> None:
    """The stock module makes NaN of it, which stays in the state."""
    x, mask = normal(rows, 3), jnp.zeros((rows, 1), bool) if rows else None
    ours, stock = pair(3)
    before = running(ours)
    assert np.isfinite(ours(x, mask=mask)).all()
    stock(x, mask=mask)
    assert np.array_equal(running(ours), before)
    assert np.isnan(running(stock)).all()


def test_several_feature_axes() -> None:
    """Which the stock module can use, and not train."""
    x = normal(6, 2, 4, 3)
    ours, stock = pair(6, axis=(1, 3))
    close(ours(x, use_running_average=True), stock(x, use_running_average=True))
    single, _ = pair(6)
    nnx.update(single, nnx.state(ours))
    y = single(x.transpose(0, 2, 1, 3).reshape(6, 4, 6))
    close(ours(x), y.reshape(6, 4, 2, 3).transpose(0, 2, 1, 3))
    close(running(ours), running(single))


def test_states_interchange() -> None:
    """Initializers, metadata, types and paths: a state of one updates the other, split and merged."""
    arguments = {
        "param_dtype": jnp.float16,
        "scale_init": nnx.initializers.normal(),
        "bias_init": nnx.initializers.uniform(),
        "scale_metadata": {"out_sharding": None, "note": "scale"},
        "bias_metadata": {"note": "bias"},
    }
    ours, stock = (cls(3, **arguments, rngs=nnx.Rngs(params=5)) for cls in (BatchNorm, Stock))
    assert jax.tree.structure(nnx.state(ours)) == jax.tree.structure(nnx.state(stock))
    assert jax.tree.all(jax.tree.map(np.array_equal, nnx.state(ours), nnx.state(stock)))
    assert ours.scale.note == "scale"
    assert ours.bias.note == "bias"
    ours, stock = pair(3)
    ours(normal(8, 3))
    nnx.update(stock, nnx.state(ours))
    assert jax.tree.all(jax.tree.map(np.array_equal, nnx.state(ours), nnx.state(stock)))
    graph, _, rest = nnx.split(pair(3)[0], nnx.Param, nnx.BatchStat)
    assert list(rest) == ["mean", "var"]
    again = nnx.merge(graph, *nnx.split(stock, nnx.Param, nnx.BatchStat)[1:])
    assert type(again) is BatchNorm
    x = normal(6, 3)
    close(again(x), stock(x))


def test_jit_moves_the_statistics_outside() -> None:
    x = normal(8, 3)
    ours, stock = pair(3)

    @nnx.jit
    def step(layer: Any, x: Any) -> Any:
        return nnx.value_and_grad(nnx.remat(lambda layer, x: jnp.sin(layer(x)).sum()))(layer, x)

    for _ in range(2):
        close(step(ours, x), step(stock, x))
    close(running(ours), running(stock))


def stacked(cls: type) -> Any:
    """Four layers in one."""

    @nnx.vmap
    def create(key: Any) -> Any:
        return cls(3, momentum=0.5, scale_init=nnx.initializers.normal(1.0), rngs=nnx.Rngs(key))

    return create(jax.random.split(jax.random.key(0), 4))


def test_vmap() -> None:
    ours, stock, xs = stacked(BatchNorm), stacked(Stock), normal(4, 8, 3)
    close(*(nnx.vmap(lambda layer, x: layer(x))(layers, xs) for layers in (ours, stock)))
    assert ours.mean[...].shape == (4, 3)
    close(running(ours), running(stock))


def test_scan() -> None:
    ours, stock, x = stacked(BatchNorm), stacked(Stock), normal(8, 3)

    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def through(x: Any, layer: Any) -> Any:
        return layer(x) + 1

    close(through(x, ours), through(x, stock))
    close(running(ours), running(stock))


def test_the_compiler_folds_it() -> None:
    """A Flax model in inference, its state the weights."""
    model = nnx.Sequential(
        nnx.Conv(2, 4, (3, 3), rngs=nnx.Rngs(0)), pair(4)[0], nnx.relu, nnx.Linear(4, 3, rngs=nnx.Rngs(1)), pair(3)[0]
    )
    model.eval()
    graph, state = nnx.split(model)
    x = normal(2, 6, 6, 2)
    executable = compiler.compile(lambda state, x: nnx.merge(graph, state)(x), state, x, weight_argnums=0)
    close(executable(x), model(x))
    assert executable.report.folded == executable.report.total == 2


@pytest.mark.parametrize(
    ("arguments", "shape", "error", "message"),
    [
        ({"axis": 7}, (4, 3), ValueError, r"axis: got 7 for x of shape \(4, 3\), allowed: -2 to 1"),
        ({"axis": "last"}, (4, 3), TypeError, "axis: got 'last', allowed: an int, or a sequence of ints"),
        ({"axis": (1, -1)}, (4, 3), ValueError, r"axis: got \(1, -1\), which names a dimension twice"),
        ({}, (4, 5), ValueError, r"num_features: got 3 for x of shape \(4, 5\), allowed: 5, with axis -1"),
        ({"momentum": None}, (4, 3), TypeError, "momentum: got None, allowed: a Python number"),
        ({"epsilon": "1e-3"}, (4, 3), TypeError, "epsilon: got '1e-3', allowed: a Python number"),
    ],
)
def test_bad_arguments(arguments: Any, shape: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BatchNorm(3, **arguments, rngs=nnx.Rngs(0))(jnp.ones(shape))


@pytest.mark.parametrize("mask", [(5,), (4,), (2, 4, 3)])
def test_a_mask_of_the_wrong_shape(mask: Any) -> None:
    with pytest.raises(
        ValueError, match=r"mask: got the shape \(.*\) for x of shape \(4, 3\), allowed: one that broad"
    ):
        BatchNorm(3, rngs=nnx.Rngs(0))(jnp.ones((4, 3)), mask=jnp.ones(mask, bool))


def test_complex_numbers() -> None:
    with pytest.raises(TypeError, match="x: got complex64, allowed: a real floating-point type"):
        BatchNorm(3, rngs=nnx.Rngs(0))(jnp.ones((4, 3), jnp.complex64))
