"""Runs the command behind "reproduce:" in a file, as ``stablenorm.compiler.opt``."""

import shlex
import subprocess
import sys
from pathlib import Path

program, *arguments = shlex.split(Path(sys.argv[1]).read_text().split("reproduce: ")[1])
assert program == "stablenorm-opt", program
source = Path(arguments[0])
try:
    result = subprocess.run([sys.executable, "-m", "stablenorm.compiler.opt", *arguments])
finally:
    source.unlink()
sys.exit(result.returncode)
