"""Generated batch norms: what they are given, and what is true of them in float64."""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from stablenorm.ops import BatchNormGrad, BatchNormTraining

Array = NDArray[Any]

# Roundings to the type of the statistics, which is float32 but for float64: a few, of terms of the result's size.
ROUNDING = {"float16": 1e-6, "bfloat16": 1e-6, "float32": 1e-6, "float64": 1e-12}
# Roundings to x's type, half a unit each: of y; of the three terms of dx (through y, mean and variance) and their sums.
HALF_UNITS = {"y": 1, "dx": 5}
HALF_A_UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}


@dataclasses.dataclass(frozen=True)
class Case:
    """The arguments of one training or inference step but for its arrays, which `arrays` makes.

    ``mask``: None; or what it holds and which of x's dimensions it has in full, in the others it has the size 1; it
    comes without the feature dimensions where these are left out.
    """

    shape: tuple[int, ...]
    axis: int | tuple[int, ...]
    dtype: str
    training: bool
    unbiased: bool
    has_scale: bool
    has_offset: bool
    mask: tuple[str, tuple[bool, ...], bool] | None
    epsilon: float
    momentum: float
    mean: float

    @property
    def axes(self) -> tuple[int, ...]:
        given = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        return tuple(sorted(axis % len(self.shape) for axis in given))

    @property
    def features(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.axes)

    @property
    def form(self) -> tuple[object, ...]:
        """What makes the program another one, not only its numbers and sizes."""
        flags = self.training, self.unbiased, self.has_scale, self.has_offset
        return len(self.shape), self.axes, 0 in self.shape, bool(self.mask), flags

    @property
    def others(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(len(self.shape)) if axis not in self.axes)

    @property
    def statistics_type(self) -> Any:
        return np.float64 if self.dtype == "float64" else np.float32


@st.composite
def cases(draw: st.DrawFn, dtype: str, several_axes: bool = True) -> Case:
    """Any rank from 1 to 5, sizes with 0 and 1 among them."""
    rank = draw(st.sampled_from([2, 3, 4, 5, 1, 3, 4]))
    # One size in twelve is 0: an empty tensor says little beyond its shape.
    sizes = st.sampled_from([3, 2, 4, 1, 5, 6, 2, 3, 1, 4, 2, 0])
    shape = draw(st.tuples(*[sizes] * rank))
    places = draw(st.permutations(range(rank)))
    count = draw(st.integers(1, rank)) if several_axes and draw(st.booleans()) else 1
    negative = draw(st.tuples(*[st.booleans()] * count))
    axes = tuple(place - rank * below for place, below in zip(places, negative, strict=False))
    mask = st.tuples(
        st.sampled_from(["weights", "booleans", "weights", "zeros"]), st.tuples(*[st.booleans()] * rank), st.booleans()
    )
    return Case(
        shape,
        axes[0] if count == 1 and draw(st.booleans()) else axes,
        dtype,
        training=draw(st.sampled_from([True, False, True])),
        unbiased=draw(st.booleans()),
        has_scale=draw(st.booleans()),
        has_offset=draw(st.booleans()),
        mask=draw(st.none() | mask),
        epsilon=draw(st.sampled_from([1e-3, 1e-5, 0.25])),
        momentum=draw(st.sampled_from([0.5, 0.0, 0.99, 1.0])),
        mean=draw(st.sampled_from([3.0, 0.0, 1e3, 1e6])),
    )


def arrays(case: Case, seed: int) -> dict[str, Array]:
    """Operands by name, and the derivatives of a loss by the three results; none of them trivial."""
    generator = np.random.default_rng(seed)
    # float16 ends at 65504, and bfloat16 would make one number of all.
    mean = min(case.mean, 30.0) if case.dtype in ("float16", "bfloat16") else case.mean
    x, grad_y = (generator.normal(size=case.shape).astype(DTYPES[case.dtype]) for _ in range(2))
    vectors = ("scale", "offset", "moving_mean", "moving_variance", "grad_mean", "grad_variance")
    named = {name: generator.normal(size=case.features).astype(case.statistics_type) for name in vectors}
    named["moving_variance"] = np.abs(named["moving_variance"]) + 0.1
    named["moving_mean"] += case.statistics_type(0 if case.training else mean)
    named |= {"x": (x + np.asarray(mean)).astype(x.dtype), "grad_y": grad_y}
    if not case.has_scale:
        del named["scale"]
    if not case.has_offset:
        del named["offset"]
    if case.mask:
        named["mask"] = _mask(case, generator)
    return named


def _mask(case: Case, generator: np.random.Generator) -> Array:
    assert case.mask
    holds, whole, without_features = case.mask
    shape = [size if full else 1 for size, full in zip(case.shape, whole, strict=True)]
    if without_features:
        shape = [shape[axis] for axis in case.others]
    if holds == "booleans":
        return generator.uniform(size=shape) < 0.7
    weights = generator.choice([0.0, 0.25, 1.0, 1.0, 2.0], shape) * (holds == "weights")
    return np.asarray(weights, case.statistics_type)


@dataclasses.dataclass(frozen=True)
class Truth:
    """A result in float64, and the size of the terms that it is the sum of, which its rounding is measured by."""

    value: Array
    size: float

    def assert_close(self, case: Case, name: str, got: Any, how: str) -> None:
        tolerance = ROUNDING[case.dtype] + HALF_UNITS.get(name, 0) * HALF_A_UNIT.get(case.dtype, 0)
        if case.dtype == "float64":  # whose mean is rounded too: a part of the mean, which is many deviations
            tolerance *= max(case.mean, 1)
        message = f"{name}, {how}"
        np.testing.assert_allclose(
            np.asarray(got, np.float64), self.value, rtol=0, atol=tolerance * self.size, err_msg=message
        )


def truth(case: Case, named: dict[str, Array]) -> dict[str, Truth]:
    """The results of `arrays` and the derivatives of ``sum(grad * result)`` by x, scale and offset."""
    wide = {name: np.asarray(array, np.float64) for name, array in named.items()}
    x, grad_y = wide["x"], wide["grad_y"]
    scale, offset = wide.get("scale", np.ones(case.features)), wide.get("offset", np.zeros(case.features))
    if not case.training:
        return _inference(case, wide, scale, offset)
    weight = weights_of(case, wide)
    y, mean, variance = BatchNormTraining(case.epsilon, case.axes).reference(x, scale, offset, *weight)
    operands = x, scale, mean, variance, grad_y, *weight
    dx, dscale, doffset = BatchNormGrad(case.epsilon, case.axes).reference(*operands)
    weights = weight[0] if weight else np.ones_like(x)
    count = weights.sum(case.others)
    factor = np.where(count > 1, count / np.where(count > 1, count - 1, 1), 1) if case.unbiased else 1.0
    new_mean, new_variance = (
        np.where(count > 0, wide[old] * case.momentum + batch * (1 - case.momentum), wide[old])
        for old, batch in (("moving_mean", mean), ("moving_variance", variance * factor))
    )
    # d mean / d x = weight / count, d variance / d x = 2 (x - mean) weight / count
    slope = wide["grad_mean"], 2 * factor * wide["grad_variance"]
    spread = [_along(case, (1 - case.momentum) * s / np.where(count > 0, count, 1)) for s in slope]
    centered = x - _along(case, mean)
    through = weights * (spread[0] + centered * spread[1])
    r = _along(case, scale / np.sqrt(variance + case.epsilon))
    return {
        "y": Truth(y, _largest(y, offset)),
        "mean": Truth(new_mean, _largest(new_mean, wide["moving_mean"])),
        "variance": Truth(new_variance, _largest(new_variance)),
        "dx": Truth(dx + through, _largest(dx, through, r * grad_y, weights * spread[0])),
        "dscale": Truth(dscale, _largest(dscale, grad_y)),
        "doffset": Truth(doffset, _largest(doffset, grad_y)),
    }


def _inference(case: Case, wide: dict[str, Array], scale: Array, offset: Array) -> dict[str, Truth]:
    inverse = 1 / np.sqrt(wide["moving_variance"] + case.epsilon)
    h = (wide["x"] - _along(case, wide["moving_mean"])) * _along(case, inverse)
    slope = _along(case, scale * inverse)
    grad_y, mean, variance = wide["grad_y"], wide["moving_mean"], wide["moving_variance"]
    y = h * _along(case, scale) + _along(case, offset)
    return {
        "y": Truth(y, _largest(y, offset, h * _along(case, scale))),
        "mean": Truth(mean, _largest(mean)),
        "variance": Truth(variance, _largest(variance)),
        "dx": Truth(grad_y * slope, _largest(grad_y * slope)),
        "dscale": Truth((grad_y * h).sum(case.others), np.abs(grad_y * h).sum()),
        "doffset": Truth(grad_y.sum(case.others), np.abs(grad_y).sum()),
    }


def weights_of(case: Case, named: dict[str, Array]) -> list[Array]:
    """How often each element of x counts; nothing where there is no mask."""
    if "mask" not in named:
        return []
    mask = named["mask"]
    return [np.broadcast_to(mask if mask.ndim == len(case.shape) else np.expand_dims(mask, case.axes), case.shape)]


def _along(case: Case, vector: Array) -> Array:
    return np.expand_dims(vector, case.others)


def _largest(*values: Array) -> float:
    return max((float(np.abs(value).max()) for value in values if value.size), default=0.0)
