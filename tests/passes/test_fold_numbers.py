"""What numbers forbid: a fold that would overflow, or subtract a large mean after a sum instead of before it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from tests.passes.modules import by_xla, copy, parse, run


def folded(text: str) -> tuple[Any, Any, str]:
    """The module before and after, and what the pass said."""
    module = parse(text)
    after = copy(module)
    remarks = run(after, "fold-batch-norm").remarks
    return module, after, " ".join(map(str, remarks))


def normalization(mean: float, deviation: float, type_: str = "f32") -> str:
    """A normalization layer's ``(x - mean) / deviation``, and a dense layer."""
    return f"""func.func @main(%x: tensor<8x32x{type_}>,
        %w: tensor<32x4x{type_}> {{stablenorm.weight = "dense/kernel"}}) -> tensor<8x4x{type_}> {{
      %m = stablehlo.constant dense<{mean}> : tensor<8x32x{type_}>
      %d = stablehlo.constant dense<{deviation}> : tensor<8x32x{type_}>
      %c = stablehlo.subtract %x, %m : tensor<8x32x{type_}>
      %n = stablehlo.divide %c, %d : tensor<8x32x{type_}>
      %y = stablehlo.dot_general %n, %w, contracting_dims = [1] x [0]
        : (tensor<8x32x{type_}>, tensor<32x4x{type_}>) -> tensor<8x4x{type_}>
      return %y : tensor<8x4x{type_}>
    }}"""


@pytest.mark.parametrize(("mean", "deviation"), [(120.0, 60.0), (190.0, 40.0), (-15.0, 1.0)])
def test_a_normalization_near_its_data_goes_down(mean: float, deviation: float) -> None:
    module, after, said = folded(normalization(mean, deviation))
    assert said.count("folded: dense") == 2, said  # the division and the subtraction
    assert "stablehlo.subtract %arg0" not in str(after)
    compare(module, after, mean, deviation)


@pytest.mark.parametrize(("mean", "deviation"), [(101325.0, 700.0), (1900.0, 40.0), (1.0e6, 1.0)])
def test_a_normalization_far_from_zero_subtracts_first(mean: float, deviation: float) -> None:
    module, after, _ = folded(normalization(mean, deviation))
    assert "stablehlo.subtract %arg0" in str(after)
    compare(module, after, mean, deviation)


def compare(module: Any, after: Any, mean: float, deviation: float) -> None:
    rng = np.random.default_rng(0)
    x = (mean + deviation * rng.normal(size=(8, 32))).astype(np.float32)
    w = rng.normal(size=(32, 4)).astype(np.float32)
    exact = (x.astype(np.float64) - mean) / deviation @ w.astype(np.float64)
    for each in (module, after):
        (got,) = by_xla(each, [x, w])
        # 16 roundings of float32, 1e-6, is what the fold allows itself; sums of 32 products round as often.
        np.testing.assert_allclose(got, exact, rtol=0, atol=5e-6 * np.abs(exact).max())


def test_half_types_allow_a_mean_of_two_deviations_only() -> None:
    for mean, goes in ((1.5, True), (3.0, False)):
        _, after, _ = folded(normalization(mean, 1.0, "bf16"))
        assert ("stablehlo.subtract %arg0" not in str(after)) is goes


FAR_CHANNEL = """func.func @main(%x: tensor<8x1024xf32>, %w: tensor<1024x4xf32> {stablenorm.weight = "dense/kernel"},
    %mean: tensor<1024xf32> {stablenorm.weight = "bn/mean"}) -> tensor<8x4xf32> {
  %one = stablehlo.constant dense<1.0> : tensor<1024xf32>
  %n = "stablehlo.batch_norm_inference"(%x, %one, %one, %mean, %one) <{epsilon = 0.0 : f32, feature_index = 1 : i64}>
    : (tensor<8x1024xf32>, tensor<1024xf32>, tensor<1024xf32>, tensor<1024xf32>, tensor<1024xf32>)
    -> tensor<8x1024xf32>
  %y = stablehlo.dot_general %n, %w, contracting_dims = [1] x [0]
    : (tensor<8x1024xf32>, tensor<1024x4xf32>) -> tensor<8x4xf32>
  return %y : tensor<8x4xf32>
}"""


@pytest.mark.parametrize(("farthest", "goes"), [(10.0, True), (1900.0, False)])
def test_the_farthest_of_many_channels_decides(farthest: float, goes: bool) -> None:
    rng = np.random.default_rng(0)
    mean = np.zeros(1024, np.float32)
    mean[17] = farthest
    x = (mean + rng.normal(size=(8, 1024))).astype(np.float32)
    w = rng.normal(size=(1024, 4)).astype(np.float32)
    after = parse(FAR_CHANNEL)
    run(after, "fold-batch-norm", {"bn/mean": mean})
    assert ("batch_norm_inference" not in str(after)) is goes
    exact = (x.astype(np.float64) - mean + 1) @ w.astype(np.float64)
    for module in (parse(FAR_CHANNEL), after):
        (got,) = by_xla(module, [x, w, mean])
        np.testing.assert_allclose(got, exact, rtol=0, atol=5e-6 * np.abs(exact).max())


HALF = """func.func @main(%x: tensor<8x32xf16>) -> tensor<8x4xf16> {{
  %w = stablehlo.constant dense<{weight}> : tensor<32x4xf16>
  %scale = stablehlo.constant dense<{scale}> : tensor<32xf16>
  %offset = stablehlo.constant dense<{offset}> : tensor<32xf16>
  %mean = stablehlo.constant dense<0.0> : tensor<32xf16>
  %variance = stablehlo.constant dense<1.0> : tensor<32xf16>
  %n = "stablehlo.batch_norm_inference"(%x, %scale, %offset, %mean, %variance)
    <{{epsilon = 1.0e-3 : f32, feature_index = 1 : i64}}>
    : (tensor<8x32xf16>, tensor<32xf16>, tensor<32xf16>, tensor<32xf16>, tensor<32xf16>) -> tensor<8x32xf16>
  %y = stablehlo.dot_general %n, %w, contracting_dims = [1] x [0]
    : (tensor<8x32xf16>, tensor<32x4xf16>) -> tensor<8x4xf16>
  return %y : tensor<8x4xf16>
}}"""


@pytest.mark.parametrize(
    ("weight", "scale", "offset"), [(1000.0, 100.0, 1.0), (1.0, 1.0, 3000.0)], ids=["the kernel", "the bias"]
)
def test_what_would_overflow_float16_on_the_way_down_stays(weight: float, scale: float, offset: float) -> None:
    _, after, said = folded(HALF.format(weight=weight, scale=scale, offset=offset))
    assert "a folded weight would not be finite in f16" in said
    assert "batch_norm_inference" in str(after)


NARROWING = """func.func @main(%x: tensor<8x32xf32>,
    %w: tensor<32x4xf16> {stablenorm.weight = "w"}) -> tensor<8x4xf16> {
  %s = stablehlo.constant dense<1.0e-6> : tensor<8x32xf32>
  %m = stablehlo.multiply %x, %s : tensor<8x32xf32>
  %h = stablehlo.convert %m : (tensor<8x32xf32>) -> tensor<8x32xf16>
  %y = stablehlo.dot_general %h, %w, contracting_dims = [1] x [0]
    : (tensor<8x32xf16>, tensor<32x4xf16>) -> tensor<8x4xf16>
  return %y : tensor<8x4xf16>
}"""


def test_a_scale_before_a_convert_to_float16_stays_where_x_may_be_too_large() -> None:
    module, after, _ = folded(NARROWING)
    x, w = np.full((8, 32), 1e6, np.float32), np.ones((32, 4), np.float16)
    np.testing.assert_array_equal(*(by_xla(each, [x, w])[0] for each in (module, after)))


LOOP = """func.func @main(%x: tensor<8x32xf32>, %w: tensor<32x32xf32> {stablenorm.weight = "w"}) -> tensor<8x32xf32> {
  %zero = stablehlo.constant dense<0> : tensor<i32>
  %y = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
    : (tensor<8x32xf32>, tensor<32x32xf32>) -> tensor<8x32xf32>
  %r:2 = stablehlo.while(%i = %zero, %a = %x) : tensor<i32>, tensor<8x32xf32>
  cond {
    %n = stablehlo.constant dense<9> : tensor<i32>
    %c = stablehlo.compare LT, %i, %n : (tensor<i32>, tensor<i32>) -> tensor<i1>
    stablehlo.return %c : tensor<i1>
  } do {
    %one = stablehlo.constant dense<1> : tensor<i32>
    %j = stablehlo.add %i, %one : tensor<i32>
    %s = stablehlo.constant dense<0.5> : tensor<8x32xf32>
    %z = stablehlo.multiply %y, %s : tensor<8x32xf32>
    %b = stablehlo.maximum %a, %z : tensor<8x32xf32>
    stablehlo.return %j, %b : tensor<i32>, tensor<8x32xf32>
  }
  return %r#1 : tensor<8x32xf32>
}"""


def test_no_layer_is_drawn_into_a_loop() -> None:
    module, after, _ = folded(LOOP)
    body = str(after)[str(after).index("stablehlo.while") :]
    assert "dot_general" not in body
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=size).astype(np.float32) for size in ((8, 32), (32, 32)))
    jax.tree.map(np.testing.assert_array_equal, by_xla(after, [x, w]), by_xla(module, [x, w]))
