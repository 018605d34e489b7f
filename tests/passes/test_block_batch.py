"""block-batch: what a loop over blocks computes is what the whole batch gave, in less memory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from stablenorm import compiler
from stablenorm.compiler.targets import TARGETS
from stablenorm.passes import PASSES
from tests.passes.modules import parse, run

RNG = np.random.default_rng(11)
LAYOUT = ("NHWC", "HWIO", "NHWC")
WEIGHTS = {
    "a": RNG.normal(size=(3, 3, 3, 8)).astype(np.float32),
    "b": RNG.normal(size=(3, 3, 8, 8)).astype(np.float32),
    "bias": RNG.normal(size=8).astype(np.float32),
    "head": RNG.normal(size=(8, 5)).astype(np.float32),
}


def images(batch: int) -> Any:
    return RNG.normal(size=(batch, 12, 10, 3)).astype(np.float32)


def convolution(x: Any, kernel: Any) -> Any:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)


def features(p: dict[str, Any], x: Any) -> Any:
    return jnp.maximum(convolution(jnp.maximum(convolution(x, p["a"]), 0), p["b"]) + p["bias"], 0)


def pooled(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def read_by_a_branch(p: dict[str, Any], h: Any) -> Any:
    return h, lax.cond(p["bias"][0] > 0, lambda: h.mean(), lambda: h.max())


# What networks do between their layers, each a function of weights and images.
NETWORKS = {
    "convolutions": features,
    "a head": lambda p, x: jax.nn.softmax(features(p, x).mean((1, 2)) @ p["head"]),
    "flattened": lambda p, x: features(p, x).reshape(x.shape[0], -1),
    "features first": lambda p, x: features(p, x).transpose(0, 3, 1, 2),
    "pools, joined": lambda p, x: jnp.concatenate([pooled(features(p, x)), 2 * pooled(features(p, x)) + 1], -1),
    "padded, cut": lambda p, x: jnp.pad(features(p, x)[:, 1:-1, ::2], ((0, 0), (1, 2), (0, 0), (0, 0))),
    "chosen": lambda p, x: jnp.where(features(p, x) > p["bias"], jnp.tanh(features(p, x)), -1.0),
    "gated": lambda p, x: features(p, x) * jax.nn.sigmoid(features(p, x).mean((1, 2), keepdims=True)),
    "two results": lambda p, x: (features(p, x), (features(p, x) > 1).any((1, 2)), x),
    "a result of weights": lambda p, x: (features(p, x), p["a"] * 2),
}
MIXED = {
    "over the batch": lambda p, x: features(p, x) - features(p, x).mean(0),
    "reversed": lambda p, x: features(p, x)[::-1],
    "a part of the batch": lambda p, x: features(p, x)[:4],
    "a running sum": lambda p, x: jnp.cumsum(features(p, x), 0),
    "features as a batch": lambda p, x: features(p, x).transpose(3, 1, 2, 0),
    "one for each sample": lambda p, x: features(p, x) + jnp.arange(x.shape[0], dtype=jnp.float32)[:, None, None, None],
    "read by a branch": lambda p, x: read_by_a_branch(p, features(p, x)),
    "between samples": lambda p, x: jnp.einsum("bhwc,nhwc->bn", features(p, x), features(p, x)),
}


def compiled(network: Any, x: Any, most_bytes: int) -> compiler.Executable:
    passes = TARGETS["cpu"].pipeline.replace("block-batch", f"block-batch{{most_bytes={most_bytes}}}")
    return compiler.compile(network, WEIGHTS, x, weight_argnums=0, passes=passes)


def loops(executable: compiler.Executable) -> int:
    return executable.stablehlo().count("stablehlo.while")


# The widest activation, of a sample, is 12 * 10 * 8 floats.
SAMPLE = 12 * 10 * 8 * 4


@pytest.mark.parametrize("name", NETWORKS)
def test_a_loop_over_blocks_computes_the_same(name: str):
    x = images(6)
    whole, blocks = (compiled(NETWORKS[name], x, most) for most in (6 * SAMPLE, 3 * SAMPLE))
    assert (loops(whole), loops(blocks)) == (0, 1)
    expected, got = jax.tree.leaves(whole(x)), jax.tree.leaves(blocks(x))
    assert [(array.shape, array.dtype) for array in got] == [(array.shape, array.dtype) for array in expected]
    for one, other in zip(got, expected, strict=True):
        # The same sums of 72 products; a library may split them by the number of rows.
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * max(1, np.abs(other).max()))


@pytest.mark.parametrize(("batch", "most"), [(7, 6), (26, 12)])
def test_a_batch_without_a_divisor_near_the_limit_stays_whole(batch: int, most: int):
    assert loops(compiled(features, images(batch), most * SAMPLE)) == 0


def test_numbers_that_are_converted_do_not_stop_it():
    def network(p: dict[str, Any], x: Any) -> Any:
        return features(p, x).astype(jnp.int32) + jnp.full((6, 12, 10, 8), 2.5).astype(jnp.int32)

    x = images(6)
    whole, blocks = (compiled(network, x, most) for most in (6 * SAMPLE, 3 * SAMPLE))
    np.testing.assert_array_equal(blocks(x), whole(x))


@pytest.mark.parametrize(("width", "count"), [(8, 1), (64, 0)])
def test_weights_larger_than_what_a_block_computes_are_read_once(width: int, count: int):
    def network(p: dict[str, Any], x: Any) -> Any:
        return features(p, x).reshape(x.shape[0], -1) @ p["dense"]

    weights = WEIGHTS | {"dense": RNG.normal(size=(12 * 10 * 8, width)).astype(np.float32)}
    passes = TARGETS["cpu"].pipeline.replace("block-batch", f"block-batch{{most_bytes={2 * SAMPLE}}}")
    executable = compiler.compile(network, weights, images(8), weight_argnums=0, passes=passes)
    assert loops(executable) == count


@pytest.mark.parametrize("name", MIXED)
def test_what_may_mix_samples_keeps_its_batch(name: str):
    assert loops(compiled(MIXED[name], images(8), SAMPLE)) == 0


@pytest.mark.parametrize(
    ("batch", "most", "samples"), [(8, 2, 2), (8, 3, 2), (8, 0, 1), (6, 4, 3), (7, 3, 1), (8, 7, 4)]
)
def test_a_block_is_the_largest_divisor_that_fits(batch: int, most: int, samples: int):
    text = compiled(features, images(batch), most * SAMPLE + 1).stablehlo()
    assert f"sizes = [{samples}, 12, 10, 3]" in text


@pytest.mark.parametrize(
    "network", [lambda p, x: convolution(x, p["a"]), lambda p, x: jnp.tanh(x) + 1], ids=["one layer", "none"]
)
def test_one_layer_keeps_its_batch(network: Any):
    assert loops(compiled(network, images(8), 1)) == 0


def test_inputs_that_differ_in_their_first_dimension_keep_it():
    x = images(8), RNG.normal(size=8).astype(np.float32)
    executable = compiled(lambda p, x: features(p, x[0]) + x[1][0], x, 1)
    assert loops(executable) == 0
    assert loops(compiled(lambda p, x: (features(p, x[0]), x[1]), (images(8), RNG.normal(size=(4, 2))), 1)) == 0


def test_a_batch_without_samples_stays_as_it_is():
    executable = compiled(features, images(0), 1)
    assert executable(images(0)).shape == (0, 12, 10, 8)


TEXT = """func.func @main({inputs}, %w: tensor<4x4xf32> {{stablenorm.weight = "w"}}) -> {result} {{
  %0 = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
    : (tensor<8x4xf32>, tensor<4x4xf32>) -> tensor<8x4xf32>
  %1 = stablehlo.dot_general %0, %w, contracting_dims = [1] x [1]
    : (tensor<8x4xf32>, tensor<4x4xf32>) -> tensor<8x4xf32>
  %y = stablehlo.tuple {parts} : {result}
  return %y : {result}
}}"""
X, TOKEN = "tensor<8x4xf32>", "!stablehlo.token"
TUPLE = TEXT.format(inputs=f"%x: {X}", result=f"tuple<{X}>", parts="%1")
WITH_TOKEN = TEXT.format(inputs=f"%t: {TOKEN}, %x: {X}", result=f"tuple<{X}, {TOKEN}>", parts="%1, %t")
UNRANKED = "func.func @main(%x: tensor<*xf32>) -> tensor<*xf32> { return %x : tensor<*xf32> }"


# XLA runs none of these, so they are no lit file's: those are run, too.
@pytest.mark.parametrize("text", [TUPLE, WITH_TOKEN, UNRANKED], ids=["tuple", "token", "unranked"])
def test_what_is_no_array_has_no_batch(text: str):
    module = parse(text)
    run(module, "block-batch{most_bytes=1}")
    assert "stablehlo.while" not in str(module)


def test_memory_is_that_of_a_block():
    x = images(64)
    whole, blocks = (compiled(features, x, most).cost().temporary_bytes for most in (64 * SAMPLE, 4 * SAMPLE))
    # A sixteenth, and what the loop itself keeps.
    assert blocks < whole / 4


def test_weights_are_not_copied_in_the_loop():
    hlo = compiled(features, images(8), SAMPLE).hlo()
    kernels = ("f32[3,3,3,8]", "f32[3,3,8,8]")
    assert "while(" in hlo
    assert not [line for line in hlo.splitlines() if " copy(" in line and any(kernel in line for kernel in kernels)]


def test_it_is_a_pass_of_the_cpu_alone():
    assert "block-batch" in {kind.name for kind in PASSES}
    assert [name for name, target in TARGETS.items() if "block-batch" in target.pipeline] == ["cpu"]


def test_a_type_with_an_encoding_keeps_its_batch():
    module = parse(
        TEXT.format(inputs="%x: tensor<8x4xf32>", result="tuple<>", parts="")
        .replace("%y = stablehlo.tuple  : tuple<>", '%y = stablehlo.abs %1 : (tensor<8x4xf32>) -> tensor<8x4xf32, "e">')
        .replace("tuple<>", 'tensor<8x4xf32, "e">')
    )
    run(module, "block-batch{most_bytes=40}")
    assert "stablehlo.while" not in str(module)
