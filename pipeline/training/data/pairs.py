"""Pairs of a photo and a true view of known meshes, as the Zero-to-Hero paper scores view models.

Every mesh is photographed from 8 cameras, stratified in azimuth, elevations -10 to 50 degrees, radius 1.5. The object's
place in the sorted list decides them. A pair has one camera as source and another as target; of the 56 pairs, 12, 6 or
3 with stratified differences of azimuth are taken where time is short.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.diffusion.modules.coarse_volume import CoarseVolume
from pipeline.diffusion.modules.conditioning import Conditions
from pipeline.diffusion.modules.poses import Poses
from pipeline.diffusion.sample import coarse_render_images, coarse_volume, view_conditions
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.training.data.samples import source_view, to_bytes
from pipeline.training.procedural import rotation
from scene.camera import DEFAULT_RADIUS, orbit_camera
from scene.mesh import ColouredMesh
from scene.metrics import mask_iou, view_scores
from scene.render import MeshRenderer

VIEWS = 8
Pairs = Literal[3, 6, 12, 56]
PAIRS: dict[Pairs, tuple[tuple[int, tuple[int, ...]], ...]] = {
    3: ((0, (1, 4, 6)),),
    6: ((0, (1, 3, 6)), (4, (2, 4, 7))),
    12: ((0, (1, 3, 4, 6)), (3, (2, 4, 5, 7)), (5, (1, 3, 5, 6))),
    56: tuple((k, tuple(range(1, VIEWS))) for k in range(VIEWS)),
}
"""Source, and how many of the stratified azimuths further its targets stand."""
KEYS = ("foreground_psnr", "ssim", "iou", "iou_white")


@dataclass(frozen=True, eq=False)
class Case:
    """One source of an object with some targets.

    Args:
        source: the photo.
        camera: its description (elevation, focal, cx, cy).
        orbits: the targets' cameras, relative to a photo at azimuth 0.
        truths: their true pictures.
    """

    source: UInt8[np.ndarray, "1 s s 4"]
    camera: Float[np.ndarray, "1 4"]
    orbits: Float[np.ndarray, "1 v 3"]
    truths: UInt8[np.ndarray, "v s s 4"]


def cases(mesh: ColouredMesh, index: int, size: int, pairs: Pairs) -> Iterator[Case]:
    """The pairs of an object, by source; azimuths are turned so that the source stands at 0.

    Args:
        mesh: the object, normalised.
        index: decides the cameras.
        size: side of the pictures.
        pairs: how many.
    """
    rng = np.random.default_rng([7, index])
    azimuths = (np.arange(VIEWS) + rng.uniform(0, 1, VIEWS)) * 2 * math.pi / VIEWS
    elevations = np.radians(rng.uniform(-10, 50, VIEWS))
    for source, further in PAIRS[pairs]:
        turn = np.eye(4)
        turn[:3, :3] = rotation("z", -azimuths[source])
        turned = mesh.transformed(turn)
        renderer = MeshRenderer(turned)
        camera, description = source_view(turned, float(elevations[source]), DEFAULT_RADIUS, size)
        chosen = [(source + k) % VIEWS for k in further]
        orbits = np.array(
            [((azimuths[k] - azimuths[source]) % (2 * math.pi), elevations[k], DEFAULT_RADIUS) for k in chosen]
        )
        truths = np.stack([to_bytes(renderer.render(orbit_camera(*orbit, size=size)).rgba) for orbit in orbits])
        picture = to_bytes(renderer.render(camera).rgba)
        yield Case(picture[None], description[None].astype(np.float32), orbits[None].astype(np.float32), truths)


@dataclass(frozen=True, eq=False)
class Told:
    """A case as a model is told of it.

    Args:
        case: the case.
        given: conditions.
        volume: the coarse volume, if the model has one.
        guides: its pictures at the targets' cameras.
    """

    case: Case
    given: Conditions
    volume: CoarseVolume | None
    guides: Float[Tensor, "1 v s s 4"] | None

    @classmethod
    @torch.no_grad()
    def of(cls, model: ViewDiffusion, case: Case) -> Told:
        """Encode photo, camera and coarse pictures."""
        photo, source = torch.from_numpy(case.source), torch.from_numpy(case.camera).to(model.device)
        orbits = torch.from_numpy(case.orbits).to(model.device)
        volume = coarse_volume(model, photo, source)
        guides = None if volume is None else coarse_render_images(model, photo, volume, Poses.of_orbits(orbits))
        return cls(case, view_conditions(model, photo, source, orbits, volume), volume, guides)


def scored(
    views: Float[np.ndarray, "v s s 4"], truths: UInt8[np.ndarray, "v s s 4"], threshold: float
) -> list[dict[str, float]]:
    """Scores of each pair: those of :func:`scene.metrics.view_scores`, and the paper's IoU.

    Args:
        views: straight alpha, [0, 1].
        truths: the true views.
        threshold: on white, foreground has a channel below this.
    """
    out = []
    for rgba, bytes_ in zip(views, truths, strict=True):
        truth = bytes_.astype(np.float32) / 255
        dark = [((x[..., :3] * x[..., 3:] + 1 - x[..., 3:]) < threshold).any(-1) for x in (rgba, truth)]
        out.append({**view_scores(rgba, truth), "iou_white": mask_iou(*dark)})
    return out
