"""lit runs the tools of the very Python that runs lit, so that no test meets another installation on the path."""

import sys
import tempfile
from pathlib import Path

import lit.formats

# lit defines these two where it executes this file.
config = config  # noqa: F821
lit_config = lit_config  # noqa: F821

config.name = "stablenorm"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
config.excludes = ["inputs"]
config.test_exec_root = lit_config.params.get("exec_root") or str(Path(tempfile.gettempdir()) / "stablenorm-lit")
config.substitutions = [
    (r"\bstablenorm-opt\b", f"{sys.executable} -m stablenorm.compiler.opt"),
    (r"\bfilecheck\b", f"{sys.executable} -m filecheck"),
    ("%python", sys.executable),
    ("%fails", f"{sys.executable} {Path(__file__).with_name('fails.py')}"),
]
config.environment["JAX_PLATFORMS"] = "cpu"
