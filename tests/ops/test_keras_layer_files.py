"""Models with the Keras 3 layer: trained, described, saved, and read by Keras with and without it."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from stablenorm.ops.keras import BatchNormalization, use_in

# Keras reads its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

Stock = keras.layers.BatchNormalization
GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.normal(size=(16, 6, 6, 2)).astype(np.float32), GENERATOR.normal(size=(16, 3)).astype(np.float32)

OPTIONS: dict[str, Any] = {
    "axis": 1,
    "momentum": 0.9,
    "epsilon": 0.01,
    "center": False,
    "scale": False,
    "beta_initializer": "random_normal",
    "gamma_initializer": keras.initializers.RandomUniform(0.5, 1.5, seed=3),
    "moving_mean_initializer": "ones",
    "moving_variance_initializer": keras.initializers.Constant(2.0),
    "beta_regularizer": "l2",
    "gamma_regularizer": keras.regularizers.L1(0.01),
    "beta_constraint": "non_neg",
    "gamma_constraint": keras.constraints.MaxNorm(0.7),
    "renorm": True,
    "renorm_clipping": {"rmax": 3.0, "rmin": 0.3, "dmax": 5.0},
    "renorm_momentum": 0.8,
    "name": "norm",
    "dtype": "mixed_float16",
    "trainable": False,
}


def network(layer: type, **arguments: Any) -> Any:
    """Batch norms of every rank from 2 to 4, one nested in a model, one in a wrapper; not the same weights twice."""
    inner = keras.Sequential([keras.layers.Dense(4), layer(name="inner")], name="model")
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(5, 3),
            layer(name="outer", **arguments),
            keras.layers.ReLU(),
            keras.layers.TimeDistributed(layer(name="wrapped"), name="time"),
            keras.layers.GlobalAveragePooling2D(),
            inner,
            keras.layers.Dense(3),
        ]
    )
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), keras.losses.MeanSquaredError())
    model.set_weights([GENERATOR.uniform(0.3, 1.0, weight.shape) for weight in model.weights])
    return model


def batch_norms(model: Any) -> list[Any]:
    return [model.get_layer("outer"), model.get_layer("time").layer, model.get_layer("model").get_layer("inner")]


def close(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Relative to the largest value: a few layers in float32, summed in another order."""
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def test_the_constructor_is_the_stock_layers() -> None:
    assert inspect.signature(BatchNormalization) == inspect.signature(Stock)
    assert issubclass(BatchNormalization, Stock)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_survives_the_configuration_both_ways(name: str) -> None:
    arguments = {name: OPTIONS[name], "name": "norm"}
    ours, stock = BatchNormalization(**arguments), Stock(**arguments)
    assert ours.get_config() == stock.get_config()
    assert ours.get_config()[name] != BatchNormalization().get_config()[name]
    for target, source in ((BatchNormalization, stock), (Stock, ours), (BatchNormalization, ours)):
        assert target.from_config(source.get_config()).get_config() == stock.get_config()


def test_options_by_place() -> None:
    arguments = [OPTIONS[name] for name in list(inspect.signature(Stock).parameters)[:-2]]
    assert BatchNormalization(*arguments, name="norm").get_config() == Stock(*arguments, name="norm").get_config()


def test_synchronized_is_kept_and_changes_nothing() -> None:
    """The stock layer refuses it outside of TensorFlow."""
    layer, plain = BatchNormalization(synchronized=True), BatchNormalization()
    assert layer.get_config()["synchronized"] is True
    assert BatchNormalization.from_config(layer.get_config()).synchronized is True
    assert np.array_equal(layer(X, training=True), plain(X, training=True))
    with pytest.raises(ValueError, match="synchronized"):
        Stock(synchronized=True)


def test_training_a_model() -> None:
    """``fit``, ``train_on_batch``, ``evaluate`` and ``predict``, with regularizers and constraints."""
    arguments = {"gamma_regularizer": "l2", "beta_regularizer": "l1", "gamma_constraint": "unit_norm"}
    ours, stock = network(BatchNormalization, **arguments), network(Stock, **arguments)
    stock.set_weights(ours.get_weights())
    for model in (ours, stock):
        model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        model.train_on_batch(X[:8], Y[:8])
    close(ours.get_weights(), stock.get_weights())
    close([ours.evaluate(X, Y, batch_size=8, verbose=0)], [stock.evaluate(X, Y, batch_size=8, verbose=0)])
    close([ours.predict(X, verbose=0)], [stock.predict(X, verbose=0)])


@pytest.mark.parametrize("arguments", [{"jit_compile": False}, {"run_eagerly": True}], ids=lambda a: next(iter(a)))
def test_training_without_a_compiler(arguments: dict[str, bool]) -> None:
    losses = []
    for layer in (BatchNormalization, Stock):
        model = keras.Sequential([keras.layers.Flatten(), layer(beta_initializer="ones")])
        model.compile("sgd", "mse", **arguments)
        losses.append([model.train_on_batch(X, X.reshape(16, -1)) for _ in range(2)])
    close(*losses)
    assert losses[0][0] > losses[0][1]


def test_renorm_is_the_stock_layers() -> None:
    arguments = {"renorm": True, "renorm_clipping": {"rmax": 3.0}, "renorm_momentum": 0.5}
    ours, stock = BatchNormalization(**arguments), Stock(**arguments)
    for _ in range(3):
        assert np.array_equal(ours(X, training=True), stock(X, training=True))
    assert all(map(np.array_equal, ours.get_weights(), stock.get_weights()))
    assert len(ours.weights) == 7


def test_weight_files_go_both_ways(tmp_path: Path) -> None:
    ours, stock = network(BatchNormalization), network(Stock)
    for source, target in ((ours, stock), (stock, ours)):
        source.set_weights([GENERATOR.uniform(0.3, 1.0, weight.shape) for weight in source.weights])
        source.save_weights(tmp_path / "some.weights.h5")
        target.load_weights(tmp_path / "some.weights.h5")
        assert all(map(np.array_equal, source.get_weights(), target.get_weights()))


def test_a_saved_model_opens_without_stablenorm(tmp_path: Path) -> None:
    """In a process that cannot import it, with the optimizer's state."""
    model = network(BatchNormalization)
    model.train_on_batch(X, Y)
    model.save(tmp_path / "ours.keras")
    assert "stablenorm" not in zipfile.ZipFile(tmp_path / "ours.keras").read("config.json").decode()
    np.save(tmp_path / "x.npy", X)
    program = (
        "import sys, json; sys.modules['stablenorm'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.models.load_model(sys.argv[1] + '/ours.keras')\n"
        "assert type(model.get_layer('outer')) is keras.layers.BatchNormalization\n"
        "y = model.predict(np.load(sys.argv[1] + '/x.npy'), verbose=0)\n"
        "print(json.dumps([y.tolist(), int(model.optimizer.iterations.value)]))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    y, steps = json.loads(done.stdout.splitlines()[-1])
    close([y], [model.predict(X, verbose=0)])
    assert steps == 1


@pytest.mark.parametrize("written", [BatchNormalization, Stock])
def test_a_saved_model_opens_as_ours(tmp_path: Path, written: type) -> None:
    """Whichever layer wrote it, and goes on with its training where it was."""
    model = network(written)
    model.train_on_batch(X, Y)
    model.save(tmp_path / "model.keras")
    loaded = use_in(keras.models.load_model(tmp_path / "model.keras"))
    assert [type(layer) for layer in batch_norms(loaded)] == [BatchNormalization] * 3
    assert all(map(np.array_equal, loaded.get_weights(), model.get_weights()))
    close([loaded.train_on_batch(X, Y) for _ in range(2)], [model.train_on_batch(X, Y) for _ in range(2)])
    assert loaded.optimizer.iterations == 3


@pytest.mark.parametrize("written", [BatchNormalization, Stock])
def test_an_h5_file_opens_as_either(tmp_path: Path, written: type) -> None:
    model = network(written)
    model.save(tmp_path / "model.h5")
    for kind, read in ((Stock, lambda loaded: loaded), (BatchNormalization, use_in)):
        loaded = read(keras.models.load_model(tmp_path / "model.h5", compile=False))
        assert [type(layer) for layer in batch_norms(loaded)] == [kind] * 3
        assert all(map(np.array_equal, loaded.get_weights(), model.get_weights()))


def test_custom_objects_name_ours(tmp_path: Path) -> None:
    """In the files that it wrote itself."""
    network(BatchNormalization).save(tmp_path / "ours.keras")
    custom = {"BatchNormalization": BatchNormalization}
    loaded = keras.models.load_model(tmp_path / "ours.keras", custom_objects=custom, compile=False)
    assert [type(layer) for layer in batch_norms(loaded)] == [BatchNormalization] * 3


def test_use_in_forgets_what_was_traced() -> None:
    """At a mean of 1e4 the stock layer's rounding shows."""
    model = network(Stock)
    x = X + np.float32(1e4)
    before = model.predict(x, verbose=0)
    assert use_in(model) is model
    assert not np.array_equal(model.predict(x, verbose=0), before)


def test_cloned_models_keep_the_layer() -> None:
    clone = keras.models.clone_model(keras.Sequential([keras.Input((3,)), BatchNormalization(axis=1)]))
    assert type(clone.layers[0]) is BatchNormalization
    assert clone.layers[0].axis == 1
