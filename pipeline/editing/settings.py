"""Settings of edits by diffusion; light to import, so that command lines start at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from qnerf.settings import FieldTrainingSettings, QueryFieldSettings
from scene.limits import Range, require_ranges

Mode = Literal["full", "once", "hard", "none"]
TrajectoryKind = Literal["ddim", "noise", "clean"]
Background = Literal["query", "mask"]

MASACTRL_START = 4 / 50
"""Fraction of the steps after which MasaCtrl reads the original."""

CONSOLIDATE_RANGES: Mapping[str, Range] = {
    "steps": (1, 500),
    "tau": (1, 500),
    "stop": (0, 1),
    "relative_step": (0, 10),
    "shared_from": (0, 500),
    "shared_sides": (1, 512),
    "control_scale": (0, 10),
    "guidance": (0, 1000),
    "start": (1e-3, 1),
    "rows_at_once": (1, 4096),
    "later_steps": (0, 100_000),
    "seed": (0, 2**62),
}


@dataclass(frozen=True)
class ConsolidateSettings:
    """How the views of an edit are denoised and made to agree (QNeRF, arXiv 2402.14792).

    The paper's numbers are not public; where it is silent these are our choice.
    """

    mode: Mode = "full"
    """full: latents follow the queries of a field that is fitted again and again. once: of one field, from the first
    interval. hard: queries are replaced by the field's. none: each view by itself."""
    steps: int = 12
    """Denoising steps, of the inversion too."""
    tau: int = 3
    """Guided steps of an interval, and steps that its look-ahead goes on for."""
    stop: float = 0.7
    """Fraction of the steps after which views are denoised freely: what is left is finer than tokens."""
    overlap: bool = True
    """Throw the latents of a look-ahead away and go back. Without, they are kept: half the work, and only every other
    stretch is guided."""
    relative_step: float = 0.1
    """Length of a gradient step over the deviation of the latents."""
    shared_from: int | None = None
    """First step at which views read keys and values of the original; by default MasaCtrl's 4 of 50, scaled."""
    shared_sides: tuple[int, ...] | None = None
    """Sides of the decoder's token grids where they do; by default the two finest."""
    control_scale: float = 1.0
    """Weight of the ControlNet."""
    guidance: float = 1.0
    """How far to go beyond what the control changes: ``without + guidance (with - without)``. 1 needs one pass."""
    start: float | None = None
    """Noise of the start, as a fraction of the timesteps; what is below 1 keeps the draft's layout. By default all,
    or three tenths where a draft is drawn over."""
    trajectory: TrajectoryKind | None = None
    """The original's latents at each step: of DDIM inversion; noised with one noise, which is exact and free; or clean,
    for editors that were trained so, whose default it is, where others have noise."""
    source_control: bool | None = None
    """Let the original see its own control. By default where one is given, and the editor was trained so."""
    background: Background = "query"
    """query: the whole picture counts, and the field has one query for what lies behind its box. mask: only what the
    masks cover counts."""
    by_share: bool = True
    """Weigh each channel of the queries by how much of it the field explains, and each layer likewise: of the others,
    what differs from view to view is a view's own."""
    rows_at_once: int = 8
    """Rows of the U-Net in a pass; a view takes two, or three with guidance, and no fewer than that are taken."""
    field: QueryFieldSettings = QueryFieldSettings()
    """What the field is made of."""
    training: FieldTrainingSettings = FieldTrainingSettings(steps=100)
    """How it is fitted the first time."""
    later_steps: int = 50
    """Optimiser steps of each later fit, which begins with the field of the one before."""
    seed: int = 0
    """Every view's noise, and the field, follow from this."""

    def __post_init__(self) -> None:
        require_ranges(self, CONSOLIDATE_RANGES)

    @property
    def first_shared(self) -> int:
        """The step from which the original is read."""
        return round(MASACTRL_START * self.steps) if self.shared_from is None else self.shared_from
