"""Settings of the view stages; light to import, so that command lines start at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from scene.errors import SettingsError
from scene.framing import DEFAULT_FILL

Precision = Literal["float32", "float16", "bfloat16"]
Memory = Literal["low", "normal", "high"]
PoseEntry = Literal["auto", "radius", "polar"]
CutoutWay = Literal["auto", "rembg", "nano", "grabcut"]


@dataclass(frozen=True)
class PrepareSettings:
    """How a photo becomes a cut-out."""

    fill: float = DEFAULT_FILL
    """Longest side of the object over the side of the frame."""
    side: int = 512
    """Side of the framed cut-out in pixels (texturing uses it; the model gets a smaller copy)."""
    cutout: CutoutWay = "auto"
    """What finds the object in photos without alpha or mask: rembg, the nano segmenter, or colours (GrabCut).
    By default the first of these that is there and finds one."""

    def __post_init__(self) -> None:
        if not 0 < self.fill <= 1:
            raise SettingsError(f"an object cannot fill {self.fill} of its frame", fix="Give a fill above 0, up to 1.")
        if self.side < 16:
            raise SettingsError(f"a frame of {self.side} pixels holds nothing", fix="Give a side of 16 at least.")


@dataclass(frozen=True)
class SamplingSettings:
    """How views are sampled."""

    steps: int = 14
    """Denoising steps."""
    guidance: float = 1.5
    """Classifier-free guidance; 1 turns it off and halves the work."""
    strength: float = 0.65
    """How noisy the start is: 1 is noise alone, less is the noised picture of the coarse volume."""
    coarse_colours: bool = True
    """Take broad colours from the coarse volume's picture, which keeps the photo's; details stay as sampled."""
    eta: float = 0.0
    """0 for deterministic DDIM, 1 for ancestral sampling."""
    joint: bool = True
    """Let the views of an object share attention, if the model was trained for it."""
    seed: Annotated[int, tyro.conf.arg(aliases=["--seed"])] = 0
    """Every view's noise follows from this and from its place in the ring."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingsError(f"views cannot be sampled in {self.steps} steps", fix="Give one step at least.")
        if not 0 <= self.guidance < math.inf:
            raise SettingsError(f"a guidance of {self.guidance} means nothing", fix="Give 0 or more; 1 turns it off.")
        if not 0 < self.strength <= 1:
            raise SettingsError(f"a strength of {self.strength} means nothing", fix="Give a value above 0, up to 1.")
        if not 0 <= self.eta <= 1:
            raise SettingsError(f"an eta of {self.eta} means nothing", fix="Give a value from 0 to 1.")
