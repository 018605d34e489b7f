"""What the Keras 3 layer refuses, and what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import keras
import numpy as np
import pytest

from stablenorm.ops.keras import BatchNormalization


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"axis": [3]}, TypeError, r"axis: got \[3\], allowed: an int"),
        ({"axis": 1.0}, TypeError, r"axis: got 1\.0, allowed: an int"),
        ({"axis": None}, TypeError, "axis: got None, allowed: an int"),
        ({"momentum": None}, TypeError, "momentum: got None, allowed: a Python number"),
        ({"momentum": "0.9"}, TypeError, "momentum: got '0.9', allowed: a Python number"),
        ({"momentum": True}, TypeError, "momentum: got True, allowed: a Python number"),
        ({"epsilon": [1e-3]}, TypeError, r"epsilon: got \[0.001\], allowed: a Python number"),
        ({"synchronized": True, "renorm": True}, ValueError, "synchronized: got True with renorm=True, allowed: False"),
        ({"renorm": True, "renorm_clipping": {"max": 1.0}}, ValueError, "renorm_clipping"),
        ({"beta_initializer": "nonsense"}, ValueError, "nonsense"),
        ({"fused": True}, ValueError, "fused"),
        ({"virtual_batch_size": 2}, ValueError, "virtual_batch_size"),
    ],
)
def test_the_constructor_refuses(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BatchNormalization(**arguments)


@pytest.mark.parametrize(
    ("axis", "shape", "message"),
    [
        (7, (None, 3), r"axis: got 7 for inputs of shape \(None, 3\), allowed: -2 to 1"),
        (-3, (2, 3), r"axis: got -3 for inputs of shape \(2, 3\), allowed: -2 to 1"),
        (-1, (2, None), r"axis: got -1 for inputs of shape \(2, None\), allowed: a dimension whose size is known"),
        (0, (None, 3), r"axis: got 0 for inputs of shape \(None, 3\), allowed: a dimension whose size is known"),
        (-1, (), r"axis: got -1 for inputs of shape \(\), allowed: inputs of rank 1 or more"),
    ],
)
def test_build_refuses(axis: int, shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BatchNormalization(axis=axis).build(shape)


def test_a_symbolic_call_builds_and_so_refuses() -> None:
    with pytest.raises(ValueError, match=r"axis: got 3 for inputs of shape \(None, 5, 2\), allowed: -3 to 2"):
        BatchNormalization(axis=3)(keras.Input((5, 2)))


@pytest.mark.parametrize("mask", [(4,), (5,), (4, 3), (4, 5, 2), (1, 4, 5, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_a_mask_of_the_wrong_shape(mask: Any, training: bool) -> None:
    with pytest.raises(
        ValueError, match=r"mask: got bool of shape .* for x of shape \(4, 5, 3\), allowed: .*broadcast"
    ):
        BatchNormalization()(np.ones((4, 5, 3), np.float32), training=training, mask=jnp.ones(mask, bool))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_inputs_that_are_not_floating(dtype: str) -> None:
    with pytest.raises(TypeError, match=f"inputs: got {dtype}, allowed: a real floating-point type; cast them first"):
        BatchNormalization()(jnp.ones((4, 3), dtype))


def test_other_channels_than_it_was_built_for() -> None:
    layer = BatchNormalization()
    layer.build((None, 3))
    with pytest.raises(ValueError, match="incompatible"):
        layer(np.ones((4, 5), np.float32))


def test_another_backend() -> None:
    program = "from stablenorm.ops.keras import BatchNormalization; BatchNormalization()"
    environment = os.environ | {"KERAS_BACKEND": "numpy"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "RuntimeError: KERAS_BACKEND: got 'numpy', allowed: 'jax', set before keras is imported; "
        "on other backends use keras.layers.BatchNormalization"
    )
