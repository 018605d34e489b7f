"""What must be set before the first test of a process imports or starts a framework."""

import os

import jax

# Keras 3 fixes its backend when it is first imported, by whichever test comes first in a process.
os.environ["KERAS_BACKEND"] = "jax"

# Eight devices on one CPU: replicas for the tests of synchronized batch norm. The others use the first.
jax.config.update("jax_num_cpu_devices", 8)
