"""Meshes of evaluation sets: GLB files with base colours, of one or several parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scene.camera import z_up_from_y_up
from scene.errors import InputError
from scene.mesh import ColouredMesh


def load_glb(path: Path) -> ColouredMesh:
    """A mesh, z up, in the bounding sphere; with its texture if it has one part, else with vertex colours.

    Raises:
        InputError: the file holds no triangles.
    """
    import trimesh

    loaded = trimesh.load_scene(path)
    parts = [part for part in loaded.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
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


def _colours(visual: Any) -> np.ndarray:
    """One colour for each vertex, or one for all."""
    if visual.kind == "texture":
        if getattr(visual.material, "baseColorTexture", None) is None:
            return np.asarray(visual.material.main_color)[None, :3]
        visual = visual.to_color()
    return np.asarray(visual.vertex_colors)[:, :3] if visual.kind is not None else np.full((1, 3), 178)
