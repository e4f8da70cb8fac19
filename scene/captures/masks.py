"""Masks for captures in front of an even background, and checks of masks that were given."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from scene.captures.mask_meaning import Cover, meant
from scene.captures.worlds import with_notes
from scene.errors import InputError
from scene.frames import Sieve
from scene.view import Mask, View
from scene.viewset import MASKS_IGNORE, ViewSet

_REACH = 7
"""Width, pixels, of the brush about what is not to be looked at: such masks are drawn closely."""
_LOOKED_AT = 1024
"""Longest side, pixels, at which large masks are looked at."""
_ENOUGH = 6
"""Views that a hull needs."""
_PIECE = 0.1
"""Least size of a further piece of an object that something hides a part of, relative to the largest."""
VALLEY = 0.75
"""Where the threshold lies between the background's colour (0) and the middle of object and background (1)."""


def with_sound_masks(views: ViewSet, *, trusted: bool = False) -> ViewSet:
    """The set without views whose mask cannot be read or holds no object at all, which would carve everything away.

    Args:
        views: the set.
        trusted: whether masks are outlines of an object in any case; else see :mod:`scene.captures.mask_meaning`.

    Raises:
        InputError: too few are left; how many masks are empty, and which is the first, or what cannot be read.
    """
    if not views.has_masks:
        return views
    covers: list[Cover] = []
    sieve, empty, kept = Sieve(_folder(views)), list[View](), list[View]()
    with ThreadPoolExecutor(2) as pool:  # codecs leave the interpreter's lock alone
        looks = [pool.submit(_cover, view) for view in views]
        for view, look in zip(views, looks, strict=True):
            before = len(sieve.faults)
            cover = sieve.keep(look.result)
            if cover is not None:
                kept.append(view)
                covers.append(cover)
            elif len(sieve.faults) == before:
                empty.append(view)
    if empty:
        first = empty[0].mask_path or empty[0].image_path or empty[0].name
        text = f"{len(empty)} of {len(views)} masks are empty"
        fault = InputError(
            text, where=first, fix="White (or opaque) is the object: correct the mask, or take the frame out."
        )
        sieve.drop(
            len(empty), len(kept) + len(empty), fault, f"{text}: their pictures were left out; the first is {first}"
        )
    sieve.settle(len(kept))
    left = replace(views, views=tuple(kept)) if sieve.notes else views
    return meant(with_notes(left, sieve.notes), [] if trusted else covers)


def _cover(view: View) -> Cover | None:
    """How a view's mask lies in its picture; None if it holds nothing.

    Raises:
        InputError: it cannot be read.
    """
    alpha = view.reduced(_LOOKED_AT)[..., 3]
    # Averaging may have taken a thin object's mask away.
    if alpha.max() < 128 and view.rgba()[..., 3].max() < 128:
        return None
    return Cover.of(alpha)


def threshold_masks(views: ViewSet, *, tolerance: float = 0.09, min_area: float = 0.002) -> ViewSet:
    """Masks for pictures of one object before an even dark or light background.

    A pixel is object where its colour differs from the background's by more than the background varies along the
    picture's border. The largest piece counts; holes through which background shows are kept, specks and shadows
    are filled.

    Args:
        views: the set; masks that it has are replaced.
        tolerance: least difference in any colour channel, of full scale.
        min_area: least part of the picture that the object covers.

    Returns:
        The same views with masks in memory, without those that cannot be read; a note says so.

    Raises:
        InputError: a border is not even, or nothing stands out; the message names the picture.
    """
    sieve, masked = Sieve(_folder(views)), list[View]()
    for view in views:
        rgba = sieve.keep(view.rgba)
        if rgba is not None:
            masked.append(replace(view, mask=_threshold_of(rgba[..., :3], view, tolerance, min_area)))
    sieve.settle(len(masked))
    metadata = {**views.metadata, "masks": "threshold"}
    return with_notes(replace(views, views=tuple(masked), has_masks=True, metadata=metadata), sieve.notes)


def threshold_beside_ignored(views: ViewSet, *, tolerance: float = 0.09, min_area: float = 0.002) -> ViewSet:
    """Masks as :func:`threshold_masks` finds them, for pictures parts of which are not to be looked at.

    Where such a part touches the object, its outline is not known: the mask is silent there. Pictures in which nothing
    else shows of the object are left out. Notes say so.

    Args:
        views: the set, with such parts.
        tolerance, min_area: see there.

    Raises:
        InputError: as there, or too few views are left.
    """
    sieve, kept, partly = Sieve(_folder(views)), list[View](), 0
    for view in views:
        rgba = sieve.keep(view.rgba)
        if rgba is None:
            continue
        near = cv2.dilate((rgba[..., 3] < 250).astype(np.uint8), np.ones((_REACH, _REACH), np.uint8)) > 0
        if not near.any():
            kept.append(replace(view, mask=_threshold_of(rgba[..., :3], view, tolerance, min_area)))
            continue
        rgb = rgba[..., :3].copy()
        rim = np.zeros(near.shape, bool)
        rim[[0, -1]] = rim[:, [0, -1]] = True
        beyond = rim & ~near
        if not beyond.any():  # a black border all around
            beyond = (cv2.dilate(near.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~near
        if not beyond.any():
            continue
        level = np.median(rgb[beyond], axis=0)
        if float(np.quantile(np.abs(rgb[beyond] - level).max(axis=1), 0.9)) > 2.5 * tolerance * 255:
            raise InputError("the background is not even", where=view.image_path or view.name)
        rgb[near] = level
        try:
            mask = _threshold_of(rgb, view, tolerance, min_area, beside=near)
        except InputError:
            continue  # what is not to be looked at covers the object
        if (cv2.dilate(mask, np.ones((3, 3), np.uint8))[near] > 0).any():
            partly += 1
            # What hides the object also hides whether there is more of it behind.
            kept.append(replace(view, mask=mask, unknown_source=np.where(near, np.uint8(255), np.uint8(0))))
        else:
            kept.append(replace(view, mask=mask))
    hidden, read = len(views) - len(sieve.faults) - len(kept), len(views) - len(sieve.faults)
    if len(kept) < max(_ENOUGH, len(views) // 3):
        raise InputError(f"what is not to be looked at hides the object in {hidden} views")
    sieve.settle(len(kept))
    as_they_are = "--masks none uses all pictures as they are"
    notes = list(sieve.notes)
    if partly:
        notes.append(
            f"what is not to be looked at touches the object in {partly} of {read} views: whether the object goes on "
            f"there is left to the others. It stands out from the background elsewhere ({as_they_are})"
        )
    if hidden:
        notes.append(f"{hidden} of {read} views were left out: what is not to be looked at hides the object there")
    metadata = {key: value for key, value in views.metadata.items() if key not in MASKS_IGNORE}
    found = replace(views, views=tuple(kept), has_masks=True, metadata={**metadata, "masks": "threshold"})
    return with_notes(found, notes)


def _folder(views: ViewSet) -> Path:
    """Where the pictures lie, for notes."""
    return (views.views[0].image_path or Path("memory", "picture.png")).parent


def _threshold_of(
    rgb: UInt8[np.ndarray, "h w 3"],
    view: View,
    tolerance: float,
    min_area: float,
    *,
    beside: Bool[np.ndarray, "h w"] | None = None,
) -> Mask:
    """The mask of the largest piece that stands out, and of what else lies ``beside`` what cuts it in pieces."""
    where = view.image_path or view.name
    level, varies = _background(rgb)
    if varies > 2.5 * tolerance:
        raise InputError(
            f"its border is not even (it varies by {varies:.0%} of full scale): there is no telling the object from it",
            where=where,
            fix="Give masks, or pictures before a dark or light backdrop that fills the border.",
        )
    away = np.abs(rgb.astype(np.float32) / 255 - level).max(axis=-1)
    near = max(tolerance, 1.5 * varies)
    # Backdrops have folds and shadows: between them and the object lies the middle of the two classes that Otsu's
    # method finds.
    steps = np.round(away * 255).astype(np.uint8)
    valley, _ = cv2.threshold(steps, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    upper = steps > valley
    middle = (away[upper].mean() + away[~upper].mean()) / 2 if 0 < upper.sum() < upper.size else 0.0
    found = (away > max(near, VALLEY * middle)).astype(np.uint8)
    side = max(3, round(min(found.shape) / 300) * 2 + 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    found = cv2.morphologyEx(cv2.morphologyEx(found, cv2.MORPH_CLOSE, kernel), cv2.MORPH_OPEN, kernel)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(found, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if count < 2 or areas.max() < min_area * found.size:
        raise InputError(
            "nothing stands out from the background", where=where, fix="Give masks, or a smaller tolerance."
        )
    mask = labels == 1 + int(areas.argmax())
    if beside is not None:
        touching = np.unique(labels[cv2.dilate(beside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0])
        if labels[mask][0] in touching:
            mask = np.isin(labels, [k for k in touching if k > 0 and areas[k - 1] >= _PIECE * areas.max()])
    return np.where(mask | _shadows(mask, away, near), 255, 0).astype(np.uint8)


def _background(rgb: UInt8[np.ndarray, "h w 3"]) -> tuple[Float[np.ndarray, "3"], float]:
    """Colour of the border (0 to 1), and how far nine in ten of its pixels stay from it."""
    width = max(2, round(min(rgb.shape[:2]) * 0.02))
    inner = rgb[width:-width, :width], rgb[width:-width, -width:]
    border = np.concatenate([part.reshape(-1, 3) for part in (rgb[:width], rgb[-width:], *inner)]) / 255.0
    level = np.median(border, axis=0)
    return level, float(np.quantile(np.abs(border - level).max(axis=1), 0.9))


def _shadows(mask: Bool[np.ndarray, "h w"], away: Float[np.ndarray, "h w"], near: float) -> Bool[np.ndarray, "h w"]:
    """Holes in a mask that are no openings: specks, and those that differ from the background all over."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA]
    like = np.bincount(labels.ravel(), (away <= near).ravel(), count) / np.maximum(areas, 1)
    closed = (areas < max(16, 2e-4 * mask.sum())) | (like < 0.3)
    closed[0] = False  # the mask itself
    closed[np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))] = False
    return closed[labels]
