"""Stages of an edit, after those of a capture's asset: the edited asset, and the views that show it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from pipeline.editing.control_pictures import control_pictures
from pipeline.editing.deform import Deformed, deform
from pipeline.editing.target import REST_FILE, EditTarget, SkeletonTarget, plain_target
from pipeline.jobs.runner import StageRun
from pipeline.jobs.settings import DeformSettings, EditMethod, MeshSettings, settings_as_dict
from pipeline.jobs.stages.asset import AssetReport, save_animation, turntable_frames
from pipeline.jobs.stages.capture_folder import CaptureFolder
from recon.export.asset import Asset
from recon.export.export_mesh import Exported, export_mesh
from recon.export.glb_read import read_glb
from recon.export.rig import write_rig
from recon.mesh.health import MeshHealth
from recon.settings import GlbSettings
from scene.camera import Camera, Mat4
from scene.documents import read_object, shown
from scene.errors import InputError, ViewloomError
from scene.mesh import ColouredMesh
from scene.render import UNLIT, MeshRenderer
from scene.view import RGBA, View
from scene.viewset import ViewSet

EDIT_FILE = "edit.json"
"""Of the edit's stage: what it made."""
CONTROLS = "controls"
"""Folder of the control pictures, beside those of the edited views."""
ORIGINALS = "originals"
"""Folder of the framed views as they were, where views were drawn anew."""
_HUMAN_EDITS = "http://cv.iptc.org/newscodes/digitalsourcetype/humanEdits"


def edited_name(item: str) -> str:
    """Name of an item's edited asset, without ending."""
    return f"{item}-edited"


def rig_name(item: str) -> str:
    """Name of the file of an edited item's rig."""
    return f"{item}-edited-rig.glb"


@dataclass(frozen=True)
class EditReport:
    """What an edit made, as ``edit.json`` holds it.

    Args:
        method: how it was made.
        summary: one line on the edited GLB.
        health: of its mesh.
        bytes: of the GLB.
        validator: what checked the GLB, and the rig.
        validator_errors, validator_warnings: what that found, in both.
        files: of every format, the GLB first, a rig last; see :meth:`recon.export.export_mesh.Exported.to_dict`.
        broken_limits: a sentence for each budget that is not kept.
        moved: a sentence for each part or box that moved.
        cuts: rings along which glued parts were cut apart.
        warnings: what the user should know.
        intervals: of views that were drawn anew, how each went; see
            :class:`pipeline.jobs.stages.redraw.RedrawnInterval`.
    """

    method: EditMethod
    summary: str
    health: MeshHealth
    bytes: int
    validator: str
    validator_errors: int
    validator_warnings: int
    files: list[dict[str, Any]]
    broken_limits: list[str]
    moved: list[str]
    cuts: int
    warnings: list[str]
    intervals: list[dict[str, Any]] = field(default_factory=list)

    @property
    def published(self) -> list[str]:
        """Names of all files, in every format."""
        return [name for made in self.files for name in made["files"]]

    @property
    def notes(self) -> list[str]:
        """Sentences for the user."""
        said = [self.summary, *(f"Over the profile: {text}." for text in self.broken_limits)]
        if self.moved:
            said.append(f"Moved: {'; '.join(self.moved)}.")
        if self.cuts:
            said.append(f"Parts that were glued together were cut apart along {self.cuts} rings.")
        return [*said, *self.warnings]


@dataclass(frozen=True)
class EditStage:
    """An asset to the same asset as its target says.

    Args:
        asset: the original.
        item: name of its files.
        target: in the capture's own world.
        method: of the edit.
        deform: settings of that method.
        mesh, glb: settings of the export, those of the original.
        world: from the capture's own world to one that is z up, for the turntable.
    """

    name: ClassVar[str] = "edit"
    version: ClassVar[int] = 1

    asset: StageRun[AssetReport]
    item: str
    target: EditTarget
    method: EditMethod
    deform: DeformSettings
    mesh: MeshSettings
    glb: GlbSettings
    world: Mat4

    @property
    def key(self) -> list[Any]:
        """The original with all that it depends on, the target's numbers, and the settings."""
        return [self.version, self.asset.key, plain_target(self.target), self.method, settings_as_dict(self.deform)]

    def run(self, folder: Path) -> None:
        """Write the edited asset in every format, the rig, the turntable and a summary; files are checked.

        Raises:
            InputError: the target misses the object.
        """
        asset = read_glb(self.asset.folder / f"{self.item}.glb")
        back = np.eye(4) if asset.world_from_asset is None else asset.world_from_asset
        deformed = deform(asset, self.target.transformed(np.linalg.inv(back)), softness=self.deform.softness)
        edited = _marked(deformed.asset, self.method)
        # What cuts add to the original, which keeps its budget, is not held against the edit.
        faces = self.mesh.limits.max_faces + max(0, len(edited.faces) - len(asset.faces))
        limits, stem = replace(self.mesh.limits, max_faces=faces), edited_name(self.item)
        exported = [
            export_mesh(
                folder / f"{stem}.{ending}", edited, self.glb, profile=limits, may_shrink=self.mesh.texture is None
            )
            for ending in dict.fromkeys(("glb", *self.glb.formats))
        ]
        files = [one.to_dict() for one in exported]
        if deformed.rig is not None:
            files.append(self._rig_file(folder, deformed))
        side, frames = self.mesh.turntable
        turning = coloured_in_world(edited, self.world)
        save_animation(folder / "turntable.webp", turntable_frames(turning, frames, side))
        report = _report(self.method, exported, deformed, files)
        (folder / EDIT_FILE).write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> EditReport:
        """The report.

        Raises:
            InputError, ValueError: it is something else, or speaks of files that are not there.
        """
        report = TypeAdapter(EditReport).validate_python(read_object(folder / EDIT_FILE))
        for name in [*report.published, "turntable.webp"]:
            if not (folder / name).is_file():
                raise InputError(f"speaks of {shown(name)}, which is not there", where=folder / EDIT_FILE)
        if report.files[0]["file"] != f"{edited_name(self.item)}.glb":
            raise InputError("is of another item", where=folder / EDIT_FILE)
        return report

    def _rig_file(self, folder: Path, deformed: Deformed) -> dict[str, Any]:
        assert deformed.rig is not None
        path = folder / rig_name(self.item)
        check = write_rig(path, deformed.rig)
        return {
            "file": path.name,
            "files": [path.name],
            "bytes": path.stat().st_size,
            "check": check.to_dict(),
            "jpeg_quality": None,
            "texture": max(deformed.rig.asset.texture.shape[:2]),
            "limits": {},
        }


def _marked(asset: Asset, method: EditMethod) -> Asset:
    """The asset with metadata that say that it was edited."""
    extras = {**asset.extras, "digitalSourceType": _HUMAN_EDITS, "edit": {"method": method}}
    return replace(asset, extras=extras)


def _report(
    method: EditMethod, exported: list[Exported], deformed: Deformed, files: list[dict[str, Any]]
) -> EditReport:
    glb = exported[0]
    if glb.report is None:
        raise ViewloomError(f"{glb.path.name} was written without a check")
    checks = [made["check"] for made in files if "check" in made]
    return EditReport(
        method,
        str(glb),
        glb.health,
        glb.size,
        glb.report.tool,
        sum(check["errors"] for check in checks),
        sum(check["warnings"] for check in checks),
        files,
        [text for one in exported for text in one.broken_limits],
        list(deformed.moved),
        deformed.cuts,
        list(deformed.warnings),
    )


def coloured_in_world(asset: Asset, matrix: Mat4) -> ColouredMesh:
    """An asset as the renderer takes it.

    Args:
        asset: the asset.
        matrix: from the capture's own world to the one that is asked for.
    """
    back = np.eye(4) if asset.world_from_asset is None else asset.world_from_asset
    mesh = ColouredMesh(asset.vertices.astype(np.float64), asset.faces, uv=asset.uv, texture=asset.texture)
    moved = mesh.transformed(matrix @ back)
    return ColouredMesh(moved.vertices.astype(np.float32), moved.faces, uv=moved.uv, texture=moved.texture)


@dataclass(frozen=True, eq=False)
class _DrawnView(View):
    """A view that is drawn when it is asked for: all pictures of a capture would not fit into memory.

    Args:
        renderer: draws it.
        on_drawn: called when it was.
    """

    renderer: MeshRenderer | None = None
    on_drawn: Callable[[], None] = lambda: None

    def rgba(self) -> RGBA:
        """The picture, straight alpha."""
        assert self.renderer is not None
        drawn = np.round(self.renderer.render(self.camera).rgba * 255).astype(np.uint8)
        self.on_drawn()
        return np.asarray(drawn)


@dataclass(frozen=True)
class EditedViews:
    """A capture of the edited object.

    Args:
        path: its folder, with control pictures beside.
    """

    path: Path

    @cached_property
    def views(self) -> ViewSet:
        """Its pictures."""
        return ViewSet.load(self.path)

    def control(self, name: str) -> Path:
        """The control picture of a view."""
        return self.path / CONTROLS / f"{name}.png"


@dataclass(frozen=True)
class EditedViewsStage:
    """An edited asset to a capture: pictures of it from the capture's cameras, and the controls that tell the target.

    The pictures are the posed mesh with its texture, unlit, on nothing. The capture's world is the one in which the
    given capture was read (z up); the target's skeleton is put beside it in that world.

    Args:
        capture: whose cameras are taken.
        edit: the edited asset.
        item: name of its files.
        target: in the capture's own world.
        world: from the capture's own world to the one that the edited capture shall have.
        side: longest side of the pictures, pixels, at most.
        on_step: called with (done, total) pictures.
    """

    name: ClassVar[str] = "edited-views"
    version: ClassVar[int] = 1

    capture: StageRun[CaptureFolder]
    edit: StageRun[EditReport]
    item: str
    target: EditTarget
    world: Mat4
    side: int
    on_step: Callable[[int, int], None] | None = None

    @property
    def key(self) -> list[Any]:
        """The cameras, the edited asset, and the size."""
        return [self.version, self.capture.key, self.edit.key, np.round(self.world, 12).tolist(), self.side]

    def run(self, folder: Path) -> None:
        """Draw the pictures and the controls."""
        asset = read_glb(self.edit.folder / f"{edited_name(self.item)}.glb")
        known = self.capture.result.views
        normalised = np.array(known.metadata.get("normalised_from_world", np.eye(4)), np.float64)
        renderer = MeshRenderer(coloured_in_world(asset, self.world), UNLIT)
        given = known.transformed(self.world @ np.linalg.inv(normalised))
        done = 0

        def drawn() -> None:
            nonlocal done
            done += 1
            if self.on_step is not None:
                self.on_step(done, len(given))

        views = tuple(
            _DrawnView(
                view.name,
                _fitted(view.camera, self.side),
                weight=view.weight,
                origin="generated",
                renderer=renderer,
                on_drawn=drawn,
            )
            for view in given
        )
        target = self.target.transformed(self.world)
        self._save_controls(folder / CONTROLS, target, views)
        if isinstance(target, SkeletonTarget):
            target.target.save(folder / REST_FILE)
        ViewSet(views, True, {"edited": True}).save(folder)

    def load(self, folder: Path) -> EditedViews:
        """The capture.

        Raises:
            InputError: it cannot be read.
        """
        found = EditedViews(folder)
        found.views.metadata  # noqa: B018 - read when first asked for
        return found

    def _save_controls(self, folder: Path, target: EditTarget, views: tuple[View, ...]) -> None:
        cameras = [view.camera for view in views]
        pictures = control_pictures(target, cameras)
        folder.mkdir(parents=True)
        for view, picture in zip(views, pictures, strict=True):
            path = folder / f"{view.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.round(picture * 255).astype(np.uint8)).save(path)


class DraftViewsStage(EditedViewsStage):
    """Views of a deformed asset that are drawn over."""

    name: ClassVar[str] = "draft-views"


def _fitted(camera: Camera, side: int) -> Camera:
    """The camera of the picture reduced to a longest side."""
    scale = side / max(camera.width, camera.height)
    if scale >= 1:
        return camera
    return camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))
