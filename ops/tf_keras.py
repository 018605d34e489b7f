"""Batch norm as a tf_keras layer.

It is a `tf_keras.layers.BatchNormalization`: constructor, weights, policies and configuration are that layer's. What
it computes is the StableHLO of `stablenorm.ops.batch_norm`, embedded in TensorFlow's graphs (`tensorflow_calls.py`).

**Files.** A saved model, ``.keras``, ``.h5`` or a SavedModel, names the stock layer, so tf_keras opens it with or
without stablenorm. `use_in` makes the batch norms of a model ours, whichever layer wrote it::

    model = use_in(tf_keras.models.load_model(path))

So it does in a clone of a model, where wrappers make their layers anew, of what a file would hold.

Weight files go both ways as they are. A SavedModel that `tf.saved_model.load` opens computes as ours does and has its
first derivatives, without stablenorm; derivatives of these need the layer itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
import tf_keras

from stablenorm.ops.tensorflow_batch_norm import BatchNorm, in_shape, is_statistics, operand_types
from stablenorm.ops.tensorflow_calls import call
from stablenorm.ops.tensorflow_replicas import Normalize
from stablenorm.ops.tensorflow_replicas import train as train_across_replicas
from stablenorm.ops.tf_keras_arguments import (
    FLOATING,
    check_number,
    checked_axis,
    checked_inputs,
    checked_training,
    checked_weight,
    feature_axes,
)

Tensor: TypeAlias = tf.Tensor

# Rank and feature dimension where tf_keras has a fused operation, whose moving variance is the unbiased one.
_FUSED = {(4, 1), (4, 3), (5, 1), (5, 4)}


class BatchNormalization(tf_keras.layers.BatchNormalization):  # type: ignore[misc]  # tf_keras ships no types.
    """``y = (x - mean) / sqrt(variance + epsilon) * gamma + beta``: `tf_keras.layers.BatchNormalization`, at any mean.

    In training, mean and biased variance are those of the batch over all dimensions but ``axis``, and
    ``moving = moving * momentum + batch * (1 - momentum)``; in inference, and with ``trainable=False``, they are the
    moving ones. The moving variance takes ``n / (n - 1)`` times the batch's (n = 1: once) where the stock layer is
    fused: one feature axis, 1 or the last, of rank 4 or 5; no float64, ``fused=False`` or rare option.

    Nothing cancels at any mean, and derivatives are exact to any order, in reverse and forward mode. Besides, it
    differs from the stock layer in these:

    - ``mask`` is honoured for every rank and axis. It has the shape of ``inputs`` without ``axis``, or one that
      broadcasts to ``inputs``, and holds booleans or weights, fractions too. It has no derivative. Without the last
      dimension, as Keras hands masks on, it may be where that is one of several feature axes.
    - Where nothing counts, in an empty batch or under a mask of zeros alone, the moving statistics stay.
    - ``synchronized=True`` changes nothing outside of a ``tf.distribute`` strategy, as documented.
    - ``get_config`` keeps ``synchronized`` and ``fused``, and ``axis`` as it was given.
    - Integers are refused: cast them first. A momentum that is no number is refused, too.

    With ``synchronized=True`` under a strategy, statistics are those of all replicas, weighted by what each counts, for
    one all-reduce forward and one backward; the moving variance is the biased one.

    The stock layer computes ``renorm``, ``virtual_batch_size`` and ``adjustment``.

    Shapes: ``inputs`` and result have any rank from 1. Weights have one number for each feature; with several axes,
    the shape of ``inputs`` with 1 for the other dimensions. Types: weights are float32, float64 for float64.

    Raises:
        TypeError: an argument is of the wrong kind; ValueError: of the wrong shape or value.

    Source: `tf_keras.layers.BatchNormalization` of tf_keras 2.21.
    """

    # What a saved model calls the layer. tf_keras looks into the class itself, not into its ancestors.
    _keras_api_names = tf_keras.layers.BatchNormalization._keras_api_names

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        *args: Any,
        fused: bool | None = None,
        **kwargs: Any,
    ) -> None:
        axis = checked_axis(axis)
        check_number("momentum", momentum)
        check_number("epsilon", epsilon)
        super().__init__(axis, momentum, epsilon, *args, fused=fused, **kwargs)
        self._given_fused = fused

    setattr(__init__, "__signature__", inspect.signature(tf_keras.layers.BatchNormalization.__init__))  # noqa: B010

    def build(self, input_shape: Any) -> None:
        """Creates the weights: gamma, beta, moving_mean, moving_variance, as far as they are wanted."""
        shape = tf.TensorShape(input_shape)
        if self.compute_dtype not in FLOATING:
            raise TypeError(f"dtype: got {self.compute_dtype}, allowed: {', '.join(FLOATING)}")
        # A list would become an object of its own in checkpoints.
        self._given_axis = self.axis if isinstance(self.axis, int) else tuple(self.axis)
        self._axes = feature_axes(self._given_axis, shape)
        self._unbiased = self._has_fused_form(shape.rank)
        if self._given_fused and not self._unbiased:
            raise ValueError(
                f"fused: got True for axis {self._given_axis!r} of inputs of shape {shape}, allowed: None or False; "
                "True needs rank 4 or 5, and the axis 1 or the last"
            )
        if not self._unbiased:
            self.fused = False
        super().build(shape)

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Tensor:
        """Normalizes ``inputs``, and in training moves the statistics."""
        return self._normalize(checked_inputs(inputs), training, mask)

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def _normalize(self, inputs: Tensor, training: Any, mask: Any) -> Tensor:
        if self._is_rare():
            return super().call(inputs, training=training, mask=mask)
        x = tf.cast(inputs, self.compute_dtype)
        mode = checked_training(self._get_training_value(training))
        if isinstance(mode, bool):
            return self._train(x, mask) if mode else self._infer(x)
        return tf.cond(mode, lambda: self._train(x, mask), lambda: self._infer(x))

    def _train(self, x: Tensor, mask: Any) -> Tensor:
        weight = None if mask is None else checked_weight(mask, x, self._axes, self.moving_mean.dtype)
        if self.synchronized and tf.distribute.has_strategy():
            y, mean, variance = self._computed_across_replicas(x, weight)
        else:
            y, mean, variance = self._computed(x, weight, training=True)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            self.add_update(
                lambda moving=moving, value=value: moving.assign(in_shape(value, moving.shape), read_value=False)
            )
        return y

    def _infer(self, x: Tensor) -> Tensor:
        return self._computed(x, None, training=False)[0]

    def _computed(self, x: Tensor, weight: Tensor | None, training: bool) -> list[Tensor]:
        check_number("momentum", self.momentum)
        check_number("epsilon", self.epsilon)
        function = BatchNorm(
            training,
            self._axes,
            float(self.momentum),
            float(self.epsilon),
            self._unbiased,
            has_scale=self.gamma is not None,
            has_offset=self.beta is not None,
        )
        features = [x.shape[axis] for axis in self._axes]
        weights = [self.gamma, self.beta, self.moving_mean, self.moving_variance]
        vectors = [in_shape(vector, features) for vector in weights if vector is not None]
        operands = [x, *vectors] if weight is None else [x, *vectors, weight]
        types = operand_types(x, vectors, weight, self._axes)
        y, *moving = call(function, operands, types, keep=is_statistics if training else None)
        y.set_shape(x.shape)
        return [y, *moving]

    def _computed_across_replicas(self, x: Tensor, weight: Tensor | None) -> list[Tensor]:
        features = [x.shape[axis] for axis in self._axes]
        parameters = [in_shape(vector, features) for vector in (self.gamma, self.beta) if vector is not None]
        normalize = Normalize(self._axes, float(self.epsilon), self.gamma is not None, self.beta is not None)
        y, mean, variance, count = train_across_replicas(
            normalize, x, parameters, weight, operand_types(x, parameters, weight, self._axes)
        )
        y.set_shape(x.shape)

        def moved(old: tf.Variable, batch: Tensor) -> Tensor:
            old = in_shape(old, batch.shape)
            return tf.where(count > 0, old * self.momentum + batch * (1 - self.momentum), old)

        return [y, moved(self.moving_mean, mean), moved(self.moving_variance, variance)]

    def _has_fused_form(self, rank: int) -> bool:
        return (
            (self._given_fused is None or bool(self._given_fused))
            and len(self._axes) == 1
            and (rank, self._axes[0]) in _FUSED
            and self.compute_dtype != "float64"
            and not self._is_rare()
        )

    def _is_rare(self) -> bool:
        return bool(self.renorm or self.virtual_batch_size is not None or self.adjustment is not None)

    def _sync_calculate_mean_and_var(self, x: Tensor, reduction_axes: Any, keep_dims: bool, mask: Any = None) -> Any:
        # The stock layer, which computes the rare options, is synchronized without a strategy too, to its cost.
        if tf.distribute.has_strategy():
            return super()._sync_calculate_mean_and_var(x, reduction_axes, keep_dims, mask=mask)
        return self._no_sync_calculate_mean_and_var(x, reduction_axes, keep_dims, mask=mask)

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets the weights, in the order of `get_weights`."""
        for variable, value in zip(self.weights, weights, strict=False):
            if not variable.shape.is_compatible_with(np.shape(value)):
                name = variable.name.rpartition("/")[2].removesuffix(":0")
                raise ValueError(f"{name}: got the shape {np.shape(value)}, allowed: {tuple(variable.shape)}")
        super().set_weights(weights)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; ``adjustment``, a function, is left out, as in the stock layer."""
        config: dict[str, Any] = super().get_config()
        axis = self._given_axis if self.built else self.axis
        config["axis"] = axis if isinstance(axis, int) else list(axis)
        if self.renorm:
            config["renorm_clipping"] = dict(self.renorm_clipping)
        if self.synchronized:
            config["synchronized"] = True
        if self._given_fused is not None:
            config["fused"] = self._given_fused
        return config


def use_in(model: Any) -> Any:
    """Makes every stock batch norm of a model or layer ours, in place: weights, optimizer and connections stay.

    Returns:
        The model itself.
    """
    for layer in (model, *model.submodules):
        if type(layer) is tf_keras.layers.BatchNormalization:
            _adopt(layer)
        if isinstance(layer, tf_keras.Model):
            # What was traced with the old layers.
            layer.train_function = layer.test_function = layer.predict_function = None
    return model


def _adopt(layer: Any) -> None:
    """Makes a stock layer ours. What it does not remember of its constructor's arguments, is read off what it does."""
    layer.__class__ = BatchNormalization
    layer._given_fused = None
    if not layer.built:
        layer._given_fused = False if layer.fused is False and not layer.synchronized else None
        return
    rank, added = layer.input_spec.ndim, layer.virtual_batch_size is not None
    layer._axes = tuple(sorted(axis - added for axis in layer.axis))
    layer._given_axis = layer._axes[0] if len(layer._axes) == 1 else layer._axes
    if layer._has_fused_form(rank) and not layer.fused and not layer.synchronized:
        layer._given_fused = False
    layer._unbiased = layer._has_fused_form(rank)
