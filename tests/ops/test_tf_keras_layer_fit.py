"""Models with the tf_keras layer are trained, evaluated and frozen as with the stock layer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from stablenorm.ops.tf_keras import BatchNormalization
from tests.ops.tf_keras_layers import GENERATOR, Stock, close, normal

layers = tf_keras.layers
# Twenty rows: with batches of eight, the last one is smaller.
X, Y = normal(20, 6, 6, 2, mean=1.0), normal(20, 1)


def network(layer: type) -> Any:
    """A small convnet with batch norms of rank 4 and 2."""
    return tf_keras.Sequential(
        [
            layers.Conv2D(4, 3, input_shape=(6, 6, 2)),
            layer(momentum=0.7, name="first"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(3),
            layer(momentum=0.7, name="second"),
            layers.Dense(1),
        ]
    )


def pair_of_networks(make: Callable[[type], Any] = network, **options: Any) -> tuple[Any, Any]:
    """Compiled models of equal random weights."""
    ours, stock = make(BatchNormalization), make(Stock)
    for weight in ours.weights:
        low = 0.5 if weight.name.endswith(("variance:0", "gamma:0")) else -0.7
        weight.assign(GENERATOR.uniform(low, 0.9, weight.shape))
    stock.set_weights(ours.get_weights())
    for model in (ours, stock):
        model.compile(tf_keras.optimizers.SGD(0.02, momentum=0.5), "mse", **options)
    return ours, stock


@pytest.mark.parametrize(
    "options", [{}, {"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 3}], ids=str
)
def test_fit_evaluate_and_predict(options: dict[str, Any]) -> None:
    ours, stock = pair_of_networks(**options)
    losses = [m.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0).history["loss"] for m in (ours, stock)]
    # Rounding, as ten steps of descent pass it on.
    close(losses[0], losses[1], 1e-4)
    close(ours.get_weights(), stock.get_weights(), 1e-4)
    close(ours.evaluate(X, Y, batch_size=8, verbose=0), stock.evaluate(X, Y, batch_size=8, verbose=0), 1e-4)
    close(ours.predict(X, batch_size=8, verbose=0), stock.predict(X, batch_size=8, verbose=0), 1e-4)


def test_batch_by_batch() -> None:
    ours, stock = pair_of_networks()
    for start in (0, 8, 16):
        batch = X[start : start + 8], Y[start : start + 8]
        close(ours.train_on_batch(*batch), stock.train_on_batch(*batch), 1e-4)
        close(ours.test_on_batch(*batch), stock.test_on_batch(*batch), 1e-4)
        close(ours.predict_on_batch(batch[0]), stock.predict_on_batch(batch[0]), 1e-4)
    close(ours.get_weights(), stock.get_weights(), 1e-4)


def test_a_data_set_with_fixed_and_with_open_batches() -> None:
    for remainder in (True, False):
        ours, stock = pair_of_networks()
        data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8, drop_remainder=remainder)
        for model in (ours, stock):
            model.fit(data, epochs=1, verbose=0)
        close(ours.get_weights(), stock.get_weights(), 1e-4)


def test_regularizers_and_constraints() -> None:
    """Gamma's penalty and both bounds, as they act in training."""

    def make(layer: type) -> Any:
        norm = layer(
            gamma_regularizer=tf_keras.regularizers.L2(0.3),
            beta_regularizer=tf_keras.regularizers.L1(0.2),
            gamma_constraint=tf_keras.constraints.MaxNorm(0.8),
            beta_constraint="non_neg",
            input_shape=(6, 6, 2),
        )
        return tf_keras.Sequential([norm, layers.Flatten(), layers.Dense(1)])

    ours, stock = pair_of_networks(make)
    close(ours.losses, stock.losses)
    assert float(sum(ours.losses)) > 0.1
    for model in (ours, stock):
        model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    close(ours.get_weights(), stock.get_weights(), 1e-4)
    gamma, beta = ours.get_weights()[:2]
    assert np.linalg.norm(gamma) <= 0.8 + 1e-6
    assert (beta >= 0).all()


def test_initializers() -> None:
    options = {
        "beta_initializer": "ones",
        "gamma_initializer": tf_keras.initializers.Constant(3.0),
        "moving_mean_initializer": tf_keras.initializers.Constant(-2.0),
        "moving_variance_initializer": lambda shape, dtype: 5 * tf.ones(shape, dtype),
    }
    layer = BatchNormalization(**options)
    layer.build((None, 2))
    close(layer.get_weights(), [np.full(2, value) for value in (3.0, 1.0, -2.0, 5.0)], 0.0)


def test_frozen_layers_are_in_inference_mode() -> None:
    """Whatever ``training`` says; in a model, all of its layers. No weight moves."""
    inner = network(BatchNormalization)
    outer = tf_keras.Sequential([tf_keras.Input((6, 6, 2)), inner, layers.Dense(1)])
    norms = [layer for layer in inner.layers if isinstance(layer, BatchNormalization)]
    outer.trainable = False
    assert [norm.trainable for norm in norms] == [False, False]
    assert all(not norm.trainable_weights and len(norm.non_trainable_weights) == 4 for norm in norms)
    before = [norm.get_weights() for norm in norms]
    close(outer(X, training=True), outer(X, training=False), 0.0)
    inner.trainable = True
    assert [norm.trainable for norm in norms] == [True, True]
    assert np.abs(outer(X, training=True) - outer(X, training=False)).max() > 1e-3
    inner.trainable = False
    outer.layers[-1].trainable = outer.trainable = True
    inner.trainable = False
    close([norm.get_weights()[:2] for norm in norms], [weights[:2] for weights in before], 0.0)
    moving = [norm.get_weights()[2:] for norm in norms]
    outer.compile("sgd", "mse")
    outer.fit(X, Y, verbose=0)
    close([norm.get_weights()[2:] for norm in norms], moving, 0.0)


def test_constructed_as_not_trainable() -> None:
    layer = BatchNormalization(trainable=False)
    x = normal(4, 3)
    close(layer(x, training=True), x / np.sqrt(1.001))
    assert not layer.trainable_weights
    assert layer.get_config()["trainable"] is False


def test_trainable_takes_effect_when_compiled_again() -> None:
    """As documented; so it is in the stock layer."""
    for model in pair_of_networks():
        norm = model.get_layer("second")
        model.train_on_batch(X, Y)
        moving = norm.moving_mean.numpy()
        norm.trainable = False
        model.train_on_batch(X, Y)
        assert not np.array_equal(norm.moving_mean, moving)
        model.compile("sgd", "mse")
        moving, gamma = norm.moving_mean.numpy(), norm.gamma.numpy()
        model.train_on_batch(X, Y)
        assert np.array_equal(norm.moving_mean, moving)
        assert np.array_equal(norm.gamma, gamma)


def test_a_shared_layer_updates_at_each_call() -> None:
    def make(layer: type) -> Any:
        norm, first, second = layer(momentum=0.5), tf_keras.Input((3,)), tf_keras.Input((3,))
        return tf_keras.Model([first, second], layers.Dense(1)(norm(first) * norm(second)))

    ours, stock = pair_of_networks(make)
    data = [normal(8, 3), normal(8, 3, mean=2.0)]
    for model in (ours, stock):
        model.train_on_batch(data, Y[:8])
    close(ours.get_weights(), stock.get_weights(), 1e-4)


def test_a_subclassed_model_in_a_loop_of_its_own() -> None:
    class Net(tf_keras.Model):  # type: ignore[misc]
        def __init__(self, layer: type) -> None:
            super().__init__()
            self.norm, self.dense = layer(), layers.Dense(1)

        def call(self, x: Any, training: Any = None) -> Any:
            return self.dense(self.norm(x, training=training))

    x, results = normal(16, 3), []
    for layer in (BatchNormalization, Stock):
        model = Net(layer)
        model(x)
        model.dense.kernel.assign([[1.0], [-2.0], [0.5]])
        optimizer = tf_keras.optimizers.Adam(0.01)

        @tf.function(jit_compile=True)
        def train(model: Any = model, optimizer: Any = optimizer) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x, training=True) - Y[:16]) ** 2)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return loss

        results.append([train() for _ in range(3)])
    close(results[0], results[1], 1e-4)


def test_time_distributed() -> None:
    """A wrapper that calls the layer on one more dimension than it was built for."""

    def make(layer: type) -> Any:
        return tf_keras.Sequential(
            [layers.TimeDistributed(layer(), input_shape=(6, 6, 2)), layers.Flatten(), layers.Dense(1)]
        )

    ours, stock = pair_of_networks(make)
    for model in (ours, stock):
        model.fit(X, Y, batch_size=10, shuffle=False, verbose=0)
    close(ours.get_weights(), stock.get_weights(), 1e-4)


REPLICAS = """
import numpy as np, tensorflow as tf, tf_keras
from stablenorm.ops.tf_keras import BatchNormalization
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
generator = np.random.default_rng(0)
x, y = generator.normal(size=(20, 4, 4, 3)).astype("f4"), generator.normal(size=(20, 1)).astype("f4")
for synchronized in (False, True):
    models = []
    for layer in (BatchNormalization, tf_keras.layers.BatchNormalization):
        with strategy.scope():
            model = tf_keras.Sequential([
                tf_keras.layers.Conv2D(4, 3, use_bias=False, input_shape=(4, 4, 3)),
                layer(momentum=0.5, synchronized=synchronized), tf_keras.layers.ReLU(),
                tf_keras.layers.Flatten(), tf_keras.layers.Dense(2, use_bias=False),
                layer(momentum=0.5, synchronized=synchronized), tf_keras.layers.ReLU(), tf_keras.layers.Dense(1),
            ])
            model.compile(tf_keras.optimizers.SGD(0.02), "mse")
        models.append(model)
    models[1].set_weights(models[0].get_weights())
    for model in models:
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        model.evaluate(x, y, batch_size=8, verbose=0)
    for name, a, b in zip([w.name for w in models[0].weights], *(model.get_weights() for model in models)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max() + 1e-6, err_msg=f"{name}, {synchronized}")
    with strategy.scope():
        assert models[0](x).shape == (20, 1)
print("same")
"""


def test_replicas() -> None:
    """Two CPUs, as in the stock layer: each by itself, and the mean of their moving statistics; and synchronized."""
    command = [sys.executable, "-c", REPLICAS]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.stdout.strip().endswith("same"), result.stderr[-3000:]
