"""Batch norm in training on a device: ours, and what others compute there, on operands that are there already.

A `Peer` takes ``x`` (channels last), ``scale``, ``offset`` and ``grad_output``, and returns two calls: ``forward``, and
``step``, which is forward and backward. A call starts a computation; its second half waits for the result.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bench.device_timing import Start, Wait
from bench.implementations import EPSILON
from stablenorm.ops import batch_norm

Calls = dict[str, tuple[Start, Wait]]
Peer = Callable[[Any, Any, Any, Any], Calls]


def stablenorm_function(*operands: Any) -> Calls:
    """`stablenorm.ops.batch_norm` under ``jit``."""
    zeros = jnp.zeros_like(operands[1])

    def forward(x: Any, scale: Any, offset: Any) -> Any:
        y, *moving = batch_norm(x, scale, offset, zeros, zeros, training=True, epsilon=EPSILON)
        return y, moving

    return _jitted(forward, operands)


def plain_jax(*operands: Any) -> Calls:
    """The formula under ``jit``: the variance in a second pass, statistics in float32."""

    def forward(x: Any, scale: Any, offset: Any) -> Any:
        wide = x.astype(jnp.float32)
        mean = wide.mean((0, 1, 2))
        variance = jnp.square(wide - mean).mean((0, 1, 2))
        y = (wide - mean) * (scale * jax.lax.rsqrt(variance + EPSILON)) + offset
        return y.astype(x.dtype), (mean, variance)

    return _jitted(forward, operands)


def flax(*operands: Any) -> Calls:
    """``flax.nnx.BatchNorm`` under ``jit``: mean of squares less the square of the mean, in float32."""
    nnx = importlib.import_module("flax.nnx")
    x = operands[0]
    made = nnx.BatchNorm(x.shape[-1], epsilon=EPSILON, dtype=x.dtype, rngs=nnx.Rngs(0))
    definition, state = nnx.split(made)

    def forward(x: Any, scale: Any, offset: Any) -> Any:
        norm = nnx.merge(definition, state, copy=True)
        norm.scale[...], norm.bias[...] = scale, offset
        y = norm(x, use_running_average=False)
        return y, [norm.mean[...], norm.var[...]]

    return _jitted(forward, operands)


def torch(*operands: Any) -> Calls:
    """``torch.nn.functional.batch_norm`` with cuDNN, on a tensor that is channels last in memory."""
    library = importlib.import_module("torch")
    functional = importlib.import_module("torch.nn.functional")
    if not library.cuda.is_available():
        raise ImportError("torch sees no CUDA device")
    # By float32: NumPy has no bfloat16 that torch takes.
    dtype = getattr(library, operands[0].dtype.name)
    x, scale, offset, grad_output = (library.tensor(jax.device_get(each.astype(jnp.float32))) for each in operands)
    x, grad_output = (each.cuda().to(dtype).permute(0, 3, 1, 2) for each in (x, grad_output))
    vectors = [each.cuda().requires_grad_() for each in (scale, offset)]
    leaf = x.detach().requires_grad_()
    moving = library.zeros_like(vectors[0]), library.ones_like(vectors[0])

    def forward(x: Any) -> Any:
        return functional.batch_norm(x, *moving, *vectors, training=True, eps=EPSILON)

    def step() -> Any:
        y = forward(leaf)
        return y.detach(), library.autograd.grad(y, [leaf, *vectors], grad_output)

    def wait(result: Any) -> None:
        library.cuda.synchronize()

    return {"forward": (lambda: forward(x).detach(), wait), "step": (step, wait)}


def _jitted(forward: Callable[..., Any], operands: Any) -> Calls:
    def step(x: Any, scale: Any, offset: Any, grad_output: Any) -> Any:
        y, pull, moving = jax.vjp(forward, x, scale, offset, has_aux=True)
        return y, pull(grad_output), moving

    forward_compiled, step_compiled = jax.jit(forward), jax.jit(step)
    return {
        "forward": (lambda: forward_compiled(*operands[:3]), jax.block_until_ready),
        "step": (lambda: step_compiled(*operands), jax.block_until_ready),
    }


PEERS: dict[str, Peer] = {
    "stablenorm": stablenorm_function,
    "XLA, two passes": plain_jax,
    "Flax NNX": flax,
    "torch": torch,
}
