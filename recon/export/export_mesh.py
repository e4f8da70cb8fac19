"""Export of assets: the format by the file's ending, as small as a profile asks; GLBs are checked after writing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recon.export.asset import Asset, asset_health, halved, health_line, jpeg_of, to_asset_frame
from recon.export.glb import glb_of
from recon.export.glb_read import read_glb
from recon.export.obj import obj_files
from recon.export.placement import in_frame, in_size, without_inner_walls
from recon.export.ply import ply_bytes, stl_bytes
from recon.export.usdz import usdz_bytes
from recon.export.validate import GlbReport, validate_glb
from recon.file_frame import PRINTING, AssetSize, FileFrame
from recon.mesh.health import MeshHealth
from recon.profiles import BUDGETED, FORMATS, Format, LimitCheck, Profile, limit_checks, packings
from recon.settings import GlbSettings
from recon.texture.bake import TexturedMesh
from scene.camera import Mat4
from scene.errors import InputError, ViewloomError
from scene.files import written_aside

_Build = Callable[[Asset, bytes, str], dict[str, bytes]]


@dataclass(frozen=True)
class _Writer:
    """How a format is written: files by name, the one that was asked for first.

    Args:
        build: from the asset, its texture and the file's name without ending.
        has_texture: whether the texture goes into the files.
        frame: what its numbers mean unless another is asked for; None where the format itself says it.
    """

    build: _Build
    has_texture: bool
    frame: FileFrame | None = FileFrame()


_WRITERS: Mapping[Format, _Writer] = {
    "glb": _Writer(lambda asset, jpeg, name: {f"{name}.glb": glb_of(asset, jpeg)}, True, None),
    "obj": _Writer(obj_files, True),
    "ply": _Writer(lambda asset, jpeg, name: {f"{name}.ply": ply_bytes(asset)}, False),
    "stl": _Writer(lambda asset, jpeg, name: {f"{name}.stl": stl_bytes(asset)}, False, PRINTING),
    "usdz": _Writer(lambda asset, jpeg, name: {f"{name}.usdz": usdz_bytes(asset, jpeg)}, True, None),
}


@dataclass(frozen=True)
class Exported:
    """An asset that was written.

    Args:
        path: the file that was asked for.
        files: that file and those that belong to it.
        size: bytes of all of them.
        report: what the check of a GLB found; None for other formats.
        health: of the mesh.
        limits: those of the profile, if there is one, and whether they are kept.
        jpeg_quality: what the texture was packed with; None where there is none or it was kept as it stood in a file.
        texture: longer side in pixels; None for formats without a texture.
        inner_walls: of cavities, left out of files for printing.
    """

    path: Path
    files: tuple[Path, ...]
    size: int
    report: GlbReport | None
    health: MeshHealth
    limits: tuple[LimitCheck, ...]
    jpeg_quality: int | None
    texture: int | None
    inner_walls: int = 0

    @property
    def broken_limits(self) -> tuple[str, ...]:
        """A sentence for each limit that is not kept."""
        return tuple(f"{self.path.name} has {check}" for check in self.limits if not check.held)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a job's summary; ``check`` is there for GLBs only."""
        report = self.report
        check = {} if report is None else {"check": report.to_dict()}
        return {
            "file": self.path.name,
            "files": [path.name for path in self.files],
            "bytes": self.size,
            **check,
            "jpeg_quality": self.jpeg_quality,
            "texture": self.texture,
            "limits": {
                check.what: {"limit": check.limit, "value": check.value, "held": check.held} for check in self.limits
            },
        }

    def __str__(self) -> str:
        left = f", {self.inner_walls} inner walls left out" if self.inner_walls else ""
        return f"{self.path.name}: {health_line(self.health)}, {self.size / 1e6:.2f} MB{left}"


def format_of(path: Path) -> Format:
    """The format that a file's ending stands for.

    Raises:
        InputError: no format has this ending.
    """
    for format in FORMATS:
        if path.suffix.lower() == f".{format}":
            return format
    known = ", ".join(f".{format}" for format in FORMATS)
    raise InputError(
        f"no format has the ending {path.suffix!r}" if path.suffix else "has no ending that tells the format",
        where=path,
        fix=f"Choose one of {known}.",
    )


def export_mesh(
    path: Path,
    mesh: TexturedMesh | Asset,
    settings: GlbSettings = GlbSettings(),
    *,
    extras: dict[str, Any] | None = None,
    generator: str = "viewloom",
    normalised_from_world: Mat4 | None = None,
    profile: Profile | None = None,
    may_shrink: bool = True,
    khronos: bool | None = None,
    frame: FileFrame | None = None,
) -> Exported:
    """Write a mesh in the format of the path's ending, check it if it is a GLB, and compare it with a profile.

    What is too large for its profile is packed again with a lower JPEG quality, then with a smaller texture; what is
    too large even then is written all the same, and ``broken_limits`` says so. Files appear when all of them are
    complete (and sound, if it is a GLB), or not at all.

    Args:
        path: the file; OBJ puts its material and texture beside it.
        mesh: in the project's world, or an asset that is placed already; for such a one only the JPEG quality counts.
        settings: placement and packing; its formats do not matter here.
        extras, generator, normalised_from_world: see :func:`recon.export.asset.to_asset_frame`.
        profile: the limits, if there are any.
        may_shrink: whether the texture may be made smaller than it is.
        khronos: see :func:`recon.export.validate.validate_glb`.
        frame: what the file's numbers mean; by default millimetres and +Z up for STL, which only printing uses, and
            metres and +Y up else. GLB and USDZ say theirs themselves and have no other.

    Raises:
        InputError: the ending is unknown, the format has no other frame, or the mesh or the extras cannot be written.
        OutputError: the folder cannot be written, or the disk is full; what was there before is still there.
        ViewloomError: the GLB that was written is not sound.
    """
    format = format_of(path)
    writer = _WRITERS[format]
    asset = (
        mesh if isinstance(mesh, Asset) else to_asset_frame(mesh, settings, extras, generator, normalised_from_world)
    )
    if frame is not None and writer.frame is None:
        raise InputError(
            f"{format.upper()} files are in metres with +Y up by definition",
            where=path,
            fix="Give --units and --up with obj, ply or stl.",
        )
    health, inner = asset_health(asset), 0
    if format == "stl":
        asset, inner = without_inner_walls(asset)
    if writer.frame is not None:
        asset = in_frame(asset, frame or writer.frame)
    whole = max(asset.texture.shape[:2])
    tries = packings(settings.jpeg_quality, whole, profile if format in BUDGETED else None, may_shrink)
    for number, (quality, side) in enumerate(tries):
        kept = number == 0 and asset.jpeg is not None
        jpeg = jpeg_of(asset, quality, side, keep=kept) if writer.has_texture else b""
        files = writer.build(asset, jpeg, path.stem)
        size = sum(map(len, files.values()))
        if profile is None or size <= profile.max_bytes:
            break
    # The ending is kept as the user wrote it.
    files = {path.name: files.pop(next(iter(files))), **files}
    report = _write_checked(path, format, files, khronos)
    if profile is None:
        limits: tuple[LimitCheck, ...] = ()
    else:
        limits = limit_checks(profile, format, len(asset.faces), side if writer.has_texture else None, size)
    return Exported(
        path,
        tuple(path.parent / name for name in files),
        size,
        report,
        health,
        limits,
        quality if writer.has_texture and not kept else None,
        side if writer.has_texture else None,
        inner,
    )


def export_glb(
    source: Path,
    path: Path,
    *,
    profile: Profile | None = None,
    khronos: bool | None = None,
    frame: FileFrame | None = None,
    size: AssetSize = AssetSize(),
) -> Exported:
    """Write a GLB of viewloom's in another format, or in the same one within another profile.

    Args:
        source: the GLB.
        path: the file; its ending says the format.
        profile: the limits, if there are any; a larger texture is reduced to the profile's.
        frame: see :func:`export_mesh`.
        size: how large it becomes.
        khronos: see :func:`recon.export.validate.validate_glb`.

    Raises:
        InputError: the GLB cannot be read, or the ending is unknown.
        OutputError: the file cannot be written.
        ViewloomError: the GLB that was written is not sound.
    """
    format_of(path)
    asset = in_size(read_glb(source), size)
    if profile is not None and max(asset.texture.shape[:2]) > profile.texture:
        asset = replace(asset, texture=halved(asset.texture, profile.texture), jpeg=None)
    return export_mesh(path, asset, profile=profile, khronos=khronos, frame=frame)


def _write_checked(path: Path, format: Format, files: Mapping[str, bytes], khronos: bool | None) -> GlbReport | None:
    """Write files aside, the one that was asked for first, and rename them when all are complete, a GLB if it is sound.

    The other formats are written from the same numbers, which were checked when the asset was placed.
    """
    report = None
    with contextlib.ExitStack() as stack:
        aside = [stack.enter_context(written_aside(path.parent / name)) for name in files]
        for partial, data in zip(aside, files.values(), strict=True):
            partial.write_bytes(data)
        if format == "glb":
            report = validate_glb(aside[0], khronos=khronos)
            if not report.clean:
                raise ViewloomError(f"the exported file is not sound: {'; '.join(report.messages[:3])}", where=path)
    return report
