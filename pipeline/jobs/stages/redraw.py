"""Views of a capture drawn anew by an editor, as a target says: a capture of the edited object."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from pipeline.editing.controls import depth_controls
from pipeline.editing.framed import Frame
from pipeline.editing.redraw import FramedDraft, bytes_of, check_editable, chosen, frames_of, redrawn
from pipeline.editing.settings import ConsolidateSettings
from pipeline.editing.target import REST_FILE, EditTarget, SkeletonTarget, plain_target
from pipeline.editing.task import StepReport
from pipeline.jobs.editor import JobEditor
from pipeline.jobs.runner import StageRun
from pipeline.jobs.settings import EditMethod, settings_as_dict
from pipeline.jobs.stages.asset import AssetReport, AssetStage
from pipeline.jobs.stages.capture_folder import CaptureFolder
from pipeline.jobs.stages.edit import CONTROLS, ORIGINALS, EditedViews, EditReport, coloured_in_world, edited_name
from pipeline.jobs.stages.surface import SurfaceStage
from recon.export.asset import Asset
from recon.export.glb_read import read_glb
from scene.camera import Mat4, apply_transform
from scene.documents import read_object
from scene.errors import InputError, ViewloomError
from scene.framing import apply_framing
from scene.view import View
from scene.viewset import ViewSet

INTERVALS = "intervals.json"


@dataclass(frozen=True)
class RedrawnInterval:
    """How an interval went: of :class:`pipeline.editing.task.IntervalReport` what is the same in every run.

    Args:
        guided: its guided steps.
        misfit: of the field, in deviations of queries; None without a field.
    """

    guided: tuple[StepReport, ...]
    misfit: float | None


@dataclass(frozen=True)
class Drawn:
    """What ``intervals.json`` holds.

    Args:
        views: names of all that were drawn.
        intervals: how each went.
    """

    views: tuple[str, ...]
    intervals: tuple[RedrawnInterval, ...]


@dataclass(frozen=True)
class RedrawnViews(EditedViews):
    """A capture that an editor drew, in the normalised world.

    Args:
        path: its folder, with controls and the originals in the same frames.
    """

    @cached_property
    def told(self) -> Drawn:
        """What was drawn, and how it went.

        Raises:
            InputError, ValueError: the file is missing, or holds something else.
        """
        return TypeAdapter(Drawn).validate_python(read_object(self.path / INTERVALS))

    @property
    def drawn(self) -> tuple[str, ...]:
        """Names of all views that were drawn."""
        return self.told.views

    @property
    def empty(self) -> list[str]:
        """Names of those that show nothing, and were left out."""
        kept = {view.name for view in self.views}
        return [name for name in self.drawn if name not in kept]


@dataclass(frozen=True)
class Draft:
    """A deformed surface, which an editor draws over.

    Args:
        asset: the stage that made the original.
        edit: the stage that deformed it.
        views: pictures of it from the capture's cameras.
        item: name of its files.
    """

    asset: StageRun[AssetReport]
    edit: StageRun[EditReport]
    views: StageRun[EditedViews]
    item: str

    def framed(self, views: Sequence[View], frames: Sequence[Frame], normalised: Mat4) -> FramedDraft:
        """Its pictures in the frames of views, and what its depth looks like there.

        Args:
            views: of the capture, those that are edited.
            frames: of them, in the normalised world.
            normalised: from the capture's own world to that.
        """
        drawn = {view.name: view for view in self.views.result.views}
        pictures = []
        for view, frame in zip(views, frames, strict=True):
            smaller = drawn[view.name].camera.width / view.camera.width
            framing = replace(frame.framing, scale=frame.framing.scale / smaller)
            pictures.append(apply_framing(drawn[view.name].rgba(), framing))
        meshes = [
            coloured_in_world(read_glb(path), normalised)
            for path in (self.asset.folder / f"{self.item}.glb", self.edit.folder / f"{edited_name(self.item)}.glb")
        ]
        cameras = [frame.camera for frame in frames]
        before, after = (bytes_of(depth_controls(mesh.vertices, mesh.faces, cameras)[0]) for mesh in meshes)
        return FramedDraft(np.stack(pictures), before, after)


@dataclass(frozen=True)
class RedrawnViewsStage:
    """A capture to views of the edited object: squares around it, drawn by diffusion from the originals' looks.

    Args:
        capture: the originals, in the normalised world; with masks.
        target: in the capture's own world.
        editor: the model.
        settings: of the method.
        most_views: drawn at most, evenly chosen; 0 for all.
        draft: the deformed surface and views of it, which are drawn over; None to begin with noise.
        work: folder for queries, and for what a killed run goes on from.
        on_step: called with (done, total) steps.
    """

    name: ClassVar[str] = "edited-views"
    version: ClassVar[int] = 1

    capture: StageRun[CaptureFolder]
    target: EditTarget
    editor: JobEditor
    settings: ConsolidateSettings
    most_views: int
    draft: Draft | None = None
    work: Path | None = None
    on_step: Callable[[int, int], None] | None = None

    @property
    def key(self) -> list[Any]:
        """The views, the target, the model and the method."""
        return [
            self.version,
            self.capture.key,
            plain_target(self.target),
            *self.editor.key,
            settings_as_dict(self.settings),
            self.most_views,
            None if self.draft is None else [self.draft.edit.key, self.draft.views.key],
        ]

    def run(self, folder: Path) -> None:
        """Draw the views, and write them with controls and originals.

        Raises:
            InputError: the capture has no masks, or a camera stands in the object.
            CheckpointError: the control makes no difference.
            ViewloomError: nothing was drawn.
        """
        known = self.capture.result.views
        check_editable(known)
        moved = np.array(known.metadata.get("normalised_from_world", np.eye(4)), np.float64)
        views, target = chosen(list(known), self.most_views), self.target.transformed(moved)
        frames = frames_of(views, target, self.editor.loaded.image_size)
        drawn = redrawn(
            self.editor.loaded,
            np.stack([frame.picture(view.rgba()) for frame, view in zip(frames, views, strict=True)]),
            target,
            [frame.camera for frame in frames],
            self.settings,
            draft=None if self.draft is None else self.draft.framed(views, frames, moved),
            work=self.work,
            on_progress=lambda done, total, what: None if self.on_step is None else self.on_step(done, total),
        )
        made = [
            View(view.name, frame.camera, picture, weight=view.weight, origin="generated")
            for view, frame, picture in zip(views, frames, drawn.pictures, strict=True)
            if (picture[..., 3] >= 128).any()
        ]
        if len(made) < 2:
            raise ViewloomError("the editor drew empty views only", fix="Try another --consolidate.seed.")
        for name, pictures in ((CONTROLS, drawn.controls), (ORIGINALS, drawn.originals)):
            for view, picture in zip(views, pictures, strict=True):
                path = folder / name / f"{view.name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
        if isinstance(self.target, SkeletonTarget):
            self.target.target.save(folder / REST_FILE)
        intervals = tuple(RedrawnInterval(interval.guided, interval.misfit) for interval in drawn.intervals)
        told = Drawn(tuple(view.name for view in views), intervals)
        (folder / INTERVALS).write_text(json.dumps(asdict(told), indent=1) + "\n", encoding="utf-8")
        metadata = {"normalised": True, "normalised_from_world": np.round(moved, 12).tolist(), "edited": True}
        ViewSet(tuple(made), True, metadata).save(folder)

    def load(self, folder: Path) -> RedrawnViews:
        """The capture.

        Raises:
            InputError, ValueError: it cannot be read, or pictures of it are missing.
        """
        found = RedrawnViews(folder)
        if not {view.name for view in found.views} <= set(found.drawn):
            raise InputError("does not name all views", where=folder / INTERVALS)
        return found


class EditedSurfaceStage(SurfaceStage):
    """The surface of edited views."""

    name: ClassVar[str] = "edited-surface"


@dataclass(frozen=True)
class EditedAssetStage(AssetStage):
    """The asset of edited views, in the frame and size of the original.

    Args:
        original: the stage that made that.
        original_item: name of its files.
    """

    name: ClassVar[str] = "edited-asset"

    original: StageRun[AssetReport]
    original_item: str

    @property
    def key(self) -> list[Any]:
        """As of any asset, and the original, which gives the frame."""
        return [*super().key, self.original.key]

    def placed(self, asset: Asset) -> Asset:
        """The asset where the original stands."""
        frame = read_glb(self.original.folder / f"{self.original_item}.glb").world_from_asset
        if frame is None or asset.world_from_asset is None:
            return asset
        matrix = np.linalg.inv(frame) @ asset.world_from_asset
        turned = asset.normals @ matrix[:3, :3].T
        return replace(
            asset,
            vertices=apply_transform(matrix, asset.vertices).astype(np.float32),
            normals=(turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float32),
            world_from_asset=frame,
        )


def edit_report_of(
    method: EditMethod, asset: AssetReport, views: RedrawnViews, deformed: EditReport | None
) -> EditReport:
    """What an edit by views drawn anew made.

    Args:
        method: that it was made by.
        asset: fitted to the views.
        views: that were drawn.
        deformed: of the draft, if there was one: its rig is delivered, too.
    """
    rig = [] if deformed is None else [made for made in deformed.files if made["file"].endswith("-rig.glb")]
    checks = [made["check"] for made in rig if "check" in made]
    return EditReport(
        method,
        asset.summary,
        asset.health,
        asset.bytes,
        asset.validator,
        asset.validator_errors + sum(check["errors"] for check in checks),
        asset.validator_warnings + sum(check["warnings"] for check in checks),
        [*asset.files, *rig],
        list(asset.broken_limits),
        [] if deformed is None else deformed.moved,
        0 if deformed is None else deformed.cuts,
        [*([] if deformed is None else deformed.warnings), *_left_out(views)],
        [asdict(interval) for interval in views.told.intervals],
    )


def _left_out(views: RedrawnViews) -> list[str]:
    """A sentence on views that came out empty; as masks they would say that nothing is there."""
    if not views.empty:
        return []
    listed = f"{len(views.empty)} of {len(views.drawn)} edited views are empty and were left out"
    return [f"{listed}: {', '.join(views.empty)}. Another --consolidate.seed may fill them."]
