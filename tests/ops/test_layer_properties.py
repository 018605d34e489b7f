"""Generated batch norms in the layers: they compute what the float64 oracle says, gradients and statistics too."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from flax import nnx
from hypothesis import HealthCheck, assume, given, seed, settings

from stablenorm.ops import flax as our_flax
from stablenorm.ops import keras as our_keras
from stablenorm.ops import tf_keras as our_tf_keras
from tests.ops.cases import DTYPES, Array, Case, arrays, cases, truth, weights_of

# Keras reads its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def by_flax(case: Case, named: dict[str, Array]) -> dict[str, Any]:
    made = our_flax.BatchNorm(
        math.prod(case.features),
        use_running_average=not case.training,
        axis=case.axis,
        momentum=case.momentum,
        epsilon=case.epsilon,
        use_scale=case.has_scale,
        use_bias=case.has_offset,
        dtype=jnp.dtype(DTYPES[case.dtype]),
        param_dtype=case.statistics_type,
        rngs=nnx.Rngs(0),
    )
    definition, state = nnx.split(made)

    def forward(x: Any, parameters: Any) -> Any:
        layer = nnx.merge(definition, state, copy=True)
        values = parameters | {"mean": named["moving_mean"], "var": named["moving_variance"]}
        for name, value in values.items():
            variable = getattr(layer, {"offset": "bias"}.get(name, name))
            variable[...] = jnp.reshape(value, -1).astype(variable[...].dtype)
        y = layer(x, mask=next(iter(weights_of(case, named)), None))
        return y, (layer.mean[...].reshape(case.features), layer.var[...].reshape(case.features))

    return _with_gradients(forward, named)


def by_keras(case: Case, named: dict[str, Array]) -> dict[str, Any]:
    layer = our_keras.BatchNormalization(
        axis=case.axis,
        momentum=case.momentum,
        epsilon=case.epsilon,
        center=case.has_offset,
        scale=case.has_scale,
        dtype=case.dtype if case.dtype in ("float32", "float64") else f"mixed_{case.dtype}",
    )
    layer.build(case.shape)
    moving = [named["moving_mean"], named["moving_variance"]]

    def forward(x: Any, parameters: Any) -> Any:
        trainable = [parameters[name] for name in ("scale", "offset") if name in parameters]
        return layer.stateless_call(trainable, moving, x, training=case.training, mask=named.get("mask"))

    return _with_gradients(forward, named)


def by_tf_keras(case: Case, named: dict[str, Array]) -> dict[str, Any]:
    layer = our_tf_keras.BatchNormalization(
        axis=case.axis,
        momentum=case.momentum,
        epsilon=case.epsilon,
        center=case.has_offset,
        scale=case.has_scale,
        dtype=case.dtype,
    )
    layer.build(case.shape)
    weights = {"scale": layer.gamma, "offset": layer.beta, "moving_mean": layer.moving_mean}
    weights |= {"moving_variance": layer.moving_variance}
    for name, weight in weights.items():
        if weight is not None:
            weight.assign(tf.reshape(named[name], weight.shape))
    x, parameters = tf.constant(named["x"]), {name: weights[name] for name in ("scale", "offset") if name in named}
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=case.training, mask=named.get("mask"))
    dx, gradients = tape.gradient(y, (x, parameters), tf.constant(named["grad_y"]))
    results = {"mean": layer.moving_mean, "variance": layer.moving_variance} | {
        f"d{n}": gradients[n] for n in parameters
    }
    return {"y": y, "dx": dx} | {name: tf.reshape(value, case.features) for name, value in results.items()}


def _with_gradients(forward: Any, named: dict[str, Array]) -> dict[str, Any]:
    @jax.jit
    def compute(x: Any, parameters: Any, grad_y: Any) -> Any:
        y, pull, moving = jax.vjp(forward, x, parameters, has_aux=True)
        dx, gradients = pull(grad_y)
        return {"y": y, "mean": moving[0], "variance": moving[1], "dx": dx} | {f"d{n}": g for n, g in gradients.items()}

    parameters = {name: named[name] for name in ("scale", "offset") if name in named}
    return compute(named["x"], parameters, named["grad_y"])


LAYERS = {"Flax": by_flax, "Keras 3": by_keras, "tf_keras": by_tf_keras}
# Rank and feature dimensions where tf_keras corrects the moving variance for the size of the sample.
UNBIASED = {(4, (1,)), (4, (3,)), (5, (1,)), (5, (4,))}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_compute_what_the_oracle_says(layer, dtype):
    @seed(list(DTYPES).index(dtype))
    @settings(max_examples=8, deadline=None, database=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(case=cases(dtype, several_axes=layer != "Keras 3"))
    def agree(case):
        fused = (len(case.shape), case.axes) in UNBIASED and dtype != "float64"
        case = dataclasses.replace(case, unbiased=layer == "tf_keras" and fused)
        if layer == "Keras 3":
            case = dataclasses.replace(case, axis=case.axes[0] - len(case.shape), mask=_of_booleans(case.mask))
        assume(case.form not in seen)
        named = arrays(case, 0)
        named |= {name: np.zeros_like(named[name]) for name in ("grad_mean", "grad_variance")}
        # Flax keeps its moving statistics in float32, whatever the type of the parameters.
        kept = np.float32 if layer == "Flax" else case.statistics_type
        named |= {name: named[name].astype(kept) for name in ("moving_mean", "moving_variance")}
        expected = truth(case, named)
        for name, value in LAYERS[layer](case, named).items():
            rounded = case if name not in ("mean", "variance") else dataclasses.replace(case, dtype=np.dtype(kept).name)
            expected[name].assert_close(rounded, name, value, layer)
        seen.add(case.form)

    seen: set[Any] = set()
    with jax.enable_x64(dtype == "float64"):
        agree()


def _of_booleans(mask: Any) -> Any:
    return mask and ("booleans" if mask[0] == "weights" else mask[0], *mask[1:])
