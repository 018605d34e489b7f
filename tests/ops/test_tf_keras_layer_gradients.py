"""Derivatives of the tf_keras layer: every order, every nesting of the two modes, each way of TensorFlow to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from stablenorm.ops.tf_keras import BatchNormalization
from tests.ops.tf_keras_layers import MODES, Stock, close, normal, randomised, step

SHAPE = (5, 2)
# Rounding of the order below over the step, and the step's square, both times the next derivatives.
DIFFERENCES = 1e-6
Function = Callable[[Any], Any]


class Problem:
    """A function of x with derivatives of every order, x in float64."""

    def __init__(
        self, kind: type = BatchNormalization, training: bool = True, mask: Any = None, shape: Any = SHAPE
    ) -> None:
        # The same in every test: differences are as good as the problem's condition.
        generator = np.random.default_rng(3)
        self.x, self.direction, self.factor = tf.constant(generator.normal(size=(3, *shape)))
        self.layer = randomised(kind(momentum=0.5, dtype="float64"), shape, generator)
        self.arguments = {"training": training, "mask": mask} if training else {"training": False}

    def value(self, x: Any) -> Any:
        return tf.reduce_sum(tf.sin(self.layer(x, **self.arguments)) * self.factor)

    def reverse(self, function: Function) -> Function:
        """Of a function, its derivative along the direction, by reverse mode."""

        def derivative(x: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(x)
            return tf.reduce_sum(tape.gradient(y, x) * self.direction)

        return derivative

    def forward(self, function: Function) -> Function:
        """The same by forward mode."""

        def derivative(x: Any) -> Any:
            with tf.autodiff.ForwardAccumulator(x, self.direction) as accumulator:
                y = function(x)
            return accumulator.jvp(y)

        return derivative

    def differences(self, function: Function, step: float = 1e-5) -> float:
        ahead, behind = (function(self.x + sign * step * self.direction) for sign in (1, -1))
        return float(ahead - behind) / (2 * step)

    def nested(self, order: str) -> Function:
        """``"rf"``: reverse mode over forward mode."""
        function: Function = self.value
        for letter in reversed(order):
            function = self.reverse(function) if letter == "r" else self.forward(function)
        return function


MASK = tf.constant([1, 0, 2, 0.5, 1], tf.float64)


ORDERS = [(order, mode) for order in ("r", "f", "rr", "rf", "fr", "ff") for mode in ("eager", "jit")]
ORDERS += [(order, "function") for order in ("rr", "rrr", "rrf", "frr", "fff")]


@pytest.mark.parametrize(("order", "mode"), ORDERS)
def test_derivatives_in_training(order: str, mode: str) -> None:
    """Against differences of the order below, which is a nesting of reverse modes."""
    problem = Problem(mask=MASK)
    expected = problem.differences(problem.nested("r" * (len(order) - 1)))
    close(MODES[mode](problem.nested(order))(problem.x), expected, DIFFERENCES)


@pytest.mark.parametrize("mode", ["eager", "jit"])
@pytest.mark.parametrize("order", ["r", "f", "rr", "fr"])
def test_derivatives_in_inference(order: str, mode: str) -> None:
    problem = Problem(training=False)
    expected = problem.differences(problem.nested("r" * (len(order) - 1)))
    close(MODES[mode](problem.nested(order))(problem.x), expected, DIFFERENCES)


@pytest.mark.parametrize(
    ("order", "jit"), [*[(order, True) for order in ("r", "f", "rr", "fr")], ("ff", False), ("rrr", False)]
)
def test_derivatives_of_a_compiled_function(order: str, jit: bool) -> None:
    """Tapes and accumulators outside, the layer inside of a tf.function."""
    problem = Problem()
    expected = problem.differences(problem.nested("r" * (len(order) - 1)))
    problem.value = tf.function(problem.value, autograph=False, jit_compile=jit)  # type: ignore[method-assign]
    close(problem.nested(order)(problem.x), expected, DIFFERENCES)


def test_the_stock_layers_second_and_third_derivatives_are_wrong() -> None:
    """By a tenth and more on its unfused path: it stops the gradient of the mean inside of the variance."""
    problem = Problem(Stock)
    first, second, third = (problem.nested("r" * order) for order in (1, 2, 3))
    close(first(problem.x), problem.differences(problem.value), DIFFERENCES)
    assert abs(float(second(problem.x)) / problem.differences(first) - 1) > 0.01
    assert abs(float(third(problem.x)) / problem.differences(second) - 1) > 0.01


def test_images_of_float32() -> None:
    """Rank 4, where the stock layer is fused: its third derivative is wrong."""
    shape = (4, 2, 2, 3)
    x, direction = (tf.constant(normal(*shape)) for _ in range(2))
    factor = normal(*shape)
    values = {}
    for dtype in ("float32", "float64"):
        problem = Problem(shape=shape)
        problem.layer = BatchNormalization(dtype=dtype, fused=None)
        problem.direction, problem.factor = tf.cast(direction, dtype), tf.cast(factor, dtype)
        values[dtype] = [problem.nested("r" * order)(tf.cast(x, dtype)) for order in (1, 2, 3)]
    # float32's own rounding, through sums of large terms of both signs.
    close(values["float32"], values["float64"], 1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_derivatives_by_the_weights(mode: str) -> None:
    """Mixed second derivatives by gamma, beta and x, reverse over reverse."""
    problem = Problem()
    layer = problem.layer
    variables = layer.trainable_variables
    directions = [tf.constant(normal(2, dtype=np.float64)) for _ in variables]

    def slope() -> Any:
        """The derivative along x's direction and all of the weights'."""
        with tf.GradientTape() as tape:
            tape.watch(problem.x)
            y = problem.value(problem.x)
        gradients = tape.gradient(y, [problem.x, *variables])
        return sum(tf.reduce_sum(g * d) for g, d in zip(gradients, [problem.direction, *directions], strict=True))

    def second() -> Any:
        with tf.GradientTape() as tape:
            value = slope()
        return tape.gradient(value, variables)

    got = MODES[mode](second)()
    for variable, gradient in zip(variables, got, strict=True):
        for place in range(2):
            values = []
            for change in (1e-5, -2e-5):
                variable.assign_add(change * np.eye(2)[place])
                values.append(float(slope()))
            variable.assign_add(1e-5 * np.eye(2)[place])
            close(gradient[place], (values[0] - values[1]) / 2e-5, DIFFERENCES)


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_jacobians(mode: str, parallel: bool) -> None:
    problem = Problem()

    def jacobian(x: Any) -> Any:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = problem.layer(x, training=True)
        return tape.jacobian(y, x, experimental_use_pfor=parallel)

    got = np.asarray(MODES[mode](jacobian)(problem.x))
    step = 1e-5
    ahead, behind = (problem.layer(problem.x + sign * step * problem.direction, training=True) for sign in (1, -1))
    close(np.einsum("abcd,cd->ab", got, problem.direction), (ahead - behind) / (2 * step), DIFFERENCES)


def test_batch_jacobian_in_inference() -> None:
    problem = Problem(training=False)
    with tf.GradientTape() as tape:
        tape.watch(problem.x)
        y = problem.layer(problem.x, training=False)
    gamma, _, _, variance = problem.layer.get_weights()
    diagonal = np.diag(gamma / np.sqrt(variance + 1e-3))
    close(tape.batch_jacobian(y, problem.x), np.broadcast_to(diagonal, (*SHAPE, 2)), 1e-12)


def test_derivatives_by_the_moving_statistics() -> None:
    """In inference, where the stock layer's fused path gives none."""
    x = tf.constant(normal(3, 2, 2, 2))
    layer = randomised(BatchNormalization(), x.shape)
    with tf.GradientTape() as tape:
        tape.watch([layer.moving_mean, layer.moving_variance])
        loss = tf.reduce_sum(layer(x) ** 2)
    got = tape.gradient(loss, [layer.moving_mean, layer.moving_variance])
    gamma, beta, mean, variance = (w.astype(np.float64) for w in layer.get_weights())
    wide, inverse = x.numpy().astype(np.float64), 1 / np.sqrt(variance + 1e-3)
    dy = 2 * ((wide - mean) * inverse * gamma + beta)
    expected = [(-dy * inverse * gamma).sum((0, 1, 2)), (-0.5 * dy * (wide - mean) * inverse**3 * gamma).sum((0, 1, 2))]
    close(got, expected)


def test_gradients_near_the_limits_of_float32() -> None:
    """No cube of a reciprocal root: it would underflow."""
    x, upstream = normal(16, 2), normal(16, 2)
    got = step(BatchNormalization(epsilon=0.0), x * np.float32(1e15), upstream, training=True)[1]
    wide = (x * np.float32(1e15)).astype(np.float64) / 1e15
    h = (wide - wide.mean(0)) / wide.std(0)
    expected = (upstream - upstream.mean(0) - h * (upstream * h).mean(0)) / wide.std(0)
    close(np.asarray(got, np.float64) * 1e15, expected, 1e-6)


def test_control_flow() -> None:
    """Inside of a loop and a branch of a graph."""
    problem = Problem()

    def value(x: Any) -> Any:
        y = tf.while_loop(lambda n, _: n < 2, lambda n, y: (n + 1, problem.layer(y, training=True)), (0, x))[1]
        return tf.cond(tf.reduce_sum(y) < 1e9, lambda: tf.reduce_sum(tf.sin(y) * problem.factor), lambda: 0.0 * y[0, 0])

    problem.value = tf.function(value, autograph=False)  # type: ignore[method-assign]
    close(problem.nested("r")(problem.x), problem.differences(problem.value), DIFFERENCES)
