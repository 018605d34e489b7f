"""Batch norm in training as each framework computes it, on operands that lie where the framework wants them.

A `Peer` takes ``x`` (channels last), ``scale``, ``offset`` and ``grad_output``, and returns two calls: ``forward``, and
``step``, which is forward and backward. Each waits for its results.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from numpy.typing import NDArray

from bench.implementations import EPSILON
from stablenorm.compiler.frontends.tensorflow_runtime import import_tensorflow
from stablenorm.ops import batch_norm

Array = NDArray[Any]
Calls = dict[str, Callable[[], Any]]
Peer = Callable[[Array, Array, Array, Array], Calls]


def stablenorm_function(shape: tuple[int, ...]) -> Peer:
    """`stablenorm.ops.batch_norm` under ``jit``."""
    zeros = jnp.zeros(shape[-1])

    def forward(x: Any, scale: Any, offset: Any) -> Any:
        y, *moving = batch_norm(x, scale, offset, zeros, zeros, training=True, epsilon=EPSILON)
        return y, moving

    return _jitted(forward)


def plain_jax(shape: tuple[int, ...]) -> Peer:
    """The formula, with the variance as the mean of squares less the square of the mean."""

    def forward(x: Any, scale: Any, offset: Any) -> Any:
        mean = x.mean((0, 1, 2))
        variance = (x * x).mean((0, 1, 2)) - mean * mean
        return (x - mean) * (scale * jax.lax.rsqrt(variance + EPSILON)) + offset, (mean, variance)

    return _jitted(forward)


def flax(shape: tuple[int, ...]) -> Peer:
    """``flax.nnx.BatchNorm`` under ``jit``."""
    nnx = importlib.import_module("flax.nnx")
    definition, state = nnx.split(nnx.BatchNorm(shape[-1], epsilon=EPSILON, rngs=nnx.Rngs(0)))

    def forward(x: Any, scale: Any, offset: Any) -> Any:
        norm = nnx.merge(definition, state, copy=True)
        norm.scale[...], norm.bias[...] = scale, offset
        y = norm(x, use_running_average=False)
        return y, [norm.mean[...], norm.var[...]]

    return _jitted(forward)


def tf_keras(jit_compile: bool, library: str = "tf_keras.layers") -> Callable[[tuple[int, ...]], Peer]:
    """``BatchNormalization``, eager or as a compiled ``tf.function``."""

    def make(shape: tuple[int, ...]) -> Peer:
        tf = import_tensorflow()
        norm = importlib.import_module(library).BatchNormalization(epsilon=EPSILON)
        norm.build(shape)

        def forward(x: Any) -> Any:
            return norm(x, training=True)

        def step(x: Any, grad_output: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = norm(x, training=True)
            return [y, *tape.gradient(y, [x, norm.gamma, norm.beta], grad_output)]

        if jit_compile:
            forward, step = (tf.function(each, jit_compile=True) for each in (forward, step))

        def peer(x: Array, scale: Array, offset: Array, grad_output: Array) -> Calls:
            norm.gamma.assign(scale)
            norm.beta.assign(offset)
            operand, gradient = tf.constant(x), tf.constant(grad_output)
            return {"forward": lambda: forward(operand), "step": lambda: step(operand, gradient)}

        return peer

    return make


def torch(shape: tuple[int, ...]) -> Peer:
    """``torch.nn.functional.batch_norm`` on a tensor that is channels last in memory."""
    library = importlib.import_module("torch")
    functional = importlib.import_module("torch.nn.functional")

    def peer(x: Array, scale: Array, offset: Array, grad_output: Array) -> Calls:
        operand, gradient = (library.from_numpy(each).permute(0, 3, 1, 2) for each in (x, grad_output))
        vectors = [library.from_numpy(each).requires_grad_() for each in (scale, offset)]
        leaf = operand.detach().requires_grad_()
        moving = library.zeros(shape[-1]), library.ones(shape[-1])

        def forward(x: Any) -> Any:
            return functional.batch_norm(x, *moving, *vectors, training=True, eps=EPSILON)

        def step() -> Any:
            y = forward(leaf)
            return y, library.autograd.grad(y, [leaf, *vectors], gradient)

        return {"forward": lambda: forward(operand), "step": step}

    return peer


def _jitted(forward: Callable[..., Any]) -> Peer:
    def step(x: Any, scale: Any, offset: Any, grad_output: Any) -> Any:
        y, pull, moving = jax.vjp(forward, x, scale, offset, has_aux=True)
        return y, pull(grad_output), moving

    forward_compiled, step_compiled = jax.jit(forward), jax.jit(step)

    def peer(x: Array, scale: Array, offset: Array, grad_output: Array) -> Calls:
        operands = [jnp.asarray(each) for each in (x, scale, offset, grad_output)]
        return {
            "forward": lambda: jax.block_until_ready(forward_compiled(*operands[:3])),
            "step": lambda: jax.block_until_ready(step_compiled(*operands)),
        }

    return peer


PEERS: dict[str, Callable[[tuple[int, ...]], Peer]] = {
    "stablenorm": stablenorm_function,
    "our tf_keras layer, jit": tf_keras(jit_compile=True, library="stablenorm.ops.tf_keras"),
    "our tf_keras layer, eager": tf_keras(jit_compile=False, library="stablenorm.ops.tf_keras"),
    "torch": torch,
    "plain JAX": plain_jax,
    "Flax NNX": flax,
    "tf_keras eager": tf_keras(jit_compile=False),
    "tf_keras jit": tf_keras(jit_compile=True),
}
