"""What is wrong with a capture before a surface is fitted to it: blur, exposure, masks, coverage, contradictions."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from recon.checks.cameras import Coverage, coverage_of
from recon.checks.image_quality import ImageQuality, exposure_of, image_quality, reduced, sharpness_of, similar_views
from recon.checks.orientation import Turn, find_turned, turned
from recon.checks.silhouettes import SilhouetteScore, consistency_of, leave_one_out
from recon.views.normalise import WORKING_SIDE, NormalisedCapture, look_at_point, normalise_capture
from recon.views.ray_set import RaySet, reduced_mask, working_size
from scene.camera import apply_transform
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet

_PICTURE_SIDE = 640
"""Longest side, pixels, of the pictures that are measured."""
_GAP_DEG = 130.0
_SPREAD_DEG = 20.0
_FEWEST = 3
"""Views that must be left where some cannot be read."""
_EMPTY, _FULL = 0.0005, 0.995
"""Fractions of the picture below and above which a mask is none."""
_CONTRADICTION = 0.85
"""Below this consistency the views as a whole contradict each other."""

Kind = Literal[
    "unreadable",
    "few",
    "empty",
    "full",
    "truncated",
    "blurred",
    "bright",
    "dark",
    "direction",
    "outward",
    "baseline",
    "gap",
    "turned",
    "mirrored",
    "mask",
    "contradiction",
]


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong.

    Args:
        kind: of the fault.
        text: what, where, and what to do: one or two sentences.
        views: names of the views it is about; none if it is about the whole.
        fatal: whether no surface can be fitted.
    """

    kind: Kind
    text: str
    views: tuple[str, ...] = ()
    fatal: bool = False


@dataclass(frozen=True)
class ViewCheck:
    """Numbers of one view; None where they cannot be had.

    Args:
        name: of the view.
        sharpness: relative to the other views; 1 is usual.
        stops: brightness relative to the other views, in powers of two.
        overexposed: fraction of the object's (or picture's) pixels that are overexposed.
        mask_fraction: fraction of the picture that is mask.
        truncated: fraction of the mask's contour on the picture's border.
        silhouette_iou: intersection over union of the mask and the silhouette of what the other views leave.
        shift: by how many pixels (right, down) the mask would have to move to fit the others best.
    """

    name: str
    sharpness: float | None = None
    stops: float | None = None
    overexposed: float | None = None
    mask_fraction: float | None = None
    truncated: float | None = None
    silhouette_iou: float | None = None
    shift: tuple[int, int] | None = None


@dataclass(frozen=True)
class CaptureReport:
    """What was found.

    Args:
        views: numbers per view, in order.
        issues: what is wrong; empty for a good capture.
        coverage: how the cameras surround the object; None if that cannot be told.
        consistency: how well the masks fit one solid, in [0, 1]; None without masks. Good captures have 0.92 and more
            (the grid is coarse); views that contradict each other as a whole less than 0.85.
        turned: pictures that lie wrongly against their cameras, and what puts them right. The views' silhouettes and
            all that is said of masks is with these put right, the consistency is of the pictures as they are.
        normalised: the whole capture with these put right, in the normalised world: what
            :func:`~recon.views.normalise.normalise_capture` would give. None where it was not found: without masks, or
            if a view was left out since its picture or its mask is none.
    """

    views: tuple[ViewCheck, ...]
    issues: tuple[Issue, ...]
    coverage: Coverage | None
    consistency: float | None
    turned: tuple[Turn, ...] = ()
    normalised: NormalisedCapture | None = None

    def normalised_after(self, turns: Iterable[Turn]) -> NormalisedCapture | None:
        """The capture in the normalised world if just these pictures are put right; None if that was not worked out."""
        return self.normalised if set(turns) == set(self.turned) else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The issues as sentences."""
        return tuple(issue.text for issue in self.issues)

    @property
    def usable(self) -> bool:
        """Whether a surface can be fitted at all."""
        return not any(issue.fatal for issue in self.issues)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: ``usable``, ``issues``, ``views``, ``coverage`` and ``consistency``."""
        return {
            "usable": self.usable,
            "issues": [asdict(issue) for issue in self.issues],
            "views": [asdict(view) for view in self.views],
            "coverage": None if self.coverage is None else asdict(self.coverage),
            "consistency": self.consistency,
        }


def check_capture(views: ViewSet, on_step: Callable[[int, int], None] | None = None) -> CaptureReport:
    """Look for what spoils a reconstruction; takes seconds, on reduced pictures, and changes nothing.

    Pictures are compared with each other, not with an ideal: objects may be dark, plain or shiny. Without masks only
    pictures and cameras are judged.

    Args:
        views: the capture.
        on_step: called with (done, total) pictures that have been read and measured.
    """
    small, qualities, issues = _loaded(views, on_step)
    kept = ViewSet(tuple(view for view in small if view is not None), views.has_masks)
    checks = [ViewCheck(view.name) for view in views]
    if len(kept) < 2:
        issues.append(Issue("few", "Fewer than two views are left: nothing can be reconstructed.", fatal=True))
        return CaptureReport(tuple(checks), tuple(issues), None, None)
    where = [k for k, view in enumerate(small) if view is not None]
    _judge_pictures(kept, [qualities[k] for k in where], where, checks, issues)
    masked = _judge_masks(views, kept, where, checks, issues) if views.has_masks else kept
    coverage = consistency = normalised = None
    turns: tuple[Turn, ...] = ()
    try:
        centre = look_at_point([view.camera for view in kept])
    except InputError as error:
        issues.append(Issue("direction", f"{_sentence(error)}", fatal=True))
    else:
        if views.has_masks and len(masked) >= 2:
            turns = find_turned(masked, quarters=all(view.camera.width == view.camera.height for view in views))
            try:
                moved, matrix = normalise_capture(turned(masked, turns))
            except InputError as error:
                issues.append(Issue("contradiction", _sentence(error), fatal=True))
            else:
                centre = apply_transform(np.linalg.inv(matrix), np.zeros(3))
                before_masks = len(issues)
                consistency = _judge_silhouettes(views, moved, checks, issues)
                if turns:
                    corrected = consistency
                    consistency = consistency_of(RaySet.of(masked.transformed(matrix), WORKING_SIDE))
                    issues[before_masks:before_masks] = _turn_issues(turns, consistency, corrected)
                if len(masked) == len(views):
                    normalised = NormalisedCapture(turned(views, turns).transformed(matrix), matrix)
        coverage = coverage_of([view.camera for view in kept], centre)
        issues += _coverage_issues(coverage, kept)
    return CaptureReport(tuple(checks), tuple(issues), coverage, consistency, turns, normalised)


def _loaded(
    views: ViewSet, on_step: Callable[[int, int], None] | None
) -> tuple[list[View | None], list[ImageQuality | None], list[Issue]]:
    """Views with small masks in memory, and quality of larger pictures; None where a picture cannot be read.

    The small masks are those that :func:`normalise_capture` would make of the pictures, so that the capture is
    normalised alike, and pictures are read once.
    """
    # All are measured at one size: blur is a matter of scale.
    side = min([_PICTURE_SIDE, *(max(v.camera.width, v.camera.height) for v in views)])

    def load(view: View) -> tuple[View, ImageQuality] | InputError:
        try:
            rgba = view.reduced(2 * _PICTURE_SIDE)  # a part of the pixels is enough for what is measured
        except InputError as error:
            return error
        quality = image_quality(_fitted(rgba, view, side), views.has_masks)
        width, height = working_size(view.camera, WORKING_SIDE)
        pixels = np.zeros((height, width, 4), np.uint8)
        pixels[..., 3] = reduced_mask(rgba[..., 3], width, height) if views.has_masks else 255
        small = View(view.name, view.camera.resized(width, height), pixels, weight=view.weight)
        unknown = view.unknown((width, height)) if views.has_masks else None
        return small if unknown is None else replace(small, unknown_source=unknown), quality

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        loaded = []
        for found in pool.map(load, views):
            loaded.append(found)
            if on_step is not None:
                on_step(len(loaded), len(views))
    left = sum(not isinstance(found, InputError) for found in loaded)
    what = "Leave the view out or save it again." if left < _FEWEST else "The view was left out: save it again."
    faults = [
        Issue("unreadable", f"{_sentence(found)} {what}", (view.name,), fatal=left < _FEWEST)
        for view, found in zip(views, loaded, strict=True)
        if isinstance(found, InputError)
    ]
    return (
        [None if isinstance(found, InputError) else found[0] for found in loaded],
        [None if isinstance(found, InputError) else found[1] for found in loaded],
        faults,
    )


def _fitted(rgba: np.ndarray, view: View, side: int) -> np.ndarray:
    scale = min(1.0, side / max(view.camera.width, view.camera.height))
    return reduced(rgba, max(1, round(view.camera.width * scale)), max(1, round(view.camera.height * scale)))


def _judge_pictures(
    kept: ViewSet,
    qualities: Sequence[ImageQuality | None],
    where: Sequence[int],
    checks: list[ViewCheck],
    issues: list[Issue],
) -> None:
    known = [quality for quality in qualities if quality is not None]
    # A mask that is no mask measures something else than the others.
    odd = [kept.has_masks and quality.mask_fraction > _FULL for quality in known]
    if not all(odd):
        known = [
            replace(q, laplacian=np.nan, brightness=np.nan, overexposed=np.nan) if o else q
            for q, o in zip(known, odd, strict=True)
        ]
    similar = similar_views([view.camera for view in kept])
    sharpness, blurred = sharpness_of(known, similar)
    stops, bright, dark = exposure_of(known, similar)
    for n, k in enumerate(where):
        checks[k] = replace(
            checks[k],
            sharpness=_known(sharpness[n]),
            stops=_known(stops[n]),
            overexposed=_known(known[n].overexposed),
            mask_fraction=known[n].mask_fraction if kept.has_masks else None,
            truncated=known[n].truncated if kept.has_masks else None,
        )
    names = np.array([view.name for view in kept])
    blur = "Leave out or take again with a steadier camera."
    light = "Fix exposure and white balance, or leave out."
    faults: tuple[tuple[Kind, np.ndarray, str, str], ...] = (
        ("blurred", blurred, "much less sharp than the other views", blur),
        ("bright", bright, "overexposed, compared with the other views", light),
        ("dark", dark, "much darker than similar views", light),
    )
    for kind, wrong, what, do in faults:
        if wrong.any():
            found = tuple(str(name) for name in names[wrong])
            issues.append(Issue(kind, f"{_listed(found)} {_be(found)} {what}. {do}", found))


def _judge_masks(
    views: ViewSet, kept: ViewSet, where: Sequence[int], checks: Sequence[ViewCheck], issues: list[Issue]
) -> ViewSet:
    """Add issues on masks that cannot be right; the views with the others."""
    empty = tuple(checks[k].name for k in where if (checks[k].mask_fraction or 0) < _EMPTY)
    full = tuple(checks[k].name for k in where if (checks[k].mask_fraction or 0) > _FULL)
    truncated = tuple(checks[k].name for k in where if (checks[k].truncated or 0) > 0.01 and checks[k].name not in full)
    if len(empty) == len(kept):
        issues.append(Issue("empty", "The masks of all views are empty. White must be the object.", empty, fatal=True))
    elif empty:
        text = f"The mask of {_listed(empty)} is empty. Draw it again or leave the view out."
        issues.append(Issue("empty", text, empty))
    if full:
        text = f"The mask of {_listed(full)} covers the whole picture. Black must be what is not the object."
        issues.append(Issue("full", text, full))
    if truncated:
        text = f"The picture's border cuts the object off in {_listed(truncated)}."
        issues.append(Issue("truncated", f"{text} Step back, or give views that show all of it.", truncated))
    return replace(kept, views=tuple(view for view in kept if view.name not in {*empty, *full}))


def _judge_silhouettes(views: ViewSet, moved: ViewSet, checks: list[ViewCheck], issues: list[Issue]) -> float:
    """Compare masks with each other; the consistency of all."""
    rays = RaySet.of(moved, WORKING_SIDE)
    consistency = consistency_of(rays)
    found: list[Issue] = []
    if len(moved) >= 4:
        scores, wrong = leave_one_out(rays)
        number = {view.name: k for k, view in enumerate(views)}
        for n, (view, score) in enumerate(zip(moved, scores, strict=True)):
            k = number[view.name]
            scale = views.views[k].camera.width / view.camera.width
            shift = (round(score.shift[0] * scale), round(score.shift[1] * scale))
            checks[k] = replace(checks[k], silhouette_iou=score.iou, shift=shift)
            if n in wrong:
                found.append(_mask_issue(view.name, score, shift))
    if consistency < _CONTRADICTION:
        text = (
            f"The views contradict each other: {consistency:.2f}, where the masks of good captures reach 0.92 or more."
        )
        found.insert(0, Issue("contradiction", f"{text} Check poses and masks, or expect a surface without detail."))
    issues += found
    return consistency


def _mask_issue(name: str, score: SilhouetteScore, shift: tuple[int, int]) -> Issue:
    right, down = shift
    if score.gain > 0.02:
        move = " and ".join(
            f"{abs(v)} pixels {words[v > 0]}"
            for v, words in ((right, ("left", "right")), (down, ("up", "down")))
            if v != 0
        )
        what = f"it would fit about {move}" if move else "it lies elsewhere"
    elif score.false_positive > score.missing:
        what = f"{100 * score.false_positive:.0f} % of it lies where other views see nothing"
    else:
        what = "it lacks parts that all other views show"
    text = f"The mask or the pose of {name} contradicts the other views: {what}. Correct it or leave the view out."
    return Issue("mask", text, (name,))


def _turn_issues(turns: Sequence[Turn], as_stored: float, corrected: float) -> Iterable[Issue]:
    reason = f"that way the masks fit one solid ({corrected:.2f} instead of {as_stored:.2f})"
    for how in sorted({(turn.mirrored, turn.quarters) for turn in turns}):
        names = tuple(turn.name for turn in turns if (turn.mirrored, turn.quarters) == how)
        mirrored, quarters = how
        if mirrored:
            edge = "left to right" if quarters == 0 else "top to bottom"
            text = f"{_listed(names)} {_be(names)} mirrored {edge} against the cameras: {reason}."
            yield Issue("mirrored", f"{text} Save the pictures again as the camera took them.", names)
        else:
            what = "upside down" if quarters == 2 else "on one side"
            turn = "180 degrees" if quarters == 2 else f"90 degrees {'counter-' if quarters == 1 else ''}clockwise"
            text = f"{_listed(names)} {_be(names)} stored {what} against the cameras: turned by {turn}, {reason}."
            yield Issue("turned", f"{text} Turn the pictures with their masks, and leave the cameras.", names)


def _coverage_issues(coverage: Coverage, kept: ViewSet) -> Iterable[Issue]:
    if coverage.outward > 0.5:
        text = "Most cameras look away from their common middle. An object is photographed from around it, looking in."
        yield Issue("outward", text)
    elif coverage.spread_deg < _SPREAD_DEG:
        text = (
            f"All cameras stand within {coverage.spread_deg:.0f} degrees of each other, seen from the object: shape "
            "along the line of sight is a guess. Add views from other sides."
        )
        yield Issue("baseline", text)
    elif coverage.gap_deg > _GAP_DEG:
        ends = tuple(kept.views[k].name for k in coverage.gap_between)
        text = (
            f"No camera stands in {coverage.gap_deg:.0f} degrees of the circle between {ends[0]} and {ends[1]}: the "
            "surface on that side is a guess. Add views from there."
        )
        yield Issue("gap", text, ends)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence; the first ones of many."""
    if len(names) > 8:
        return f"{', '.join(names[:8])} and {len(names) - 8} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _be(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _sentence(error: InputError) -> str:
    text = error.what[0].upper() + error.what[1:] + "."
    where = "" if error.where is None else f" ({error.where})"
    return text[:-1] + where + "." + ("" if error.fix is None else f" {error.fix}")
