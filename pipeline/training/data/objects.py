"""Where training objects come from: a pool of scanned and modelled meshes, and procedural ones, varied from a seed."""

from __future__ import annotations

import csv
import io
import math
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from pipeline.training.procedural import (
    Rng,
    generate_any,
    moved,
    random_colour,
    random_object,
    random_pattern,
    random_recolour,
    rotation,
)
from scene.camera import z_up_from_y_up
from scene.errors import InputError
from scene.mesh import ColouredMesh, SolidTexture
from scene.render import WORLD_LIGHT, Light

Split = Literal["train", "val"]


@dataclass(frozen=True)
class PoolEntry:
    """One row of the pool's manifest."""

    file: str
    name: str
    kind: Literal["texture", "vcolor", "geometry"]
    licence: str


class ObjectPool:
    """Meshes of a pool archive: one ``.npz`` each in ``objects.zip``, listed by a ``manifest.csv`` beside it.

    An entry holds ``v`` (uint16 positions, y up, longest side 1), ``f``, and either ``c`` (vertex colours), ``uv`` with
    ``tex`` (an encoded image), or neither.

    Args:
        archive: path of ``objects.zip``, or of the folder that holds it.
        split: which part of the manifest.
    """

    def __init__(self, archive: Path, split: Split) -> None:
        archive = archive / "objects.zip" if archive.is_dir() else archive
        manifest = archive.with_name("manifest.csv")
        for path in (archive, manifest):
            if not path.is_file():
                raise InputError("the object pool needs this file", where=path)
        with manifest.open(newline="", encoding="utf-8") as file:
            self.entries = [
                PoolEntry(r["file"], r["name"], r["kind"], r["licence"])  # type: ignore[arg-type]
                for r in csv.DictReader(file)
                if r["split"] == split
            ]
        self._zip = zipfile.ZipFile(archive)

    def __len__(self) -> int:
        return len(self.entries)

    def load(self, index: int) -> ColouredMesh:
        """The mesh of an entry, z up, as it is (neither normalised nor varied)."""
        with np.load(io.BytesIO(self._zip.read(self.entries[index].file)), allow_pickle=False) as data:
            vertices = z_up_from_y_up(data["v"].astype(np.float32) / 65535 - 0.5)
            faces = data["f"].astype(np.int32)
            if "uv" in data:
                texture = np.asarray(Image.open(io.BytesIO(data["tex"].tobytes())).convert("RGB"))
                return ColouredMesh(vertices, faces, uv=data["uv"].astype(np.float32) / 65535, texture=texture)
            return ColouredMesh(vertices, faces, vertex_colours=data.get("c"))


@dataclass(frozen=True)
class ObjectMix:
    """How training objects are drawn and varied.

    Args:
        procedural: share of procedural objects.
        things: share of named things (chairs, mugs, vehicles...) among these; the others are simple shapes.
        faces: of a named thing.
        textured_weight: how many times as often a textured pool object is drawn as another.
        recolour: chance that a pool object changes its colours.
        pattern: chance that an untextured pool object gets a pattern.
        relight: chance that the light turns and changes its strength.
    """

    procedural: float = 0.5
    things: float = 0.8
    faces: int = 6000
    textured_weight: float = 4.0
    recolour: float = 0.5
    pattern: float = 0.3
    relight: float = 0.5


class ObjectSource:
    """Draws a training object from a seed: the same seed gives the same object."""

    def __init__(self, pool: ObjectPool | None, mix: ObjectMix = ObjectMix()) -> None:
        self.pool, self.mix = pool, mix
        if pool is not None:
            weights = np.array([mix.textured_weight if e.kind == "texture" else 1.0 for e in pool.entries])
            self._chances = weights / weights.sum()

    def draw(self, rng: Rng) -> tuple[ColouredMesh, Light]:
        """A varied, normalised object at a random heading, and its light."""
        if self.pool is None or rng.random() < self.mix.procedural:
            seed = int(rng.integers(2**31))
            named = rng.random() < self.mix.things
            mesh = generate_any(seed, faces=self.mix.faces) if named else random_object(seed)
        else:
            index = int(rng.choice(len(self._chances), p=self._chances))
            mesh = self._vary(self.pool.load(index), self.pool.entries[index].kind, rng)
        stretch = np.exp(rng.normal(0, 0.1, 3)) * np.where(rng.random(3) < (0.5, 0, 0), -1, 1)
        turn = rotation("z", rng.uniform(0, 2 * math.pi))
        space = mesh.vertices if mesh.texture_space is None else mesh.texture_space
        vertices, _ = moved((mesh.vertices * stretch, mesh.faces), (0.0, 0.0, 0.0), turn)
        mesh = replace(mesh, vertices=vertices.astype(np.float32), texture_space=space if mesh.solid else None)
        light = WORLD_LIGHT
        if rng.random() < self.mix.relight:
            angle, ambient = rng.uniform(0, 2 * math.pi), rng.uniform(0.55, 0.85)
            light = Light(
                (0.5 * math.cos(angle), 0.5 * math.sin(angle), float(rng.uniform(0.4, 1))), ambient, 1 - ambient
            )
        return mesh.normalised(), light

    def _vary(self, mesh: ColouredMesh, kind: str, rng: Rng) -> ColouredMesh:
        solid: list[SolidTexture] = []
        if kind == "geometry":
            colours = np.broadcast_to(np.round(np.array(random_colour(rng)) * 255), mesh.vertices.shape).astype(
                np.uint8
            )
            mesh = replace(mesh, vertex_colours=colours)
            solid += [random_pattern(rng) for _ in range(int(rng.integers(0, 3)))]
        else:
            if rng.random() < self.mix.recolour:
                solid.append(random_recolour(rng))
            if kind == "vcolor" and rng.random() < self.mix.pattern:
                solid.append(replace(random_pattern(rng), strength=float(rng.uniform(0.2, 0.8))))
        return replace(mesh, solid=tuple(solid))
