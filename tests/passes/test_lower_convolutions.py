"""What XLA:CPU makes of convolutions that the target's passes wrote out: fusions and matrix products."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from stablenorm import compiler
from tests.passes.modules import by_xla, copy, parse, random_arguments, run
from tests.passes.window_geometries import GEOMETRIES, output_sizes

LAYOUT = ("NHWC", "HWIO", "NHWC")
RNG = np.random.default_rng(5)


def normal(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def batch_norm(features: int) -> dict[str, Any]:
    variance = RNG.uniform(0.5, 2.0, features).astype(np.float32)
    return {"scale": normal(features), "offset": normal(features), "mean": normal(features), "variance": variance}


def normalized(p: dict[str, Any], x: Any) -> Any:
    return (x - p["mean"]) * (lax.rsqrt(p["variance"] + 1e-3) * p["scale"]) + p["offset"]


def convolution(x: Any, kernel: Any, groups: int = 1) -> Any:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT, feature_group_count=groups)


def inverted_bottleneck(p: dict[str, Any], x: Any) -> Any:
    """MobileNetV2's block: Sandler et al., 2018, figure 4d."""
    h = jnp.clip(normalized(p["bn1"], convolution(x, p["expand"])), 0, 6)
    h = jnp.clip(normalized(p["bn2"], convolution(h, p["depthwise"], groups=h.shape[-1])), 0, 6)
    return x + normalized(p["bn3"], convolution(h, p["project"]))


@pytest.fixture(scope="module")
def block() -> tuple[compiler.Executable, Any, Any]:
    p = {"expand": normal(1, 1, 16, 96), "depthwise": normal(3, 3, 1, 96), "project": normal(1, 1, 96, 16)}
    p |= {"bn1": batch_norm(96), "bn2": batch_norm(96), "bn3": batch_norm(16)}
    x = normal(1, 14, 14, 16)
    return compiler.compile(inverted_bottleneck, p, x, weight_argnums=0), p, x


def test_a_mobilenet_block_has_no_convolution_left(block: tuple[compiler.Executable, Any, Any]):
    executable, _, _ = block
    assert "convolution" not in executable.stablehlo()
    assert " convolution(" not in executable.hlo()
    assert executable.stablehlo().count("stablehlo.dot_general") == 2


def test_the_depthwise_sum_its_bias_and_its_activation_are_one_fusion(block: tuple[compiler.Executable, Any, Any]):
    executable, _, _ = block
    (sum_of_nine,) = [body for body in computations(executable.hlo()) if body.count(" multiply(") == 9]
    assert sum_of_nine.startswith("%fused_computation")
    # After the last product come its addition, the bias and the activation, however XLA orders the former two.
    rest = sum_of_nine.rpartition(" multiply(")[2]
    assert rest.count(" add(") >= 2
    assert " clamp(" in rest


def test_other_convolutions_stay_with_eigen():
    p, x = {"kernel": normal(3, 3, 16, 16)}, normal(8, 14, 14, 16)
    executable = compiler.compile(lambda p, x: convolution(x, p["kernel"]), p, x, weight_argnums=0)
    assert re.search(r" convolution\(", executable.hlo())
    assert "__ynn_fusion" not in executable.hlo()


def test_a_mobilenet_block_reads_one_argument_for_each_kernel_and_bias(block: tuple[compiler.Executable, Any, Any]):
    executable, _, _ = block
    assert len(re.findall(r"stablenorm\.prepared", executable.stablehlo())) == 6


def test_a_mobilenet_block_computes_what_it_did(block: tuple[compiler.Executable, Any, Any]):
    executable, p, x = block
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (p, x))
        expected = np.asarray(inverted_bottleneck(*wide))
    # Sums of 96 products, in float32.
    np.testing.assert_allclose(executable(x), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def computations(hlo: str) -> list[str]:
    return [text.strip() for text in re.split(r"\n\n", hlo)]


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("element_type", ["f32", "f64", "bf16", "f16"])
def test_depthwise_sums_are_xla_s_in_every_geometry(name: str, multiplier: int, element_type: str):
    before = parse(convolution_text(GEOMETRIES[name], multiplier, element_type))
    after = copy(before)
    run(after, "lower-depthwise-convolution")
    assert "stablehlo.convolution" not in str(after)
    arguments = random_arguments(before)
    (got,), (expected,) = by_xla(after, arguments), by_xla(before, arguments)
    assert got.dtype == expected.dtype
    # A sum of up to twenty products; half types are rounded once at the end.
    rounding = {"f32": 1e-6, "f64": 1e-14, "f16": 1e-3, "bf16": 8e-3}[element_type]
    largest = np.abs(expected.astype(np.float64)).max()
    np.testing.assert_allclose(got.astype(np.float64), expected.astype(np.float64), rtol=0, atol=rounding * largest)


def convolution_text(geometry: Any, multiplier: int, element_type: str) -> str:
    sizes, kernel, strides, padding, dilations = geometry
    outputs = output_sizes(geometry)
    x = f"tensor<2x{sizes[0]}x{sizes[1]}x5x{element_type}>"
    w = f"tensor<{kernel[0]}x{kernel[1]}x1x{5 * multiplier}x{element_type}>"
    y = f"tensor<2x{outputs[0]}x{outputs[1]}x{5 * multiplier}x{element_type}>"
    window = f"stride = {list(strides)}, pad = {[list(pads) for pads in padding]}, rhs_dilate = {list(dilations)}"
    return f"""func.func public @main(%x: {x}, %w: {w}) -> {y} {{
      %y = stablehlo.convolution(%x, %w) dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f],
        window = {{{window}}} {{batch_group_count = 1 : i64, feature_group_count = 5 : i64}} : ({x}, {w}) -> {y}
      return %y : {y}
    }}"""
