"""``viewloom image2mesh``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from viewloom.commands.parsing import Formats, with_formats
from viewloom.commands.photos import PhotoCommand


@dataclass(frozen=True)
class Image2Mesh(PhotoCommand):
    """Turn photos into textured GLB files.

    Every photo gets a folder OUT/NAME with NAME.glb, report.html, manifest.json and what the stages made. A second run
    continues where the first stopped.
    """

    format: Formats = None
    """Files to write, such as glb,usdz (--glb.formats); the GLB always comes with them."""

    def run(self) -> int:
        """Run the job and print a line for each photo."""
        settings = self.chosen
        return self.told("image2mesh", replace(settings, glb=with_formats(settings.glb, self.format)), _job)


def _job() -> Callable[..., object]:
    from pipeline.jobs.image2mesh import image2mesh

    return image2mesh
