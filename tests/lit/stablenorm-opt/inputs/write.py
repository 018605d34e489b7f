"""Writes a StableHLO text as bytecode, as a portable artifact, and cut short: ``write.py model.mlir folder``."""

import sys
from pathlib import Path

from stablenorm.compiler.stablehlo_io import portable_artifact, read_module
from stablenorm.passes import make_context

source, folder = Path(sys.argv[1]), Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
module = read_module(source.read_bytes(), source.name, make_context())
for name, data in (("bytecode", module.operation.get_asm(binary=True)), ("artifact", portable_artifact(module))):
    (folder / name).write_bytes(data)
    (folder / f"{name}-cut").write_bytes(data[: len(data) // 2])
(folder / "random").write_bytes(bytes(range(128, 256)))
(folder / "empty").write_bytes(b"")
(folder / "blank").write_bytes(b" \n\n")
