"""Every stored picture as a photo: sources as they are, targets framed as `prepare` would frame them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from pipeline.training.data.store import SampleBatch
from pipeline.training.procedural import Rng
from scene.camera import DEFAULT_RADIUS, ZERO123_FOV
from scene.framing import DEFAULT_FILL, apply_framing, framing_of_box


@dataclass(frozen=True)
class PhotoSettings:
    """How photos are made of stored samples.

    Args:
        targets: share of the photos that are target views; 0 takes the sources alone.
        elevation_deg: targets seen from outside of this range are not used.
        fill_jitter, shift_jitter: standard deviations of the framing of a target, as shares of the frame.
        mirror: chance that a photo and its solid are mirrored.
        recolour: chance that the colour channels of a photo and its solid are permuted and scaled.
    """

    targets: float = 0.8
    elevation_deg: tuple[float, float] = (-12.0, 52.0)
    fill_jitter: float = 0.02
    shift_jitter: float = 0.01
    mirror: float = 0.5
    recolour: float = 0.5


@dataclass(frozen=True, eq=False)
class PhotoBatch:
    """Photos and the solids they show.

    Args:
        photo: prepared photos, straight alpha.
        camera: (elevation, focal / size, cx / size, cy / size) at the default radius.
        azimuth: of each photo's camera in the frame of its solid, radians.
        solid, solid_colours: as in :class:`pipeline.training.data.samples.Sample`.
    """

    photo: UInt8[np.ndarray, "b s s 4"]
    camera: Float[np.ndarray, "b 4"]
    azimuth: Float[np.ndarray, "b"]
    solid: UInt8[np.ndarray, "b r r r"]
    solid_colours: UInt8[np.ndarray, "b r r r 3"]

    def __len__(self) -> int:
        return len(self.photo)

    @classmethod
    def of_sources(cls, batch: SampleBatch) -> PhotoBatch:
        """The source photos of samples, unvaried."""
        azimuth = np.zeros(len(batch), np.float32)
        return cls(batch.source, batch.source_camera, azimuth, batch.solid, batch.solid_colours)


def draw_photos(batch: SampleBatch, rng: Rng, settings: PhotoSettings = PhotoSettings()) -> PhotoBatch:
    """One photo of every sample: its source, or one of its targets framed anew; mirrored and recoloured by chance."""
    rows = [_vary(*_draw(batch, k, rng, settings), rng, settings) for k in range(len(batch))]
    photo, camera, azimuth, solid, colours = (np.stack(column) for column in zip(*rows, strict=True))
    return PhotoBatch(photo, camera.astype(np.float32), azimuth.astype(np.float32), solid, colours)


_Row = tuple[np.ndarray, np.ndarray, float, np.ndarray, np.ndarray]


def _draw(batch: SampleBatch, k: int, rng: Rng, settings: PhotoSettings) -> _Row:
    """The picture, camera, azimuth, solid and colours of one photo of a sample."""
    solid, colours = batch.solid[k], batch.solid_colours[k]
    low, high = np.radians(settings.elevation_deg)
    orbits = batch.target_cameras[k]
    usable = np.nonzero((orbits[:, 1] >= low) & (orbits[:, 1] <= high))[0]
    if len(usable) and rng.random() < settings.targets:
        view = int(rng.choice(usable))
        fill = DEFAULT_FILL * float(np.exp(rng.normal(0, settings.fill_jitter)))
        right, down = (float(s) for s in rng.normal(0, settings.shift_jitter, 2))
        framed = framed_target(batch.targets[k, view], orbits[view], fill, (right, down))
        if framed is not None:
            return *framed, float(orbits[view, 0]), solid, colours
    return batch.source[k], batch.source_camera[k], 0.0, solid, colours


def framed_target(
    rgba: UInt8[np.ndarray, "s s 4"],
    orbit: Float[np.ndarray, "3"],
    fill: float = DEFAULT_FILL,
    shift: tuple[float, float] = (0.0, 0.0),
) -> tuple[UInt8[np.ndarray, "s s 4"], Float[np.ndarray, "4"]] | None:
    """A target view as a photo, and the description of its camera; None where no object is to be seen.

    Args:
        rgba: the view, with Zero123's field of view.
        orbit: its (azimuth, elevation, radius).
        fill, shift: as in :func:`scene.framing.framing_of_box`.
    """
    size = len(rgba)
    mask = rgba[..., 3] >= 128
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    if not len(rows):
        return None
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    framing = framing_of_box(*box, size, fill, shift)
    focal = 0.5 / math.tan(ZERO123_FOV / 2) * framing.scale * DEFAULT_RADIUS / float(orbit[2])
    right, down = (framing.scale / 2 + offset / size for offset in framing.offset)
    return apply_framing(rgba, framing), np.array([float(orbit[1]), focal, right, down], np.float32)


def _vary(
    photo: np.ndarray,
    camera: np.ndarray,
    azimuth: float,
    solid: np.ndarray,
    colours: np.ndarray,
    rng: Rng,
    settings: PhotoSettings,
) -> _Row:
    """Mirror left and right, and change the colours of photo and solid alike."""
    if rng.random() < settings.mirror:
        # The second axis of the solid points to the right of a camera at azimuth 0.
        photo, solid, colours, azimuth = photo[:, ::-1], solid[:, ::-1], colours[:, ::-1], -azimuth
        camera = camera * np.array([1, 1, -1, 1], np.float32) + np.array([0, 0, 1, 0], np.float32)
    if rng.random() < settings.recolour:
        order, scale = rng.permutation(3), rng.uniform(0.7, 1.0, 3)
        photo = np.concatenate([(photo[..., order] * scale).astype(np.uint8), photo[..., 3:]], -1)
        colours = (colours[..., order] * scale).astype(np.uint8)
    return photo, camera, azimuth, solid, colours
