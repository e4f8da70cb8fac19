"""Result files: JSON that is written after every score, so that a run goes on where the last one stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scene.errors import InputError
from scene.files import write_text


class ScoreFile:
    """Scores by name, in a file or, without one, in memory only.

    Args:
        path: continued if it is there.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.scores: dict[str, dict[str, Any]] = {}
        if path is not None and path.is_file():
            self.scores = json.loads(path.read_text(encoding="utf-8"))

    def save(self) -> None:
        """Write all scores."""
        if self._path is not None:
            write_text(self._path, json.dumps(self.scores, indent=1) + "\n")


class ResultFile:
    """Sections of named values under settings that must not change between runs.

    Args:
        path: continued if it is there.
        settings: what all values depend on.

    Raises:
        InputError: the file holds results of other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path = path
        self._held: dict[str, Any] = {"facts": settings}
        if path.is_file():
            self._held = json.loads(path.read_text(encoding="utf-8"))
            other = [k for k in settings if self._held["facts"].get(k) != json.loads(json.dumps(settings[k]))]
            if other:
                raise InputError(
                    f"holds results of other settings ({', '.join(other)})",
                    where=path,
                    fix="Give another --out, or the same settings.",
                )

    def __getitem__(self, section: str) -> dict[str, Any]:
        found: dict[str, Any] = self._held.setdefault(section, {})
        return found

    def put(self, section: str, key: str, value: Any) -> None:
        """Add a value and write the file."""
        self[section][key] = value
        write_text(self._path, json.dumps(self._held, indent=1) + "\n")
