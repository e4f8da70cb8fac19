"""``viewloom export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from recon.profiles import PROFILES, ProfileName
from viewloom.commands.output import started
from viewloom.commands.parsing import Out


@dataclass(frozen=True)
class Export:
    """Write a GLB as .glb, .obj, .ply, .stl or .usdz.

    The GLB is one that image2mesh or reconstruct wrote. Its texture is taken over as it is, unless a profile asks for
    fewer pixels or bytes.
    """

    mesh: tyro.conf.Positional[Path]
    """The GLB, as image2mesh or reconstruct wrote it."""
    out: Out
    """Output file; its ending says the format."""
    profile: ProfileName | None = None
    """Keep the texture and the file within this profile, and say which of its limits cannot be kept."""
    debug: bool = False
    """Show the traceback of errors."""

    def run(self) -> int:
        """Write the file, and print where it is."""
        with started("export") as reporter:
            from recon.export.export_mesh import export_glb

            profile = None if self.profile is None else PROFILES[self.profile]
            reporter.item(f"{self.mesh} -> {self.out}")
            made = export_glb(self.mesh, self.out, profile=profile)
            reporter.note(str(made))
            for text in made.broken_limits:
                reporter.note(f"Over the profile {self.profile}: {text}.")
        print(made.path)
        return 0
