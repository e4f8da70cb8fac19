"""Pictures that lie wrongly against their cameras, such as upside down: which they are, and putting them right.

A hull that forgives many denials survives even if a third of the pictures lies wrongly. Each picture is held against
the hull of the others in every way that it may lie; those that fit clearly better in another way are turned, the
hull is made anew, and so on as long as all agree better. Turning every picture of a level ring makes a point reflection
of the object, which fits hardly worse: so only fewer than half are ever said to lie wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from recon.checks.silhouettes import silhouette
from recon.views.normalise import WORKING_SIDE, framing_transform, look_at_point
from recon.views.ray_set import RaySet
from recon.views.visual_hull import vote_inside
from scene.camera import Camera, normalising_transform
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet
from scene.voxels import voxel_centres

_RESOLUTION = 40
_HALF = 0.66
"""Half side of the cube that is looked at; the object has radius 0.6."""
_DENIED = (0.05, 0.15, 0.25, 0.35, 0.45)
"""Fractions of the views that may deny a voxel of the hull: the more of them lie wrongly, the more must be forgiven."""
_FEWEST = 6
"""Views below which a majority tells nothing."""
_ROUNDS = 12
_HINT = 0.03
"""By how much a picture must fit better in another way for that to be tried, or to go along with clear cases."""
_CLEAR = 0.1
"""By how much one at least must fit better in the end: a symmetric object fits as well either way."""
_AS_GOOD, _FOR_GAIN = 0.05, 0.35
"""How much worse a picture that was put right may fit than one in ten of those that lie rightly, and by what fraction
of its gain more than that: some views always fit badly, as do those from above."""
_SOUND = 0.72
"""Mean IoU to be reached in the end: what contradicts itself in other ways has no majority to be held against."""
_RARER = 0.03
"""By how much better than a turned one a mirrored picture must fit: it is the rarer mistake."""


@dataclass(frozen=True)
class Turn:
    """A picture that lies wrongly, and what puts it right.

    Args:
        name: of the view.
        quarters: quarter turns, counter-clockwise as one looks at the picture.
        mirrored: whether it is mirrored left to right before that.
        iou: intersection over union of its mask, put right, and the silhouette of what the other views leave.
        gain: how much less that is as stored.
    """

    name: str
    quarters: int
    mirrored: bool = False
    iou: float = 1.0
    gain: float = 1.0


def find_turned(views: ViewSet, *, quarters: bool = False) -> tuple[Turn, ...]:
    """The pictures that lie wrongly against their cameras, in order; none if there is any doubt.

    Tried are half turns, quarter turns, and both mirrorings. Only masks are looked at, where they tell anything: of an
    object that is symmetric that way no picture is ever found.

    Args:
        views: with masks, none of them empty; small pictures suffice. Any scale and place.
        quarters: whether to try quarter turns; all pictures must be square.
    """
    if not views.has_masks or len(views) < _FEWEST:
        return ()
    try:
        ways = _Ways.of(_framed(views), quarters)
    except InputError:
        return ()  # no common region: there is nothing to hold them against
    chosen, table = _search(ways)
    # What was turned only to please others that were turned is turned back.
    for _ in range(2):
        doubtful = (chosen != 0) & ~_clear(table, chosen)
        if not doubtful.any():
            break
        chosen = np.where(doubtful, 0, chosen)
        table = ways.ious(chosen)
    wrong = chosen != 0
    if 2 * wrong.sum() >= len(views) or _mean(table, chosen) < _SOUND or not _clear(table, chosen)[wrong].all():
        return ()
    found = []
    for k in np.flatnonzero(wrong):
        quarters, mirrored = ways.kinds[chosen[k]]
        best = float(table[k, chosen[k]])
        found.append(Turn(views.views[k].name, quarters, mirrored, best, best - float(table[k, 0])))
    return tuple(found)


def turned(views: ViewSet, found: Iterable[Turn]) -> ViewSet:
    """The views with pictures put right: picture, mask, depth and normals turn, the camera stays as it is.

    It is the picture that was wrong: its principal point and its lens are those of the camera as given. (A lens has
    been undone by then in the picture as stored; that this was done about a point turned with it changes next to
    nothing.)

    Args:
        views: the capture.
        found: what to turn; pictures are read into memory.

    Raises:
        InputError: a picture cannot be read, or a quarter turn would change its shape.
    """
    turns = {turn.name: turn for turn in found}
    parts = [_turned(view, turns[view.name]) if view.name in turns else view for view in views]
    return replace(views, views=tuple(parts))


def put_right(picture: Shaped[np.ndarray, "h w *c"], quarters: int, mirrored: bool = False) -> np.ndarray:
    """A picture mirrored left to right if asked for, then turned by quarters counter-clockwise."""
    return np.ascontiguousarray(np.rot90(picture[:, ::-1] if mirrored else picture, quarters))


def _turned(view: View, turn: Turn) -> View:
    if turn.quarters % 2 and view.camera.width != view.camera.height:
        raise InputError("a picture that is not square cannot be turned by 90 degrees", where=view.name)
    depth, normals, unknown = view.depth(), view.normals(), view.unknown()
    if normals is not None:
        across, up, towards = np.moveaxis(put_right(normals, turn.quarters, turn.mirrored), -1, 0)
        across = -across if turn.mirrored else across
        for _ in range(turn.quarters % 4):
            across, up = -up, across
        normals = np.stack([across, up, towards], axis=-1)
    return View(
        view.name,
        view.camera,
        put_right(view.rgba(), turn.quarters, turn.mirrored),
        weight=view.weight,
        depth_source=None if depth is None else put_right(depth, turn.quarters, turn.mirrored),
        normal_source=normals,
        unknown_source=None if unknown is None else put_right(unknown, turn.quarters, turn.mirrored),
    )


@dataclass(frozen=True, eq=False)
class _Ways:
    """The masks of all views in each way that they may lie.

    Args:
        kinds: quarter turns and mirroring of each way; the first is as stored.
        masks: of each view in each way.
        known: where these tell anything, which turns with them.
        voxels: for each view and voxel the mask's pixel (row-major) that it falls on, -1 outside of the picture.
        sees: whether each view sees each voxel. That is the camera's, and the same in every way.
        cameras: of the masks.
    """

    kinds: tuple[tuple[int, bool], ...]
    masks: tuple[tuple[Bool[np.ndarray, "_ _"], ...], ...]
    known: tuple[tuple[Bool[np.ndarray, "_ _"], ...], ...]
    voxels: Int[np.ndarray, "v n"]
    sees: Bool[np.ndarray, "v n"]
    cameras: tuple[Camera, ...]

    @classmethod
    def of(cls, rays: RaySet, quarters: bool) -> _Ways:
        """Cut the masks of a normalised object, and find where its voxels lie in them."""
        turns = (2, 1, 3) if quarters else (2,)
        kinds = ((0, False), *((turn, False) for turn in turns), (0, True), (2, True))
        points = voxel_centres(_RESOLUTION, _HALF).reshape(-1, 3)
        voxels = np.full((len(rays), len(points)), -1, np.int32)
        for k, camera in enumerate(rays.cameras):
            pixels, depth = camera.project(points)
            within = camera.shows(pixels, depth)
            x, y = pixels[within].astype(np.int32).T
            voxels[k, within] = y * camera.width + x
        sees = np.array([np.ones(len(points), bool) if rays.shows_all(k) else voxels[k] >= 0 for k in range(len(rays))])
        stored = [(alpha >= 0.5).numpy() for alpha in rays.alpha]
        tells = [np.ones_like(m) if k is None else k.numpy() for m, k in zip(stored, rays.known, strict=True)]
        masks, known = (tuple(tuple(put_right(m, *kind) for kind in kinds) for m in each) for each in (stored, tells))
        return cls(kinds, masks, known, voxels, sees, rays.cameras)

    def ious(self, chosen: Int[np.ndarray, "v"]) -> Float[np.ndarray, "v w"]:
        """IoU of each view in each way with the hull of the others in their chosen ways.

        The hull forgives as many denials as make the chosen ways agree best.
        """
        # Outside of the picture, where the index is -1, there is no mask, and nothing unknown.
        covers = [np.append(self.masks[k][way], False)[self.voxels[k]] for k, way in enumerate(chosen)]
        tells = [np.append(self.known[k][way], True)[self.voxels[k]] for k, way in enumerate(chosen)]
        sees = self.sees & np.array(tells)
        denies = sees & ~np.array(covers)
        tables = (self._against_hull(sees, denies, fraction) for fraction in _DENIED)
        return max(tables, key=lambda table: _mean(table, chosen))

    def _against_hull(
        self, sees: Bool[np.ndarray, "v n"], denies: Bool[np.ndarray, "v n"], fraction: float
    ) -> Float[np.ndarray, "v w"]:
        denied, seen = denies.sum(axis=0, dtype=np.int32), sees.sum(axis=0, dtype=np.int32)
        table = np.zeros((len(denies), len(self.kinds)))
        for k, camera in enumerate(self.cameras):
            others = seen - sees[k]
            solid = (denied - denies[k] <= fraction * others) & (others > len(denies) // 3)
            shape = silhouette(solid.reshape((_RESOLUTION,) * 3), _HALF, camera)
            for way, (mask, known) in enumerate(zip(self.masks[k], self.known[k], strict=True)):
                shown = shape & known
                table[k, way] = (mask & shown).sum() / max(int((mask | shown).sum()), 1)
        return table


def _search(ways: _Ways) -> tuple[Int[np.ndarray, "v"], Float[np.ndarray, "v w"]]:
    """The way of each view in which all agree best, found by changes that make them agree better; with IoUs."""
    chosen = np.zeros(len(ways.cameras), np.int64)
    table = ways.ious(chosen)
    handicap = np.array([_RARER if mirrored else 0.0 for _, mirrored in ways.kinds])
    for _ in range(_ROUNDS):
        scores = table - handicap
        best = scores.argmax(axis=1)
        gain = scores.max(axis=1) - scores[np.arange(len(chosen)), chosen]
        wanted = np.flatnonzero(gain > _HINT)
        # All that gain much at a time; where that is too much, the best alone.
        for block in (np.flatnonzero(gain > max(_HINT, gain.max() / 2)), wanted[np.argsort(-gain[wanted])][:1]):
            trial = chosen.copy()
            trial[block] = best[block]
            if not len(block) or (tried := _improved(ways, trial, _mean(table, chosen))) is None:
                continue
            chosen, table = trial, tried
            break
        else:
            break
    return chosen, table


def _improved(ways: _Ways, trial: Int[np.ndarray, "v"], mean: float) -> Float[np.ndarray, "v w"] | None:
    table = ways.ious(trial)
    return table if _mean(table, trial) > mean else None


def _clear(table: Float[np.ndarray, "v w"], chosen: Int[np.ndarray, "v"]) -> Bool[np.ndarray, "v"]:
    """Which views fit better in their chosen way than as stored, and not much worse than the others.

    From some sides an object is more symmetric than from others: where one view is a clear case of a way of lying, a
    hint is enough for others to be cases too.
    """
    now = table[np.arange(len(chosen)), chosen]
    poor = float(np.quantile(now[chosen == 0], 0.1)) if (chosen == 0).any() else 1.0
    gain = now - table[:, 0]
    gain = np.where(now > poor - _AS_GOOD - _FOR_GAIN * gain, gain, 0.0)
    known = np.isin(chosen, chosen[gain > _CLEAR])
    return gain > np.where(known, _HINT, _CLEAR)


def _mean(table: Float[np.ndarray, "v w"], chosen: Sequence[int] | Int[np.ndarray, "v"]) -> float:
    return float(table[np.arange(len(chosen)), chosen].mean())


def _framed(views: ViewSet) -> RaySet:
    """The views with what half of them agree on in the bounding sphere: all agree on too little if some lie wrongly."""
    cameras = [view.camera for view in views]
    matrix = framing_transform(cameras, look_at_point(cameras))
    count = 40
    for radius in (0.9, 0.6):
        inside = vote_inside(RaySet.of(views.transformed(matrix), WORKING_SIDE), count, 1.0)
        middles = (np.argwhere(inside >= 0.5 * inside.max()) + 0.5) / count * 2 - 1
        matrix = normalising_transform(np.concatenate([middles - 1 / count, middles + 1 / count]), radius) @ matrix
    return RaySet.of(views.transformed(matrix), WORKING_SIDE)
