"""Settings of the surface stages; light to import, so that command lines start at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from recon.profiles import Format
from scene.camera import OBJECT_RADIUS
from scene.errors import SettingsError


@dataclass(frozen=True)
class FitSettings:
    """How a surface is fitted."""

    resolution: int = 96
    """Voxels along each side of the final grid."""
    levels: tuple[int, ...] = (32, 64, 96)
    """Grid sizes of the learned change, coarse to fine."""
    iterations: tuple[int, ...] = (60, 60, 60)
    """Steps at each level."""
    rays: int = 4096
    """Rays in a step, from all views."""
    samples: int = 24
    """Sections along a ray."""
    image_side: int = 192
    """Longest side that pictures are reduced to for the fit (texturing uses them whole)."""
    half: float = OBJECT_RADIUS * 1.08
    """Half side of the reconstructed cube, world units."""
    vote: float | None = None
    """Share of the masks that must agree on a voxel; chosen from the masks if not given."""
    prior_weight: float = 2.5
    """Vote of the coarse volume beside that of all views together (only where there is one)."""
    sharpness: tuple[float, float] = (5.0, 12.0)
    """First and last inverse deviation of the density, per voxel. A softer start moves faster but shrinks outlines."""
    step: float = 0.1
    """Largest change of the signed distance in a step, in voxels."""
    mask_weight: float = 1.0
    """Weight of the mask loss."""
    eikonal: float = 0.1
    """Weight that keeps distances distances."""
    smooth: float = 0.02
    """Weight against roughness of the learned change."""
    keep: float = 0.8
    """Share of the smallest colour errors that count, after the first level."""
    seed: int = 0
    """Seed of the ray draws."""

    def __post_init__(self) -> None:
        if not self.levels or len(self.levels) != len(self.iterations):
            raise SettingsError(
                f"the fit has {len(self.levels)} levels and {len(self.iterations)} numbers of iterations",
                fix="Give each level its number of iterations.",
            )


@dataclass(frozen=True)
class GlbSettings:
    """How the asset is placed and packed."""

    longest_side: float = 0.3
    """Longest side of the asset's bounding box in metres."""
    front_azimuth_deg: float = 0.0
    """The side of the world that shall face +Z; the photo's camera stands at azimuth 0."""
    jpeg_quality: int = 90
    """Quality of the texture; where the file would be larger than its profile allows, 80 at most."""
    unlit: bool = False
    """Show colours as they are (KHR_materials_unlit) instead of reacting to the scene's light."""
    formats: tuple[Format, ...] = ("glb",)
    """Files to write; the GLB always comes with them."""

    def __post_init__(self) -> None:
        if not 0 < self.longest_side < math.inf:
            raise SettingsError(f"an asset cannot be {self.longest_side} m long", fix="Give a positive longest side.")
        if not 1 <= self.jpeg_quality <= 100:
            raise SettingsError(f"JPEG has no quality {self.jpeg_quality}", fix="Give 1 to 100.")
