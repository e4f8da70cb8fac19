"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table_row(cells: Iterable[object]) -> str:
    """One line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def table_head(names: Sequence[object]) -> str:
    """The two lines above a table's rows."""
    return f"{table_row(names)}\n|{'---|' * len(names)}"


def markdown_table(names: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    """A whole table."""
    return "\n".join([table_head(names), *(table_row(row) for row in rows)])
