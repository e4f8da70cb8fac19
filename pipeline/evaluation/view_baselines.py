"""What generated views must beat: the mean training image at a pose, and the nearest training object."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from rich.progress import track

from pipeline.training.data.objects import ObjectPool, ObjectSource
from pipeline.training.data.store import SampleStore
from scene.camera import DEFAULT_RADIUS, orbit_camera
from scene.render import MeshRenderer

Images = Float[np.ndarray, "v s s 4"]
"""Views with straight alpha in [0, 1]."""


def mean_images(
    store: SampleStore, size: int, azimuths: int = 12, elevations: int = 6
) -> Callable[[Float[np.ndarray, "3"]], Float[np.ndarray, "s s 4"]]:
    """The mean of the training targets at about the same angles: the best guess that does not look at the photo.

    Only targets at the default radius count, since the views scored have it.
    """
    side = store.settings.size
    total = np.zeros((azimuths, elevations, side, side, 4))
    count = np.zeros((azimuths, elevations))

    def place(pose: np.ndarray) -> tuple[int, int]:
        e = int((np.degrees(pose[1]) + 30) / 115 * elevations)
        return int(pose[0] / (2 * np.pi) * azimuths) % azimuths, min(elevations - 1, max(0, e))

    rng = np.random.default_rng(0)
    for start in track(range(0, min(len(store), 6000), 50), "mean images"):
        batch = store.batch(rng.integers(len(store), size=50) if start else np.arange(50))
        images = batch.targets.astype(np.float32) / 255
        images[..., :3] *= images[..., 3:]
        for poses, views in zip(batch.target_cameras, images, strict=True):
            for pose, view in zip(poses, views, strict=True):
                if abs(float(pose[2]) - DEFAULT_RADIUS) <= 0.05:
                    total[place(pose)] += view
                    count[place(pose)] += 1
    mean = total / np.maximum(count, 1)[..., None, None, None]
    mean[..., :3] /= np.maximum(mean[..., 3:], 1e-3)
    # Resized in parts: OpenCV takes an image at a time.
    resized = np.stack([[cv2.resize(image, (size, size)) for image in row] for row in mean])
    return lambda pose: resized[place(pose)]


class NearestTraining:
    """The true views of the training object whose photo is most like a photo, rendered anew.

    Args:
        objects: the object pool.
        store: samples whose photos are searched.
        seed: with which they were rendered.
        side: pixels at which photos are compared, on white and with their alpha.
    """

    def __init__(self, objects: Path, store: SampleStore, seed: int, side: int = 32) -> None:
        self._source, self._seed, self._side = ObjectSource(ObjectPool(objects, "train")), seed, side
        found = [
            self._small(store.batch(part).source)
            for part in track(np.array_split(np.arange(len(store)), max(1, len(store) // 500)), "training photos")
        ]
        self._photos = np.concatenate(found)

    def _small(self, rgba: UInt8[np.ndarray, "n s s 4"]) -> Float[np.ndarray, "n d"]:
        """Photos as vectors."""
        small = [cv2.resize(p, (self._side, self._side), interpolation=cv2.INTER_AREA) for p in rgba]
        values = np.stack(small).astype(np.float32) / 255
        values[..., :3] = values[..., :3] * values[..., 3:] + 1 - values[..., 3:]
        return values.reshape(len(values), -1)

    def views(self, source: UInt8[np.ndarray, "s s 4"], orbits: Float[np.ndarray, "v 3"], size: int) -> Images:
        """Views of that object; its own photo stands at azimuth 0 too."""
        best = int(np.square(self._photos - self._small(source[None])).sum(axis=1).argmin())
        mesh, light = self._source.draw(np.random.default_rng([self._seed, best]))
        renderer = MeshRenderer(mesh, light)
        return np.stack([renderer.render(orbit_camera(*map(float, orbit), size=size)).rgba for orbit in orbits])
