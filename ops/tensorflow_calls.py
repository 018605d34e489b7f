"""JAX functions as TensorFlow operations: StableHLO inside of a TensorFlow graph, differentiable to any order.

`call` exports a function of arrays once for each list of operand types, and embeds the module in an `XlaCallModule`
operation, which TensorFlow runs in every way it has: eagerly, in a ``tf.function``, under ``jit_compile=True``, from a
SavedModel. Its derivatives are calls again, of ``jax.vjp`` and ``jax.jvp`` of the function. So they are exact to any
order, and forward mode is ``jax.jvp``, not a reverse mode that is reversed once more.

A call may ``keep`` values for its reverse mode, the statistics of a batch norm; what else that needs is computed again
from the operands. Derivatives of reverse mode are those of the whole function, kept values included.

Three ways of TensorFlow to differentiate meet here. A tape and a forward accumulator are told by `record_operation`;
the gradient of a graph is told by ``tf.custom_gradient``, whose own records would be wrong in forward mode.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.export
import tensorflow as tf

# These are TensorFlow's own, as is the method in `_graph_gradient`. There is no public name for `XlaCallModule`, and
# jax2tf imports it from here too; nor is there one for a derivative of both modes that a user defines:
# `tf.custom_gradient` is wrong in forward mode inside of a `tf.function`, and reverse over forward mode is wrong
# through any nested `tf.function`.
from tensorflow.compiler.tf2xla.python.xla import call_module
from tensorflow.python.eager.record import record_operation, stop_recording

Tensor: TypeAlias = tf.Tensor
# Hashable, and equal where it computes the same: a frozen dataclass, or a function of a module.
Function: TypeAlias = Callable[..., tuple[jax.Array, ...]]
Derivative: TypeAlias = Callable[..., Sequence[Tensor | None]]
# As `jax.checkpoint` takes it: of a primitive and its operands' types, whether reverse mode keeps the results.
Policy: TypeAlias = Callable[..., bool]


@dataclasses.dataclass(frozen=True)
class Type:
    """A shape, whose sizes are numbers, or texts where they are known only when the program runs; and a dtype's name.

    Equal texts are equal sizes. A text is a number from 1 to JAX, so a size that may be 0 is ``"n - 1"``.
    """

    shape: tuple[int | str, ...]
    dtype: str


def call(
    function: Function, operands: Sequence[Tensor], types: Sequence[Type], *, keep: Policy | None = None
) -> list[Tensor]:
    """``function(*operands)``: its results, differentiable by every operand.

    Args:
        function: a JAX function of arrays that returns a tuple of arrays, all of floating-point types.
        operands: tensors, one for each of the function's arguments.
        types: theirs.
        keep: what reverse mode keeps of the forward computation. None: nothing.
    """
    types = tuple(types)
    module = _module(_Alone(function) if keep is None else _Keeping(function, keep), types)
    gradient = _Gradient(function, len(types))

    def backward(operands: Sequence[Tensor], kept: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Any]:
        if keep is None:
            return _derivative(gradient, [*operands, *cotangents], types + module.results)
        from_kept = _FromKept(gradient, keep, len(kept))
        return _gradient_from(from_kept, operands, kept, cotangents, types, module)

    def forward(operands: Sequence[Tensor], tangents: Sequence[Tensor]) -> list[Tensor]:
        return _derivative(_Tangent(function), [*operands, *tangents], types * 2)

    return _recorded(module, operands, backward, forward, is_first=True)


def _derivative(function: Function, operands: Sequence[Tensor], types: tuple[Type, ...]) -> list[Tensor]:
    """`call`, of a function that is a derivative itself."""
    module = _module(_Alone(function), types)

    def backward(operands: Sequence[Tensor], _: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Any]:
        return _derivative(_Gradient(function, len(types)), [*operands, *cotangents], types + module.results)

    def forward(operands: Sequence[Tensor], tangents: Sequence[Tensor]) -> list[Tensor]:
        return _derivative(_Tangent(function), [*operands, *tangents], types * 2)

    return _recorded(module, operands, backward, forward)


def _gradient_from(
    from_kept: _FromKept,
    operands: Sequence[Tensor],
    kept: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    types: tuple[Type, ...],
    module: _Module,
) -> list[Tensor]:
    """The gradient of operands and cotangents, with what was kept. Its own derivatives are without that."""
    gradient = from_kept.gradient
    first, last = len(operands), len(operands) + len(kept)
    exact_types = types + module.results

    def without_kept(values: Sequence[Any]) -> list[Any]:
        return [*values[:first], *values[last:]]

    def backward(operands: Sequence[Tensor], _: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Any]:
        exact = _Gradient(gradient, len(exact_types))
        results = _derivative(exact, [*without_kept(operands), *cotangents], exact_types + types)
        return [*results[:first], *[None] * len(kept), *results[first:]]

    def forward(operands: Sequence[Tensor], tangents: Sequence[Tensor]) -> list[Tensor]:
        return _derivative(_Tangent(gradient), [*without_kept(operands), *without_kept(tangents)], exact_types * 2)

    faster = _module(from_kept, types + module.kept + module.results)
    return _recorded(faster, [*operands, *kept, *cotangents], backward, forward)


def _recorded(
    module: _Module, operands: Sequence[Tensor], backward: Derivative, forward: Derivative, is_first: bool = False
) -> list[Tensor]:
    """The module's results, with their derivatives told to tapes, accumulators and graphs."""
    kept: list[Tensor] = []

    def pull(operands: Sequence[Tensor]) -> Callable[..., Any]:
        return lambda *cotangents: backward(operands, kept, cotangents)

    def compute(*operands: Tensor) -> tuple[list[Tensor], Callable[..., Any]]:
        results = list(call_module(operands, **module.attributes))
        behind = results[len(module.results) :]
        kept.extend(behind if tf.executing_eagerly() else map(tf.stop_gradient, behind))
        return results[: len(module.results)], pull(operands)

    with stop_recording():
        if tf.executing_eagerly():
            results, _ = compute(*operands)
        elif is_first:
            # SavedModels keep this gradient. The identities are of this graph: what it captures, it captures from here.
            results = tf.custom_gradient(compute)(*map(tf.identity, operands))
        else:
            # They would not keep that of a gradient, and complain of it when they are loaded.
            with _graph_gradient(lambda op, *cotangents: backward(op.inputs, kept, cotangents)):
                results, _ = compute(*operands)
    record_operation(
        "StablenormCall", results, list(operands), pull(operands), lambda *tangents: forward(operands, tangents)
    )
    return results


def _graph_gradient(gradient: Callable[..., Any]) -> contextlib.AbstractContextManager[None]:
    """Where the graph's next call of a module has this gradient."""
    graph = tf.compat.v1.get_default_graph()
    return graph._override_gradient_function({"XlaCallModule": gradient})  # type: ignore[no-any-return]


@dataclasses.dataclass(frozen=True)
class _Alone:
    """The function's results, and nothing kept."""

    function: Function

    def __call__(self, *operands: jax.Array) -> Any:
        return self.function(*operands), ()


@dataclasses.dataclass(frozen=True)
class _Keeping:
    """The function's results, and what its reverse mode keeps besides the operands."""

    function: Function
    policy: Policy

    def __call__(self, *operands: jax.Array) -> Any:
        results, pull = _pull_back(self.function, self.policy, operands)
        return results, tuple(leaf for leaf in jax.tree.leaves(pull) if not _is_among(leaf, operands))


@dataclasses.dataclass(frozen=True)
class _Gradient:
    """The cotangents of a function's ``count`` operands, of these operands and the results' cotangents."""

    function: Function
    count: int

    def __call__(self, *values: jax.Array) -> Any:
        _, pull = jax.vjp(self.function, *values[: self.count])
        return pull(values[self.count :])


@dataclasses.dataclass(frozen=True)
class _FromKept:
    """A gradient of operands, what was kept of them, and cotangents. What only the kept values needed, XLA drops."""

    gradient: _Gradient
    policy: Policy
    kept: int

    def __call__(self, *values: jax.Array) -> Any:
        first, last = self.gradient.count, self.gradient.count + self.kept
        operands, kept = values[:first], iter(values[first:last])
        _, pull = _pull_back(self.gradient.function, self.policy, operands)
        leaves, tree = jax.tree.flatten(pull)
        leaves = [leaf if _is_among(leaf, operands) else next(kept) for leaf in leaves]
        return jax.tree.unflatten(tree, leaves)(values[last:]), ()


@dataclasses.dataclass(frozen=True)
class _Tangent:
    """The tangents of a function's results, of its operands and their tangents."""

    function: Function

    def __call__(self, *values: jax.Array) -> Any:
        count = len(values) // 2
        return jax.jvp(self.function, values[:count], values[count:])[1]


def _pull_back(function: Function, policy: Policy, operands: Sequence[jax.Array]) -> Any:
    return jax.vjp(jax.checkpoint(function, policy=policy, prevent_cse=False), *operands)


def _is_among(value: jax.Array, operands: Sequence[jax.Array]) -> bool:
    return any(value is operand for operand in operands)


@dataclasses.dataclass(frozen=True)
class _Module:
    """An exported function: the attributes of its operation, and the types of what it returns."""

    attributes: Mapping[str, Any]
    results: tuple[Type, ...]
    kept: tuple[Type, ...]


# A model with two hundred batch norms has some hundred types of operands, with three modules each.
@functools.lru_cache(maxsize=4096)
def _module(function: Callable[..., Any], types: tuple[Type, ...]) -> _Module:
    scope = jax.export.SymbolicScope()
    # Tensors may be float64 on any setting of JAX. The module is the same on every platform.
    with jax.enable_x64(True):
        exported = jax.export.export(
            jax.jit(function, keep_unused=True),
            platforms=["cpu"],
            disabled_checks=[jax.export.DisabledSafetyCheck.platform()],
        )(*(_specification(type_, scope) for type_ in types))
    returned = [Type(tuple(map(_size, value.shape)), value.dtype.name) for value in exported.out_avals]
    results, kept = jax.tree.unflatten(exported.out_tree, returned)
    attributes = {
        "version": exported.calling_convention_version,
        "module": exported.mlir_module_serialized,
        "Tout": [tf.as_dtype(type_.dtype) for type_ in returned],
        "Sout": [[size if isinstance(size, int) else None for size in type_.shape] for type_ in returned],
        "platforms": [platform.upper() for platform in exported.platforms],
        "disabled_checks": [str(check) for check in exported.disabled_safety_checks],
    }
    return _Module(attributes, results, kept)


def _specification(type_: Type, scope: jax.export.SymbolicScope) -> jax.ShapeDtypeStruct:
    shape = jax.export.symbolic_shape(", ".join(map(str, type_.shape)), scope=scope)
    return jax.ShapeDtypeStruct(shape, tf.as_dtype(type_.dtype).as_numpy_dtype)


def _size(size: Any) -> int | str:
    return size if isinstance(size, int) else str(size)
