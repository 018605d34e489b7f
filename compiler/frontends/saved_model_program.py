"""Refuses a SavedModel whose graphs do more to the machine than compute: loading one runs parts of it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.frontends.saved_model_loading import find_operations
from stablenorm.compiler.frontends.tensorflow_runtime import first_useful_line

# What loading may run. Nothing here joins strings or reads tables: a model could otherwise read a file into a table
# and send a line of it away as part of the name of the next file.
_LOADING = re.compile(
    r"(Mutable|Anonymous|AnonymousMutable)?(Dense)?HashTable(OfTensors)?(V2)?|InitializeTable(FromTextFile)?(V2)?"
    r"|LookupTable(Import|Insert|Remove)(V2)?|DestroyResourceOp"
    r"|VarHandleOp|Variable(V2)?|ReadVariableOp|Assign(VariableOp)?|(VarIs|IsVariable)Initialized(Op)?"
    r"|Restore(V2|Slice)?|Const|Placeholder(V2|WithDefault)?|FakeParam|Identity(N)?|NoOp|Assert"
    r"|(Stateful)?PartitionedCall|(Stateless)?(If|While|Case)|Switch|Merge|Enter|Exit|NextIteration|LoopCond"
    r"|Cast|Shape|Reshape|ExpandDims|Squeeze|Pack|Unpack|Fill|ZerosLike|OnesLike|Range|Logical(And|Or|Not)"
)
# What the functions that save a table or a variable hold. Loading runs them to know what there is to restore.
_DESCRIBING = re.compile(
    r"LookupTableExport(V2)?|ReadVariableOp|Const|Identity|NoOp|Add(V2)?|(Stateful)?PartitionedCall"
)
# Operations that write files, start Python or reach other machines. XLA compiles none of them, so nothing is lost.
_REFUSED = re.compile(
    r"WriteFile|Save|SaveSlices|(Eager)?PyFunc(Stateless)?|Debug\w+|Create\w*Summary\w*Writer|\w*SummaryWriter"
    r"|PrintV2|Rpc\w*|DatasetToTFRecord\w*|Experimental\w*TFRecord|SaveDataset\w*|DistributedSave|MakeUniqueDir\w*"
    r"|CacheDataset\w*|\w*Snapshot\w*|DataServiceDataset\w*|RegisterDataset\w*"
)
# These write and delete files too, but every SavedModel has them, in the function that saves its variables, which
# neither loading nor a call of the model runs.
_SAVES = {"SaveV2", "MergeV2Checkpoints"}


def check_program(path: Path) -> None:
    """Returns where loading ``saved_model.pb`` runs nothing but what fills tables and variables, and no graph writes.

    Raises:
        StablenormError: it does, or the file is damaged.
    """
    program = importlib.import_module("tensorflow.core.protobuf.saved_model_pb2").SavedModel()
    try:
        program.ParseFromString(path.read_bytes())
        found = [find_operations(graph) for graph in program.meta_graphs]
    except Exception as error:
        raise StablenormError(
            f"{path}: got a damaged SavedModel ({first_useful_line(error)}); export it again"
        ) from error
    loading = {name for each in found for name in each.loading if not _LOADING.fullmatch(name)}
    loading |= {name for each in found for name in each.describing if not _DESCRIBING.fullmatch(name)}
    if loading:
        raise StablenormError(
            f"{path}: got the operations {', '.join(sorted(loading))}, allowed in what TensorFlow runs while it loads "
            "a SavedModel: those that create and fill tables and variables, constants, calls, branches, loops, casts "
            "and reshapes; export the model without them, or with their results as constants"
        )
    graphs = [graph.graph_def for graph in program.meta_graphs]
    nodes = [node for graph in graphs for node in graph.node]
    nodes += [node for graph in graphs for function in graph.library.function for node in function.node_def]
    written = {node.op for node in nodes if _REFUSED.fullmatch(node.op)}
    written |= {name for each in found for name in each.traced & _SAVES}
    if written:
        raise StablenormError(
            f"{path}: got the operations {', '.join(sorted(written))}, allowed: operations that only compute; "
            "export the model without them"
        )
