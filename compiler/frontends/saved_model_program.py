"""Refuses a SavedModel whose graphs do more to the machine than compute: loading one runs parts of it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.tensorflow_runtime import first_useful_line

# Operations that write files, start Python or reach other machines. XLA compiles none of them, so nothing is lost.
_REFUSED = re.compile(
    r"WriteFile|Save|SaveSlices|(Eager)?PyFunc(Stateless)?|Debug\w+|Create\w*Summary\w*Writer|\w*SummaryWriter"
    r"|PrintV2|Rpc\w*|DatasetToTFRecord\w*|Experimental\w*TFRecord|SaveDataset\w*|DistributedSave|MakeUniqueDir\w*"
    r"|CacheDataset\w*|\w*Snapshot\w*|DataServiceDataset\w*|RegisterDataset\w*"
)
# These write and delete files too, but every SavedModel has them, in the function that saves its variables: they are
# refused only where loading may run them.
_SAVES = {"SaveV2", "MergeV2Checkpoints"}


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
    found += sorted({node.op for graph in program.meta_graphs for node in _run_by_loading(graph)} & _SAVES)
    if found:
        raise StablenormError(
            f"{path}: got the operations {', '.join(found)}, allowed: operations that only compute, because loading "
            "runs parts of a SavedModel; export the model without them"
        )


def _run_by_loading(graph: Any) -> Iterator[Any]:
    """The nodes that initialize, restore or are the model's objects, and those of the functions that these call."""
    library = {function.signature.name: function for function in graph.graph_def.library.function}
    main = {node.name: node for node in graph.graph_def.node}
    tensors = [tensor.name for tensor in graph.signature_def["__saved_model_init_op"].outputs.values()]
    tensors += [name for key in _INITIALIZERS for name in graph.collection_def[key].node_list.value]
    nodes, functions = [*tensors, graph.saver_def.restore_op_name], list(graph.object_graph_def.concrete_functions)
    while nodes or functions:
        if nodes:
            node = main.pop(re.sub(r"^\^|:.*", "", nodes.pop()), None)
            found = [] if node is None else [node]
            nodes += [name for node in found for name in node.input]
        else:
            function = library.pop(functions.pop(), None)
            found = [] if function is None else list(function.node_def)
        yield from found
        functions += [name for node in found for value in node.attr.values() for name in _called(value)]


_INITIALIZERS = ("saved_model_main_op", "legacy_init_op")


def _called(value: Any) -> list[str]:
    """The functions that an attribute of a node names."""
    return [function.name for function in (value.func, *value.list.func) if function.name]
