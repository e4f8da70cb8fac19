"""Known objects as view models meet them: a photo at a heading of its own, and true views around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.evaluation.meshes import evenly_spread, glb_files, load_glb
from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.samples import Sample, SampleSettings, evaluation_sample, headed, heldout_mesh
from scene.camera import orbit_camera
from scene.errors import InputError
from scene.mesh import ColouredMesh
from scene.metrics import mask_iou
from scene.render import MeshRenderer


@dataclass(frozen=True, eq=False)
class Subject:
    """A known object and its photo.

    Args:
        name: of the object.
        mesh: normalised, at the heading at which it is photographed.
        index: its place in the list, which decides heading and cameras.
    """

    name: str
    mesh: ColouredMesh
    index: int

    def sample(self, settings: SampleSettings = SampleSettings()) -> Sample:
        """Its photo and true views."""
        return evaluation_sample(self.mesh, self.index, settings)


def subjects(objects: Path | None, meshes: Sequence[Path], count: int | None) -> Iterator[Subject]:
    """Objects of GLB files, or else of the pool's val split, ``count`` of them spread evenly.

    Raises:
        InputError: the folders hold no GLB files, or there is neither pool nor folder.
    """
    if meshes:
        paths = glb_files(meshes)
        for index in evenly_spread(len(paths), count):
            yield Subject(paths[index].stem, headed(load_glb(paths[index]), index), index)
        return
    if objects is None:
        raise InputError("there are no objects", fix="Give --objects or --meshes.")
    pool = ObjectPool(objects, "val")
    for index in evenly_spread(len(pool), count):
        yield Subject(Path(pool.entries[index].file).stem, heldout_mesh(pool, index), index)


def near_symmetric(mesh: ColouredMesh, threshold: float = 0.95) -> bool:
    """Whether an object looks alike from all around: the mean mask IoU of eight views with the first."""
    renderer = MeshRenderer(mesh)
    masks = [
        renderer.render(orbit_camera(k * np.pi / 4, np.radians(10), size=64), samples=1).rgba[..., 3] >= 0.5
        for k in range(8)
    ]
    return float(np.mean([mask_iou(mask, masks[0]) for mask in masks[1:]])) >= threshold


def coloured(mesh: ColouredMesh) -> bool:
    """Whether an object has more than one colour."""
    held = mesh.texture if mesh.texture is not None else mesh.vertex_colours
    return held is not None and bool(np.ptp(held.reshape(-1, 3), axis=0).max() > 16)
