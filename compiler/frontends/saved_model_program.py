"""Refuses a SavedModel whose graphs do more to the machine than compute: loading one runs parts of it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.tensorflow_runtime import first_useful_line

# Operations that write files, start Python or reach other machines. XLA compiles none of them, so nothing is lost.
# SaveV2 and its like are in every SavedModel, in a function that loading does not call.
_REFUSED = re.compile(
    r"WriteFile|Save|SaveSlices|(Eager)?PyFunc(Stateless)?|Debug\w+|Create\w*Summary\w*Writer|\w*SummaryWriter"
    r"|PrintV2|Rpc\w*|DatasetToTFRecord\w*|Experimental\w*TFRecord|SaveDataset\w*|DistributedSave|MakeUniqueDir\w*"
)


def check_program(path: Path) -> None:
    """Returns where no graph or function in ``saved_model.pb`` holds an operation that XLA's users would not run.

    Raises:
        StablenormError: one does, or the file is damaged.
    """
    program = importlib.import_module("tensorflow.core.protobuf.saved_model_pb2").SavedModel()
    try:
        program.ParseFromString(path.read_bytes())
    except Exception as error:
        raise StablenormError(
            f"{path}: got a damaged SavedModel ({first_useful_line(error)}); export it again"
        ) from error
    graphs = [graph.graph_def for graph in program.meta_graphs]
    nodes = [node for graph in graphs for node in graph.node]
    nodes += [node for graph in graphs for function in graph.library.function for node in function.node_def]
    found = sorted({node.op for node in nodes if _REFUSED.fullmatch(node.op)})
    if found:
        raise StablenormError(
            f"{path}: got the operations {', '.join(found)}, allowed: operations that only compute, because loading "
            "runs parts of a SavedModel; export the model without them"
        )
