"""Settings of the view stages; light to import, so that command lines start at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scene.errors import SettingsError
from scene.framing import DEFAULT_FILL
from scene.limits import Range, require_ranges

Precision = Literal["float32", "float16", "bfloat16"]
Memory = Literal["low", "normal", "high"]
PoseEntry = Literal["auto", "radius", "polar"]
CutoutWay = Literal["auto", "rembg", "nano", "grabcut"]
Filtering = Literal["zero-to-hero", "amf", "none"]
Pool = Literal["min", "mean", "ema", "none"]

_TIMES = (0, 100_000)
FILTER_RANGES: Mapping[str, Range] = {
    "passes": (1, 100),
    "resample": _TIMES,
    "in_step": _TIMES,
    "cross_step": _TIMES,
    "alpha_current": (0, 1),
    "alpha_history": (0, 1),
    "alpha_pool": (0, 1),
    "amf_sides": (1, 4096),
    "heads_at_once": (1, 4096),
    "buffer_gb": (0, 1e5),
}

ALIGN_RANGES: Mapping[str, Range] = {
    "iterations": (1, 10),
    "samples": (1, 64),
    "half_width": (1e-3, 2),
    "nearest": (1, 256),
}


@dataclass(frozen=True)
class PrepareSettings:
    """How a photo becomes a cut-out."""

    fill: float = DEFAULT_FILL
    """Longest side of the object over the side of the frame."""
    side: int = 1024
    """Side of the framed cut-out in pixels at most (texturing uses it; the model gets a smaller copy). It is as large
    as the photo itself, but 512 at least."""
    cutout: CutoutWay = "auto"
    """What finds the object in photos without alpha or mask: rembg, the nano segmenter, or colours (GrabCut).
    By default the first of these that is there and finds one."""

    def __post_init__(self) -> None:
        if not 0 < self.fill <= 1:
            raise SettingsError(f"an object cannot fill {self.fill} of its frame", fix="Give a fill above 0, up to 1.")
        if self.side < 16:
            raise SettingsError(f"a frame of {self.side} pixels holds nothing", fix="Give a side of 16 at least.")
        require_ranges(self, {"side": (16, 4096)})


@dataclass(frozen=True)
class FusionSampling:
    """How ViewFusion draws views."""

    steps: int = 50
    """From noise to view, spread over the levels of the training; as many as there are levels is the published way."""
    eta: float = 0.0
    """0 for deterministic steps, 1 for ancestral ones."""
    seed: int = 0
    """Of the noise."""
    rows: int = 64
    """Pictures that go through the network at once."""
    keep_weights: int = 3
    """In how many of the steps it is noted what each photo counts."""

    def __post_init__(self) -> None:
        ranges: dict[str, Range] = {"steps": (1, 100_000), "eta": (0, 1), "seed": (-(2**62), 2**62)}
        require_ranges(self, {**ranges, "rows": (1, 100_000), "keep_weights": (0, 1000)})


@dataclass(frozen=True)
class AlignSettings:
    """How views are decoded once more, along a draft of the surface."""

    iterations: int = 1
    """How often: each time a draft is fitted to the views before."""
    samples: int | None = None
    """Points of each ray about the draft that layers read; as they were trained if not given."""
    half_width: float | None = None
    """Half of the interval about the draft that these points cover, in units of the object's radius; as trained if not
    given."""
    nearest: int | None = None
    """Other views that are read, of layers that read any; as trained if not given."""
    colours: bool = True
    """Lay the broad colours of the views before over those that are decoded anew."""
    reduce: bool = False
    """Views without latents that are larger than the model's pictures are encoded all the same, reduced to its size."""

    def __post_init__(self) -> None:
        require_ranges(self, ALIGN_RANGES)


@dataclass(frozen=True)
class ZeroToHeroSettings:
    """The numbers of Zero-to-Hero (arXiv 2405.18677).

    Timesteps are the paper's, for 1000 of them and 32x32 latents; for other processes and latents those of the same
    meaning are taken (:func:`pipeline.diffusion.denoising.schedule.equivalent_timestep`). Ranges are from a
    timestep, to one.
    """

    hourglass: bool = True
    """Space the steps by bounds and counts; else evenly, as many as without."""
    bounds: tuple[int, int, int, int] = (0, 200, 800, 1000)
    """Ends of the late, middle and early stage."""
    counts: tuple[int, int, int] = (10, 6, 10)
    """Steps in the late, middle and early stage."""
    timesteps: tuple[int, ...] | None = None
    """The model's own timesteps, falling, in place of all spacing."""
    passes: int = 5
    """Passes of the U-Net at each resampled step; 1 turns resampling off."""
    resample: tuple[int, int] = (800, 1000)
    """Range of resampling."""
    amf: bool = True
    """Filter attention maps."""
    pool: Pool = "min"
    """How the maps of the passes of a step are pooled."""
    in_step: tuple[int, int] = (800, 1000)
    """Range of that."""
    cross_step: tuple[int, int] = (600, 1000)
    """Range in which maps are blended with those of earlier steps."""
    alpha_current: float = 0.2
    """Weight of a step's own map in that blend."""
    alpha_history: float = 0.5
    """Weight of a step's blended map in the history that the next step meets."""
    alpha_pool: float = 0.5
    """Weight of a pass's own map where the pool is ema."""
    amf_accumulate: Literal["blended", "raw"] = "blended"
    """Whether passes are pooled with maps after or before the blend with earlier steps."""
    amf_rows: Literal["all", "target"] = "all"
    """Whether the map of a source row is filtered too."""
    amf_cfg: Literal["both", "cond"] = "both"
    """Whether the maps of guidance's unconditional call are filtered too."""
    amf_sides: tuple[int, ...] | None = None
    """Sides of the token grids that are filtered; all up to 32 by default."""
    msa: bool = True
    """Let views read the source's keys and values in place of their own, early on."""
    msa_range: tuple[int, int] = (600, 1000)
    """Range of that; the paper has 700 for the first Zero123."""
    msa_levels: int = 2
    """Levels of the decoder where it happens, from the finest."""
    msa_cfg: Literal["both", "cond"] = "both"
    """Whether views read the source in guidance's unconditional call too; models with a clean source row see a blank
    there."""
    keep_source_row: bool = False
    """Go on denoising the source after that range; no view reads it then."""
    reset_history_on_msa_end: bool = True
    """Forget earlier steps' maps of layers in which views read the source, when that ends."""
    share_init_noise: bool = False
    """Start all rows of an object from the same noise."""
    share_renoise: bool = False
    """Resample all rows of an object with the same noise."""
    half: bool = False
    """Keep maps in half precision: half the memory."""
    heads_at_once: int | None = 1
    """Heads whose maps are made at a time; None for all. Few need less memory, and on a CPU less time too."""
    buffer_gb: float = 8.0
    """Memory that kept maps may fill; more is an error."""

    def __post_init__(self) -> None:
        rises = all(a < b for a, b in zip(self.bounds, self.bounds[1:]))
        if not rises or self.bounds[0] < 0 or min(self.counts) < 0 or sum(self.counts) < 1:
            raise SettingsError(
                f"bounds {self.bounds} with {self.counts} steps make no schedule",
                fix="Give rising bounds from 0 to 1000, and a step in one of the stages at least.",
            )
        for name in ("resample", "in_step", "cross_step", "msa_range"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise SettingsError(f"{name} {low} {high} is no range", fix="Give the lower timestep first.")
        for name in ("alpha_current", "alpha_history", "alpha_pool"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} {getattr(self, name)} is no weight", fix="Give a value from 0 to 1.")
        if self.passes < 1 or self.msa_levels < 0 or (self.heads_at_once is not None and self.heads_at_once < 1):
            raise SettingsError(
                "passes and heads_at_once must be 1 at least, and msa_levels 0",
                fix="Leave out what you do not want to change.",
            )
        if self.timesteps is not None and (
            not self.timesteps or any(a <= b for a, b in zip(self.timesteps, self.timesteps[1:]))
        ):
            raise SettingsError("timesteps must fall", fix="Give the noisiest first.")
        require_ranges(self, {**FILTER_RANGES, "bounds": _TIMES, "counts": (0, 1000)})
        require_ranges(self, {"msa_range": _TIMES, "msa_levels": (0, 16)})


@dataclass(frozen=True)
class ControlNetFilterSettings:
    """Resampling and attention map filtering in a text-to-image pipeline with a ControlNet.

    Fields are those of :class:`ZeroToHeroSettings`. The paper gives ranges and passes; it only says that history weighs
    less here, so the weights are our choice.
    """

    passes: int = 5
    """Passes of the U-Net and the ControlNet at each resampled step."""
    resample: tuple[int, int] = (700, 1000)
    """Range of resampling."""
    pool: Pool = "min"
    """How the maps of the passes of a step are pooled."""
    in_step: tuple[int, int] = (700, 1000)
    """Range of that."""
    cross_step: tuple[int, int] = (700, 1000)
    """Range in which maps are blended with those of earlier steps."""
    alpha_current: float = 0.5
    """Weight of a step's own map in that blend."""
    alpha_history: float = 0.5
    """Weight of a step's blended map in the history that the next step meets."""
    alpha_pool: float = 0.5
    """Weight of a pass's own map where the pool is ema."""
    amf_accumulate: Literal["blended", "raw"] = "blended"
    """Whether passes are pooled with maps after or before the blend with earlier steps."""
    amf_cfg: Literal["both", "cond"] = "both"
    """Whether the maps of guidance's unconditional rows are filtered too; cond needs guidance to be on."""
    amf_sides: tuple[int, ...] | None = None
    """Sides of the token grids that are filtered; all up to 32 by default, which leaves out the finest of SD."""
    half: bool = False
    """Keep maps in half precision."""
    heads_at_once: int | None = 1
    """Heads whose maps are made at a time; None for all."""
    buffer_gb: float = 8.0
    """Memory that kept maps may fill; more is an error."""
    reference_size: int = 64
    """Side of the latents for which the ranges are stated."""

    def __post_init__(self) -> None:
        require_ranges(self, {**FILTER_RANGES, "reference_size": (1, 4096)})


@dataclass(frozen=True)
class SamplingPlan:
    """How a checkpoint is sampled; ``sampling`` in its index may ask for a way of its own.

    Args:
        steps: denoising steps.
        guidance: classifier-free guidance; 1 for none.
        strength: noise of the start, in (0, 1]; 1 for noise alone.
    """

    steps: int = 14
    guidance: float = 1.5
    strength: float = 1.0


@dataclass(frozen=True)
class SamplingSettings:
    """How views are sampled."""

    steps: int | None = None
    """Denoising steps. Without steps, guidance and strength those that the checkpoint asks for; else 14 by default."""
    guidance: float | None = None
    """Classifier-free guidance; 1 turns it off and halves the work. By default 1.5, or what the checkpoint asks for."""
    strength: float | None = None
    """How noisy the start is: 1 is noise alone, less is the noised render of the coarse volume. By default 0.35, or
    what the checkpoint asks for, and 1 with filtering, whose steps are the noisy ones."""
    coarse_colours: bool = True
    """Take low-frequency colours from the coarse volume's render, which keeps the photo's; details stay as sampled."""
    eta: float = 0.0
    """0 for deterministic DDIM, 1 for ancestral sampling."""
    joint: bool = True
    """Let the views of an object share attention, if the model was trained for it."""
    seed: int = 0
    """Every view's noise follows from this and from its place in the ring."""
    filtering: Filtering = "none"
    """zero-to-hero: that method, with steps of its own; amf: its resampling and filtering only, on the usual steps."""
    zero_to_hero: ZeroToHeroSettings = ZeroToHeroSettings()
    """The numbers of either."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise SettingsError(f"views cannot be sampled in {self.steps} steps", fix="Give one step at least.")
        if self.guidance is not None and not 0 <= self.guidance < math.inf:
            raise SettingsError(f"a guidance of {self.guidance} means nothing", fix="Give 0 or more; 1 turns it off.")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise SettingsError(f"a strength of {self.strength} means nothing", fix="Give a value above 0, up to 1.")
        if not 0 <= self.eta <= 1:
            raise SettingsError(f"an eta of {self.eta} means nothing", fix="Give a value from 0 to 1.")
        require_ranges(self, {"steps": (1, 1000), "guidance": (0, 1000), "seed": (-(2**63), 2**63 - 1)})

    def plan(self, own: SamplingPlan | None = None) -> SamplingPlan:
        """Steps, guidance and strength: as given, or what suits.

        Args:
            own: what the checkpoint asks for; used if none of the three is given and nothing is filtered.
        """
        if own is not None and self.filtering == "none" and (self.steps, self.guidance, self.strength) == (None,) * 3:
            return own
        usual = SamplingPlan(strength=0.35 if self.filtering == "none" else 1.0)
        return SamplingPlan(
            usual.steps if self.steps is None else self.steps,
            usual.guidance if self.guidance is None else self.guidance,
            usual.strength if self.strength is None else self.strength,
        )
