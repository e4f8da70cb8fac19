"""Photos without poses to a capture folder: cameras found by pycolmap, the world upright, the pictures copied."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.jobs.item_lock import only_job
from pipeline.jobs.posing.mapping import Effort, Photo, PoseSettings, RegisteredImage, SparseModel, require_pycolmap
from pipeline.jobs.posing.photo_set import PhotoSet, gather, write_pictures
from pipeline.jobs.posing.stages import CameraStage, FeatureStage, MatchStage, PhotoSetStage
from pipeline.jobs.posing.turntable import background_stands_still
from pipeline.jobs.posing.xfeat import require_xfeat
from pipeline.jobs.progress import Heard, Reporter, one_item, reporter_of
from pipeline.jobs.runner import Runner, StageRun, digest_of, digest_of_file
from pipeline.jobs.settings import Busy
from recon.views.upright import upright_transform
from scene.camera import Mat4, apply_transform
from scene.documents import read_object
from scene.errors import InputError, OutputError
from scene.files import reading, write_bytes, write_text
from scene.ply import encode_ply

_CAPTURE_VERSION = 1
"""Raised when the code that writes the capture changes its result."""
_FEW = 0.6
"""Below this share of registered photos the user is told what to do."""
_ADVICE = (
    "Add photos where views are missing: neighbours should share 60 to 80 % of what they show, be sharp, and be taken "
    "without changing the zoom; a textured background, or a newspaper under the object, helps."
)

_TURNTABLE = (
    "The background stands still while the object turns: what is found in it says that no camera moved. Give cut-outs "
    "with alpha, or take the photos before a plain backdrop."
)


@dataclass(frozen=True)
class PoseResult:
    """What became of the photos.

    Args:
        folder: the capture.
        registered: photos with a camera.
        left_out: photos that fitted to no other.
        skipped: unusable photos, and why.
        points: number of sparse points.
        error: mean reprojection error in pixels of the pictures that features were found in.
    """

    folder: Path
    registered: tuple[str, ...]
    left_out: tuple[str, ...]
    skipped: dict[str, str]
    points: int
    error: float

    @property
    def summary(self) -> str:
        """One line of numbers."""
        total = len(self.registered) + len(self.left_out) + len(self.skipped)
        return (
            f"{len(self.registered)} of {total} photos registered, {self.points:,} points, "
            f"mean reprojection error {self.error:.2f} px"
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about photos that are not in the capture, and what to do."""
        said = [f"{name} was skipped: {reason}." for name, reason in self.skipped.items()]
        if self.left_out:
            said.append(f"No place was found for {', '.join(self.left_out)}.")
        if len(self.registered) < _FEW * (len(self.registered) + len(self.left_out)):
            said.append(_ADVICE)
        return tuple(said)


def pose(
    photos: Sequence[Path],
    out: Path,
    settings: PoseSettings = PoseSettings(),
    *,
    reporter: Heard = None,
    busy: Busy = "refuse",
) -> PoseResult:
    """Find the cameras of photos of one object or scene and write a capture folder.

    The world is z up (estimated from how cameras are held), the point that the cameras look at is the origin, and the
    median camera stands 1.5 from it: photos alone do not tell the scale. Lens distortion is written with the cameras
    (``k1``); pictures are copied as they are, or saved upright. What the search needed is kept in ``out/colmap``: the
    same photos are not searched again.

    Args:
        photos: picture files, or folders of them.
        out: the capture folder to write.
        settings: of the search.
        reporter: told of the progress.
        busy: whether the job gives up at once when another one writes into ``out``, or waits for it.

    Raises:
        MissingBackendError: pycolmap, or the package of the features, is not installed.
        InputError: there are fewer than three usable photos, or fewer than three fit together.
        OutputError: the folder cannot be written, or holds a capture of another origin.
    """
    told = reporter_of(reporter)
    require_pycolmap()
    if settings.features == "xfeat":
        require_xfeat()
    files = gather(photos)
    _refuse_own_results(files, out)
    _refuse_foreign(out)
    with one_item(told, f"{len(files)} photos -> {out}"), only_job(out, busy, told.note):
        return _pose(files, out, settings, told)


def _pose(files: Sequence[Path], out: Path, settings: PoseSettings, told: Reporter) -> PoseResult:
    runner = Runner(out / "colmap", told.stage)
    digests = []
    for file in files:
        with reading(file):
            digests.append((file.name, digest_of_file(file)))
    photo_set = runner.run(PhotoSetStage(files, digests, settings, told.step))
    chosen = photo_set.result
    for name, reason in chosen.skipped.items():
        told.note(f"{name} was skipped: {reason}.")
    for sentence in chosen.sentences:
        told.note(sentence)
    if not chosen.cut_out and background_stands_still([photo_set.folder / shot.file for shot in chosen.shots]):
        told.note(_TURNTABLE)
    if len(chosen.shots) < 3:
        raise InputError(
            f"{len(chosen.shots)} usable photos are too few", where=files[0].parent, fix="Give three at least."
        )
    efforts: tuple[Effort, ...] = ("standard", "thorough") if settings.effort == "auto" else (settings.effort,)
    best, key = None, ""
    for effort in efforts:
        run = _search(runner, photo_set, effort, settings, told)
        found = run.result
        if best is None or len(found.cameras) > len(best.cameras):
            best, key = found, run.key
        if len(best.cameras) >= 0.9 * len(chosen.shots):
            break
    if best is None or len(best.cameras) < 3:
        count = 0 if best is None else len(best.cameras)
        raise InputError(
            f"only {count} of {len(files)} photos fit together" if count else "no two photos fit together",
            where=files[0].parent,
            fix=_ADVICE,
        )
    result = _result(out, chosen, best)
    _capture_stage(out, chosen, best, result, digest_of(_CAPTURE_VERSION, key), told)
    for warning in result.warnings[len(chosen.skipped) :]:
        told.note(warning)
    return result


def _search(
    runner: Runner, photos: StageRun[PhotoSet], effort: Effort, settings: PoseSettings, reporter: Reporter
) -> StageRun[SparseModel]:
    """Features, matches and cameras, each kept from an earlier run if nothing it depends on has changed."""
    features = runner.run(FeatureStage(photos, effort, settings, reporter.step))
    match = MatchStage(photos, effort, settings, reporter.step, features)
    return runner.run(CameraStage(match, runner.run(match)))


def _result(out: Path, chosen: PhotoSet, model: SparseModel) -> PoseResult:
    inside = tuple(source.name for shot, source in chosen.pairs() if shot.file in model.cameras)
    outside = tuple(source.name for shot, source in chosen.pairs() if shot.file not in model.cameras)
    return PoseResult(out, inside, outside, chosen.skipped, len(model.points), model.error)


def _capture_stage(
    out: Path, chosen: PhotoSet, model: SparseModel, result: PoseResult, key: str, reporter: Reporter
) -> None:
    """Write pictures, points and, last, ``transforms.json``; files of an earlier run that it named are removed."""
    before = _own_capture(out)
    if before is not None and before["viewloom"]["pose"].get("key") == key:
        named = [*(frame["file_path"] for frame in before["frames"]), before["ply_file_path"]]
        if all((out / name).is_file() for name in named):
            reporter.stage("capture", True)
            return
    reporter.stage("capture", False)
    shots = [(shot, source) for shot, source in chosen.pairs() if shot.file in model.cameras]
    matrix = _upright(model, [shot for shot, _ in shots])
    pictures = write_pictures(out / "images", chosen, [shot for shot, _ in shots], reporter.step)
    frames = [
        _frame(f"images/{picture.name}", picture.size, shot, model.cameras[shot.file], matrix)
        for picture, (shot, _) in zip(pictures, shots, strict=True)
    ]
    write_bytes(out / "sparse_pc.ply", points_ply(apply_transform(matrix, model.points), model.colours))
    facts: dict[str, Any] = {
        "key": key,
        "registered": len(result.registered),
        "left_out": list(result.left_out),
        "skipped": result.skipped,
        "points": result.points,
        "reprojection_error_px": round(result.error, 4),
    }
    content = {
        "camera_model": "OPENCV",
        "ply_file_path": "sparse_pc.ply",
        "frames": frames,
        "viewloom": {"pose": facts},
    }
    write_text(out / "transforms.json", json.dumps(content, indent=1) + "\n")
    stale = {frame["file_path"] for frame in (before or {"frames": []})["frames"]}
    for name in stale - {frame["file_path"] for frame in frames}:
        (out / name).unlink(missing_ok=True)


def _upright(model: SparseModel, shots: list[Photo]) -> Mat4:
    from recon.views.normalise import look_at_point  # torch comes with it, so not before it is needed
    from scene.camera import Camera

    cameras = []
    for shot in shots:
        found = model.cameras[shot.file]
        cameras.append(Camera(found.c2w, found.focal, found.focal, found.cx, found.cy, *shot.size))
    return upright_transform(cameras, look_at_point(cameras))


def _frame(path: str, size: tuple[int, int], shot: Photo, found: RegisteredImage, matrix: Mat4) -> dict[str, Any]:
    """One frame in nerfstudio's format, its intrinsics for the picture at full size."""
    sx, sy = size[0] / shot.size[0], size[1] / shot.size[1]
    scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
    c2w = found.c2w.copy()
    c2w[:3, :3] = matrix[:3, :3] / scale @ c2w[:3, :3]
    c2w[:3, 3] = apply_transform(matrix, found.c2w[:3, 3])
    return {
        "file_path": path,
        "fl_x": found.focal * sx,
        "fl_y": found.focal * sy,
        "cx": found.cx * sx,
        "cy": found.cy * sy,
        "w": size[0],
        "h": size[1],
        "k1": found.k1,
        "k2": 0.0,
        "p1": 0.0,
        "p2": 0.0,
        "transform_matrix": c2w.tolist(),
    }


def points_ply(points: np.ndarray, colours: np.ndarray) -> bytes:
    """A binary PLY of coloured points."""
    rows = np.empty(
        len(points), [(name, "<f4") for name in ("x", "y", "z")] + [(name, "u1") for name in ("red", "green", "blue")]
    )
    rows["x"], rows["y"], rows["z"] = points.T
    rows["red"], rows["green"], rows["blue"] = colours.T
    return encode_ply(rows)


def _own_capture(out: Path) -> dict[str, Any] | None:
    """The capture file that an earlier run of this job wrote into the folder, if there is one."""
    try:
        content = read_object(out / "transforms.json")
        own = isinstance(content["viewloom"]["pose"], dict) and isinstance(content["ply_file_path"], str)
        names = [frame["file_path"] for frame in content["frames"]]
    except (InputError, KeyError, TypeError):
        return None
    return content if own and all(re.fullmatch(r"images/[^/\\]+", str(name)) for name in names) else None


def _refuse_foreign(out: Path) -> None:
    if (out / "transforms.json").exists() and _own_capture(out) is None:
        raise OutputError("holds a capture of another origin", where=out, fix="Choose another output folder.")


def _refuse_own_results(files: Sequence[Path], out: Path) -> None:
    for file in files:
        for part in ("images", "colmap"):
            if file.resolve().is_relative_to((out / part).resolve()):
                raise InputError(
                    f"is read from, and would be replaced in, this job's own {part}",
                    where=file,
                    fix=f"Choose an output folder other than {out}, or move the photos out of it.",
                )
