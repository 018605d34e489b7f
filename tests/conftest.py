"""Keras 3 fixes its backend when it is first imported, by whichever test comes first in a process."""

import os

os.environ["KERAS_BACKEND"] = "jax"
