"""import-cleanup where it cannot do its work: one line that names the function."""

from __future__ import annotations

import pytest

from stablenorm.compiler.diagnostics import StablenormError
from tests.passes.modules import parse, run

CALLER = """func.func public @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = func.call @helper(%x) : (tensor<2xf32>) -> tensor<2xf32>
  return %0 : tensor<2xf32>
}"""


def test_a_helper_without_a_body_is_named():
    module = parse(f"func.func private @helper(%x: tensor<2xf32>) -> tensor<2xf32> {CALLER}")
    with pytest.raises(StablenormError, match=r"import-cleanup failed: no_calls does not hold: func\.call is left at"):
        run(module, "import-cleanup")


def test_a_helper_that_calls_itself_is_named():
    module = parse(f"{CALLER} {CALLER.replace('public @main', 'private @helper')}")
    with pytest.raises(StablenormError, match="@helper calls itself: a recursive function cannot be inlined"):
        run(module, "import-cleanup")


def test_foreign_operations_are_named():
    module = parse("""func.func public @main(%x: tensor<2xf32>) -> tensor<2xf32> {
      %0 = math.sqrt %x : tensor<2xf32>
      return %0 : tensor<2xf32> }""")
    with pytest.raises(StablenormError, match=r"no_foreign_operations does not hold: math\.sqrt is left at"):
        run(module, "import-cleanup")
