"""Batch norm as a Keras 3 layer."""

from __future__ import annotations

import inspect
import numbers
from typing import Any

import jax.numpy as jnp
import keras

from stablenorm.ops.batch_norm import batch_norm

Shape = tuple[int | None, ...]


class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # Keras ships no types.
    """``y = (x - mean) / sqrt(variance + epsilon) * gamma + beta``: `keras.layers.BatchNormalization`, at any mean.

    Constructor, weights, configuration and files are the stock layer's; `stablenorm.ops.batch_norm` computes. So
    nothing cancels where the mean is large, and derivatives are exact to any order. In training, mean and biased
    variance are those of the batch over all dimensions but ``axis``, and
    ``moving = moving * momentum + batch * (1 - momentum)``; in inference, and with ``trainable=False``, they are the
    moving ones. It differs from the stock layer in these:

    - Where nothing counts, in an empty batch or under a mask of False alone, the moving statistics stay.
    - ``mask`` has the shape of ``inputs`` without ``axis``, whichever that is, or one that broadcasts to ``inputs``.
      The stock layer takes it for all dimensions but the last one, divides by the count plus 1e-7, and fails with one
      channel.
    - ``synchronized=True`` is accepted, and changes nothing: with JAX, a batch that is spread over devices is one
      array, and the statistics are those of all of it. Stock Keras refuses it outside of TensorFlow.
    - float64 is computed in float64, which the stock layer rounds to float32 with JAX. Integers are refused.

    ``renorm=True`` is computed by the stock layer.

    A saved model names the stock layer: Keras opens it with or without stablenorm. `use_in` makes the batch norms of
    any model ours, so ``use_in(keras.models.load_model(path))`` reads a file as ours, whichever layer wrote it. Weight
    files go both ways as they are. Pickles and deep copies, which Keras makes of files, hold the stock layer.

    Shapes: ``inputs`` and result have any rank from 1; weights have one number for each feature.

    Raises:
        RuntimeError: Keras runs on another backend than JAX. TypeError: an argument is of the wrong kind; ValueError:
            of the wrong shape or value.

    Source: `keras.layers.BatchNormalization` of Keras 3.15.
    """

    # What a saved model calls the layer.
    __module__ = "keras.layers"

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        *args: Any,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        backend = keras.backend.backend()
        if backend != "jax":
            raise RuntimeError(
                f"KERAS_BACKEND: got {backend!r}, allowed: 'jax', set before keras is imported; on other backends use "
                "keras.layers.BatchNormalization"
            )
        _check_kind("axis", axis, numbers.Integral, "an int")
        _check_kind("momentum", momentum, numbers.Real, "a Python number")
        _check_kind("epsilon", epsilon, numbers.Real, "a Python number")
        super().__init__(axis, momentum, epsilon, *args, **kwargs)
        if synchronized and self.renorm:
            raise ValueError("synchronized: got True with renorm=True, allowed: False")
        self.synchronized = synchronized

    setattr(__init__, "__signature__", inspect.signature(keras.layers.BatchNormalization.__init__))  # noqa: B010

    def build(self, input_shape: Shape) -> None:
        """Creates the weights: gamma, beta, moving_mean, moving_variance, as far as they are wanted."""
        rank = len(input_shape)
        if not -rank <= self.axis < rank:
            allowed = f"{-rank} to {rank - 1}" if rank else "inputs of rank 1 or more"
            raise ValueError(f"axis: got {self.axis} for inputs of shape {tuple(input_shape)}, allowed: {allowed}")
        if input_shape[self.axis] is None:
            raise ValueError(
                f"axis: got {self.axis} for inputs of shape {tuple(input_shape)}, "
                "allowed: a dimension whose size is known"
            )
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes ``inputs``, and in training moves the statistics."""
        if self.renorm:
            return super().call(inputs, training=training, mask=mask)
        if not keras.backend.is_float_dtype(inputs.dtype):
            raise TypeError(f"inputs: got {inputs.dtype}, allowed: a real floating-point type; cast them first")
        training = bool(training and self.trainable)
        y, mean, variance = batch_norm(
            # Keras's own promotion makes float32 of float64.
            keras.ops.cast(inputs, jnp.promote_types(inputs.dtype, self.compute_dtype)),
            self.gamma.value if self.scale else None,
            self.beta.value if self.center else None,
            self.moving_mean.value,
            self.moving_variance.value,
            training=training,
            axis=self.axis,
            momentum=self.momentum,
            epsilon=self.epsilon,
            mask=None if mask is None else keras.ops.cast(mask, "bool"),
        )
        if training:
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)
        return keras.ops.cast(y, self.compute_dtype)


def use_in(model: Any) -> Any:
    """Makes every stock batch norm of a model or layer ours, in place: weights, optimizer and connections stay.

    Returns:
        The model itself.
    """
    # Keras has no public way to reach layers inside of layers that are no models.
    for layer in model._flatten_layers():
        if type(layer) is keras.layers.BatchNormalization:
            layer.__class__ = BatchNormalization
        if isinstance(layer, keras.Model):
            # What was traced with the old layers.
            layer.train_function = layer.test_function = layer.predict_function = None
    return model


def _check_kind(name: str, value: Any, kind: type, allowed: str) -> None:
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{name}: got {value!r}, allowed: {allowed}")
