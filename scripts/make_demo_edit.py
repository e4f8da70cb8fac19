"""Render the demos of editing: a figure with the skeleton of another pose, and a sofa with boxes; with the true edits.

Each is a capture of 24 views of 128 pixels. Beside it lies the target (`skeleton.json` as the figure stands and
`target.json`, or `boxes.json`), and in `truth/` the meshes before and after the edit and four views after it, of every
sixth camera.

Example: python scripts/make_demo_edit.py docs/demo
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from pipeline.editing.boxes import BoxTarget
from pipeline.evaluation.editing.cases import drawn, ring
from pipeline.training.procedural.edits import Family, box_edit
from pipeline.training.procedural.humanoid import humanoid_pair
from scene.camera import Camera
from scene.files import write_bytes, written_aside
from scene.mesh import ColouredMesh
from scene.ply import encode_ply
from scene.view import View
from scene.viewset import ViewSet

_VERTEX = np.dtype([*((axis, "<f4") for axis in "xyz"), *((name, "u1") for name in ("red", "green", "blue"))])


@dataclass(frozen=True)
class Arguments:
    """Render the demos of editing."""

    out: tyro.conf.Positional[Path]
    """Folder in which figure/ and boxes/ are made."""
    figure_seed: int = 12
    """Of the figure and its poses."""
    family: Family = "sofa"
    """Of the thing with boxes."""
    boxes_seed: int = 1
    """Of the thing with boxes."""
    views: int = 24
    """Pictures."""
    size: int = 128
    """Side of each, pixels."""


def main(arguments: Arguments) -> None:
    """Render and write both."""
    cameras = ring(arguments.views, arguments.size)
    pair = humanoid_pair(arguments.figure_seed)
    write_capture(arguments.out / "figure", pair.before, pair.after, cameras)
    pair.skeleton_before.save(arguments.out / "figure" / "skeleton.json")
    pair.skeleton_after.save(arguments.out / "figure" / "target.json")
    edit = box_edit(arguments.family, arguments.boxes_seed)
    write_capture(arguments.out / "boxes", edit.before, edit.after, cameras)
    BoxTarget(edit.boxes_before, edit.boxes_after).save(arguments.out / "boxes" / "boxes.json")


def write_capture(folder: Path, before: ColouredMesh, after: ColouredMesh, cameras: tuple[Camera, ...]) -> None:
    """Write views before an edit, and the truth."""
    pictures = drawn(before, cameras)
    named = [(f"{k:02d}", camera) for k, camera in enumerate(cameras)]
    views = tuple(View(name, camera, pixels) for (name, camera), pixels in zip(named, pictures, strict=True))
    ViewSet(views, has_masks=True).save(folder)
    for mesh, name in ((before, "before"), (after, "after")):
        write_bytes(folder / "truth" / f"{name}.ply", ply(mesh))
    chosen = named[:: max(1, len(named) // 4)]
    for (name, _), pixels in zip(chosen, drawn(after, [camera for _, camera in chosen]), strict=True):
        with written_aside(folder / "truth" / f"{name}.png") as partial:
            Image.fromarray(pixels).save(partial, optimize=True)


def ply(mesh: ColouredMesh) -> bytes:
    """A mesh with a colour at every vertex."""
    # The colour of a vertex is that of the first face that has it.
    faces = mesh.faces.astype(np.int64)
    _, first = np.unique(faces.reshape(-1), return_index=True)
    corner = np.eye(3)[first % 3][:, 1:]
    vertices = np.empty(len(mesh.vertices), _VERTEX)
    vertices["x"], vertices["y"], vertices["z"] = mesh.vertices.T
    colours = mesh.colours_at(first // 3, corner)
    vertices["red"], vertices["green"], vertices["blue"] = np.round(colours * 255).astype(np.uint8).T
    return encode_ply(vertices, faces)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
