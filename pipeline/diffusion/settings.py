"""Settings of the view stages; light to import, so that command lines start at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from scene.framing import DEFAULT_FILL


@dataclass(frozen=True)
class PrepareSettings:
    """How a photo becomes a cut-out."""

    fill: float = DEFAULT_FILL
    """Longest side of the object over the side of the frame."""
    side: int = 512
    """Side of the framed cut-out in pixels (texturing uses it; the model gets a smaller copy)."""


@dataclass(frozen=True)
class SamplingSettings:
    """How views are sampled."""

    steps: int = 20
    """Denoising steps."""
    guidance: float = 1.5
    """Classifier-free guidance; 1 turns it off and halves the work."""
    eta: float = 0.0
    """0 for deterministic DDIM, 1 for ancestral sampling."""
    joint: bool = True
    """Let the views of an object share attention, if the model was trained for it."""
    seed: Annotated[int, tyro.conf.arg(aliases=["--seed"])] = 0
    """Every view's noise follows from this and from its place in the ring."""
