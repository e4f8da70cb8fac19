"""Pictures of objects alone, with their surface directions, so that photos can be composed and lit while training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int8, UInt8

from pipeline.training.data.objects import ObjectMix, ObjectPool, ObjectSource
from pipeline.training.data.samples import source_view, to_bytes
from pipeline.training.procedural import Rng, generate_any, rotation
from scene.errors import InputError
from scene.files import write_text
from scene.mesh import ColouredMesh
from scene.render import Light, MeshRenderer

_HEADER = "foregrounds.json"
_UNLIT = Light(ambient=1.0, diffuse=0.0)
FILL = 0.96
"""Longest side of the object over the side of its picture."""


@dataclass(frozen=True, eq=False)
class Foreground:
    """An object alone.

    Args:
        rgba: own colours, unlit, straight alpha.
        normals: unit normals times 127; x towards the camera (level), y right, z up. Zero off the object.
    """

    rgba: UInt8[np.ndarray, "s s 4"]
    normals: Int8[np.ndarray, "s s 3"]


def render_foreground(mesh: ColouredMesh, size: int, rng: Rng) -> Foreground:
    """A normalised object from a random side, -10 to 60 degrees up, filling its picture."""
    elevation, radius = math.radians(rng.uniform(-10, 60)), float(rng.uniform(1.3, 3.5))
    turn = np.eye(4)
    turn[:3, :3] = rotation("z", float(rng.uniform(0, 2 * math.pi)))
    mesh = mesh.transformed(turn)
    camera, _ = source_view(mesh, elevation, radius, size, FILL)
    drawn = MeshRenderer(mesh, _UNLIT, smooth=bool(rng.random() < 0.5)).render(camera)
    return Foreground(to_bytes(drawn.rgba), np.round(drawn.normal * 127).astype(np.int8))


def random_foregrounds(pool: Path | None, size: int, views: int, seed: int, start: int = 0) -> Iterator[Foreground]:
    """Endless pictures of training objects, ``views`` of each: half from the pool, half of the named families.

    Args:
        pool: folder of the object pool; families alone without it.
        size: side of the pictures.
        seed: object ``k`` follows from the seed and ``k`` alone.
        start: number of the first object.
    """
    source = None if pool is None else ObjectSource(ObjectPool(pool, "train"), ObjectMix(procedural=0.0))
    k = start
    while True:
        rng = np.random.default_rng([seed, k])
        if source is not None and rng.random() < 0.5:
            mesh = source.draw(rng)[0]
        else:
            mesh = generate_any(int(rng.integers(2**31)), faces=6000)
        for _ in range(views):
            yield render_foreground(mesh, size, rng)
        k += 1


class ForegroundStore:
    """Pictures in memory-mapped files, or in memory.

    Args:
        size: side of the pictures.
        capacity: pictures at most.
        folder: where the files lie; an existing folder of the same size is opened and grows if need be.
    """

    def __init__(self, size: int, capacity: int, folder: Path | None = None) -> None:
        self.size, self.folder, self.written = size, folder, 0
        if folder is not None and (folder / _HEADER).is_file():
            held = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
            if held["size"] != size:
                raise InputError(f"holds pictures of {held['size']} pixels", where=folder, fix="Use another folder.")
            self.written, capacity = held["written"], max(capacity, held["written"])
        self.capacity = capacity
        self._rgba = self._array("rgba", (capacity, size, size, 4), np.dtype(np.uint8))
        self._normals = self._array("normals", (capacity, size, size, 3), np.dtype(np.int8))

    @classmethod
    def open(cls, folder: Path) -> ForegroundStore:
        """Open a folder that holds pictures.

        Raises:
            InputError: there are none.
        """
        header = folder / _HEADER
        held = json.loads(header.read_text(encoding="utf-8")) if header.is_file() else {"written": 0}
        if not held["written"]:
            raise InputError(
                "no pictures of objects here", where=folder, fix="Make some with scripts/render_foregrounds.py."
            )
        return cls(held["size"], held["written"], folder)

    def _array(self, name: str, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
        if self.folder is None:
            return np.zeros(shape, kind)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.bin"
        # Raw values without a header: a larger capacity just lengthens the file.
        return np.memmap(path, kind, "r+" if path.exists() else "w+", shape=shape)

    def __len__(self) -> int:
        return self.written

    def __getitem__(self, index: int) -> Foreground:
        if not 0 <= index < self.written:
            raise IndexError(index)
        return Foreground(np.array(self._rgba[index]), np.array(self._normals[index]))

    def append(self, picture: Foreground) -> None:
        """Add a picture."""
        self._rgba[self.written], self._normals[self.written] = picture.rgba, picture.normals
        self.written += 1

    def flush(self) -> None:
        """Make what was added so far survive the end of the process."""
        if self.folder is None:
            return
        for array in (self._rgba, self._normals):
            if isinstance(array, np.memmap):
                array.flush()
        write_text(self.folder / _HEADER, json.dumps({"size": self.size, "written": self.written}))
