"""fold-batch-norm by extreme numbers: far means, zero and huge scales; roundings; types that it leaves alone."""

from __future__ import annotations

import re

import numpy as np
import pytest

from stablenorm.passes import Remark
from stablenorm.passes.weights import weight_names
from tests.passes.modules import Array, by_xla, copy, main_function, parse, random_arguments, run

ROWS, INPUTS, OUTPUTS = 64, 32, 16
PARAMETERS = ("scale", "offset", "mean", "variance")


def dense(place: str, element: str = "f32", kernel: str = "f32", epsilon: str = "1.0e-3") -> str:
    """A dense layer, its batch norm before it or behind it; a kernel of another type is converted."""
    size = INPUTS if place == "before" else OUTPUTS
    x, y, w, vector = (f"tensor<{each}x{element}>" for each in ("64x32", "64x16", "32x16", size))
    t, name, n = (x, "%x", "%n") if place == "before" else (y, "%d", "%d")
    operands = ", ".join([name, *(f"%{each}" for each in PARAMETERS)])
    norm = (
        f'%n = "stablehlo.batch_norm_inference"({operands}) <{{epsilon = {epsilon} : f32, feature_index = 1 : i64}}> '
        f": ({t}, {', '.join([vector] * 4)}) -> {t}\n"
    )
    source = "%x" if place == "behind" else n
    product = f"%d = stablehlo.dot_general {source}, %k, contracting_dims = [1] x [0] : ({x}, {w}) -> {y}\n"
    converted = f"%k = stablehlo.convert %w : (tensor<32x16x{kernel}>) -> {w}\n"
    weights = ", ".join(f'%{each}: {vector} {{stablenorm.weight = "bn/{each}"}}' for each in PARAMETERS)
    body = norm + converted + product if place == "before" else converted + product + norm
    kernel_type = f"tensor<32x16x{kernel}>"
    return (
        f'func.func @main(%x: {x}, %w: {kernel_type} {{stablenorm.weight = "d/kernel"}}, {weights}) -> {y} {{\n'
        f"{body}return {'%d' if place == 'before' else '%n'} : {y} }}"
    )


def folded(text: str, numbers: dict[str, object], x: Array) -> tuple[Remark, Array, Array]:
    """What became of the batch norm, the folded module's output, and the truth in float64."""
    module = parse(text)
    arguments = random_arguments(module)
    arguments[0] = x.astype(arguments[0].dtype)
    with module.context:
        names = weight_names(main_function(module))
    for place, name in enumerate(names):
        if name in numbers:
            arguments[place] = np.broadcast_to(numbers[name], arguments[place].shape).astype(arguments[place].dtype)
    after = copy(module)
    known = {name: array for name, array in zip(names, arguments, strict=True) if name}
    (remark,) = (each for each in run(after, "fold-batch-norm", known).remarks if each.subject == "bn")
    run(after, "lower-batch-norm")  # XLA's own expansion subtracts no mean before it multiplies
    exact = parse(re.sub(r"xb?f(16|32)>", "xf64>", text))
    (truth,), (got,) = by_xla(exact, [array.astype(np.float64) for array in arguments]), by_xla(after, arguments)
    return remark, got.astype(np.float64), truth


def rows(mean: float = 0.0, deviation: float = 1.0) -> Array:
    return np.random.default_rng(3).normal(mean, deviation, (ROWS, INPUTS))


@pytest.mark.parametrize(
    ("mean", "verdict"), [(0.0, "folded"), (15.0, "folded"), (17.0, "declined"), (1e6, "declined")]
)
def test_a_mean_far_from_zero_is_subtracted_first(mean: float, verdict: str):
    """Folded, its products cost as many roundings as it has deviations, 16 at most."""
    numbers = {"bn/mean": mean, "bn/variance": 1.0, "bn/scale": 1.0, "bn/offset": 0.0}
    remark, got, truth = folded(dense("before"), numbers, rows(mean))
    assert remark.verdict == verdict
    # Roundings of 32 products and their sum; folded, of as many as there are deviations.
    limit = (16 if verdict == "declined" else 16 + 4 * mean) * 2.0**-24
    assert np.abs(got - truth).max() <= limit * np.abs(truth).max()


@pytest.mark.parametrize("mean", [0.0, 60.0, 1e4])
def test_behind_a_layer_any_mean_is_taken(mean: float):
    """It is subtracted after the sum in either form."""
    numbers = {"bn/mean": mean, "bn/variance": 1.0, "bn/scale": 1.0}
    remark, got, truth = folded(dense("behind"), numbers, rows())
    assert remark.verdict == "folded"
    assert np.abs(got - truth).max() <= 16 * 2.0**-24 * np.abs(truth).max()


SCALES = {
    "zeros": {"bn/scale": [0.0, 1.0] * 8},
    "all zero": {"bn/scale": 0.0},
    "negative": {"bn/scale": -1.5},
    "tiny variance": {"bn/variance": 1e-30},
    "no variance": {"bn/variance": 0.0},
    "huge variance": {"bn/variance": 1e30},
    "tiny scale": {"bn/scale": 1e-30},
    "huge scale": {"bn/scale": 1e30},
}


@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.parametrize("place", ["before", "behind"])
def test_any_finite_scale_is_folded(place: str, kind: str):
    numbers = SCALES[kind] | {"bn/mean": 0.0}
    if place == "before" and kind == "zeros":
        numbers["bn/scale"] = [0.0, 1.0] * 16
    remark, got, truth = folded(dense(place), numbers, rows())
    assert remark.verdict == "folded"
    # Roundings of 32 products and their sum, of the weight and of its scale.
    assert np.abs(got - truth).max() <= 40 * 2.0**-24 * np.abs(truth).max()


@pytest.mark.parametrize("place", ["before", "behind"])
def test_a_scale_that_is_not_finite_stays(place: str):
    numbers = {"bn/variance": 0.0, "bn/mean": 0.0}
    module = parse(dense(place, epsilon="0.0"))
    arguments = random_arguments(module)
    known = dict(zip(("d/kernel", *(f"bn/{each}" for each in PARAMETERS)), arguments[1:], strict=True))
    known |= {name: np.full_like(known[name], value) for name, value in numbers.items()}
    (remark,) = (each for each in run(module, "fold-batch-norm", known).remarks if each.subject == "bn")
    assert remark.verdict == "declined"
    assert "would not be finite" in remark.detail


@pytest.mark.parametrize(("element", "rounding"), [("bf16", 2.0**-8), ("f16", 2.0**-11)])
@pytest.mark.parametrize("place", ["before", "behind"])
def test_a_weight_of_mixed_precision_is_rounded_once(place: str, element: str, rounding: float):
    """The float32 weight is scaled, then rounded: ones in x show each folded weight."""
    scale = 1.0 + np.arange(INPUTS if place == "before" else OUTPUTS) / 50
    numbers = {"bn/mean": 0.0, "bn/offset": 0.0, "bn/scale": scale}
    remark, got, truth = folded(dense(place, element, "f32"), numbers, np.eye(ROWS, INPUTS))
    assert remark.verdict == "folded"
    assert (np.abs(got - truth) <= rounding * (1 + 2.0**-9) * np.abs(truth)).all()


UNTOUCHED = ["complex<f32>", "i32", "i8", "f8E4M3FN"]


@pytest.mark.parametrize("element", UNTOUCHED)
def test_other_types_are_left_alone(element: str):
    """A map of what is no float of 16 bits at least, before and behind a dense layer."""
    x, w, y, before, behind = (f"tensor<{each}x{element}>" for each in ("2x3", "3x4", "2x4", "3", "4"))
    module = parse(
        f'func.func @main(%x: {x}, %w: {w} {{stablenorm.weight = "d/w"}}, %s: {before} {{stablenorm.weight = "s"}}, '
        f'%t: {behind} {{stablenorm.weight = "t"}}) -> {y} {{'
        f"%a = stablehlo.broadcast_in_dim %s, dims = [1] : ({before}) -> {x} %b = stablehlo.multiply %x, %a : {x}"
        f"%d = stablehlo.dot_general %b, %w, contracting_dims = [1] x [0] : ({x}, {w}) -> {y}"
        f"%c = stablehlo.broadcast_in_dim %t, dims = [1] : ({behind}) -> {y} %e = stablehlo.multiply %d, %c : {y}"
        f"return %e : {y} }}"
    )
    text = str(module)
    assert not any(remark.verdict == "folded" for remark in run(module, "fold-batch-norm").remarks)
    assert str(module) == text


HALF = {"bf16": 2.0**-8, "f16": 2.0**-11}


@pytest.mark.parametrize(("mean", "verdict"), [(0.0, "folded"), (1.5, "folded"), (4.0, "declined")])
@pytest.mark.parametrize("element", HALF)
def test_half_types_bear_a_mean_of_a_few_deviations(element: str, mean: float, verdict: str):
    """Behind the products, a mean costs that many roundings of the type that the weights are rounded to."""
    numbers = {"bn/mean": mean, "bn/variance": 1.0, "bn/scale": 1.0, "bn/offset": 0.0}
    remark, got, truth = folded(dense("before", element, element), numbers, rows(mean))
    assert remark.verdict == verdict
    # The rounding of each normalized number or folded weight, times the deviations, and of what is summed.
    assert np.abs(got - truth).max() <= (3 + mean) * HALF[element] * np.abs(truth).max()
