"""Tables in Markdown."""

from __future__ import annotations

from pipeline.evaluation.tables import markdown_table, table_head, table_row


def test_a_table() -> None:
    text = markdown_table(["row", "IoU"], [["ours", 0.5], ["base", "–"]])
    assert text == "| row | IoU |\n|---|---|\n| ours | 0.5 |\n| base | – |"
    assert text.startswith(table_head(["row", "IoU"]))
    assert text.endswith(table_row(["base", "–"]))
