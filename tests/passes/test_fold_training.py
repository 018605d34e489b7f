"""Training steps with frozen batch norms: fold-batch-norm{training=true} changes no loss and no gradient."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import lax
from jax.extend.mlir import ir

from stablenorm.passes.rewriting import functions
from stablenorm.passes.weights import WEIGHT
from tests.passes.modules import by_xla, copy, main_function, only, parse, random_arguments, run

BATCH, SIZE, CLASSES = 8, 16, 5
# A gradient comes through some ten operations, each of which rounds sums of up to 1,152 products otherwise: relative to
# the largest value, 64 roundings.
ROUNDINGS = 64
STEP = "import-cleanup,raise-batch-norm,fold-batch-norm{training=true},lower-batch-norm"
DEFAULT = STEP.replace("{training=true}", "")

Tree = dict[str, Any]


class Block(linen.Module):
    """A residual block as detectors fine-tune it: what its batch norms know stays."""

    features: int
    stride: int = 1

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        strides = (self.stride, self.stride)
        y = linen.Conv(self.features, (3, 3), strides, use_bias=False)(x)
        y = linen.relu(linen.BatchNorm(use_running_average=True)(y))
        y = linen.Conv(self.features, (3, 3), use_bias=False)(y)
        y = linen.BatchNorm(use_running_average=True)(y)
        shortcut = linen.Conv(self.features, (1, 1), strides, use_bias=False)(x)
        return linen.relu(y + linen.BatchNorm(use_running_average=True)(shortcut))


class ResNet(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Block(8)(x)
        return linen.Dense(CLASSES)(Block(16, 2)(x).mean((1, 2)))


def drawn(tree: Tree, seed: int, dtype: Any) -> Tree:
    """Random numbers in the places of a tree; positive where a variance is."""
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> Any:
        is_variance = str(path[-1].key).startswith("var")
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        numbers = rng.uniform(0.5, 2, leaf.shape) if is_variance else rng.normal(size=leaf.shape) / np.sqrt(fan_in)
        return numbers.astype(dtype)

    return jax.tree_util.tree_map_with_path(draw, tree)


def is_norm(path: Any) -> bool:
    return any("BatchNorm" in str(getattr(key, "key", key)) for key in path)


def resnet(live: bool, dtype: Any) -> tuple[Callable[..., Any], Tree, Tree]:
    """Loss, what trains, what does not: scales and offsets of batch norms train where ``live``."""
    variables = jax.eval_shape(ResNet().init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
    leaves = jax.tree_util.tree_leaves_with_path(drawn(dict(variables), 1, dtype))
    named = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    structure = jax.tree.structure(dict(variables))
    frozen = {
        jax.tree_util.keystr(path) for path, _ in leaves if path[0].key == "batch_stats" or (is_norm(path) and not live)
    }

    def loss(trained: Tree, kept: Tree, x: jax.Array, target: jax.Array) -> jax.Array:
        both = {**trained, **kept}
        tree = jax.tree.unflatten(structure, [both[name] for name in named])
        return ((ResNet().apply(tree, x) - target) ** 2).mean()

    return loss, {k: v for k, v in named.items() if k not in frozen}, {k: named[k] for k in sorted(frozen)}


def plain(convolution: Callable[..., jax.Array], shape: tuple[int, ...], dtype: Any) -> Any:
    """``s * conv(x, W) + t`` behind a convolution that brings three features to six: plain JAX."""
    tree = {"first": np.zeros((3, 3, 3, 6)), "kernel": np.zeros(shape), "dense": np.zeros((6, CLASSES))}
    kept = {f"{name}{i}": np.zeros(6) for name in ("scale", "shift") for i in (0, 1)}

    def loss(trained: Tree, kept: Tree, x: jax.Array, target: jax.Array) -> jax.Array:
        y = lax.conv_general_dilated(x, trained["first"], (1, 1), "SAME", dimension_numbers=LAYOUT)
        y = jnp.tanh(y * kept["scale0"] + kept["shift0"])
        y = convolution(y, trained["kernel"])
        y = jnp.tanh(y * kept["scale1"] + kept["shift1"])
        return ((y.mean((1, 2)) @ trained["dense"] - target) ** 2).mean()

    return loss, drawn(tree, 2, dtype), drawn(kept, 3, dtype)


LAYOUT = ("NHWC", "HWIO", "NHWC")
CONVOLUTIONS: dict[str, tuple[Callable[..., jax.Array], tuple[int, ...]]] = {
    "strided": (
        lambda x, w: lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=LAYOUT),
        (3, 3, 6, 6),
    ),
    "dilated": (
        lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "VALID", rhs_dilation=(2, 2), dimension_numbers=LAYOUT),
        (3, 3, 6, 6),
    ),
    "grouped": (
        lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=LAYOUT, feature_group_count=2),
        (3, 3, 3, 6),
    ),
    "depthwise": (
        lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=LAYOUT, feature_group_count=6),
        (3, 3, 1, 6),
    ),
    "transposed": (
        lambda x, w: lax.conv_transpose(x, w, (2, 2), "SAME", dimension_numbers=LAYOUT),
        (3, 3, 6, 6),
    ),
    "pointwise, as a product": (lambda x, w: x @ w, (6, 6)),
}


def module_of(loss: Callable[..., Any], trained: Tree, kept: Tree, dtype: Any) -> tuple[ir.Module, list[Any]]:
    """A step of SGD, all that it trains and keeps being weights, with arguments; float64 where these are."""
    rng = np.random.default_rng(4)
    inputs = rng.normal(size=(BATCH, SIZE, SIZE, 3)).astype(dtype), rng.normal(size=(BATCH, CLASSES)).astype(dtype)

    def step(trained: Tree, kept: Tree, x: jax.Array, target: jax.Array) -> Any:
        value, gradients = jax.value_and_grad(loss)(trained, kept, x, target)
        return value, gradients, jax.tree.map(lambda weight, gradient: weight - 0.1 * gradient, trained, gradients)

    text = str(jax.jit(step, keep_unused=True).lower(trained, kept, *inputs).compiler_ir("stablehlo"))
    module = parse(text)
    run(module, "import-cleanup")
    names = [*sorted(trained), *sorted(kept)]
    with module.context:
        marks = [ir.DictAttr.get({WEIGHT: ir.StringAttr.get(name)}) for name in names] + [ir.DictAttr.get({})] * 2
        main_function(module).arg_attrs = ir.ArrayAttr.get(marks)
    return module, jax.tree.leaves((trained, kept, *inputs))


def folded(module: ir.Module, passes: str) -> ir.Module:
    after = copy(module)
    run(after, passes)
    return after


def products(module: ir.Module) -> int:
    """The multiplications and divisions of tensors of activations."""
    found = re.findall(rf"stablehlo\.(?:multiply|divide) .*: tensor<{BATCH}x\d+x\d+x\d+xf", str(module))
    return len(found)


def assert_equal(before: ir.Module, after: ir.Module, arguments: list[Any], dtype: Any) -> None:
    expected, got = by_xla(before, arguments), by_xla(after, arguments)
    assert len(expected) == len(got)
    for want, have in zip(expected, got, strict=True):
        assert want.dtype == have.dtype == dtype
        assert np.abs(want).max() > 0
        assert np.abs(want - have).max() <= ROUNDINGS * np.finfo(dtype).eps * np.abs(want).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_frozen_batch_norms_multiply_no_activation_forward_or_backward(dtype: Any) -> None:
    with jax.enable_x64(dtype == np.float64):
        module, arguments = module_of(*resnet(False, dtype), dtype)
        by_default, trained = folded(module, DEFAULT), folded(module, STEP)
        assert_equal(module, by_default, arguments, dtype)
        assert_equal(module, trained, arguments, dtype)
    # Six batch norms, forward and backward; the backward ones are all that the option is for.
    assert (products(module), products(by_default), products(trained)) == (12, 6, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scales_that_train_keep_their_gradients(dtype: Any) -> None:
    with jax.enable_x64(dtype == np.float64):
        module, arguments = module_of(*resnet(True, dtype), dtype)
        trained = folded(module, STEP)
        assert_equal(module, trained, arguments, dtype)
    # Forward, and where a scale's gradient is summed, the batch norm's input is read: these multiplications stay.
    assert (products(module), products(trained)) == (18, 12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_gradients_of_any_convolution_take_the_scale(name: str, dtype: Any) -> None:
    with jax.enable_x64(dtype == np.float64):
        module, arguments = module_of(*plain(*CONVOLUTIONS[name], dtype), dtype)
        trained = folded(module, STEP)
        assert_equal(module, trained, arguments, dtype)
    assert products(folded(module, DEFAULT)) - products(trained) == 2


def test_a_second_run_changes_nothing() -> None:
    module, _ = module_of(*resnet(False, np.float32), np.float32)
    once = folded(module, STEP)
    assert str(folded(once, "fold-batch-norm{training=true}")) == str(once)


def test_functions_of_the_lit_file_compute_what_they_did() -> None:
    module = parse((Path(__file__).parents[1] / "lit/fold-batch-norm/training.mlir").read_text())
    for function in functions(module):
        before = only(module, function.name.value)
        after = folded(before, STEP)
        assert str(after) != str(before)
        assert_equal(before, after, random_arguments(before), np.float32)
