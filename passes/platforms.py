"""The platforms of XLA that arithmetic is arranged for; what suits one is right on all."""

from __future__ import annotations

import enum


class Platform(enum.StrEnum):
    """By the names that JAX gives them."""

    CPU = "cpu"
    CUDA = "cuda"
    TPU = "tpu"
