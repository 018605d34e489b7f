"""compiler/frontends/tensorflow_runtime.py: TensorFlow's messages in one line."""

from __future__ import annotations

import pytest

from stablenorm.compiler.frontends.tensorflow_runtime import first_useful_line


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("cannot open 'locked.keras'", "cannot open 'locked.keras'"),
        ("cannot open 'locked.keras'.", "cannot open 'locked.keras'"),
        ("the file isn't 'locked.keras':", "the file isn't 'locked.keras'"),
        ("Failed getting HLO text: 'no such operation.'", "no such operation"),
        ("Failed getting HLO text: 'no kernel for 'A''", "no kernel for 'A'"),
        ("no such operation.'", "no such operation"),
    ],
)
def test_a_line_loses_its_stop_and_keeps_the_quotes_that_it_opens(message: str, line: str) -> None:
    assert first_useful_line(ValueError(message)) == line
