"""``viewloom image2mesh``."""

from __future__ import annotations

from dataclasses import dataclass

from viewloom.commands.output import started, summary
from viewloom.commands.photos import PhotoCommand


@dataclass(frozen=True)
class Image2Mesh(PhotoCommand):
    """Turn photos into textured GLB files.

    Every photo gets a folder OUT/NAME with NAME.glb, report.html, manifest.json and what the stages made. A second run
    continues where the first stopped.
    """

    def run(self) -> int:
        """Run the job and print a line for each photo."""
        with started("image2mesh") as reporter:
            from pipeline.jobs.image2mesh import image2mesh

            results = image2mesh(self.photos, self.out, self.chosen, mask=self.mask, reporter=reporter)
        return summary(results, debug=self.debug)
