"""``viewloom export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from recon.file_frame import PRINTING, AssetSize, FileFrame, Point, Unit, Up
from recon.profiles import PROFILES, ProfileName
from recon.settings import GlbSettings
from scene.errors import InputError, OutputError, SettingsError
from scene.files import is_same_place
from viewloom.commands.output import Shown, ShownFlags, started
from viewloom.commands.parsing import Formats, Overwrite, OwnOut, with_formats


@dataclass(frozen=True)
class Export:
    """Write a GLB as .glb, .obj, .ply, .stl or .usdz.

    The GLB is one that image2mesh or reconstruct wrote. Its texture is taken over as it is, unless a profile asks for
    fewer pixels or bytes.
    """

    mesh: tyro.conf.Positional[Path]
    """The GLB, as image2mesh or reconstruct wrote it."""
    out: OwnOut = None
    """Output file, whose ending says the format; or, with --format, a folder: that of the GLB by default."""
    format: Formats = None
    """Formats to write, such as usdz,obj."""
    profile: Annotated[ProfileName | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Keep the texture and the file within this profile, and say which of its limits cannot be kept."""
    units: Annotated[Unit | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Unit of lengths in OBJ, PLY (m by default) and STL (mm by default, as slicers take it)."""
    up: Annotated[Up | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Axis that points upwards in OBJ, PLY (y by default) and STL (z by default)."""
    longest_side: Annotated[float | None, tyro.conf.arg(metavar="METRES", help_behavior_hint="")] = None
    """Make its longest side so long."""
    scale: Annotated[Literal["capture"] | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Give it the size that the capture's own units say, taken as metres."""
    length: Annotated[
        tuple[str, str, float] | None, tyro.conf.arg(metavar="X,Y,Z X,Y,Z METRES", help_behavior_hint="")
    ] = None
    """Two points in the capture's world and their true distance: gives it its true size."""
    overwrite: Overwrite = False
    """Replace a material or a texture that lies there and belongs to another OBJ."""
    shown: ShownFlags = Shown()
    """How much is said."""

    def run(self) -> int:
        """Write the file, and print where it is."""
        targets, written = self.targets, list[Path]()
        size = AssetSize(self.longest_side, self.scale is not None, self.points)
        frames = {target: self.frame_of(target) for target in targets}
        with started("export", self.shown) as reporter:
            from recon.export.export_mesh import export_glb
            from recon.export.obj import obj_side_files

            for target in targets:
                beside = obj_side_files(target.stem) if target.suffix.lower() == ".obj" else ()
                taken = next((path for name in beside if (path := target.parent / name).exists()), None)
                if taken is not None and not target.exists() and not self.overwrite:
                    raise OutputError(
                        f"belongs to something else than {target.name}, which would replace it",
                        where=taken,
                        fix="Choose another name, or give --overwrite.",
                    )

            profile = None if self.profile is None else PROFILES[self.profile]
            for target in targets:
                reporter.item(f"{self.mesh} -> {target}")
                made = export_glb(self.mesh, target, profile=profile, frame=frames[target], size=size)
                written += made.files
                reporter.note(str(made))
                for text in made.broken_limits:
                    reporter.note(f"Over the profile {self.profile}: {text}.")
        # OBJ has a material and a texture beside it, which must stay there.
        for path in written:
            print(path)
        return 0

    def frame_of(self, target: Path) -> FileFrame | None:
        """What the numbers in a file mean, if it was said."""
        if self.units is None and self.up is None:
            return None
        usual = PRINTING if target.suffix.lower() == ".stl" else FileFrame()
        return FileFrame(self.units or usual.unit, self.up or usual.up)

    @property
    def points(self) -> tuple[Point, Point, float] | None:
        """What ``--length`` says.

        Raises:
            SettingsError: its points are none.
        """
        if self.length is None:
            return None
        first, second, metres = self.length
        return _point(first), _point(second), metres

    @property
    def targets(self) -> tuple[Path, ...]:
        """The files to write.

        Raises:
            InputError: nothing says which, or they would replace the GLB that is read.
        """
        if self.format is None:
            if self.out is None:
                raise InputError("nothing says what to write", fix="Give a file with -o, or formats with --format.")
            return (self.out,)
        folder = self.mesh.parent if self.out is None else self.out
        formats = with_formats(GlbSettings(), self.format).formats
        targets = tuple(folder / f"{self.mesh.stem}.{ending}" for ending in formats)
        if any(is_same_place(target, self.mesh) for target in targets):
            raise InputError("would replace the file that is read", where=self.mesh, fix="Give a folder with -o.")
        return targets


def _point(text: str) -> Point:
    try:
        x, y, z = map(float, text.split(","))
    except ValueError as error:
        raise SettingsError(f"--length: {text!r} is no point", fix="Give three numbers, such as 0,0.1,-2.") from error
    return x, y, z
