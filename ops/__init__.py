"""What batch norm means: each operation with its specification, a float64 oracle and its StableHLO."""

from stablenorm.ops.batch_norm_inference import BatchNormInference
from stablenorm.ops.op import Op, TensorType

__all__ = ["BatchNormInference", "Op", "TensorType"]
