"""IR to IR: one pass a file, each a rewrite of StableHLO that can be run alone by ``stablenorm-opt``."""

from stablenorm.passes.base import Pass, PassContext, Remark
from stablenorm.passes.block_batch import BlockBatch
from stablenorm.passes.context import make_context
from stablenorm.passes.fold_batch_norm import FoldBatchNorm
from stablenorm.passes.freeze_batch_norm import FreezeBatchNorm
from stablenorm.passes.hoist_weights import HoistWeights
from stablenorm.passes.import_cleanup import ImportCleanup
from stablenorm.passes.lower_batch_norm import LowerBatchNorm
from stablenorm.passes.lower_depthwise_convolution import LowerDepthwiseConvolution
from stablenorm.passes.lower_pointwise_convolution import LowerPointwiseConvolution
from stablenorm.passes.lower_pooling import LowerPooling
from stablenorm.passes.raise_batch_norm import RaiseBatchNorm
from stablenorm.passes.skip_places import SkipPlaces
from stablenorm.passes.synchronize_batch_norm import SynchronizeBatchNorm
from stablenorm.passes.transpose_kernels import TransposeKernels

# Every pass that a pipeline may name, in the order of the default pipelines. These leave out FreezeBatchNorm and
# SynchronizeBatchNorm, and the passes of other targets.
PASSES: tuple[type[Pass], ...] = (
    ImportCleanup,
    RaiseBatchNorm,
    FreezeBatchNorm,
    FoldBatchNorm,
    SynchronizeBatchNorm,
    LowerBatchNorm,
    SkipPlaces,
    LowerDepthwiseConvolution,
    LowerPointwiseConvolution,
    LowerPooling,
    TransposeKernels,
    HoistWeights,
    BlockBatch,
)

__all__ = ["PASSES", "Pass", "PassContext", "Remark", "make_context"]
