"""``viewloom views``."""

from __future__ import annotations

from dataclasses import dataclass

from viewloom.commands.output import Results, started
from viewloom.commands.photos import PhotoCommand


@dataclass(frozen=True)
class Views(PhotoCommand):
    """Turn photos into posed views: captures that nerfstudio opens.

    Every photo gets a capture folder OUT/NAME/views; there is no mesh.
    """

    def run(self) -> int:
        """Run the job and print a line for each photo."""
        results = Results(self.shown)
        with started("views", self.shown) as reporter:
            from pipeline.jobs.image2mesh import make_views

            make_views(
                self.photos,
                self.out,
                self.chosen,
                mask=self.mask,
                reporter=reporter,
                busy=self.busy,
                overwrite=self.overwrite,
                done=results.add,
            )
        return results.exit_code()
