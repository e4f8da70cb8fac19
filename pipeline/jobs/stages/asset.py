"""The last stage: the surface as a textured mesh, in every format that is asked for, checked, with a turntable."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pydantic import TypeAdapter

from pipeline.jobs.runner import StageRun
from pipeline.jobs.settings import MeshSettings, settings_as_dict
from pipeline.jobs.stages.capture_folder import CaptureFolder
from recon.checks.asset import AssetMeasures, measure_asset
from recon.checks.verdict import Verdict, judge
from recon.export.asset import Asset, to_asset_frame
from recon.export.export_mesh import Exported, export_mesh
from recon.export.obj import obj_side_files
from recon.export.usdz import has_usd
from recon.export.validate import find_khronos_validator
from recon.mesh.health import MeshHealth
from recon.mesh.marching_cubes import asset_mesh
from recon.profiles import FORMATS
from recon.settings import GlbSettings
from recon.surface import Surface
from recon.surface_report import SurfaceReport, ViewsReport
from recon.texture.bake import TexturedMesh, bake
from recon.texture.evidence import EvidenceShares, evidence_colours
from scene.camera import orbit_camera
from scene.documents import read_object, shown
from scene.errors import InputError, ViewloomError
from scene.mesh import ColouredMesh
from scene.raycast import mesh_caster
from scene.render import UNLIT, MeshRenderer, over_white


@dataclass(frozen=True)
class _StoredFile:
    """What is read of a file's entry."""

    file: str
    files: list[str]
    bytes: int
    jpeg_quality: int | None
    texture: int | None


@dataclass(frozen=True)
class AssetReport:
    """What the stage made, as ``asset.json`` holds it.

    Args:
        summary: one line on the GLB.
        health: of the mesh.
        profile: that its budgets come from.
        bytes: of the GLB.
        surface: how the surface was fitted.
        validator: what checked the GLB.
        validator_errors, validator_warnings: what that found.
        files: of every format, the GLB first; see :meth:`recon.export.export_mesh.Exported.to_dict`.
        broken_limits: a sentence for each budget that is not kept.
        measures: what can be measured of it.
        verdict: what follows from that.
        evidence: where its colours come from, as fractions of its area.
        texture_views: of how many views the texture was made, if not of all.
    """

    summary: str
    health: MeshHealth
    profile: str
    bytes: int
    surface: SurfaceReport
    validator: str
    validator_errors: int
    validator_warnings: int
    files: tuple[dict[str, Any], ...]
    broken_limits: tuple[str, ...]
    measures: AssetMeasures
    verdict: Verdict
    evidence: EvidenceShares
    texture_views: ViewsReport | None = None

    @classmethod
    def of(
        cls,
        exported: list[Exported],
        surface: Surface,
        profile: str,
        measures: AssetMeasures,
        evidence: EvidenceShares,
        texture_views: ViewsReport | None = None,
    ) -> AssetReport:
        """The report on exported files, the GLB first."""
        glb = exported[0]
        if glb.report is None:
            raise ViewloomError(f"{glb.path.name} was written without a check")
        return cls(
            str(glb),
            glb.health,
            profile,
            glb.size,
            surface.report,
            glb.report.tool,
            glb.report.errors,
            glb.report.warnings,
            tuple(one.to_dict() for one in exported),
            tuple(text for one in exported for text in one.broken_limits),
            measures,
            judge(measures),
            evidence,
            texture_views,
        )

    @classmethod
    def read(cls, path: Path) -> AssetReport:
        """From ``asset.json``.

        Raises:
            InputError, KeyError, ValueError, TypeError: it is something else.
        """
        content = read_object(path)
        for name, kind in _TYPES.items():
            TypeAdapter(kind).validate_python(content[name])
        health = content.pop("health")
        files, broken = tuple(content.pop("files")), tuple(content.pop("broken_limits"))
        health = MeshHealth(**{**health, "size": tuple(health["size"])})
        surface = SurfaceReport.from_dict(content.pop("surface"))
        measures = AssetMeasures(**content.pop("measures"))
        evidence = EvidenceShares(**content.pop("evidence"))
        views = content.pop("texture_views")
        verdict = content.pop("verdict")
        verdict = Verdict(verdict["score"], verdict["word"], tuple(verdict["findings"]))
        return cls(
            health=health,
            surface=surface,
            files=files,
            broken_limits=broken,
            measures=measures,
            verdict=verdict,
            evidence=evidence,
            texture_views=None if views is None else ViewsReport(**views),
            **content,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "surface": self.surface.to_dict()}

    @property
    def published(self) -> list[str]:
        """Names of all files that belong to the asset, in every format."""
        return [name for made in self.files for name in made["files"]]

    @property
    def notes(self) -> list[str]:
        """Sentences for the user."""
        said = [self.summary, *(f"Over the profile {self.profile}: {text}." for text in self.broken_limits)]
        if self.surface.fell_back:
            said.append(f"The fit was not better than its start: the {self.surface.kept} was kept.")
        if (views := self.surface.views) is not None:
            said.append(
                f"The surface is made of {views.used} of {views.given} photos: they stand evenly around, and more of "
                "them add little. --fit.max-views takes more."
            )
        if (views := self.texture_views) is not None:
            said.append(
                f"The texture is made of {views.used} of {views.given} photos: the others show the same from farther "
                "away, at a flatter angle or less sharply. --mesh.texture-views takes more."
            )
        said.append(f"Verdict: {self.verdict.line}")
        return said


_TYPES: Mapping[str, Any] = {
    "summary": str,
    "health": MeshHealth,
    "profile": str,
    "bytes": int,
    "validator": str,
    "validator_errors": int,
    "validator_warnings": int,
    "files": list[_StoredFile],
    "broken_limits": list[str],
    "measures": AssetMeasures,
    "verdict": Verdict,
    "evidence": EvidenceShares,
    "texture_views": ViewsReport | None,
}
"""Of what ``asset.json`` holds; the surface's report has a reader of its own."""


@dataclass(frozen=True)
class AssetStage:
    """A surface to an asset.

    Args:
        capture: the views that the texture is projected from.
        surface: what is meshed.
        item: name of the files.
        mesh, glb: settings.
        extras: what the GLB carries along.
        generator: named in the files.
    """

    name: ClassVar[str] = "asset"
    version: ClassVar[int] = 11

    capture: StageRun[CaptureFolder]
    surface: StageRun[Surface]
    item: str
    mesh: MeshSettings
    glb: GlbSettings
    extras: dict[str, Any]
    generator: str

    @property
    def key(self) -> list[Any]:
        """The surface, all settings, and the tools that write and check files where those are installed."""
        return [
            self.version,
            self.surface.key,
            settings_as_dict(self.mesh),
            settings_as_dict(self.mesh.limits),
            settings_as_dict(self.glb),
            self.item,
            self.extras,
            self.generator,
            find_khronos_validator() is not None,
            "usdz" in self.glb.formats and has_usd(),
        ]

    def run(self, folder: Path) -> None:
        """Write the GLB and the other formats that are asked for, all checked, the turntable and a summary."""
        surface, views, limits = self.surface.result, self.capture.result.views, self.mesh.limits
        vertices, faces = asset_mesh(surface, limits.max_faces, self.mesh.smoothing)
        most = self.mesh.texture_views
        textured = bake(vertices, faces, views, surface, limits.texture, specular=surface.specular, most_views=most)
        used = len(views) - len(textured.left_out)
        moved = views.metadata.get("normalised_from_world")
        world = None if moved is None else np.array(moved, np.float64)
        photos = {view.name: view.camera for view in views.views if view.origin == "photo"}
        asset = self.placed(to_asset_frame(textured, self.glb, self.extras, self.generator, world, photos))
        # Once each, the GLB first: it is what the job promises.
        exported = [
            export_mesh(
                folder / f"{self.item}.{ending}", asset, self.glb, profile=limits, may_shrink=self.mesh.texture is None
            )
            for ending in dict.fromkeys(("glb", *self.glb.formats))
        ]
        assert textured.evidence is not None
        shares = EvidenceShares.of(textured.evidence, textured.vertices, textured.faces)
        cutout = float(views.metadata.get("cutout_confidence", 1.0))
        measures = measure_asset(vertices, faces, textured.coloured(), shares, views, cutout)
        save_turntables(folder, textured, *self.mesh.turntable)
        coloured_by = None if used == len(views) else ViewsReport(used, len(views))
        report = AssetReport.of(exported, surface, self.mesh.profile, measures, shares, coloured_by)
        (folder / "asset.json").write_text(json.dumps(report.as_dict(), indent=1) + "\n", encoding="utf-8")

    def placed(self, asset: Asset) -> Asset:
        """The asset where it shall stand: as the settings of the export say."""
        return asset

    def load(self, folder: Path) -> AssetReport:
        """The report.

        Raises:
            InputError: it speaks of files that are not there, or that this stage does not write.
        """
        report = AssetReport.read(folder / "asset.json")
        mine = {f"{self.item}.{ending}" for ending in FORMATS} | set(obj_side_files(self.item))
        needed = [*report.published, "turntable.webp", "evidence.webp"]
        odd = next((name for name in report.published if name not in mine), None)
        odd = odd or next((name for name in needed if not (folder / name).is_file()), None)
        if odd is not None or report.files[0]["file"] != f"{self.item}.glb":
            raise InputError(f"speaks of {shown(odd)}, which is no file of this asset", where=folder / "asset.json")
        return report


def turntable_frames(
    mesh: ColouredMesh, frames: int, size: int, elevation_deg: float = 15.0
) -> Iterator[UInt8[np.ndarray, "s s 3"]]:
    """A mesh from all around, filling the frame, without shading (its colours hold the light), on white."""
    shown = mesh.normalised()
    renderer = MeshRenderer(shown, UNLIT, caster=mesh_caster(shown.vertices, shown.faces))

    def frame(k: int) -> UInt8[np.ndarray, "s s 3"]:
        camera = orbit_camera(k * 2 * math.pi / frames, math.radians(elevation_deg), size=size)
        return np.round(over_white(renderer.render(camera).rgba) * 255).astype(np.uint8)

    with ThreadPoolExecutor(2) as pool:  # casting rays leaves the interpreter's lock alone
        yield from pool.map(frame, range(frames))


def save_turntables(folder: Path, mesh: TexturedMesh, size: int, frames: int) -> None:
    """Animated pictures of the asset: ``turntable.webp``, and at half the size ``evidence.webp``."""
    coloured = mesh.coloured()
    save_animation(folder / "turntable.webp", turntable_frames(coloured, frames, size))
    if mesh.evidence is not None:
        colours = np.round(evidence_colours(mesh.evidence)).astype(np.uint8)
        plain = ColouredMesh(coloured.vertices, coloured.faces, vertex_colours=colours)
        save_animation(folder / "evidence.webp", turntable_frames(plain, frames, size // 2))


def save_animation(path: Path, frames: Iterable[UInt8[np.ndarray, "s s 3"]]) -> None:
    """Write frames as an animated WebP."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(path, save_all=True, append_images=others, duration=90, loop=0, quality=80, method=2)
