"""The engines that bench inference compares: each makes ``numpy -> numpy`` of a tf_keras model, on two threads."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stablenorm import compiler
from stablenorm.compiler import pipeline
from stablenorm.compiler.executable import Executable
from stablenorm.compiler.frontends import import_model
from stablenorm.compiler.report import Report
from stablenorm.compiler.targets import Target
from stablenorm.passes import PassContext

Array = NDArray[Any]
Call = Callable[[Array], Array]
THREADS = 2
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # of malloc.h
# Where `make bench-peers` installs what is not in the lock; behind everything else, so that it shadows nothing.
FOLDER = Path(sys.prefix) / "peers"


def use_peers() -> None:
    """Lets ONNX Runtime, OpenVINO, tf2onnx and matplotlib be imported where they are installed."""
    if FOLDER.is_dir() and str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))


def use_two_cores() -> None:
    """Keeps this process on two cores; before any engine is imported, since thread pools are made of what is there."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])


def keep_pages() -> None:
    """Lets memory that arrays leave stay with this process, whoever allocated it: with glibc's defaults, some
    calls of whatever is measured would pay for pages that the kernel clears.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if (
        mallopt is not None
    ):  # glibc has it; with no mapping of its own for a large size, its first arena keeps every size
        for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 1 << 28), (_ARENA_MAX, 1)):
            mallopt(option, value)


def ours(model: Any, batch: int) -> Call:
    executable = compiler.compile(model, target="cpu", input_shape=(batch, *model.input_shape[1:]))
    return lambda x: np.asarray(executable(x))


def stock_xla(model: Any, batch: int) -> Call:
    """The same module from the same frontend: every batch norm as it came, no pass for a target, no option of XLA's."""
    imported = import_model(model, input_shape=(batch, *model.input_shape[1:]))
    target = Target("cpu", "import-cleanup,canonicalize,cse", {})
    pipeline.run(imported.module, target.pipeline, PassContext())
    executable = Executable(imported.signature, Report(()), target, imported.weights, imported.module)
    return lambda x: np.asarray(executable(x))


def tensorflow(model: Any, batch: int) -> Call:
    import tensorflow as tf

    specification = tf.TensorSpec((batch, *model.input_shape[1:]), tf.float32)
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(specification)
    return lambda x: np.asarray(function(tf.constant(x)))


def onnx_runtime(model: Any, batch: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(onnx(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: np.asarray(session.run(None, {name: x})[0])


def openvino(model: Any, batch: int) -> Call:
    import openvino

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    network = core.read_model(onnx(model))
    network.reshape([batch, *model.input_shape[1:]])
    request = core.compile_model(network, "CPU", options).create_infer_request()
    return lambda x: np.array(request.infer({0: x})[0])


@functools.lru_cache(maxsize=1)
def onnx(model: Any) -> bytes:
    """The model as ONNX for any batch size, its weights constants, by tf2onnx."""
    import tensorflow as tf
    import tf2onnx

    # Private, and what tf2onnx itself calls: but that leaves constants which a layer holds (EfficientNet's
    # normalization) as inputs.
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    for logger in (logging.getLogger("tf2onnx"), tf.get_logger()):
        logger.setLevel(logging.ERROR)
    specification = tf.TensorSpec(model.input_shape, tf.float32, name="x")
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(specification)
    frozen = convert_variables_to_constants_v2(function)
    names = [[tensor.name for tensor in tensors] for tensors in (frozen.inputs, frozen.outputs)]
    graph = frozen.graph.as_graph_def()
    return bytes(tf2onnx.convert.from_graph_def(graph, None, *names, opset=17)[0].SerializeToString())
