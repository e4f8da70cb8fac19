"""Making views agree: brightness matched, outliers found, one view chosen for each face, differences spread."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from recon.texture.visibility import HIDDEN, WHOLE, Visibility
from scene.mesh import Faces

_GAIN_LIMIT = (0.7, 1.4)
_CANDIDATES = 12
"""Most views a face chooses between."""
_AGREEMENT = 0.08
"""Difference between two views' detail, in sRGB, at which they are half averaged."""
_NEUTRAL = 0.012
"""Gains that all differ less than this from 1 are noise, and are left out."""


def view_gains(visibility: Visibility, samples: int = 6000) -> Float[np.ndarray, "views 3"]:
    """Factors by which each view's channels are brighter than what the other views show of the same points.

    Least squares on logarithms over points seen by several views, reweighted so that outliers do not count; the mean
    over the views is 1, each within 0.7 to 1.4. Views that agree get exactly 1, and so does a view without overlap.
    """
    step = max(1, visibility.weight.shape[1] // samples)
    weight, colour = visibility.weight[:, ::step].astype(np.float64), visibility.colour[:, ::step].astype(np.float64)
    out = np.ones((len(weight), 3))
    for channel in range(3):
        value = colour[..., channel]
        # Black says nothing about brightness, and white may be cut off.
        base = weight * ((value > 0.05) & (value < 0.97))
        base = base * ((base > 0).sum(axis=0) > 1)
        overlap = (base > 0).sum(axis=1) >= 20
        if overlap.sum() < 2:
            continue
        base = base * overlap[:, None]
        log, gain = np.log(np.maximum(value, 1e-3)), np.zeros(len(weight))
        robust = base
        for _ in range(12):
            total = np.maximum(robust.sum(axis=0), 1e-12)
            # The points' own brightness, eliminated from the normal equations.
            matrix = np.diag(robust.sum(axis=1)) - (robust / total) @ robust.T
            right = (robust * log).sum(axis=1) - (robust / total) @ (robust * log).sum(axis=0)
            ridge = 1e-3 * np.trace(matrix) / len(weight)
            gain = np.linalg.solve(matrix + ridge * np.eye(len(weight)), right)
            middle = (robust * (log - gain[:, None])).sum(axis=0) / total
            rest = np.abs(log - gain[:, None] - middle)
            robust = base * np.minimum(1, 0.04 / np.maximum(rest, 1e-9)) ** 2
        gain = np.where(overlap, gain - gain[overlap].mean(), 0.0)
        if np.abs(gain).max() > _NEUTRAL:
            out[:, channel] = np.exp(gain) / np.exp(gain).mean()
    return np.clip(out, *_GAIN_LIMIT)


def view_trust(visibility: Visibility, adjacency: sparse.csr_array) -> Float[np.ndarray, "views v"]:
    """How far each view may be believed at each vertex: near 0 where its colour is far from what most views show.

    Points that fewer than three views see leave nothing to compare. Neighbours of a vertex that is not believed are
    believed less, since whatever stood before the object has soft edges in the reduced picture.

    Args:
        visibility: colours, with gains taken out.
        adjacency: which vertices share an edge, with ones on the diagonal.
    """
    seen = visibility.weight > 0
    count = seen.sum(axis=0)
    middle = _medians(visibility.colour, seen, count)
    off = np.abs(visibility.colour - middle).max(axis=-1)
    spread = _medians(off[..., None], seen, count)[:, 0]
    scale = np.maximum(0.06, 2.5 * spread)
    trust = np.where(seen & (count > 2), 1 / (1 + (off / scale) ** 4), 1.0).astype(np.float32)
    doubt = 1 - trust
    for _ in range(2):
        doubt = np.maximum(doubt, 0.8 * _largest_beside(doubt, adjacency))
    return 1 - doubt


def _medians(
    values: Float[np.ndarray, "views v c"], seen: np.ndarray, count: Int[np.ndarray, "v"]
) -> Float[np.ndarray, "v c"]:
    """Median over the views that see a vertex; 0 where none does."""
    ordered = np.sort(np.where(seen[..., None], values, np.inf), axis=0)
    pick = (np.maximum(count - 1, 0) // 2, count // 2)
    low, high = (np.take_along_axis(ordered, np.minimum(p, len(values) - 1)[None, :, None], axis=0)[0] for p in pick)
    return np.where((count > 0)[:, None], (low + np.where(np.isfinite(high), high, low)) / 2, 0.0).astype(np.float32)


def _largest_beside(values: Float[np.ndarray, "views v"], adjacency: sparse.csr_array) -> Float[np.ndarray, "views v"]:
    """The largest value among a vertex and its neighbours."""
    return np.maximum.reduceat(values[:, adjacency.indices], adjacency.indptr[:-1], axis=1)


def choose_views(
    visibility: Visibility,
    trust: Float[np.ndarray, "views v"],
    faces: Faces,
    pairs: Int[np.ndarray, "p 2"],
    *,
    smoothness: float = 0.35,
    rounds: int = 10,
) -> Int[np.ndarray, "f"]:
    """The view that each face takes its detail from; -1 where none sees it.

    Each face wants the view that sees it best; its neighbours want the same one, the more so the more the two views
    differ there. Improved face by face until few change (iterated conditional modes).

    Args:
        visibility, trust: how well, and how believably, each view sees each vertex.
        faces: over the vertices.
        pairs: neighbouring faces.
        smoothness: what it costs that neighbours take different views, if these agree.
        rounds: most passes over the faces.
    """
    quality = np.stack(
        [(row * believed)[faces].mean(axis=1) for row, believed in zip(visibility.weight, trust)], axis=-1
    )
    quality = quality * np.where(visibility.extent == WHOLE, 1.0, np.where(visibility.extent == HIDDEN, 0.0, 0.3)).T
    rows = np.arange(len(faces))
    few = np.argsort(-quality, axis=1, kind="stable")[:, :_CANDIDATES]
    quality = quality[rows[:, None], few]
    best = quality.max(axis=1)
    cost = np.where(quality > 0, -np.log(np.maximum(quality / np.maximum(best, 1e-9)[:, None], 1e-4)), 50.0)
    colour = visibility.colour[few[:, :, None], faces[:, None]].mean(axis=2)  # [f, candidates, 3]
    beside = np.full((len(faces), 3), -1)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    rank = np.arange(len(both)) - np.searchsorted(both[:, 0], both[:, 0])
    beside[both[rank < 3, 0], rank[rank < 3]] = both[rank < 3, 1]
    label = few[:, 0].copy()
    # Neighbours must not change together; three turns keep most of them apart.
    turn = (rows * 40503 >> 4) % 3
    for k in range(3 * rounds):
        mine = rows[turn == k % 3]
        total = cost[mine].copy()
        for side in range(3):
            other = beside[mine, side]
            theirs = label[other]
            differ = np.abs(colour[mine] - visibility.colour[theirs[:, None], faces[mine]].mean(axis=1)[:, None]).sum(
                axis=-1
            )
            price = np.where(few[mine] == theirs[:, None], 0, smoothness * (1 + 6 * differ))
            total += np.where((other < 0)[:, None], 0, price)
        new = few[mine, total.argmin(axis=1)]
        changed = (label[mine] != new).sum()
        label[mine] = new
        if k >= 3 and changed < 1e-3 * len(mine):
            break
    return np.where(best > 0, label, -1)


def smooth_offsets(
    visibility: Visibility, trust: Float[np.ndarray, "views v"], adjacency: sparse.csr_array, rounds: int = 24
) -> Float[np.ndarray, "views v 3"]:
    """What to add to each view at each vertex so that its coarse colours are the mean of all views."""
    weight = visibility.weight * trust
    total = weight.sum(axis=0)
    mean = np.einsum("kv,kvc->vc", weight, visibility.colour) / np.maximum(total, 1e-9)[:, None]
    # Views that hardly see a vertex do not shape the offset there, and it is filled in from where they do.
    hold = np.minimum(weight, 0.2) * (visibility.weight > 0)
    count, views = len(mean), len(weight)
    numerator = ((mean - visibility.colour) * hold[..., None]).transpose(1, 0, 2).reshape(count, -1).astype(np.float32)
    denominator = hold.T.astype(np.float32) + np.float32(1e-6)
    spread = sparse.diags_array((1 / adjacency.sum(axis=1)).astype(np.float32)) @ adjacency.astype(np.float32)
    spread = sparse.csr_array(spread)
    for _ in range(rounds):
        numerator, denominator = spread @ numerator, spread @ denominator
    offsets = numerator.reshape(count, views, 3) / denominator[..., None]
    return np.ascontiguousarray(offsets.transpose(1, 0, 2))


def detail_weights(
    visibility: Visibility,
    trust: Float[np.ndarray, "views v"],
    faces: Faces,
    chosen: Int[np.ndarray, "f"],
    offsets: Float[np.ndarray, "views v 3"],
    adjacency: sparse.csr_array,
    *,
    others: int = 2,
) -> Float[np.ndarray, "views v"]:
    """How much of each view's detail a vertex takes: that of the views its faces have chosen, and of some that agree.

    Views that show the same detail are averaged, which takes noise out; where they differ (they are misaligned, or one
    is blurred), averaging would blur, and the chosen view stands alone.

    Args:
        visibility, trust: how well, and how believably, each view sees each vertex.
        faces: over the vertices.
        chosen: the view of each face, -1 if it has none.
        offsets: what is added to the views.
        adjacency: which vertices share an edge, with ones on the diagonal.
        others: most views beside the chosen ones.
    """
    mix = np.zeros_like(visibility.weight)
    seen = np.nonzero(chosen >= 0)[0]
    for k in range(3):
        np.add.at(mix, (chosen[seen], faces[seen, k]), 1)
    mix /= np.maximum(mix.sum(axis=0), 1)
    shown = visibility.colour + offsets
    held = mix * (visibility.weight > 0)
    wanted = np.einsum("kv,kvc->vc", held, shown) / np.maximum(held.sum(axis=0), 1e-6)[:, None]
    off = np.where(visibility.weight > 0, np.abs(shown - wanted).max(axis=-1), 1.0)
    degree = adjacency.sum(axis=1)
    for _ in range(2):
        off = (adjacency @ off.T / degree[:, None]).T
    quality = visibility.weight * trust
    if len(quality) > others + 1:
        least = np.partition(quality, len(quality) - others - 1, axis=0)[len(quality) - others - 1]
        quality = np.where(quality >= least, quality, 0)
    quality = quality / np.maximum(quality.max(axis=0), 1e-9)
    return mix + quality / (1 + (off / _AGREEMENT) ** 4)
