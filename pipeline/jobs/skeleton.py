"""The skeleton of a captured body: joints in each view, found or given, triangulated into the capture's own world."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pipeline.jobs.body_network import BodyNetwork, Box
from pipeline.jobs.progress import Heard, one_item, reporter_of
from pipeline.jobs.stages.capture import normalised, with_masks
from recon.views.normalise import NormalisedCapture
from scene.captures import load_capture
from scene.captures.worlds import world_from_original
from scene.errors import InputError, OutputError
from scene.openpose import BodyJoints, read_openpose
from scene.skeleton import FACE, JOINTS, Skeleton
from scene.triangulation import TriangulatedSkeleton, triangulate_detections
from scene.view import View
from scene.viewset import ViewSet

_NEEDED = ("neck", "right_hip", "left_hip", "right_shoulder", "left_shoulder")
_GREY = 127
"""Behind a body that was cut out."""
_UNEVEN = 1.3
"""Of the longer of two limbs to its counterpart: beyond it joints are off."""
_MANY = 6
_MOST_BEHIND = 10
"""Sides of a square around the body, as multiples of the picture's, before a camera is taken to stand in it."""


@dataclass(frozen=True, eq=False)
class FoundSkeleton:
    """The skeleton of a capture.

    Args:
        file: where it was written, in the capture's own world.
        skeleton: what is in the file.
        told: what the views say of each joint (in the world in which the views were read).
        views: how many show a body.
    """

    file: Path
    skeleton: Skeleton
    told: TriangulatedSkeleton
    views: int

    @property
    def summary(self) -> str:
        """One line."""
        known = int(self.skeleton.known.sum())
        error = float(np.nanmean(self.told.error))
        return f"{known} of {len(JOINTS)} joints from {self.views} views, which differ by {error:.1f} pixels"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to look at before it is used."""
        said = []
        unknown = [name for name, known in zip(JOINTS, self.skeleton.known, strict=True) if not known]
        if unknown:
            said.append(f"Too few views agree on {', '.join(unknown)}, which stay unknown.")
        weak = [
            f"{name} ({agreeing} of {seen})"
            for name, agreeing, seen in zip(JOINTS, self.told.agreeing, self.told.seen, strict=True)
            if name not in unknown and 2 * agreeing < seen
        ]
        if weak:
            said.append(f"Fewer than half of the views that see a joint agree on {', '.join(weak)}.")
        lengths = self.skeleton.bone_lengths()
        for name, left in lengths.items():
            other = name.replace("left_", "right_")
            if name == other or other not in lengths or name in FACE:
                continue
            short, long = sorted((left, lengths[other]))
            if long > _UNEVEN * short:
                said.append(f"The bones that end in {name} and {other} differ: {left:.3g} and {lengths[other]:.3g}.")
        return tuple(said)


def find_skeleton(
    capture: Path,
    out: Path | None = None,
    *,
    joints: Path | None = None,
    model: Path | None = None,
    overwrite: bool = False,
    reporter: Heard = None,
) -> FoundSkeleton:
    """Find the skeleton of a captured body and write its file, which edits of the capture begin with.

    Args:
        capture: folder or file of any format that :func:`scene.captures.load_capture` knows, of one person.
        out: file to write; ``skeleton.json`` in the capture's folder by default.
        joints: folder of OpenPose's files, ``NAME_keypoints.json`` or ``NAME.json`` for the view NAME; or
        model: MediaPipe's network, see :meth:`pipeline.jobs.body_network.BodyNetwork.load`.
        overwrite: whether a file that is there may be replaced.
        reporter: told of the progress.

    Raises:
        InputError: the capture, the joints or the network cannot be used, or too few views agree on the hips and
            shoulders.
        MissingBackendError: LiteRT is not installed, and joints were not given.
        OutputError: the file is there, or cannot be written.
    """
    told = reporter_of(reporter)
    if (joints is None) == (model is None):
        raise InputError(
            "joints come from OpenPose's files or from MediaPipe's network",
            fix="Give --joints FOLDER, or --model pose_landmark_full.tflite of the npm package @mediapipe/pose.",
        )
    folder = capture if capture.is_dir() else capture.parent
    file = folder / "skeleton.json" if out is None else out
    if file.exists() and not overwrite:
        raise OutputError("is there already", where=file, fix="Choose another name with -o, or give --overwrite.")
    with one_item(told, f"{capture} -> {file}"):
        views = load_capture(capture)
        if len(views) < 2:
            raise InputError("one view tells no places", where=capture, fix="Give several views.")
        source = given_joints(views, joints) if joints is not None else _found_joints(views, model, told.step)
        bodies = list(source)
        seen = [bool(body.confidences.any()) for body in bodies]
        cameras = [view.camera for view in views]
        pixels, confidences = np.stack([b.pixels for b in bodies]), np.stack([b.confidences for b in bodies])
        # Of many views two agree by chance.
        least = 2 if len(views) < _MANY else 3
        found = triangulate_detections(cameras, pixels, confidences, least_views=least)
        lost = [name for name in _NEEDED if not found.skeleton.known[JOINTS.index(name)]]
        if lost:
            raise InputError(
                f"too few of its views agree on {', '.join(lost)}: {sum(seen)} of {len(views)} show a body",
                where=capture,
                fix="Give joints with --joints, or write the skeleton by hand.",
            )
        skeleton = found.skeleton.transformed(np.linalg.inv(world_from_original(views.metadata)))
        skeleton.save(file)
        made = FoundSkeleton(file, skeleton, found, sum(seen))
        for text in made.warnings:
            told.note(text)
    return made


def given_joints(views: ViewSet, folder: Path) -> list[BodyJoints]:
    """What OpenPose's files say of each view; nothing of views without one.

    Of several people the one is taken that the view's mask shows most of, and that is surest.

    Raises:
        InputError: no view has a file, or one cannot be read.
    """
    files = [_file_of(view, folder) for view in views]
    if not any(files):
        name = views.views[0].name
        raise InputError(
            f"has joints of no view: none of {name}_keypoints.json, {name}.json, ...",
            where=folder,
            fix="Name the files after the capture's pictures.",
        )
    return [BodyJoints.unseen() if file is None else _person_in(view, file) for view, file in zip(views, files)]


def _file_of(view: View, folder: Path) -> Path | None:
    names = {view.name} if view.image_path is None else {view.name, view.image_path.stem}
    places = [folder / f"{name}{ending}" for name in sorted(names) for ending in ("_keypoints.json", ".json")]
    return next((place for place in places if place.is_file()), None)


def _person_in(view: View, file: Path) -> BodyJoints:
    people = read_openpose(file, view.camera.width, view.camera.height)
    if len(people) < 2:
        return people[0] if people else BodyJoints.unseen()
    mask = view.rgba()[..., 3]

    def sure(person: BodyJoints) -> float:
        known = np.isfinite(person.pixels).all(axis=1)
        x, y = np.floor(person.pixels[known]).astype(int).T
        inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
        on_it = mask[y[inside], x[inside]] > 127
        return float(person.confidences[known][inside][on_it].sum())

    return max(people, key=sure)


def _found_joints(views: ViewSet, model: Path | None, on_step: Callable[[int, int], None]) -> Iterable[BodyJoints]:
    """What the network sees in each view, around the object's mask, or around where the cameras look."""
    assert model is not None
    network = BodyNetwork.load(model)
    masked = with_masks(views, "auto")
    region = None if masked.has_masks else normalised(masked)
    for done, view in enumerate(masked, 1):
        rgba = view.rgba()
        box = _box_of_mask(rgba[..., 3]) if region is None else _box_of_region(view, region)
        yield BodyJoints.unseen() if box is None else network.find(_before_grey(rgba), box)
        on_step(done, len(masked))


def _before_grey(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.asarray(np.round(rgba[..., :3] * alpha + _GREY * (1 - alpha)), np.uint8)


def _box_of_mask(mask: UInt8[np.ndarray, "h w"]) -> Box | None:
    y, x = np.nonzero(mask > 127)
    return None if not len(x) else (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1))


def _box_of_region(view: View, region: NormalisedCapture) -> Box | None:
    """Around the unit ball of the normalised world; None of a camera that stands in it or looks away."""
    back = np.linalg.inv(region.matrix)
    centre, radius = back[:3, 3], float(np.cbrt(np.linalg.det(back[:3, :3])))
    pixels, depth = view.camera.project(centre)
    reach = radius * view.camera.fx / float(depth) if depth > radius else np.inf
    if reach > _MOST_BEHIND * max(view.camera.width, view.camera.height):
        return None
    x, y = pixels
    return float(x - reach), float(y - reach), float(x + reach), float(y + reach)
