"""Whether masks fit one solid, and which of them does not: every view against the visual hull of the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int

from recon.views.ray_set import RaySet
from recon.views.visual_hull import cube_points, silhouette_iou, vote_inside
from scene.camera import Camera

_LEVELS = (0.95, 0.85, 0.7)
_HALF = 0.66
"""Half side of the cube that is looked at; the object has radius 0.6."""


@dataclass(frozen=True)
class SilhouetteScore:
    """A mask against the silhouette of what the other views leave, both as seen by this view.

    Args:
        iou: intersection over union.
        false_positive: fraction of the mask outside of the silhouette: other views say that nothing is there.
        missing: what the silhouette has beyond the mask, as a fraction of the mask.
        shift: where the mask would fit best, pixels to the right and down.
        gain: by how much the IoU would grow there.
    """

    iou: float
    false_positive: float
    missing: float
    shift: tuple[int, int]
    gain: float


@dataclass(frozen=True, eq=False)
class _Votes:
    """What each view says of each voxel: that it has a vote, and that it votes against it.

    With the views' masks, and where these are known.
    """

    sees: Bool[np.ndarray, "v n"]
    denies: Bool[np.ndarray, "v n"]
    masks: tuple[Bool[np.ndarray, "_ _"], ...]
    known: tuple[Bool[np.ndarray, "_ _"], ...]
    cameras: tuple[Camera, ...]
    resolution: int

    def grid(self, values: Bool[np.ndarray, "n"]) -> Bool[np.ndarray, "r r r"]:
        """Values per voxel with the axes (x, y, z)."""
        return values.reshape((self.resolution,) * 3)

    def counts(self, members: list[int]) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
        """How many members deny and how many see each voxel."""
        denied, seen = (np.zeros(self.sees.shape[1], np.int16) for _ in range(2))
        for k in members:
            denied += self.denies[k]
            seen += self.sees[k]
        return denied, seen


def _slack(count: int) -> int:
    """How many of so many views may deny a voxel of the hull."""
    return 0 if count < 6 else max(1, round(0.06 * count))


def consistency_of(rays: RaySet) -> float:
    """How well all masks fit one solid, in [0, 1]: the best IoU of a soft hull's silhouettes with the masks."""
    inside = torch.from_numpy(vote_inside(rays, 48, _HALF))
    return max(silhouette_iou(rays, inside, level, _HALF) for level in _LEVELS)


def leave_one_out(rays: RaySet, resolution: int = 64) -> tuple[list[SilhouetteScore], list[int]]:
    """Every view against the hull of the others, and the views that contradict them, worst first.

    The hull of the others is forgiving: a voxel is inside as long as few of them deny it, so that one wrong view does
    not make the right ones look wrong. Where views are too few for that, the view whose removal helps the rest most is
    taken out and the rest judged again.

    Args:
        rays: at least four views of a normalised object, none with an empty mask.
        resolution: voxels along each side.
    """
    votes = _votes(rays, resolution)
    every = list(range(len(rays)))
    first = _scores(votes, every)
    scores, kept, wrong = first, every, list[int]()
    while suspects := _suspects(votes, scores):
        if len(rays) >= 12:
            wrong = suspects
            break
        if len(kept) <= max(3, 2 * len(rays) // 3):
            break
        trials = []
        for k in suspects[:4]:
            trial = _scores(votes, [j for j in kept if j != k])
            trials.append((sum(s.false_positive + s.gain for s in trial.values()) / len(trial), k, trial))
        _, worst, scores = min(trials, key=lambda trial: trial[:2])
        wrong.append(worst)
        kept = [j for j in kept if j != worst]
    return [first[k] for k in every], wrong


def _suspects(votes: _Votes, scores: dict[int, SilhouetteScore]) -> list[int]:
    """Views that contradict the others, worst first.

    The thresholds lie between what is found on real captures and on the same with one mask displaced, grown or cut.
    """
    false_positive = float(np.median([s.false_positive for s in scores.values()]))
    missing = float(np.median([s.missing for s in scores.values()]))
    top = max(s.gain for s in scores.values())
    doubts = {}
    for k, s in scores.items():
        displaced = s.gain / max(0.02, 0.5 * top) if max(map(abs, s.shift)) > 1 else 0.0
        grown = s.false_positive / (0.055 + 2 * false_positive)
        cut = (s.missing - missing) / 0.2
        # A view from where no other stands rightly takes away what the others could not see.
        if cut > 1 >= max(displaced, grown) and _lost(votes, list(scores), k) < 0.04:
            cut = 0.0
        doubts[k] = max(displaced, grown, cut)
    return sorted((k for k in doubts if doubts[k] > 1), key=lambda k: -doubts[k])


def _lost(votes: _Votes, members: list[int], k: int) -> float:
    """Mean fraction of the other masks that nothing explains any more once view ``k`` has taken away what it denies."""
    others = [j for j in members if j != k]
    denied, seen = votes.counts(others)
    slack, lost = _slack(len(others)), []
    for j in others[:: -(-len(others) // 8)]:
        without = votes.grid((denied - votes.denies[j] <= slack) & (seen - votes.sees[j] > slack))
        mask = votes.masks[j]
        before = silhouette(without, _HALF, votes.cameras[j])
        after = silhouette(without & ~votes.grid(votes.denies[k]), _HALF, votes.cameras[j])
        lost.append(float((mask & before & ~after).sum()) / max(float(mask.sum()), 1.0))
    return float(np.mean(lost))


def _votes(rays: RaySet, resolution: int) -> _Votes:
    points = cube_points(resolution, _HALF)
    sees, denies = (np.zeros((len(rays), len(points)), bool) for _ in range(2))
    for k in range(len(rays)):
        cover, voted = rays.votes(k, points)
        sees[k] = (voted > 0).numpy()
        denies[k] = sees[k] & (cover < 0.5).numpy()
    masks = tuple((alpha >= 0.5).numpy() for alpha in rays.alpha)
    pairs = zip(masks, rays.known, strict=True)
    known = tuple(np.ones_like(mask) if tells is None else tells.numpy() for mask, tells in pairs)
    return _Votes(sees, denies, masks, known, rays.cameras, resolution)


def _scores(votes: _Votes, members: list[int]) -> dict[int, SilhouetteScore]:
    """Each member against the hull of the other members."""
    denied, seen = votes.counts(members)
    slack = _slack(len(members))
    found = {}
    for k in members:
        solid = (denied - votes.denies[k] <= slack) & (seen - votes.sees[k] > slack)
        found[k] = compare(votes.masks[k], silhouette(votes.grid(solid), _HALF, votes.cameras[k]) & votes.known[k])
    return found


def silhouette(solid: Bool[np.ndarray, "r r r"], half: float, camera: Camera) -> Bool[np.ndarray, "h w"]:
    """Pixels that voxels cover, drawn as points on the voxels' near and far sides.

    Args:
        solid: voxels of the cube ``[-half, half]``, axes (x, y, z).
        half: half side of the cube.
        camera: whose pixels are not much smaller than half a voxel.
    """
    padded = np.pad(solid, 1)
    core = tuple([slice(1, -1)] * 3)
    buried = padded[core].copy()
    for axis in range(3):
        for step in (-1, 1):
            buried &= np.roll(padded, step, axis)[core]
    voxel = 2 * half / solid.shape[0]
    corners = np.stack(np.meshgrid(*[(0.25, 0.75)] * 3, indexing="ij"), axis=-1).reshape(1, 8, 3)
    points = (np.argwhere(solid & ~buried)[:, None] + corners).reshape(-1, 3) * voxel - half
    pixels, depth = camera.project(points)
    x, y = np.floor(pixels[camera.shows(pixels, depth)]).astype(np.int64).T
    drawn = np.zeros((camera.height, camera.width), bool)
    drawn[y, x] = True
    return drawn


def compare(mask: Bool[np.ndarray, "h w"], drawn: Bool[np.ndarray, "h w"]) -> SilhouetteScore:
    """A mask against a silhouette, in place and where it would fit best (within an eighth of the picture)."""
    area, both = max(int(mask.sum()), 1), int((mask & drawn).sum())
    either = max(int((mask | drawn).sum()), 1)
    size = (2 * mask.shape[0], 2 * mask.shape[1])  # padded, so that nothing wraps round
    overlap = np.fft.irfft2(np.fft.rfft2(drawn, size) * np.conj(np.fft.rfft2(mask, size)), size)
    margin = max(2, max(mask.shape) // 8)
    near = np.roll(overlap, (margin, margin), (0, 1))[: 2 * margin + 1, : 2 * margin + 1]
    down, right = (int(v) for v in np.unravel_index(int(near.argmax()), near.shape))
    best = float(near.max())
    moved = best / max(int(mask.sum()) + int(drawn.sum()) - best, 1.0)
    gain = moved - both / either
    shift = (right - margin, down - margin) if gain > 1e-6 else (0, 0)
    return SilhouetteScore(
        both / either, int((mask & ~drawn).sum()) / area, int((drawn & ~mask).sum()) / area, shift, max(gain, 0.0)
    )
