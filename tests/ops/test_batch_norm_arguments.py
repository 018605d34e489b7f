"""What cannot be meant is refused while tracing: the message names the argument, what was got and what is allowed."""

import jax
import numpy as np
import pytest

from stablenorm.ops import batch_norm

X = np.ones((4, 5, 3), np.float32)
VECTOR = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"x": X.astype(int)}, TypeError, ["x: got int32", "floating-point"]),
        ({"x": X.astype(np.complex64)}, TypeError, ["x: got complex64", "floating-point"]),
        ({"axis": 3}, ValueError, ["axis: got 3", "(4, 5, 3)", "-3 to 2"]),
        ({"axis": -4}, ValueError, ["axis: got -4", "-3 to 2"]),
        ({"axis": (0, -3)}, ValueError, ["axis: got (0, -3)", "twice"]),
        ({"axis": ()}, TypeError, ["axis: got ()", "int"]),
        ({"axis": 1.0}, TypeError, ["axis: got 1.0", "int"]),
        ({"axis": "last"}, TypeError, ["axis: got 'last'", "int"]),
        ({"axis": True}, TypeError, ["axis: got True", "int"]),
        ({"x": np.float32(1)}, ValueError, ["x: got a scalar", "rank 1"]),
        ({"moving_mean": None}, TypeError, ["moving_mean: got None", "(3,)"]),
        ({"unbiased": "yes"}, TypeError, ["unbiased: got 'yes'", "True or False"]),
        ({"axis_name": "nowhere"}, ValueError, ["axis_name: got 'nowhere'", "shard_map"]),
        ({"axis_name": 3}, ValueError, ["axis_name: got 3", "shard_map"]),
        ({"mask": np.ones((4, 5), complex)}, ValueError, ["mask: got complex64", "numbers"]),
        ({"scale": np.ones(5, np.float32)}, ValueError, ["scale: got the shape (5,)", "(3,)"]),
        ({"offset": np.ones((1, 1, 3), np.float32)}, ValueError, ["offset: got the shape (1, 1, 3)", "(3,)"]),
        ({"moving_mean": np.ones((), np.float32)}, ValueError, ["moving_mean: got the shape ()", "(3,)"]),
        ({"moving_variance": np.ones(3, int)}, TypeError, ["moving_variance: got int32", "floating-point"]),
        ({"momentum": None}, TypeError, ["momentum: got None", "number"]),
        ({"epsilon": "1e-3"}, TypeError, ["epsilon: got '1e-3'", "number"]),
        ({"epsilon": True}, TypeError, ["epsilon: got True", "number"]),
        ({"training": None}, TypeError, ["training: got None", "True or False"]),
        ({"mask": np.ones((5, 4), bool)}, ValueError, ["mask: got bool of shape (5, 4)", "(4, 5, 3)"]),
        ({"mask": np.ones(4, bool)}, ValueError, ["mask: got bool of shape (4,)"]),
    ],
    ids=str,
)
def test_refused(changed, error, words):
    arguments = {"x": X, "scale": VECTOR, "offset": VECTOR, "moving_mean": VECTOR, "moving_variance": VECTOR}
    arguments |= {"training": True} | changed
    with pytest.raises(error) as caught:
        batch_norm(**arguments)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_traced_training_flag_is_refused():
    with pytest.raises(TypeError, match=r"training: got .*lax\.cond"):
        jax.jit(lambda flag: batch_norm(X, None, None, VECTOR, VECTOR, training=flag))(True)
