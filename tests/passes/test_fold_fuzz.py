"""fold-batch-norm on random graphs: what they compute stays what it was, by StableHLO's interpreter and by XLA.

``STABLENORM_FUZZ=2000`` runs that many graphs; the count that folded is printed.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter

import jax
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.extend.mlir import ir

from stablenorm.passes.rewriting import operations
from stablenorm.passes.weights import Weights, weight_names
from tests.passes.graph_text import Graph, text_of
from tests.passes.modules import Array, by_interpreter, by_xla, copy, main_function, parse, random_arguments, run
from tests.passes.random_graphs import random_graph

COUNT = int(os.environ.get("STABLENORM_FUZZ", "150"))
# Of the largest output: sums of a few hundred products in another order, a few layers deep.
TOLERANCES = {"f64": 1e-12, "f32": 3e-5}
COMPILED = 8  # one graph in so many goes through XLA, which takes a hundred times as long as the interpreter
NOT_INTERPRETED = re.compile(r"\]->\[[^b]")  # it ends the process on a convolution whose batch is not first
KINDS = 52  # of operations that random graphs have: each is met
ELEMENTWISE = {"add": 1, "subtract": 1, "multiply": 1, "divide": 1, "batch_norm_inference": 2}


@dataclasses.dataclass
class Met:
    """What the run has seen."""

    folded: list[int] = dataclasses.field(default_factory=list)
    kinds: Counter[str] = dataclasses.field(default_factory=Counter)
    compiled: int = 0
    before: int = 0
    after: int = 0


def check(seed: int, met: Met) -> None:
    """Folds one graph and compares."""
    graph = random_graph(seed)
    met.kinds.update(graph.met)
    module = parse(text_of(graph))
    arguments = drawn(module, seed)
    known = {} if seed % 5 == 0 else {name: a for name, a in zip(names(module), arguments, strict=True) if name}
    folded = copy(module)
    remarks = run(folded, "fold-batch-norm", known).remarks
    count = sum(remark.verdict == "folded" for remark in remarks)
    before, after = elementwise_work(module), elementwise_work(folded)
    assert after < before if count else after <= before, (seed, before, after)
    assert sum(remark.removed for remark in remarks) == before - after, (seed, before, after)
    met.folded.append(count)
    met.before, met.after = met.before + before, met.after + after
    is_interpreted = not NOT_INTERPRETED.search(str(module))
    expected = interpreted(module, arguments) if is_interpreted else by_xla(module, arguments)
    if is_interpreted:
        compare(interpreted(folded, arguments), expected, graph, seed)
    if not is_interpreted or seed % COMPILED == 0:
        met.compiled += 1
        compare(by_xla(folded, arguments), expected, graph, seed)


def interpreted(module: ir.Module, arguments: list[Array]) -> list[Array]:
    lowered = copy(module)
    run(lowered, "lower-batch-norm")
    return by_interpreter(lowered, arguments)


def names(module: ir.Module) -> list[str | None]:
    with module.context:
        return weight_names(main_function(module))


def drawn(module: ir.Module, seed: int) -> list[Array]:
    """Numbers for the arguments; scales positive everywhere, with zeros, or of both signs."""
    arguments = random_arguments(module, seed)
    rng = np.random.default_rng(seed)
    for name, array in zip(names(module), arguments, strict=True):
        if "scale" in (name or "") and seed % 3 == 0:
            np.abs(array, out=array)
        if "scale" in (name or "") and seed % 3 == 1:
            array[rng.random(array.shape) < 0.3] = 0.0
    return arguments


def elementwise_work(module: ir.Module) -> int:
    """How many elementwise operations stand on what depends on the inputs; a batch norm is two."""
    main = main_function(module)
    with module.context:
        weights = Weights(main, {})
        return sum(
            ELEMENTWISE.get(op.operation.name.removeprefix("stablehlo."), 0)
            for op in operations(main)
            if op.operation.block == main.entry_block and op.results and not weights.is_weight(op.results[0])
        )


def compare(got: list[Array], expected: list[Array], graph: Graph, seed: int) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        limit = TOLERANCES[graph.element] * max(1.0, float(np.abs(theirs).max(initial=0.0)))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit, err_msg=f"graph {seed}")


def test_a_folded_graph_computes_what_it_did_with_less_work():
    met = Met()

    @settings(
        max_examples=COUNT,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32))
    def every(seed: int) -> None:
        check(seed, met)
        if len(met.folded) % 100 == 0:
            jax.clear_caches()

    every()
    graphs, folded = len(met.folded), sum(map(bool, met.folded))
    print(f"{graphs} graphs, {sum(met.folded)} maps folded in {folded} of them, {met.compiled} also compiled;")
    print(f"elementwise operations before and after: {met.before}, {met.after}; kinds: {dict(met.kinds)}")
    assert folded > graphs / 4
    assert met.compiled > graphs / COMPILED / 2
    assert graphs < 150 or len(met.kinds) == KINDS, sorted(met.kinds)
