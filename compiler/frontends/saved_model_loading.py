"""Which operations of a SavedModel TensorFlow runs while it loads it, and which it only traces."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from stablenorm.compiler.frontends.tensorflow_runtime import import_tensorflow


@dataclasses.dataclass(frozen=True)
class Operations:
    """The operations that loading runs, those that it runs to describe what is to be restored, those of the calls."""

    loading: set[str]
    describing: set[str]
    traced: set[str]


def find_operations(graph: Any) -> Operations:
    """The operations of a ``MetaGraphDef``, by what makes TensorFlow run them."""
    functions = _Functions(graph)
    objects = list(graph.object_graph_def.nodes)
    every = [name for node in range(len(objects)) for name in _callable(objects, node)]
    outputs = [tensor.name for signature in graph.signature_def.values() for tensor in signature.outputs.values()]
    traced = functions.reached_from(outputs, [*every, *graph.object_graph_def.concrete_functions])
    if not graph.HasField("object_graph_def"):
        return Operations(functions.reached_from(_initializers(graph), []), set(), traced)
    return Operations(functions.reached_from([], _run(objects)), functions.reached_from([], _describe(objects)), traced)


def _run(objects: list[Any]) -> Iterator[str]:
    """The functions that create, initialize, restore and destroy objects, and those that replace TensorFlow's methods.

    Loading makes an object's children its attributes, under the names that the file gives them, and calls methods of
    the objects after that. Objects of the model's own classes become AutoTrackables, where every name that is none of
    their methods' is free: ``training_step`` is not called. All other kinds of objects have no functions of their own.
    """
    methods = dir(import_tensorflow().__internal__.tracking.AutoTrackable)
    for node in objects:
        user_object = node.WhichOneof("kind") == "user_object" and not node.registered_name
        free = user_object and "ptimizer" not in node.user_object.identifier
        for child in [*node.children, *node.dependencies]:
            name = child.local_name
            magic = name.startswith("__") and name != "__call__"
            trace = node.WhichOneof("kind") == "function" and re.fullmatch(r"trace_\d+", name)
            if not (trace or (free and name not in methods and not magic)):
                yield from _callable(objects, child.node_id)
        for saveable in node.saveable_objects.values():
            yield from _callable(objects, saveable.restore_function)


def _describe(objects: list[Any]) -> Iterator[str]:
    """Restoring calls what saves an object too: its results tell what to restore."""
    for node in objects:
        for saveable in node.saveable_objects.values():
            yield from _callable(objects, saveable.save_function)


def _callable(objects: list[Any], node_id: int) -> Iterator[str]:
    """The functions that calling an object runs: a function's own, or its ``__call__``'s."""
    reached, waiting = set(), [node_id]
    while waiting:
        node_id = waiting.pop()
        if node_id in reached or not 0 <= node_id < len(objects):
            continue
        reached.add(node_id)
        node = objects[node_id]
        yield from node.function.concrete_functions
        yield node.bare_concrete_function.concrete_function_name
        waiting += [child.node_id for child in node.children if child.local_name == "__call__"]


def _initializers(graph: Any) -> Iterator[str]:
    """The nodes of a TF1 graph that restore variables, and that initialize tables and local variables."""
    yield graph.saver_def.restore_op_name
    if "__saved_model_init_op" in graph.signature_def:
        yield from (tensor.name for tensor in graph.signature_def["__saved_model_init_op"].outputs.values())
    for key in ("saved_model_main_op", "legacy_init_op", "table_initializer"):
        if key in graph.collection_def:
            yield from graph.collection_def[key].node_list.value
    if "local_variables" in graph.collection_def:
        variable = importlib.import_module("tensorflow.core.framework.variable_pb2").VariableDef
        for serialized in graph.collection_def["local_variables"].bytes_list.value:
            yield variable.FromString(serialized).initializer_name


class _Functions:
    """The nodes of a graph and the functions of its library, several of one name and of one interface together."""

    def __init__(self, graph: Any) -> None:
        self._main = {node.name: node for node in graph.graph_def.node}
        self._library: dict[str, list[Any]] = {}
        self._implementations: dict[bytes, list[str]] = {}
        for function in graph.graph_def.library.function:
            self._library.setdefault(function.signature.name, []).append(function)
            self._implementations.setdefault(_interface(function), []).append(function.signature.name)

    def reached_from(self, tensors: Iterable[str], functions: Iterable[str]) -> set[str]:
        """The operations that compute tensors of the graph or stand in functions, and in the functions they call."""
        operations: set[str] = set()
        reached: set[str] = set()
        names, calls = list(tensors), list(functions)
        while names or calls:
            found: list[Any] = []
            if names:
                name = re.sub(r"^\^|:.*", "", names.pop())
                if name in self._main and f"node {name}" not in reached:
                    reached.add(f"node {name}")
                    found = [self._main[name]]
                    names += found[0].input
            else:
                name = calls.pop()
                if name in self._library and name not in reached:
                    reached.add(name)
                    for function in self._library[name]:
                        found += function.node_def
                        # TensorFlow may run any function of the same interface in its place.
                        calls += self._implementations[_interface(function)] if _interface(function) else []
            operations |= {node.op for node in found if node.op not in self._library}
            calls += [node.op for node in found if node.op in self._library]
            calls += [name for node in found for value in node.attr.values() for name in _called(value)]
        return operations


def _interface(function: Any) -> bytes:
    return bytes(function.attr["api_implements"].s) if "api_implements" in function.attr else b""


def _called(value: Any) -> Iterator[str]:
    """The functions that an attribute of a node names."""
    for function in (value.func, *value.list.func):
        yield function.name
        for inner in function.attr.values():
            yield from _called(inner)
