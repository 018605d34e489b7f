"""Configurations, weights and files move both ways between the tf_keras layer and the stock layer."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from stablenorm.ops.tf_keras import BatchNormalization, use_in
from tests.ops.tf_keras_layers import GENERATOR, Stock, close, normal, randomised

# What tf_keras says of its own older format.
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")

layers = tf_keras.layers
X, Y = normal(16, 6, 6, 2), normal(16, 1)
FORMATS = ["model.keras", "model.h5", "saved_model"]

OPTIONS: dict[str, Any] = {
    "axis": 1,
    "momentum": 0.9,
    "epsilon": 0.01,
    "center": True,
    "scale": True,
    "beta_initializer": "random_normal",
    "gamma_initializer": tf_keras.initializers.RandomUniform(0.5, 1.5, seed=3),
    "moving_mean_initializer": "ones",
    "moving_variance_initializer": tf_keras.initializers.Constant(2.0),
    "beta_regularizer": "l2",
    "gamma_regularizer": tf_keras.regularizers.L1(0.01),
    "beta_constraint": "non_neg",
    "gamma_constraint": tf_keras.constraints.MaxNorm(0.7),
    "name": "norm",
    "dtype": "mixed_float16",
    "trainable": False,
}
RENORM = {"renorm": True, "renorm_clipping": {"rmax": 3.0, "rmin": 0.3, "dmax": 5.0}, "renorm_momentum": 0.8}


def network(layer: type, **options: Any) -> Any:
    """Batch norms of rank 2 to 4, one in a model inside, one in a wrapper; every weight random."""
    inner = tf_keras.Sequential([layers.Dense(3, input_shape=(12,)), layer(name="inner")])
    inputs = tf_keras.Input((6, 6, 2))
    hidden = layers.ReLU()(layer(name="first", momentum=0.8, **options)(layers.Conv2D(3, 3)(inputs)))
    hidden = layers.TimeDistributed(layer(name="wrapped"))(layers.Reshape((4, 12))(hidden))
    hidden = layers.TimeDistributed(inner)(layer(axis=1, epsilon=0.1, scale=False, name="steps")(hidden))
    model = tf_keras.Model(inputs, layers.Dense(1)(layers.Flatten()(hidden)))
    for weight in model.weights:
        low = 0.5 if weight.name.endswith(("variance:0", "gamma:0")) else -0.7
        weight.assign(GENERATOR.uniform(low, 0.9, weight.shape))
    model.compile(tf_keras.optimizers.SGD(0.02, momentum=0.5), "mse")
    model.train_on_batch(X, Y)
    return model


def norms(model: Any) -> list[Any]:
    return [layer for layer in model.submodules if isinstance(layer, Stock)]


def test_the_constructors_signature_is_the_stock_layers() -> None:
    assert inspect.signature(BatchNormalization) == inspect.signature(Stock)
    for name, parameter in inspect.signature(Stock.__init__).parameters.items():
        assert inspect.signature(BatchNormalization.__init__).parameters[name] == parameter
    assert isinstance(BatchNormalization(-1, 0.9, 0.1, False, True, "ones"), Stock)


@pytest.mark.parametrize(
    "options",
    [
        {},
        OPTIONS,
        RENORM,
        {"virtual_batch_size": 2},
        {"axis": [1, -1]},
        {"axis": (1, 2)},
        {"center": False, "scale": False},
    ],
    ids=lambda options: ",".join(options) or "default",
)
def test_the_configuration_is_the_stock_layers(options: dict[str, Any]) -> None:
    """Also when built, where the stock layer's axis has changed, and cannot be built again with virtual batches."""
    ours = BatchNormalization(**options)
    assert ours.get_config() == {**Stock(**options).get_config(), "name": ours.name, "axis": ours.get_config()["axis"]}
    ours.build((4, 3, 5))
    config = json.loads(json.dumps(ours.get_config()))
    given = options.get("axis", -1)
    assert config["axis"] == (given if isinstance(given, int) else list(given))
    for layer in (BatchNormalization, Stock):
        again = layer.from_config(config)
        again.build((4, 3, 5))
        assert [w.shape for w in again.weights] == [w.shape for w in ours.weights]
        assert [w.name for w in again.weights] == [w.name for w in ours.weights]
        for name in ("momentum", "epsilon", "center", "scale", "trainable", "compute_dtype", "renorm", "axis"):
            assert getattr(again, name) == getattr(ours, name)
    assert BatchNormalization.from_config(config).get_config() == ours.get_config()


@pytest.mark.parametrize(("name", "value"), [("synchronized", True), ("fused", False), ("fused", True)])
def test_what_the_stock_layers_configuration_forgets(name: str, value: bool) -> None:
    layer = BatchNormalization(**{name: value})
    for _ in range(2):
        assert layer.get_config()[name] is value
        layer.build((2, 3, 3, 2))
    again = BatchNormalization.from_config(layer.get_config())
    assert again.get_config()[name] is value
    assert getattr(Stock.from_config(layer.get_config()), name) is value
    assert name not in Stock(**{name: value}).get_config()


@pytest.mark.parametrize(
    "options", [{}, OPTIONS | {"axis": -1}, RENORM, {"scale": False}], ids=lambda o: ",".join(o) or "default"
)
def test_weights_go_both_ways(options: dict[str, Any]) -> None:
    ours, stock = randomised(BatchNormalization(**options), (4, 3)), Stock(**options)
    stock.build((4, 3))
    order = [w.name.rpartition("/")[2] for w in ours.weights]
    assert order == [w.name.rpartition("/")[2] for w in stock.weights]
    stock.set_weights(ours.get_weights())
    again = BatchNormalization(**options)
    again.build((4, 3))
    again.set_weights(stock.get_weights())
    close(again.get_weights(), ours.get_weights(), 0.0)


@pytest.mark.parametrize("file", ["weights.h5", "model.weights.h5", "checkpoint"])
def test_weight_files_go_both_ways(file: str, tmp_path: Path) -> None:
    ours, stock = network(BatchNormalization), network(Stock)
    for source, target in ((ours, stock), (stock, ours)):
        for weight in source.weights:
            weight.assign_add(GENERATOR.uniform(0, 1, weight.shape))
        source.save_weights(tmp_path / file)
        status = target.load_weights(tmp_path / file)
        if file == "checkpoint":
            status.assert_consumed()
        close(target.get_weights(), source.get_weights(), 0.0)
        close(target(X), source(X))


@pytest.mark.parametrize("format_", FORMATS)
def test_our_files_name_the_stock_layer(format_: str, tmp_path: Path) -> None:
    """So tf_keras opens them, weights, optimizer and all; and so does `use_in`, as ours."""
    model = network(BatchNormalization)
    expected = model(X)
    model.save(tmp_path / format_)
    loaded = tf_keras.models.load_model(tmp_path / format_)
    assert {type(norm) for norm in norms(loaded)} == {Stock}
    close(loaded(X), expected)
    use_in(loaded)
    assert {type(norm) for norm in norms(loaded)} == {BatchNormalization}
    close(loaded(X), expected, 0.0)
    close(loaded.train_on_batch(X, Y), model.train_on_batch(X, Y), 1e-6)
    if format_ != "saved_model":  # which tf_keras reads without the optimizer's momentum
        close(loaded.get_weights(), model.get_weights(), 1e-4)


@pytest.mark.parametrize("format_", FORMATS)
def test_stock_files_become_ours(format_: str, tmp_path: Path) -> None:
    model = network(Stock)
    model.save(tmp_path / format_)
    loaded = use_in(tf_keras.models.load_model(tmp_path / format_))
    assert {type(norm) for norm in norms(loaded)} == {BatchNormalization}
    close(loaded(X), model(X))
    close(loaded.train_on_batch(X, Y), model.train_on_batch(X, Y), 1e-5)
    if format_ != "saved_model":
        close(loaded.get_weights(), model.get_weights(), 1e-4)


@pytest.mark.parametrize("format_", ["model.h5", "saved_model"])
def test_custom_objects_where_tf_keras_asks_them(format_: str, tmp_path: Path) -> None:
    network(Stock).save(tmp_path / format_)
    with tf_keras.saving.custom_object_scope({"BatchNormalization": BatchNormalization}):
        loaded = tf_keras.models.load_model(tmp_path / format_)
    assert {type(norm) for norm in norms(loaded)} == {BatchNormalization}


def test_a_keras_file_says_nothing_of_stablenorm(tmp_path: Path) -> None:
    network(BatchNormalization, synchronized=True).save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        config = archive.read("config.json").decode()
    assert "stablenorm" not in config
    assert '"synchronized": true' in config


def test_it_is_serialized_as_the_stock_layer() -> None:
    ours, stock = (tf_keras.saving.serialize_keras_object(layer(name="norm")) for layer in (BatchNormalization, Stock))
    assert ours == stock


def test_layers_are_copied_and_pickled() -> None:
    layer = randomised(BatchNormalization(), (4, 3))
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(again) is BatchNormalization
        close(again.get_weights(), layer.get_weights(), 0.0)
        x = normal(4, 3)
        close(again(x), layer(x), 0.0)


def test_options_survive_in_files(tmp_path: Path) -> None:
    model = tf_keras.Sequential(
        [BatchNormalization(synchronized=True, input_shape=(2, 2, 3)), BatchNormalization(fused=False)]
    )
    for path in (tmp_path / "model.keras", tmp_path / "model.h5"):
        model.save(path)
        loaded = use_in(tf_keras.models.load_model(path))
        assert [norm.get_config().get("synchronized", False) for norm in loaded.layers] == [True, False]
        assert [norm.get_config().get("fused") for norm in loaded.layers] == [None, False]
        assert [norm._unbiased for norm in loaded.layers] == [True, False]


ELSEWHERE = """
import sys
import numpy as np, tensorflow as tf, tf_keras
sys.modules["stablenorm"] = None  # as if it was not installed
x, folder = np.load(sys.argv[1] + "/x.npy"), sys.argv[1]
results = [tf_keras.models.load_model(f"{folder}/{name}")(x) for name in ("model.keras", "model.h5", "saved_model")]
served = tf.saved_model.load(folder + "/saved_model")
results.append(served.signatures["serving_default"](tf.constant(x))["dense_1"])
x = tf.constant(x)
for training in (False, True):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = served(x, training=training)
    results += [y, tape.gradient(y, x)]
np.savez(folder + "/results.npz", *results)
"""


def test_files_are_served_without_stablenorm(tmp_path: Path) -> None:
    """In a process that cannot import it: models, and a SavedModel's own graph, our arithmetic, trained and not."""
    tf_keras.backend.clear_session()
    model = network(BatchNormalization)
    for name in FORMATS:
        model.save(tmp_path / name)
    np.save(tmp_path / "x.npy", X)
    x, expected = tf.constant(X), [model(X)] * 4
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=training)
        expected += [y, tape.gradient(y, x)]
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    with np.load(tmp_path / "results.npz") as results:
        close([results[f"arr_{place}"] for place in range(len(expected))], expected)


def test_a_served_graph_has_open_batches(tmp_path: Path) -> None:
    model = network(BatchNormalization)
    tf.saved_model.save(model, str(tmp_path))
    served = tf.saved_model.load(str(tmp_path))
    for rows in (1, 3):
        close(served(tf.constant(X[:rows]), training=False), model(X[:rows]))


def test_models_are_cloned() -> None:
    """A wrapper makes its layer of a configuration, which names the stock layer."""
    model = network(BatchNormalization, synchronized=True)
    clone = tf_keras.models.clone_model(model)
    assert {norm.name for norm in norms(clone) if type(norm) is BatchNormalization} == {"first", "steps"}
    assert clone.get_layer("first").synchronized
    for copied in (use_in(clone), use_in(copy.deepcopy(model))):
        assert {type(norm) for norm in norms(copied)} == {BatchNormalization}
        copied.set_weights(model.get_weights())
        close(copied(X), model(X), 0.0)


def test_a_stock_model_is_cloned_as_ours() -> None:
    stock = tf_keras.Sequential([layers.Dense(3, input_shape=(4,)), Stock(name="norm", momentum=0.3)])

    def of_ours(layer: Any) -> Any:
        cls = BatchNormalization if type(layer) is Stock else type(layer)
        return cls.from_config(layer.get_config())

    ours = tf_keras.models.clone_model(stock, clone_function=of_ours)
    ours.set_weights(stock.get_weights())
    assert type(ours.get_layer("norm")) is BatchNormalization
    x = normal(8, 4)
    close(ours(x, training=True), stock(x, training=True))


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (4, 2, 2, 3)),
        ({"fused": False}, (4, 2, 2, 3)),
        ({"synchronized": True}, (4, 2, 2, 3)),
        ({"axis": (1, 2)}, (4, 2, 3)),
        ({"virtual_batch_size": 2}, (4, 3)),
        ({"renorm": True}, (4, 3)),
    ],
    ids=str,
)
@pytest.mark.parametrize("built", [False, True])
def test_use_in_reads_a_layers_arguments_off_it(options: dict[str, Any], shape: tuple[int, ...], built: bool) -> None:
    stock, ours = Stock(momentum=0.5, **options), BatchNormalization(momentum=0.5, **options)
    ours.build(shape)
    if built:
        stock.build(shape)
    x = normal(*shape)
    use_in(stock)
    close(stock(x, training=True), ours(x, training=True))
    close(stock.get_weights(), ours.get_weights())
    again = BatchNormalization.from_config(stock.get_config())
    again.build(shape)
    assert again._unbiased == ours._unbiased
    assert again.synchronized == ours.synchronized


def test_use_in_a_trained_model() -> None:
    """What was traced with the old layers is not run again: fused under jit_compile, they are far off at this mean."""
    model = tf_keras.Sequential([Stock(input_shape=(6, 6, 2), center=False, scale=False), layers.Flatten()])
    model.compile("sgd", "mse", jit_compile=True)
    x, y = X + 1e5, normal(16, 72)
    expected = ((x - x.mean((0, 1, 2), np.float64)) / x.std((0, 1, 2), np.float64)).reshape(16, 72)
    loss = ((expected - y) ** 2).mean()
    assert not np.isclose(model.train_on_batch(x, y), loss, rtol=0.1)
    assert use_in(model) is model
    close(model.train_on_batch(x, y), loss, 1e-3)  # the epsilon
