"""Settings of the query field; light to import, so that command lines start at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scene.errors import SettingsError
from scene.limits import Range, require_ranges

_WEIGHT, _WIDTH, _RATE = (0, 1e6), (1, 4096), (0, 10)
FIELD_RANGES: Mapping[str, Range] = {
    "levels": (1, 16),
    "features": (1, 16),
    "coarsest": (2, 1024),
    "finest": (2, 4096),
    "log2_size": (3, 24),
    "width": _WIDTH,
    "geometry": _WIDTH,
    "hidden": _WIDTH,
    "density": (1e-4, 100),
    "samples": (1, 1024),
}
TRAINING_RANGES: Mapping[str, Range] = {
    "steps": (0, 100_000),
    "rays": (1, 262_144),
    "grid_rate": _RATE,
    "network_rate": _RATE,
    "final_rate": (0, 1),
    "opacity_weight": _WEIGHT,
    "depth_weight": _WEIGHT,
}


@dataclass(frozen=True)
class QueryFieldSettings:
    """What a query field is made of."""

    levels: int = 8
    """Levels of the hash grid."""
    features: int = 2
    """Features of a vertex of the grid."""
    coarsest: int = 8
    """Vertices along the box's longest side in the first level."""
    finest: int = 64
    """Vertices along the box's longest side in the last level: maps of queries are 64 tokens wide at most."""
    log2_size: int = 15
    """Binary logarithm of the rows of a level."""
    width: int = 64
    """Of the layer over the grid's features."""
    geometry: int = 128
    """Features that come with the density."""
    hidden: int = 128
    """Width of the layer that all heads share."""
    density: float = 3.0
    """Density at the start, per longest side of the box."""
    background: bool = True
    """Let each layer have one query for what lies behind the box; without, what is not opaque renders as the mean."""
    samples: int = 16
    """Samples along a ray's way through the box."""

    def __post_init__(self) -> None:
        require_ranges(self, FIELD_RANGES)
        if self.finest < self.coarsest:
            raise SettingsError(
                f"a grid cannot grow from {self.coarsest} to {self.finest} vertices", fix="Give coarsest <= finest."
            )


@dataclass(frozen=True)
class FieldTrainingSettings:
    """How a query field is fitted to the queries of one step of denoising."""

    steps: int = 150
    """Optimiser steps."""
    rays: int = 512
    """Rays in a step, from all views."""
    grid_rate: float = 0.1
    """Step of the grid's table and of the background queries (Adam)."""
    network_rate: float = 1e-2
    """Step of networks and heads (Adam)."""
    final_rate: float = 0.1
    """Fraction of both steps that is left in the end; they fall exponentially."""
    robust: bool = False
    """Huber's loss in place of the squared error: queries that few views contradict count less."""
    opacity_weight: float = 0.0
    """Weight of the rays' opacity against the masks (only where there are masks)."""
    depth_weight: float = 0.0
    """Weight of where a ray ends against depths (only where there are depths)."""

    def __post_init__(self) -> None:
        require_ranges(self, TRAINING_RANGES)
