"""Print the credits of an object pool as Markdown, for a model card.

python scripts/credits.py DATA/meshes_train/manifest.csv
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Arguments:
    """Print the credits of an object pool."""

    manifest: tyro.conf.Positional[Path]
    """The pool's manifest.csv, with columns source_repo, licence, split."""


def main(arguments: Arguments) -> None:
    """One row per source and licence; objects with authors of their own are named below."""
    with arguments.manifest.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    named = re.compile(r"^(\S+) \((.+), by (.+), (https://\S+)\)$")
    sources = Counter((row["source_repo"], row["licence"].split(" (")[0].rstrip(";")) for row in rows)
    print("| source | licence | objects |\n|---|---|---|")
    for (source, licence), count in sorted(sources.items(), key=lambda item: (-item[1], item[0])):
        print(f"| [{source}](https://github.com/{source}) | {licence} | {count} |")
    print()
    for text in sorted({row["licence"] for row in rows}):
        if found := named.match(text):
            licence, title, author, address = found.groups()
            print(f"- [{title}]({address}) by {author}, {licence}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
