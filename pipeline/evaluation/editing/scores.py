"""How good edited views are: like the true edit, like each other, like the original; and how near the surface is.

* Warp error: a view is drawn from its neighbour in the ring through the true depth of the edit, and compared where the
  true surface is seen by both; mean absolute difference on white. Resampling leaves the true views a few hundredths
  apart, so that the excess over the truth's own error is what counts.
* KID: the unbiased squared MMD of features under a cubic kernel (Binkowski et al. 2018, section 4), here of the nano
  checkpoint's photo encoder, between the edited views of a case and its originals, as many of each. It tells kept looks
  from lost ones, and is no measure of the edit; values compare with nothing outside this table.
* Chamfer: mean of both directions' distances between what is seen of two surfaces from outside, not squared, as a
  share of the true surface's longest side.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from pipeline.diffusion.modules.conditioning import PhotoEncoder
from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.evaluation.editing.cases import TrueViews
from pipeline.evaluation.views import mean_scores
from recon.mesh.metrics import distance_to_mesh, sample_surface, seen_from_outside
from scene.camera import Camera
from scene.mesh import ColouredMesh
from scene.render import over_white

Pictures = Float[np.ndarray, "n s s 4"]

_SAME = 0.02
"""How far apart two depths of one surface point may be, world units."""
_SAMPLES = 8_000


def as_pictures(rgba: UInt8[np.ndarray, "n s s 4"]) -> Pictures:
    """8 bits to [0, 1]."""
    return rgba.astype(np.float32) / 255


def warped(
    picture: Float[np.ndarray, "s s 3"],
    depth: Float[np.ndarray, "s s"],
    camera: Camera,
    target_depth: Float[np.ndarray, "s s"],
    target: Camera,
) -> tuple[Float[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"]]:
    """A picture seen from another camera.

    Args:
        picture, depth, camera: of the source; depths are true, 0 where there is nothing.
        target_depth, target: of the view that is drawn.

    Returns:
        The view, bilinear, and the pixels whose surface point the source sees.
    """
    ys, xs = np.nonzero(target_depth > 0)
    points = target.unproject(np.stack([xs, ys], axis=1) + 0.5, target_depth[ys, xs].astype(np.float64))
    pixels, z = camera.project(points)
    inside = camera.shows(pixels, z)
    at = np.clip(np.floor(pixels), 0, (camera.width - 1, camera.height - 1)).astype(int)
    there = depth[at[:, 1], at[:, 0]]
    seen = inside & (there > 0) & (np.abs(there - z) < _SAME)
    mask = np.zeros(target_depth.shape, bool)
    mask[ys[seen], xs[seen]] = True
    maps = np.zeros((*target_depth.shape, 2), np.float32)
    maps[ys, xs] = pixels - 0.5  # opencv's pixels have whole numbers at their centres
    found = cv2.remap(
        np.ascontiguousarray(picture, np.float32), maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(found), mask


def warp_error(pictures: Pictures, views: TrueViews) -> float:
    """Mean absolute difference of views and their neighbours' warped to them, both ways around the ring."""
    white = over_white(pictures)
    errors = []
    count = len(pictures)
    for a in range(count):
        for b in ((a + 1) % count, (a - 1) % count):
            drawn, mask = warped(white[a], views.depths[a], views.cameras[a], views.depths[b], views.cameras[b])
            if mask.any():
                errors.append(float(np.abs(drawn - white[b])[mask].mean()))
    return float(np.mean(errors))


def kernel_distance(one: Float[np.ndarray, "n d"], other: Float[np.ndarray, "m d"]) -> float:
    """The unbiased squared MMD under the kernel (x . y / d + 1)^3; it may be slightly negative."""

    def kernel(x: Float[np.ndarray, "a d"], y: Float[np.ndarray, "b d"]) -> Float[np.ndarray, "a b"]:
        return (x @ y.T / x.shape[1] + 1) ** 3

    n, m = len(one), len(other)
    own = (kernel(one, one).sum() - np.trace(kernel(one, one))) / (n * (n - 1))
    others = (kernel(other, other).sum() - np.trace(kernel(other, other))) / (m * (m - 1))
    return float(own + others - 2 * kernel(one, other).mean())


@torch.no_grad()
def features(encoder: PhotoEncoder, pictures: Pictures) -> Float[np.ndarray, "n d"]:
    """The photo encoder's embeddings."""
    rgba = torch.from_numpy(np.round(pictures * 255).clip(0, 255).astype(np.uint8))
    return encoder(images_from_rgba(rgba, 4)).double().numpy()


def outer_chamfer(mesh: ColouredMesh, truth: ColouredMesh) -> float:
    """Chamfer distance of what is seen of two meshes from outside, in one frame, by the true one's longest side.

    Figures of overlapping parts have insides that no view shows, on both sides of the comparison.
    """
    low, high = truth.vertices.min(axis=0), truth.vertices.max(axis=0)
    longest, middle = float((high - low).max()), (low + high) / 2
    mine, true = ((m.vertices.astype(np.float64) - middle) / longest for m in (mesh, truth))
    faces = mesh.faces.astype(np.int64), truth.faces.astype(np.int64)
    distances = []
    for k, (vertices, other) in enumerate(((mine, true), (true, mine))):
        points, _ = sample_surface(vertices, faces[k], _SAMPLES, k)
        points = points[seen_from_outside(points, vertices, faces[k])]
        distances.append(float(distance_to_mesh(points, other, faces[1 - k], density=40_000).mean()))
    return float(np.mean(distances))


def edit_scores(
    pictures: Pictures, mesh: ColouredMesh | None, views: TrueViews, encoder: PhotoEncoder
) -> dict[str, float]:
    """All scores of one row for one case.

    Args:
        pictures: edited views.
        mesh: the surface of the row, if it has one.
        views: the truth.
        encoder: whose features KID compares.
    """
    found = mean_scores(pictures, views.truths)
    error, least = warp_error(pictures, views), warp_error(as_pictures(views.truths), views)
    originals = features(encoder, as_pictures(views.originals))
    scores = {
        "warp_error": error,
        "excess_warp_error": error - least,
        "foreground_psnr": found["foreground_psnr"],
        "ssim": found["ssim"],
        "iou": found["iou"],
        "kid": kernel_distance(features(encoder, pictures), originals),
    }
    return scores if mesh is None else scores | {"chamfer": outer_chamfer(mesh, views.case.after)}


Scored = Sequence[dict[str, float]]
"""Of one row: a dictionary for each case."""
