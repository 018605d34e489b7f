"""lower-batch-norm against the formula in float64, where another order of the operations would cancel or overflow."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tests.passes.modules import Array, by_interpreter, by_xla, parse, run

DTYPES = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "f64": np.float64}
UNITS = {"f16": 2.0**-11, "bf16": 2.0**-8, "f32": 2.0**-24, "f64": 2.0**-53}


def lowered(shape: tuple[int, ...], axis: int, element_type: str):
    x = f"tensor<{'x'.join(map(str, shape))}x{element_type}>"
    vector = f"tensor<{shape[axis]}x{element_type}>"
    parameters = ", ".join(f"%{name}: {vector}" for name in ("s", "b", "m", "v"))
    module = parse(f"""func.func @main(%x: {x}, {parameters}) -> {x} {{
      %y = "stablehlo.batch_norm_inference"(%x, %s, %b, %m, %v)
        <{{epsilon = 1.0e-3 : f32, feature_index = {axis} : i64}}>
        : ({x}, {", ".join([vector] * 4)}) -> {x}
      return %y : {x} }}""")
    run(module, "lower-batch-norm")
    return module


def formula(axis: int, *arrays: Array) -> Array:
    x, scale, offset, mean, variance = (array.astype(np.float64) for array in arrays)
    shape = [-1 if place == axis else 1 for place in range(x.ndim)]
    s, b, m, v = (vector.reshape(shape) for vector in (scale, offset, mean, variance))
    return (x - m) / np.sqrt(v + np.float64(np.float32(1e-3))) * s + b


@pytest.mark.parametrize("element_type", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), [((5, 3), 1), ((2, 3, 4), 1), ((3, 2), 0), ((2, 1, 1, 4), 3), ((2, 1), 1)])
@pytest.mark.parametrize("offset_of_the_mean", [0.0, 1000.0])
def test_the_formula_in_float64_is_met(shape, axis: int, element_type: str, offset_of_the_mean: float):
    rng = np.random.default_rng(3)
    dtype, channels = DTYPES[element_type], shape[axis]
    mean = (rng.normal(size=channels) + offset_of_the_mean).astype(dtype)
    variance = rng.uniform(0.3, 2.0, channels).astype(dtype)
    scale, offset = (rng.normal(size=channels).astype(dtype) for _ in range(2))
    place = [-1 if dimension == axis else 1 for dimension in range(len(shape))]
    x = (rng.normal(size=shape) + mean.astype(np.float64).reshape(place)).astype(dtype)
    expected = formula(axis, x, scale, offset, mean, variance)
    module = lowered(shape, axis, element_type)
    results = [by_xla(module, [x, scale, offset, mean, variance])]
    if element_type != "bf16":  # the bindings cannot read its results
        results.append(by_interpreter(module, [x, scale, offset, mean, variance]))
    for (got,) in results:
        # Half a dozen roundings of the arithmetic; none of them grows with the mean, for the mean goes first.
        limit = 8 * UNITS[element_type] * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(got.astype(np.float64), expected, rtol=0, atol=limit)


def test_the_largest_float16_variance_is_finite():
    module = lowered((1, 1), 1, "f16")
    values = [np.array(value, np.float16) for value in ([[1.0]], [100.0], [0.0], [0.0], [65504.0])]
    (got,) = by_xla(module, values)
    np.testing.assert_allclose(got, [[100 / np.sqrt(65504.0)]], rtol=1e-3)  # float16 has three digits
