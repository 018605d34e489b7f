"""Model to IR to executable.

from stablenorm import compiler
executable = compiler.compile(model)
y = executable(x)
print(executable.report)
"""

from stablenorm.compiler.compile import compile, load
from stablenorm.compiler.diagnostics import StablenormError
from stablenorm.compiler.executable import Executable
from stablenorm.compiler.report import Report, Row

__all__ = ["Executable", "Report", "Row", "StablenormError", "compile", "load"]
