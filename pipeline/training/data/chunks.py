"""Rows of arrays in memory-mapped files, in folders of a few hundred: they grow while others read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from pipeline.training.trainer import replaced_at_once
from scene.errors import InputError
from scene.files import write_text


class ChunkStore:
    """Rows of named arrays; what has been added is never changed.

    Args:
        folder: where they are kept; made if need be.
        stamp: file of the folder that holds the key.
        key: names what the rows were made by.
        names: of the arrays; all have as many rows as the first.
        differs: what is wrong with a folder of another key.

    Raises:
        InputError: the folder holds rows of another key.
    """

    def __init__(self, folder: Path, stamp: str, key: str, names: Sequence[str], differs: str) -> None:
        self.folder, self.key, self._names = folder, key, tuple(names)
        path = folder / stamp
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(key))
        elif json.loads(path.read_text(encoding="utf-8")) != key:
            raise InputError(differs, where=folder, fix="Name another folder, or delete this one.")
        self._chunks: list[dict[str, np.ndarray]] = []
        self._ends = np.zeros(0, np.int64)
        self.reread()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def reread(self) -> None:
        """Take in what has been added, by this process or by another."""
        while (path := self.folder / f"{len(self._chunks):05d}").is_dir():
            self._chunks.append({name: np.load(path / f"{name}.npy", mmap_mode="r") for name in self._names})
        self._ends = np.cumsum([len(chunk[self._names[0]]) for chunk in self._chunks])

    def append(self, arrays: Mapping[str, Shaped[np.ndarray, "n ..."]]) -> None:
        """Add rows as one chunk, written aside and renamed."""
        with replaced_at_once(self.folder / f"{len(self._chunks):05d}") as folder:
            for name in self._names:
                np.save(folder / f"{name}.npy", arrays[name])
        self.reread()

    def rows(self, index: Int[np.ndarray, "n"]) -> dict[str, Shaped[np.ndarray, "n ..."]]:
        """Copies of the rows of these numbers, by name."""
        chunk = np.searchsorted(self._ends, index, side="right")
        starts = np.concatenate([[0], self._ends])
        places = [(self._chunks[c], i - starts[c]) for c, i in zip(chunk, index, strict=True)]
        return {name: np.stack([held[name][at] for held, at in places]) for name in self._names}

    def column(self, name: str) -> Shaped[np.ndarray, "n ..."]:
        """All rows of one array, as a copy."""
        return np.concatenate([chunk[name] for chunk in self._chunks])
