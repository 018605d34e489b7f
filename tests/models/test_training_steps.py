"""Training through real frameworks: raised and lowered, a step is right where the framework's own is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stablenorm import compiler
from stablenorm.ops import BatchNormGrad, BatchNormTraining
from tests.passes.modules import by_xla, parse, run

ROWS, FEATURES = 256, 3
# One rounding of float32 for each result, and one for each of what is averaged into it.
TOLERANCE = 1e-6

Step = Callable[..., tuple[Any, ...]]


def flax_nnx(epsilon: float) -> Step:
    from flax import nnx

    def forward(x: Any, scale: Any, offset: Any) -> Any:
        layer = nnx.BatchNorm(FEATURES, use_running_average=False, epsilon=epsilon, rngs=nnx.Rngs(0))
        layer.scale[...], layer.bias[...] = scale, offset
        return layer(x), (layer.mean[...], layer.var[...])

    return step(forward)


def flax_linen(epsilon: float) -> Step:
    from flax import linen

    layer = linen.BatchNorm(use_running_average=False, epsilon=epsilon)

    def forward(x: Any, scale: Any, offset: Any) -> Any:
        old = {"mean": jnp.zeros(FEATURES), "var": jnp.ones(FEATURES)}
        variables = {"params": {"scale": scale, "bias": offset}, "batch_stats": old}
        y, new = layer.apply(variables, x, mutable=["batch_stats"])
        return y, (new["batch_stats"]["mean"], new["batch_stats"]["var"])

    return step(forward)


def keras_3(epsilon: float) -> Step:
    import keras

    layer = keras.layers.BatchNormalization(epsilon=epsilon)
    layer.build((None, FEATURES))

    def forward(x: Any, scale: Any, offset: Any) -> Any:
        return layer.stateless_call([scale, offset], [jnp.zeros(FEATURES), jnp.ones(FEATURES)], x, training=True)

    return step(forward)


def step(forward: Callable[..., Any]) -> Step:
    """``y, moving mean, moving variance, grad_operand, grad_scale, grad_offset``"""

    def whole(x: Any, scale: Any, offset: Any, grad_output: Any) -> tuple[Any, ...]:
        y, vjp, moving = jax.vjp(forward, x, scale, offset, has_aux=True)
        return (y, *moving, *vjp(grad_output))

    return whole


def drawn(*shape: int) -> tuple[Any, Any, Any, Any]:
    """X with mean / deviation of 1e4, scale, offset and the gradient of y."""
    rng = np.random.default_rng(0)
    x, grad_output = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    scale, offset = (rng.normal(size=shape[-1]).astype(np.float32) for _ in range(2))
    return x + np.float32(1e4), scale, offset, grad_output


def error(got: Any, expected: Any) -> float:
    return max(np.abs(ours - truth).max() / np.abs(truth).max() for ours, truth in zip(got, expected, strict=True))


@pytest.mark.parametrize("layer", [flax_nnx, flax_linen, keras_3])
def test_a_step_of_a_layer_is_right_at_any_mean(layer: Callable[[float], Step]) -> None:
    epsilon = float(np.float32(1e-3))
    arguments = x, scale, offset, grad_output = drawn(ROWS, FEATURES)
    y, mean, variance = BatchNormTraining(epsilon, 1).reference(x, scale, offset)
    gradients = BatchNormGrad(epsilon, 1).reference(x, scale, mean, variance, grad_output)
    expected = [y, 0.01 * mean, 0.99 + 0.01 * variance, *gradients]
    lowered = jax.jit(layer(epsilon)).lower(*arguments)
    module = parse(str(lowered.compiler_ir("stablehlo")))
    assert not error(lowered.compile()(*arguments), expected) < 10 * TOLERANCE  # it may be NaN
    run(module, "import-cleanup,raise-batch-norm,lower-batch-norm")
    assert error(by_xla(module, list(arguments)), expected) < TOLERANCE


@pytest.mark.filterwarnings("ignore:a compiled call does not update these variables")
@pytest.mark.parametrize(
    ("shape", "options"),
    [((64, 3), {}), ((32, 8, 3), {}), ((16, 4, 4, 3), {"fused": False}), ((16, 4, 4, 3), {"fused": True})],
    ids=str,
)
def test_tf_keras_in_training_mode_is_right_at_any_mean(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    import tf_keras

    x, scale, offset, _ = drawn(*shape)
    inputs = tf_keras.Input(shape[1:], batch_size=shape[0])
    layer = tf_keras.layers.BatchNormalization(**options)
    model = tf_keras.Model(inputs, layer(inputs, training=True))
    layer.gamma.assign(scale)
    layer.beta.assign(offset)
    expected, _, _ = BatchNormTraining(float(np.float32(layer.epsilon)), len(shape) - 1).reference(x, scale, offset)
    assert error([compiler.compile(model)(x)], [expected]) < TOLERANCE
