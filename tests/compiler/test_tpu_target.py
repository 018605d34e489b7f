"""Models compiled for TPUs, on a machine without one: what XLA makes of them, and what is said where that cannot be."""

from __future__ import annotations

import collections
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tf_keras

from stablenorm import compiler
from stablenorm.compiler import cli
from stablenorm.passes.rewriting import find_function, operations

TOPOLOGY = "v5e:2x2"


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


WEIGHTS = {
    "w": random(0, 3, 3, 4, 8),
    "mean": random(1, 8),
    "variance": abs(random(2, 8)) + 0.1,
    "offset": random(3, 8),
}
X = random(4, 2, 6, 6, 4)


def layer(p: Any, x: Any) -> Any:
    y = jax.lax.conv_general_dilated(x, p["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jnp.maximum((y - p["mean"]) * jax.lax.rsqrt(p["variance"] + 1e-3) + p["offset"], 0)


def compiled(**options: Any) -> compiler.Executable:
    return compiler.compile(layer, WEIGHTS, X, weight_argnums=0, **options)


@pytest.mark.usefixtures("libtpu")
def test_a_model_is_compiled_for_a_tpu_that_is_not_there(tmp_path: Path) -> None:
    executable = compiled(target="tpu", topology=TOPOLOGY)
    assert executable.report.folded == 1
    assert re.search(r"T\(\d+,128\)", executable.hlo())  # a TPU's tiles
    cost = executable.cost()
    assert cost.bytes_accessed is not None
    assert cost.bytes_accessed >= X.nbytes + WEIGHTS["w"].nbytes
    assert min(cost.flops or 0, cost.argument_bytes, cost.output_bytes, cost.fusions) > 0
    with pytest.raises(compiler.StablenormError, match="target tpu: JAX sees no such device on this machine"):
        executable(X)

    executable.save(str(tmp_path / "out"))
    loaded = compiler.load(tmp_path / "out")
    assert loaded.target == executable.target
    assert loaded.target.topology == TOPOLOGY
    assert loaded.cost() == cost


@pytest.mark.parametrize("target", ["tpu", "cuda"])
def test_the_same_module_runs_on_the_cpu(target: str) -> None:
    """The pipeline is sound: only the device is missing."""
    pipeline = compiler.targets.find_target(target).pipeline
    np.testing.assert_allclose(
        compiled(passes=pipeline)(X),
        layer(WEIGHTS, X),
        rtol=0,
        atol=2e-5,  # float32, sums of 36 products
    )


@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50"])
def test_a_folded_network_costs_what_one_without_batch_norms_costs(name: str, randomised: Callable[[Any], Any]) -> None:
    network = randomised(getattr(tf_keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=10))
    # A batch of 8 fills the sublanes.
    options: Any = {"input_shape": (8, 64, 64, 3), "target": "tpu", "topology": TOPOLOGY}
    ours = compiler.compile(network, **options)
    plain = compiler.compile(randomised(without_batch_norms(network)), **options)
    assert ours.report.folded == ours.report.total > 50
    assert opcodes(ours) <= opcodes(plain)
    assert ours.cost().bytes_accessed <= plain.cost().bytes_accessed


def without_batch_norms(network: Any) -> Any:
    """The same network built without them, its convolutions with biases."""

    def clone(layer: Any) -> Any:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            return tf_keras.layers.Activation("linear")
        config = layer.get_config()
        return type(layer).from_config(config | ({"use_bias": True} if "use_bias" in config else {}))

    return tf_keras.models.clone_model(network, clone_function=clone)


def opcodes(executable: compiler.Executable) -> collections.Counter[str]:
    """What one call does."""
    main = find_function(executable.module, "main")
    return collections.Counter(op.operation.name for op in operations(main))


@pytest.mark.usefixtures("libtpu")
def test_the_command_line_compiles_and_reports(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = tf_keras.Sequential([tf_keras.layers.Input((6, 6, 4)), tf_keras.layers.Conv2D(8, 3)])
    model.save(tmp_path / "model.keras")
    options = ["--target", "tpu", "--topology", "v5e:2x4", "--report"]
    assert cli.main(["compile", str(tmp_path / "model.keras"), "-o", str(tmp_path / "out"), *options]) == 0
    cost = json.loads((tmp_path / "out" / "report.json").read_text())["cost"]
    printed = capfd.readouterr().out
    for name in ("bytes_accessed", "flops", "argument_bytes", "output_bytes", "fusions"):
        assert cost[name] > 0
        assert f"{cost[name]:,}" in printed


@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("topology", ["v5e:3x3", "v5e", "", "h200"])
def test_an_unknown_topology_is_one_line(topology: str) -> None:
    with pytest.raises(compiler.StablenormError, match=f"topology: got '{topology}', allowed: .*v5e:2x2") as error:
        compiled(target="tpu", topology=topology)
    assert "\n" not in str(error.value)


def test_a_topology_of_the_cpu_is_refused() -> None:
    with pytest.raises(compiler.StablenormError, match="topology: got 'v5e:2x2' for the target cpu, allowed: none"):
        compiled(topology=TOPOLOGY)


@pytest.mark.parametrize(("target", "topology"), [("tpu", TOPOLOGY), ("cuda", "h200")])
def test_a_missing_extra_is_one_line(target: str, topology: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(compiler.StablenormError, match=rf"not installed; pip install 'stablenorm\[{target}\]'"):
        compiled(target=target, topology=topology)


def test_an_unknown_gpu_is_one_line() -> None:
    with pytest.raises(compiler.StablenormError, match="topology: got 'h2000' for the target cuda, allowed: h200"):
        compiled(target="cuda", topology="h2000")


def test_no_device_and_no_topology_is_one_line() -> None:
    for target, example in (("tpu", "v5e:2x2"), ("cuda", "h200")):
        with pytest.raises(compiler.StablenormError, match=f"target {target}: JAX sees no such .* such as {example}"):
            compiled(target=target)
