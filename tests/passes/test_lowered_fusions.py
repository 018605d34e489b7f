"""What XLA:CPU makes of batch norm in training, read from its optimized HLO: how often it passes over an activation."""

import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from stablenorm.ops import batch_norm

SHAPES = {
    "features last": ((8, 28, 28, 64), -1),
    "features last, few powers of two": ((4, 21, 20, 48), -1),
    "features first": ((8, 64, 28, 28), 1),
    "features first, small images": ((32, 128, 7, 7), 1),
    "rows": ((4096, 64), -1),
    "small images": ((64, 7, 7, 64), -1),
    "images of odd width": ((8, 20, 21, 16), -1),
    "images of prime width": ((8, 17, 17, 64), -1),
    "images of a power of two": ((16, 16, 16, 64), -1),
    "features first, narrow": ((512, 32, 4), 1),
    "small volumes": ((8, 8, 7, 7, 32), -1),
    "a prime number of rows": ((2053, 32), -1),
    "three features": ((8, 60, 60, 3), -1),
    "features first, two images": ((2, 32, 40, 40), 1),
}
INSTRUCTION = re.compile(r"^ *(?:ROOT )?%([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*?)\)(?:,|$)", re.MULTILINE)
SIZE = re.compile(r"\b(?:f64|f32|bf16|f16)\[([\d,]*)\]")
# These move nothing and compute nothing.
FREE = ("parameter", "bitcast", "tuple", "get-tuple-element")


def compiled(shape, axis, dtype, has_gradient, known=True):
    """Optimized HLO of batch norm in training, or of that and its gradient; lowered before the batch is ``known``."""

    def forward(x, scale, offset):
        zeros = jnp.zeros_like(scale)
        y, *moving = batch_norm(x, scale, offset, zeros, zeros, training=True, axis=axis)
        return y, moving

    def step(x, scale, offset, grad_output):
        y, pull, moving = jax.vjp(forward, x, scale, offset, has_aux=True)
        return y, pull(grad_output), moving

    x = jax.ShapeDtypeStruct(shape, dtype)
    vector = jax.ShapeDtypeStruct((shape[axis],), jnp.float32)
    operands = (x, vector, vector, x) if has_gradient else (x, vector, vector)
    function = jax.jit(step if has_gradient else forward)
    if not known:
        batch = jax.export.symbolic_shape("n - 1")  # a number from 0
        any_batch = jax.ShapeDtypeStruct((*batch, *shape[1:]), dtype)
        exported = jax.export.export(function)(*(any_batch if each is x else each for each in operands))
        function = jax.jit(exported.call)
    return function.lower(*operands).compile().as_text()


def elements(types):
    return max(
        (int(np.prod([int(size) for size in sizes.split(",") if size])) for sizes in SIZE.findall(types)), default=0
    )


def is_read_whole(text, attributes, number, size):
    """Whether a fusion reads more of its operand than a few rows, which no block has."""
    name = re.search(r"calls=%([\w.-]+)", attributes)
    if name is None:
        return True
    body = INSTRUCTION.findall(text[text.index(f"\n%{name[1]} (") :].split("\n}")[0])
    (parameter,) = (name for name, _, kind, operands in body if (kind, operands) == ("parameter", str(number)))
    read = [(elements(types), kind) for types, kind in users(body, parameter)]
    return any(kind != "slice" for _, kind in read) or sum(each for each, _ in read) > size / 4


def users(body, value):
    """Types and kinds of what reads a value; of a bitcast or conversion of it, what reads that: a fusion computes no
    element that nothing asks for.
    """
    for name, types, kind, operands in body:
        if f"%{value}," in f"{operands},":
            further = users(body, name) if kind in ("bitcast", "convert") else []
            yield from list(further) or [(types, kind)]


def passes(text, size):
    """Of each operation of the program that reads or writes ``size`` elements: how many it reads and writes."""
    program = text[text.index("\nENTRY") :]
    entry = INSTRUCTION.findall(program)
    sizes = {name: elements(types) for name, types, _, _ in entry}
    # A bitcast is the operand that it views.
    views = {name: operands.lstrip("%") for name, _, kind, operands in entry if kind == "bitcast"}
    found = []
    for name, _, kind, operands in entry:
        if kind in FREE:
            continue
        (line,) = (line for line in program.splitlines() if f"%{name} = " in line)
        read = re.findall(r"%([\w.-]+)", operands)
        large = {
            views.get(operand, operand)
            for number, operand in enumerate(read)
            if sizes[operand] == size and is_read_whole(text, line, number, size)
        }
        if large or sizes[name] == size:
            found.append((kind, len(large), sizes[name] == size))
    return sorted(found)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", SHAPES)
def test_forward_reads_twice_and_writes_once(name, dtype):
    shape, axis = SHAPES[name]
    text = compiled(shape, axis, dtype, has_gradient=False)
    assert passes(text, np.prod(shape)) == [("fusion", 1, False), ("fusion", 1, True)]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", SHAPES)
def test_backward_reads_both_operands_twice_and_writes_once(name, dtype):
    shape, axis = SHAPES[name]
    text = compiled(shape, axis, dtype, has_gradient=True)
    forward, backward = [("fusion", 1, False), ("fusion", 1, True)], [("fusion", 2, False), ("fusion", 2, True)]
    assert passes(text, np.prod(shape)) == forward + backward


@pytest.mark.parametrize("name", SHAPES)
def test_a_batch_whose_size_was_not_known_makes_as_many_passes(name):
    shape, axis = SHAPES[name]
    text = compiled(shape, axis, jnp.float32, has_gradient=True, known=False)
    forward, backward = [("fusion", 1, False), ("fusion", 1, True)], [("fusion", 2, False), ("fusion", 2, True)]
    assert passes(text, np.prod(shape)) == forward + backward


@pytest.mark.parametrize("name", SHAPES)
def test_no_partial_sums_are_as_large_as_a_quarter_of_the_operand(name):
    """Nothing of that size is written but results: no widened operand, no distance from the mean."""
    shape, axis = SHAPES[name]
    text = compiled(shape, axis, jnp.float32, has_gradient=True)
    entry = INSTRUCTION.findall(text[text.index("\nENTRY") :])
    written = [types for _, types, kind, _ in entry if kind not in FREE and 4 * elements(types) > np.prod(shape)]
    assert len(written) == 2


@pytest.mark.parametrize("name", SHAPES)
def test_no_operation_repeats_what_belongs_to_a_feature(name):
    """Loops over an activation convert and add; the divisions and roots are in loops over features."""
    shape, axis = SHAPES[name]
    text = compiled(shape, axis, jnp.float32, has_gradient=True)
    for body in re.findall(r"^%[\w.]*fused_computation[\w.]* .*?^}", text, re.MULTILINE | re.DOTALL):
        found = INSTRUCTION.findall(body)
        if max(elements(types) for _, types, _, _ in found) < np.prod(shape):
            continue
        assert {kind for _, _, kind, _ in found}.isdisjoint({"divide", "rsqrt", "sqrt", "transpose", "copy"})
