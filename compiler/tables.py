"""Tables as text, drawn by rich, as wide as their content: nothing is cut or wrapped in a pipe or a file."""

from __future__ import annotations

import io
from collections.abc import Sequence


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The rows under the columns' names."""
    import rich.box
    import rich.console
    import rich.markup
    import rich.table

    table = rich.table.Table(*columns, box=rich.box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for row in rows:
        table.add_row(*map(rich.markup.escape, row))
    text = io.StringIO()
    width = sum(max(map(len, column)) + 4 for column in zip(columns, *rows, strict=True))
    rich.console.Console(file=text, width=width, no_color=True).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
