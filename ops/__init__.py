"""What batch norm means: each operation with its specification, a float64 oracle and its StableHLO."""

from stablenorm.ops.batch_norm import batch_norm
from stablenorm.ops.batch_norm_grad import BatchNormGrad
from stablenorm.ops.batch_norm_inference import BatchNormInference
from stablenorm.ops.batch_norm_training import BatchNormTraining
from stablenorm.ops.op import Op, TensorType

__all__ = ["BatchNormGrad", "BatchNormInference", "BatchNormTraining", "Op", "TensorType", "batch_norm"]
