"""Training data of the aligned decoder: an object seen by a ring of cameras, its depth, and a larger front view.

Depth maps are spoiled as first surfaces are, by structured noise (arXiv 2408.14016).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from scipy.ndimage import map_coordinates
from scipy.spatial import ConvexHull
from torch import Tensor

from pipeline.training.data.objects import ObjectMix, ObjectPool, ObjectSource
from pipeline.training.data.samples import heldout_mesh, random_targets, source_view, to_bytes
from pipeline.training.data.streams import SeededStream
from pipeline.training.procedural import Rng
from scene.camera import DEFAULT_RADIUS, OBJECT_RADIUS, Camera, orbit_camera
from scene.framing import DEFAULT_FILL
from scene.mesh import ColouredMesh
from scene.render import WORLD_LIGHT, Light, MeshRenderer


@dataclass(frozen=True)
class RingSettings:
    """How rings are rendered.

    Args:
        size: side of the views in pixels; the front's is twice that.
        views: fewest and most views of a ring.
        elevation_deg: range of the front's elevation.
        at_front: chance that the first view's camera stands where the front's does, but for its framing.
        drafts: chance that depth comes from a draft of the object; see :func:`drafted`.
    """

    size: int = 128
    views: tuple[int, int] = (4, 8)
    elevation_deg: tuple[float, float] = (-10.0, 50.0)
    at_front: float = 0.3
    drafts: float = 0.6


@dataclass(frozen=True, eq=False)
class ViewRing:
    """One object; its world is turned so that the front camera stands at azimuth 0.

    Args:
        views: straight alpha, by rising azimuth from the front.
        depths: z-depth of the views, 0 for background.
        cameras: of the views.
        front: the clean front view, straight alpha.
        front_depth: its z-depth.
        front_camera: its camera.
        draft_depths, draft_front_depth: the same of a draft of the object, where there is one.
    """

    views: UInt8[np.ndarray, "v s s 4"]
    depths: Float[np.ndarray, "v s s"]
    cameras: tuple[Camera, ...]
    front: UInt8[np.ndarray, "f f 4"]
    front_depth: Float[np.ndarray, "f f"]
    front_camera: Camera
    draft_depths: Float[np.ndarray, "v s s"] | None = None
    draft_front_depth: Float[np.ndarray, "f f"] | None = None


def render_ring(
    mesh: ColouredMesh,
    light: Light,
    settings: RingSettings,
    rng: Rng,
    orbits: Float[np.ndarray, "v 3"] | None = None,
    fill_jitter: float = 0.02,
) -> ViewRing:
    """Render a normalised object, from random cameras unless (azimuth, elevation, radius) of the views are given."""
    renderer = MeshRenderer(mesh, light)
    elevation = float(np.radians(rng.uniform(*settings.elevation_deg)))
    fill = DEFAULT_FILL * float(np.exp(rng.normal(0, fill_jitter)))
    front_camera, _ = source_view(mesh, elevation, float(rng.uniform(1.4, 2.6)), 2 * settings.size, fill)
    if orbits is None:
        low, high = settings.views
        orbits = random_targets(rng, int(rng.integers(low, high + 1)))
        if rng.random() < settings.at_front:
            orbits[0, :2] = 0.0, elevation
        orbits = orbits[np.argsort(orbits[:, 0])]
    cameras = tuple(orbit_camera(*map(float, orbit), size=settings.size) for orbit in orbits)
    drawn, front = [renderer.render(camera) for camera in cameras], renderer.render(front_camera)
    draft_depths = draft_front = None
    if rng.random() < settings.drafts:
        draft = MeshRenderer(drafted(mesh, rng), light)
        draft_depths = np.stack([draft.render(camera).depth for camera in cameras])
        draft_front = draft.render(front_camera).depth
    return ViewRing(
        to_bytes(np.stack([one.rgba for one in drawn])),
        np.stack([one.depth for one in drawn]),
        cameras,
        to_bytes(front.rgba),
        front.depth,
        front_camera,
        draft_depths,
        draft_front,
    )


def drafted(mesh: ColouredMesh, rng: Rng, hull: float = 0.2, amplitude: float = 0.15) -> ColouredMesh:
    """A draft of an object: like first surfaces it is off by one error for all views, here hardly, there by far.

    Measured on fits to decoded true views: in the median .01 to .03 of the object's radius, for a tenth of the pixels
    more than .1, mostly where hollows are filled.

    Args:
        mesh: normalised.
        rng: of the error.
        hull: chance of the convex hull, whose hollows are all filled.
        amplitude: largest half range of the displacements at the corners of a lattice, in units of the object's radius.
    """
    vertices, faces = mesh.vertices.astype(np.float64), mesh.faces
    if rng.random() < hull:
        # Flat objects have none but for a jitter.
        found = ConvexHull(vertices + rng.normal(0, 1e-5, vertices.shape))
        return ColouredMesh(vertices.astype(np.float32), found.simplices.astype(np.int32))
    moved, most = vertices.copy(), amplitude * OBJECT_RADIUS * rng.uniform() ** 2
    for side in (3, 8):
        lattice = rng.uniform(-most, most, (3, side, side, side))
        places = (vertices / (2 * OBJECT_RADIUS) + 0.5).T * (side - 1)
        moved += np.stack([map_coordinates(one, places, order=1, mode="nearest") for one in lattice], axis=1)
    return ColouredMesh(moved.astype(np.float32), faces)


def evaluation_ring(
    mesh: ColouredMesh, index: int, settings: RingSettings = RingSettings(), views: int = 8
) -> ViewRing:
    """The evaluation ring of a mesh: evenly spaced views of 20 degrees elevation, no jitter, the one light.

    Args:
        mesh: normalised.
        index: decides the front's elevation.
        settings: the size.
        views: of the ring.
    """
    azimuth = np.arange(views) * 2 * np.pi / views
    orbits = np.stack([azimuth, np.full(views, np.radians(20.0)), np.full(views, DEFAULT_RADIUS)], axis=1)
    exact = replace(settings, elevation_deg=(0.0, 30.0), drafts=0.0)
    return render_ring(mesh, WORLD_LIGHT, exact, np.random.default_rng([index, 18]), orbits, fill_jitter=0.0)


def heldout_ring(pool: ObjectPool, index: int, settings: RingSettings = RingSettings(), views: int = 8) -> ViewRing:
    """The evaluation ring of a pool object."""
    return evaluation_ring(heldout_mesh(pool, index), index, settings, views)


@dataclass(frozen=True)
class DepthNoise:
    """How depth maps are spoiled; amplitudes are in units of the object's radius.

    Args:
        grids: sides of grids of uniform noise, brought to the maps' size.
        amplitudes: half ranges of each.
        most: the largest factor on all amplitudes; one is drawn for a set, from 0 up.
        mask: most pixels by which masks grow or shrink.
    """

    grids: tuple[int, ...] = (3, 32, 64)
    amplitudes: tuple[float, ...] = (0.05, 0.02, 0.02)
    most: float = 2.0
    mask: int = 2

    def spoiled(self, depth: Float[Tensor, "v h w"], factor: float, grow: int, seed: int) -> Float[Tensor, "v h w"]:
        """Depth maps with noise on their foreground.

        Args:
            depth: z-depth, 0 for background.
            factor: on all amplitudes.
            grow: pixels by which masks grow, or shrink if negative; new pixels have their neighbours' depth.
            seed: of the noise.
        """
        rng = torch.Generator().manual_seed(seed)
        depth = resized_mask(depth, grow)
        noise = torch.zeros_like(depth)
        for side, amplitude in zip(self.grids, self.amplitudes, strict=True):
            grid = torch.rand(len(depth), 1, side, side, generator=rng) * 2 - 1
            # Bilinear, so that the bound holds: bicubic overshoots.
            drawn = F.interpolate(grid, depth.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
            noise += amplitude * OBJECT_RADIUS * factor * drawn
        return torch.where(depth > 0, (depth + noise).clamp(min=1e-3), 0.0)


def resized_mask(depth: Float[Tensor, "v h w"], grow: int) -> Float[Tensor, "v h w"]:
    """Depth maps whose foreground is grown by the mean of their neighbours, or shrunk if negative."""
    for _ in range(abs(grow)):
        mask = (depth > 0).float()
        if grow < 0:
            inner = -F.max_pool2d(-F.pad(mask, (1, 1, 1, 1), value=1.0)[:, None], 3, stride=1)[:, 0]
            depth = depth * inner
        else:
            share = F.avg_pool2d(mask[:, None], 3, stride=1, padding=1)[:, 0]
            mean = F.avg_pool2d(depth[:, None], 3, stride=1, padding=1)[:, 0] / share.clamp(min=1e-6)
            depth = torch.where(depth > 0, depth, torch.where(share > 0, mean, 0.0))
    return depth


class RingStream(SeededStream[ViewRing]):
    """An endless stream of training rings, rendered by worker processes or in this one.

    Args:
        archive: the object pool, or None for procedural objects only.
        settings: how rings are rendered.
        seed, workers: see :class:`pipeline.training.data.streams.SeededStream`.
    """

    def __init__(
        self, archive: Path | None, settings: RingSettings = RingSettings(), *, seed: int = 0, workers: int = 0
    ) -> None:
        super().__init__(_renderer, (archive, settings), seed=seed, salt=(18,), workers=workers)


def _renderer(archive: Path | None, settings: RingSettings) -> Callable[[Rng], ViewRing]:
    pool = None if archive is None else ObjectPool(archive, "train")
    # Textures and patterns are what there is to win; plain objects are decoded well without.
    source = ObjectSource(pool, ObjectMix(textured_weight=8.0, pattern=0.5))

    def render(rng: Rng) -> ViewRing:
        mesh, light = source.draw(rng)
        return render_ring(mesh, light, settings, rng)

    return render
