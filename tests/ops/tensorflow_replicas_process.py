"""Steps of a synchronized tf_keras layer under a strategy, compared with one replica on the whole batch.

Its own process, because TensorFlow takes its devices, and its place in a cluster, when it starts. Prints one line of
JSON for each case.
"""

import json
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
import tf_keras

from stablenorm.ops.tf_keras import BatchNormalization

REPLICAS = 2
# How the rows of a batch fall on the replicas, and the mean of the data, whose deviation is 1.
CASES = [([4, 4], 3.0), ([7, 1], 3.0), ([8, 0], 3.0), ([4, 4], 1e4)]


def parameters():
    generator = np.random.default_rng(0)
    gamma, beta, mean = generator.normal(size=(3, 5)).astype(np.float32)
    return [gamma, beta, mean, generator.uniform(0.5, 2.0, 5).astype(np.float32)]


def built(kind, **options):
    layer = kind(epsilon=1e-3, momentum=0.5, **options)
    layer.build((None, 4, 5))
    layer.set_weights(parameters())
    return layer


def step(layer, x, grad_output, mask=None):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True, mask=mask)
        loss = tf.reduce_sum(y * grad_output)
    return y, *tape.gradient(loss, [x, layer.gamma, layer.beta])


def compare(strategy, first_replica, local, rows, mean, kind, masked):
    """Errors relative to the largest values, of what this process sees, and collectives of a step on each replica."""
    generator = np.random.default_rng(1)
    x = generator.normal(mean, 1.0, (sum(rows), 4, 5)).astype(np.float32)
    arrays = [x, generator.normal(size=x.shape).astype(np.float32)]
    if masked:
        arrays.append(generator.uniform(size=x.shape[:2]) < 0.6)
    ends = np.cumsum([0, *rows])
    parts = [slice(*ends[first_replica + number : first_replica + number + 2]) for number in range(local)]

    def spread(array):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(array[parts[context.replica_id_in_sync_group - first_replica]])
        )

    with strategy.scope():
        layer = built(kind, synchronized=True)
    function = tf.function(lambda *values: strategy.run(lambda *own: step(layer, *own), values))
    values = [spread(array) for array in arrays]
    graph = function.get_concrete_function(*values).graph
    collectives = sum("CollectiveReduce" in op.type for op in graph.get_operations()) / local
    got = [np.stack if place > 1 else np.concatenate for place in range(4)]
    results = [
        join([np.asarray(part) for part in strategy.experimental_local_results(value)])
        for join, value in zip(got, function(*values), strict=True)
    ]
    alone = built(BatchNormalization, fused=False)
    expected = [np.asarray(value) for value in step(alone, *map(tf.constant, arrays))]
    seen = slice(parts[0].start, parts[-1].stop)
    pairs = [(results[0], expected[0][seen]), (results[1], expected[1][seen])]
    if local == sum(1 for _ in rows):  # the other replicas' share of these is with other processes
        pairs += [(results[2].sum(0), expected[2]), (results[3].sum(0), expected[3])]
    pairs += [(layer.moving_mean.numpy(), alone.moving_mean.numpy())]
    pairs += [(layer.moving_variance.numpy(), alone.moving_variance.numpy())]
    errors = [float(np.abs(value - truth).max(initial=0) / np.abs(truth).max(initial=1e-9)) for value, truth in pairs]
    return {"rows": rows, "mean": mean, "errors": errors, "collectives": collectives}


def mirrored():
    devices = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(devices[0], [tf.config.LogicalDeviceConfiguration()] * REPLICAS)
    return tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(REPLICAS)]), 0, REPLICAS


def worker(number, ports):
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": number}})
    return tf.distribute.MultiWorkerMirroredStrategy(), number, 1


def main(arguments):
    place = mirrored() if arguments == ["mirrored"] else worker(int(arguments[0]), arguments[1:])
    for rows, mean in CASES:
        for masked in (False, True):
            print(json.dumps(compare(*place, rows, mean, BatchNormalization, masked)), flush=True)
    if arguments == ["mirrored"]:
        print(json.dumps(compare(*place, [8, 0], 3.0, tf_keras.layers.BatchNormalization, False)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
