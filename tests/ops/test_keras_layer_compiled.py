"""The Keras 3 layer spread over devices by Keras, and folded by the compiler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from stablenorm import compiler
from stablenorm.ops.keras import BatchNormalization

# Keras reads its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

GENERATOR = np.random.default_rng(0)


@pytest.fixture
def four_devices() -> Iterator[None]:
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=[f"cpu:{n}" for n in range(4)]))
    yield
    keras.distribution.set_distribution(None)


@pytest.mark.parametrize("synchronized", [False, True])
@pytest.mark.usefixtures("four_devices")
def test_a_batch_on_several_devices_is_one_batch(synchronized: bool) -> None:
    """With JAX it is one array, whatever ``synchronized`` says."""
    x = (GENERATOR.normal(size=(16, 3)) * np.arange(1, 17)[:, None]).astype(np.float32)
    model = keras.Sequential([keras.Input((3,)), BatchNormalization(momentum=0.0, synchronized=synchronized)])
    model.compile("sgd", "mse")
    model.train_on_batch(x, x)
    (layer,) = model.layers
    assert len(layer.moving_mean.value.devices()) == 4
    # A rounding to float32 of each.
    np.testing.assert_allclose(layer.moving_mean.value, x.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance.value, x.astype(np.float64).var(0), rtol=1e-6)


def test_the_compiler_folds_it() -> None:
    """A Keras 3 model in inference, its variables the weights."""
    layers = [keras.layers.Conv2D(4, 3), BatchNormalization(), keras.layers.ReLU(), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((6, 6, 2)), *layers, keras.layers.Dense(3), BatchNormalization(axis=1)])
    model.set_weights([GENERATOR.uniform(0.5, 1.5, weight.shape) for weight in model.weights])
    trainable, others = (
        [v.value for v in group] for group in (model.trainable_variables, model.non_trainable_variables)
    )
    x = GENERATOR.normal(size=(2, 6, 6, 2)).astype(np.float32)

    def predict(trainable: Any, others: Any, x: Any) -> Any:
        return model.stateless_call(trainable, others, x, training=False)[0]

    executable = compiler.compile(predict, trainable, others, x, weight_argnums=(0, 1))
    expected = model.predict(x, verbose=0)
    # Two layers in float32, summed in another order.
    np.testing.assert_allclose(executable(x), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert executable.report.folded == executable.report.total == 2
