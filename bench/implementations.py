"""One training step of a batch norm as each framework computes it, behind one signature.

A `Step` takes ``x`` (channels last), ``scale``, ``offset`` and ``grad_output``, and returns the arrays of `RESULTS`.
Each maker imports its framework when it is called, and raises ImportError or StablenormError where that is missing.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import func
from numpy.typing import NDArray

from stablenorm.compiler.frontends.tensorflow_runtime import import_tensorflow
from stablenorm.compiler.targets import TARGETS
from stablenorm.compiler.xla import compile_module
from stablenorm.ops import BatchNormGrad, BatchNormTraining, batch_norm
from stablenorm.passes import make_context

Array = NDArray[Any]
Step = Callable[[Array, Array, Array, Array], list[Array]]

RESULTS = ("y", "dx", "dscale", "doffset", "mean", "variance")
EPSILON = float(np.float32(1e-3))
_ELEMENTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def stablenorm_function(shape: tuple[int, ...], dtype: str) -> Step:
    """`stablenorm.ops.batch_norm` under ``jit``."""
    zeros = jnp.zeros(shape[-1])

    def forward(x: Any, scale: Any, offset: Any) -> Any:
        y, *moving = batch_norm(x, scale, offset, zeros, zeros, training=True, momentum=0.0, epsilon=EPSILON)
        return y, moving

    return _jax_step(forward)


def flax(library: str = "flax.nnx", layer: str = "BatchNorm") -> Callable[..., Step]:
    """A layer with the constructor of ``flax.nnx.BatchNorm``, under ``jit``."""

    def make(shape: tuple[int, ...], dtype: str) -> Step:
        nnx = importlib.import_module("flax.nnx")
        made = getattr(importlib.import_module(library), layer)(
            shape[-1], momentum=0.0, epsilon=EPSILON, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0)
        )
        definition, state = nnx.split(made)

        def forward(x: Any, scale: Any, offset: Any) -> Any:
            norm = nnx.merge(definition, state, copy=True)
            norm.scale[...], norm.bias[...] = scale, offset
            y = norm(x, use_running_average=False)
            return y, [norm.mean[...], norm.var[...]]

        return _jax_step(forward)

    return make


def keras(library: str = "keras.layers", layer: str = "BatchNormalization") -> Callable[..., Step]:
    """A layer with the constructor of Keras 3's ``BatchNormalization``, on JAX, under ``jit``."""

    def make(shape: tuple[int, ...], dtype: str) -> Step:
        os.environ.setdefault("KERAS_BACKEND", "jax")
        if importlib.import_module("keras").backend.backend() != "jax":
            raise ImportError("Keras 3 runs on another backend")
        policy = dtype if dtype == "float32" else f"mixed_{dtype}"  # which keeps its variables in float32
        norm = getattr(importlib.import_module(library), layer)(momentum=0.0, epsilon=EPSILON, dtype=policy)
        norm.build(shape)
        moving = [jnp.zeros(shape[-1])] * 2

        def forward(x: Any, scale: Any, offset: Any) -> Any:
            return norm.stateless_call([scale, offset], moving, x, training=True)

        return _jax_step(forward)

    return make


def tf_keras(
    jit_compile: bool, library: str = "tf_keras.layers", layer: str = "BatchNormalization"
) -> Callable[..., Step]:
    """A layer with the constructor of ``tf_keras.layers.BatchNormalization``; its moving variance made a biased one."""

    def make(shape: tuple[int, ...], dtype: str) -> Step:
        tf = import_tensorflow()
        tf.get_logger().setLevel("ERROR")  # it warns of functions that are made again for each shape
        norm = getattr(importlib.import_module(library), layer)(
            momentum=0.0, epsilon=EPSILON, moving_variance_initializer="zeros", dtype=dtype
        )
        norm.build(shape)

        def gradients(x: Any, grad_output: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = norm(x, training=True)
            return [y, *tape.gradient(y, [x, norm.gamma, norm.beta], grad_output)]

        compute = tf.function(gradients, jit_compile=True) if jit_compile else gradients
        count, zeros = np.prod(shape[:-1]), np.zeros(shape[-1], np.float32)
        biased = (count - 1) / count if getattr(norm, "fused", False) else 1.0

        def step(x: Array, scale: Array, offset: Array, grad_output: Array) -> list[Array]:
            variables = (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
            for variable, value in zip(variables, (scale, offset, zeros, zeros), strict=True):
                variable.assign(value)  # the old moving statistics too: 0 * NaN is NaN
            results = [value.numpy() for value in compute(tf.constant(x), tf.constant(grad_output))]
            variance = norm.moving_variance.numpy().astype(np.float64) * biased
            return [*results, norm.moving_mean.numpy(), variance]

        return step

    return make


def xla_operations(shape: tuple[int, ...], dtype: str) -> Step:
    """``stablehlo.batch_norm_training`` and ``_grad`` as XLA expands them: all operands have one type."""
    axis = len(shape) - 1
    with make_context(), ir.Location.unknown():
        module, element = ir.Module.create(), ir.Type.parse(_ELEMENTS[dtype])
        tensor, vector = ir.RankedTensorType.get(shape, element), ir.RankedTensorType.get(shape[-1:], element)
        with ir.InsertionPoint(module.body):
            results = [tensor, tensor, vector, vector, vector, vector]
            main = func.FuncOp("main", ([tensor, vector, vector, tensor], results))
        with ir.InsertionPoint(main.add_entry_block()):
            x, scale, offset, grad_output = main.arguments
            y, mean, variance = BatchNormTraining(EPSILON, axis).emit(x, scale, offset)
            gradients = BatchNormGrad(EPSILON, axis).emit(x, scale, mean, variance, grad_output)
            func.ReturnOp([y, *gradients, mean, variance])
        compiled = compile_module(module, TARGETS["cpu"])

    def step(x: Array, scale: Array, offset: Array, grad_output: Array) -> list[Array]:
        vectors = scale.astype(x.dtype), offset.astype(x.dtype)
        return [np.asarray(value) for value in compiled(x, *vectors, grad_output)]

    return step


def _jax_step(forward: Callable[..., Any]) -> Step:
    @jax.jit
    def compute(x: Any, scale: Any, offset: Any, grad_output: Any) -> Any:
        y, pull, moving = jax.vjp(forward, x, scale, offset, has_aux=True)
        return [y, *pull(grad_output), *moving]

    return lambda *operands: [np.asarray(value) for value in compute(*operands)]


IMPLEMENTATIONS: dict[str, Callable[[tuple[int, ...], str], Step]] = {
    "stablenorm": stablenorm_function,
    "our tf_keras layer": tf_keras(jit_compile=True, library="stablenorm.ops.tf_keras"),
    "our Flax layer": flax("stablenorm.ops.flax"),
    "our Keras layer": keras("stablenorm.ops.keras"),
    "tf_keras eager": tf_keras(jit_compile=False),
    "tf_keras jit": tf_keras(jit_compile=True),
    "Flax NNX": flax(),
    "Keras 3": keras(),
    "XLA": xla_operations,
}
