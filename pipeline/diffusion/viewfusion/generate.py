"""From a few prepared photos, of unknown cameras, to a ring of posed views around the first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from pipeline.diffusion.settings import FusionSampling
from pipeline.diffusion.viewfusion.model import ViewFusionModel
from pipeline.diffusion.viewfusion.sample import sample_fused
from scene.camera import DEFAULT_RADIUS, ZERO123_FOV, orbit_camera
from scene.errors import InputError, ViewloomError
from scene.view import View
from scene.viewset import ViewSet

MOST = 23
"""Photos that the published code can take; it was trained with six at most."""


@dataclass(frozen=True, eq=False)
class FusedRing:
    """A ring of views, and how photos came into them.

    Args:
        views: the first photo, then the ring, from azimuth 0.
        weights: what each photo counted in each view of the ring, in the steps that were kept.
        levels: shares of signal at these steps.
        empty: names of views that show nothing and were left out.
    """

    views: ViewSet
    weights: Float[np.ndarray, "k v n h w"]
    levels: Float[np.ndarray, "k"]
    empty: tuple[str, ...] = ()


def fuse_views(
    model: ViewFusionModel,
    photos: Sequence[UInt8[np.ndarray, "_ _ 4"]],
    count: int = 24,
    settings: FusionSampling = FusionSampling(),
    *,
    elevation_deg: float = 15.0,
    on_step: Callable[[int, int], None] | None = None,
) -> FusedRing:
    """Draw a ring of views of one object from photos of it.

    Args:
        model: the network.
        photos: framed cut-outs of the model's image size, straight alpha; a relative network counts azimuths from the
            first, any other one from the heading of its training data.
        count: of the views, evenly spread over a turn, the first at azimuth 0.
        settings: of the sampler.
        elevation_deg: of the ring, and of the first photo's camera.
        on_step: called with (steps done, steps).

    Raises:
        InputError: no photos, too many, of other sizes, or one that shows nothing; no views, or an elevation that is
            not finite.
        ViewloomError: nothing was drawn.
    """
    size = model.image_size
    _require(photos, size, count, elevation_deg)
    pictures = model.pictures_of(torch.from_numpy(np.stack(photos)))
    azimuths = torch.arange(count) * (2 * math.pi / count)
    drawn = sample_fused(model, pictures, azimuths, settings, on_step=on_step)
    shown = np.round(model.shown(drawn.views).float().cpu().numpy() * 255).astype(np.uint8)
    elevation = math.radians(elevation_deg)
    cameras = [
        orbit_camera(float(azimuth), elevation, DEFAULT_RADIUS, size=size, fov=ZERO123_FOV) for azimuth in azimuths
    ]
    # Only a relative network is told where its first photo stands.
    views = [View("photo", cameras[0], photos[0])] if model.unet.config["relative"] else []
    empty = []
    for k, (rgba, camera) in enumerate(zip(shown, cameras, strict=True)):
        name = f"view_{k:02d}"
        if (rgba[..., 3] >= 128).any():
            views.append(View(name, camera, rgba, origin="generated"))
        else:
            empty.append(name)
    if len(empty) == count:
        raise ViewloomError("the network drew empty views only", fix="Try another seed, or other photos.")
    facts = {"source_elevation_deg": round(elevation_deg, 3), "normalised": True, "photos": len(photos)}
    held = ViewSet(tuple(views), True, facts)
    return FusedRing(held, drawn.weights.cpu().numpy(), drawn.levels.numpy(), tuple(empty))


def _require(photos: Sequence[np.ndarray], size: int, count: int, elevation_deg: float) -> None:
    if not photos:
        raise InputError("there are no photos to fuse", fix="Give at least one.")
    if len(photos) > MOST:
        raise InputError(f"{len(photos)} photos are more than the network takes", fix=f"Give at most {MOST}.")
    for k, photo in enumerate(photos):
        if photo.shape != (size, size, 4):
            raise InputError(f"photo {k} is {list(photo.shape)}, not {[size, size, 4]}", fix="Prepare it first.")
        if not (photo[..., 3] >= 128).any():
            raise InputError(f"photo {k} shows nothing", fix="Leave it out, or cut it out again.")
    if count < 1:
        raise InputError(f"{count} views cannot be drawn", fix="Ask for at least one.")
    if not math.isfinite(elevation_deg) or abs(elevation_deg) > 90:
        raise InputError(f"an elevation of {elevation_deg} degrees is none", fix="Give -90 to 90.")
