"""Known meshes: GLB files of any make as coloured meshes in the common frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from scene.backends import required_module
from scene.camera import z_up_from_y_up
from scene.errors import InputError
from scene.mesh import ColouredMesh

GREY = 178
"""Of meshes without any colours."""


def trimesh() -> Any:
    """The library that reads meshes of any make.

    Raises:
        MissingBackendError: it is not installed.
    """
    return required_module("trimesh", "evaluation")


def evenly_spread(length: int, count: int | None) -> list[int]:
    """``count`` of the places of a list, spread evenly; all of them if None."""
    return [int(k) for k in np.linspace(0, length - 1, min(length, count or length)).round()]


def glb_files(folders: Sequence[Path]) -> list[Path]:
    """The GLB files of folders, searched through, in one sorted list.

    Raises:
        InputError: there are none.
    """
    paths = sorted(path for folder in folders for path in folder.rglob("*.glb"))
    if not paths:
        raise InputError("hold no GLB files", where=", ".join(map(str, folders)))
    return paths


def load_glb(path: Path) -> ColouredMesh:
    """A mesh, z up, in the bounding sphere; with its texture if it has one part, else with vertex colours.

    Raises:
        InputError: the file holds no triangles.
        MissingBackendError: trimesh is not installed.
    """
    library = trimesh()
    parts = [part for part in library.load_scene(path).dump() if isinstance(part, library.Trimesh) and len(part.faces)]
    if not parts:
        raise InputError("holds no triangles", where=path)
    material = getattr(parts[0].visual, "material", None)
    image = getattr(material, "baseColorTexture", None)
    uv = getattr(parts[0].visual, "uv", None)
    if len(parts) == 1 and image is not None and uv is not None:
        vertices = z_up_from_y_up(np.asarray(parts[0].vertices)).astype(np.float32)
        # trimesh measures v up.
        down = np.stack([uv[:, 0], 1 - uv[:, 1]], -1).astype(np.float32)
        texture = np.asarray(image.convert("RGB"))
        return ColouredMesh(vertices, np.asarray(parts[0].faces, np.int32), uv=down, texture=texture).normalised()
    colours, coloured, vertices_of, faces_of, count = [], False, [], [], 0
    for part in parts:
        values = _colours(part.visual)
        coloured |= len(values) > 1
        colours.append(np.broadcast_to(values, (len(part.vertices), 3)))
        vertices_of.append(np.asarray(part.vertices))
        faces_of.append(np.asarray(part.faces) + count)
        count += len(part.vertices)
    vertices = z_up_from_y_up(np.concatenate(vertices_of)).astype(np.float32)
    painted = np.concatenate(colours).astype(np.uint8) if coloured else None
    return ColouredMesh(vertices, np.concatenate(faces_of).astype(np.int32), vertex_colours=painted).normalised()


def _colours(visual: Any) -> UInt8[np.ndarray, "n 3"]:
    """One colour for each vertex, or one for all."""
    if visual.kind == "texture":
        if getattr(visual.material, "baseColorTexture", None) is None:
            return np.asarray(visual.material.main_color, np.uint8)[None, :3]
        visual = visual.to_color()
    if visual.kind is None:
        return np.full((1, 3), GREY, np.uint8)
    return np.asarray(visual.vertex_colors, np.uint8)[:, :3]
