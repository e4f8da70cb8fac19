"""``viewloom views``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from viewloom.commands.photos import PhotoCommand


@dataclass(frozen=True)
class Views(PhotoCommand):
    """Turn photos into posed views: captures that nerfstudio opens.

    Every photo gets a capture folder OUT/NAME/views; there is no mesh.
    """

    def run(self) -> int:
        """Run the job and print a line for each photo."""
        return self.told("views", self.chosen, _job)


def _job() -> Callable[..., object]:
    from pipeline.jobs.image2mesh import make_views

    return make_views
