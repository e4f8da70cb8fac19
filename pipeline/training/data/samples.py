"""Rendered training samples: a prepared source photo, target views around it, and the solid in the source's frame."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from pipeline.training.data.objects import ObjectMix, ObjectPool, ObjectSource, Split
from pipeline.training.data.streams import SeededStream
from pipeline.training.procedural import Rng, rotation
from scene.camera import DEFAULT_RADIUS, ZERO123_FOV, Camera, orbit_camera
from scene.framing import DEFAULT_FILL, framing_of_box
from scene.mesh import ColouredMesh
from scene.render import WORLD_LIGHT, Light, MeshRenderer
from scene.voxels import carve_solid


@dataclass(frozen=True)
class SampleSettings:
    """How samples are rendered.

    Args:
        size: side of every image in pixels.
        targets: target views of an object.
        volume: voxels along each side of the solid; 0 leaves it out.
        source_elevation_deg: range of the photo's elevation.
        fill_jitter, shift_jitter: standard deviations of the framing of the source, as shares of the frame.
    """

    size: int = 128
    targets: int = 8
    volume: int = 32
    source_elevation_deg: tuple[float, float] = (-10.0, 50.0)
    fill_jitter: float = 0.02
    shift_jitter: float = 0.01


@dataclass(frozen=True, eq=False)
class Sample:
    """One rendered object; its world is turned so that the source camera stands at azimuth 0.

    Args:
        source: the prepared photo, straight alpha.
        source_camera: (elevation, focal length / size, cx / size, cy / size) of a camera at azimuth 0 and
            :data:`scene.camera.DEFAULT_RADIUS` that sees the object where the photo has it.
        targets: views with Zero123's field of view, straight alpha.
        target_cameras: azimuth, elevation, radius of each.
        solid: occupancy, axes (x, y, z).
        solid_colours: sRGB of occupied voxels at the surface, 0 elsewhere.
    """

    source: UInt8[np.ndarray, "s s 4"]
    source_camera: Float[np.ndarray, "4"]
    targets: UInt8[np.ndarray, "t s s 4"]
    target_cameras: Float[np.ndarray, "t 3"]
    solid: Bool[np.ndarray, "r r r"]
    solid_colours: UInt8[np.ndarray, "r r r 3"]


def source_view(
    mesh: ColouredMesh,
    elevation: float,
    radius: float,
    size: int,
    fill: float = DEFAULT_FILL,
    shift: tuple[float, float] = (0.0, 0.0),
) -> tuple[Camera, Float[np.ndarray, "4"]]:
    """The camera whose picture equals a photo from azimuth 0 after `prepare` (recentred and rescaled).

    Returns:
        The camera that renders it, and its description as in :class:`Sample` (at the default radius, since a single
        photo does not tell its distance).
    """
    camera = orbit_camera(0.0, elevation, radius, size=size)
    pixels, _ = camera.project(mesh.vertices)
    (left, top), (right, bottom) = pixels.min(axis=0), pixels.max(axis=0)
    framing = framing_of_box(left, top, right, bottom, size, fill, shift)
    framed = camera.cropped(framing.scale, framing.offset, size)
    focal = framed.fx * DEFAULT_RADIUS / radius
    return framed, np.array([elevation, focal / size, framed.cx / size, framed.cy / size])


def claimed_camera(description: Float[np.ndarray, "4"], size: int) -> Camera:
    """The camera that a source description stands for."""
    elevation, focal, cx, cy = (float(v) for v in description)
    return replace(
        orbit_camera(0.0, elevation, size=size), fx=focal * size, fy=focal * size, cx=cx * size, cy=cy * size
    )


def to_bytes(image: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """[0, 1] to 8 bits."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def random_targets(rng: Rng, count: int) -> Float[np.ndarray, "t 3"]:
    """Random target cameras: azimuths stratified around the object, mostly the elevations that jobs ask for."""
    start = rng.uniform(0, 2 * math.pi)
    azimuth = start + (np.arange(count) + rng.uniform(0, 1, count)) * 2 * math.pi / count
    wide = rng.random(count) < 0.25
    elevation = np.radians(np.where(wide, rng.uniform(-30, 85, count), rng.uniform(-10, 50, count)))
    radius = np.where(rng.random(count) < 0.7, DEFAULT_RADIUS, rng.uniform(1.5, 2.2, count))
    return np.stack([np.mod(azimuth, 2 * math.pi), elevation, radius], axis=1)


def render_sample(
    mesh: ColouredMesh, light: Light, settings: SampleSettings, rng: Rng, poses: Float[np.ndarray, "t 3"] | None = None
) -> Sample:
    """Render one normalised object as a sample, from random target cameras if none are given."""
    renderer = MeshRenderer(mesh, light)
    low, high = np.radians(settings.source_elevation_deg)
    elevation = float(rng.uniform(low, high))
    fill = DEFAULT_FILL * float(np.exp(rng.normal(0, settings.fill_jitter)))
    right, down = (float(s) for s in rng.normal(0, settings.shift_jitter, 2))
    camera, description = source_view(mesh, elevation, float(rng.uniform(1.4, 2.6)), settings.size, fill, (right, down))
    poses = random_targets(rng, settings.targets) if poses is None else poses
    views = [renderer.render(orbit_camera(*pose, size=settings.size, fov=ZERO123_FOV)).rgba for pose in poses]
    if settings.volume:
        solid, colours = carve_solid(renderer, settings.volume, colours=True)
    else:
        solid, colours = np.zeros((0, 0, 0), bool), np.zeros((0, 0, 0, 3), np.float32)
    assert colours is not None
    return Sample(
        to_bytes(renderer.render(camera).rgba),
        description.astype(np.float32),
        to_bytes(np.stack(views)),
        poses.astype(np.float32),
        solid,
        to_bytes(colours),
    )


def headed(mesh: ColouredMesh, index: int, seed: int = 0) -> ColouredMesh:
    """A mesh for evaluation: at a heading that follows from its index and the seed, normalised."""
    turn = np.eye(4)
    turn[:3, :3] = rotation("z", np.random.default_rng([seed, index, 1]).uniform(0, 2 * math.pi))
    return mesh.transformed(turn).normalised()


def heldout_mesh(pool: ObjectPool, index: int, seed: int = 0) -> ColouredMesh:
    """A pool object for evaluation: :func:`headed`, in its own colours (grey where it has none)."""
    return headed(pool.load(index), index, seed)


def evaluation_sample(
    mesh: ColouredMesh, index: int, settings: SampleSettings = SampleSettings(), seed: int = 0
) -> Sample:
    """The evaluation sample of a mesh: no jitter, the one light, targets at the default radius.

    Azimuths are stratified around the object, elevations uniform in -10..50 degrees; all follow from index and seed.
    """
    rng = np.random.default_rng([seed, index])
    count = settings.targets
    azimuth = (np.arange(count) + rng.uniform(0, 1, count)) * 2 * math.pi / count
    poses = np.stack([azimuth, np.radians(rng.uniform(-10, 50, count)), np.full(count, DEFAULT_RADIUS)], axis=1)
    exact = replace(settings, fill_jitter=0.0, shift_jitter=0.0)
    return render_sample(mesh, WORLD_LIGHT, exact, rng, poses)


def heldout_sample(pool: ObjectPool, index: int, settings: SampleSettings = SampleSettings(), seed: int = 0) -> Sample:
    """The evaluation sample of a pool object."""
    return evaluation_sample(heldout_mesh(pool, index, seed), index, settings, seed)


class SampleStream(SeededStream[Sample]):
    """An endless stream of training samples, rendered by worker processes while the model trains.

    Args:
        archive: the object pool, or None for procedural objects only.
        settings: how samples are rendered.
        mix: of the objects.
        split: of the pool.
        seed, workers, ahead: see :class:`pipeline.training.data.streams.SeededStream`.
    """

    def __init__(
        self,
        archive: Path | None,
        settings: SampleSettings = SampleSettings(),
        mix: ObjectMix = ObjectMix(),
        *,
        split: Split = "train",
        seed: int = 0,
        workers: int = 1,
        ahead: int = 4,
    ) -> None:
        super().__init__(_renderer, (archive, settings, mix, split), seed=seed, workers=workers, ahead=ahead)


def _renderer(archive: Path | None, settings: SampleSettings, mix: ObjectMix, split: Split) -> Callable[[Rng], Sample]:
    source = ObjectSource(None if archive is None else ObjectPool(archive, split), mix)

    def render(rng: Rng) -> Sample:
        mesh, light = source.draw(rng)
        return render_sample(mesh, light, settings, rng)

    return render
