"""Settings of the surface stages; light to import, so that command lines start at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from recon.profiles import Format
from scene.camera import OBJECT_RADIUS
from scene.errors import SettingsError
from scene.limits import Range, require_length, require_ranges

_WEIGHT, _RATE = (0, 1e6), (0, 1000)
FIT_RANGES: Mapping[str, Range] = {
    "levels": (8, 512),
    "iterations": (0, 100_000),
    "rays": (16, 262_144),
    "image_side": (8, 4096),
    "hull_resolution": (8, 512),
    "half_extent": (0.05, 10),
    "hull_threshold": (0, 1),
    "prior_weight": _WEIGHT,
    "photo_view_weights": _WEIGHT,
    "inv_s": (1e-3, 1e3),
    "sdf_lr": _RATE,
    "colour_pull": (0, 1),
    "colour_lr": _RATE,
    "shading_lr": _RATE,
    "mask_weight": _WEIGHT,
    "eikonal_weight": _WEIGHT,
    "laplacian_weight": _WEIGHT,
    "albedo_tv_weight": _WEIGHT,
    "blur": (0, 64),
    "depth_weight": _WEIGHT,
    "normal_weight": _WEIGHT,
    "background": (0, 1024),
    "max_views": (3, 100_000),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class FitSettings:
    """How a surface is fitted."""

    levels: tuple[int, ...] = (20, 28, 52, 112)
    """Grid sizes, coarse to fine: sides of cubes with as many voxels as the box about the object."""
    iterations: tuple[int, ...] = (600, 600, 400, 400)
    """Steps at each level."""
    rays: int = 6144
    """Rays in a step, from all views."""
    image_side: int = 256
    """Longest side in pixels that pictures are reduced to for the fit (texturing uses them whole)."""
    hull_resolution: int = 96
    """Voxels along each side of the cube in which the masks' common inside is sought."""
    half_extent: float = OBJECT_RADIUS * 1.08
    """Half side of the reconstructed cube, world units."""
    hull_threshold: float | None = None
    """Fraction of the masks that must agree on a voxel; chosen from the masks if not given."""
    prior_weight: float = 2.5
    """Vote of the coarse volume beside that of all views together (only where there is one)."""
    photo_view_weights: tuple[float, float] = (1.0, 1.0)
    """Factors on the weights of photos, mirrored ones too, and of generated views, where there is a coarse volume:
    views generated from it know less of the shape than it does."""
    inv_s: tuple[float, float] = (2.0, 5.0)
    """Inverse deviation of the density, per voxel: at the start of the coarse levels and at the end of the last."""
    sdf_lr: float = 0.25
    """Typical change of the signed distance in a step, in voxels; the last level takes half of it."""
    colour_pull: float = 1.0
    """Share of the colour loss's gradient that bends the surface, where there is a coarse volume. Colours in several
    photos tell its depth; in a single one print cannot be told from relief."""
    colour_lr: float = 0.03
    """Typical change of a colour in a step."""
    shading_lr: float | None = None
    """Typical change of the Lambertian shading in a step; 0 leaves shading in the colours. 0.03 with masks, else 0."""
    mask_weight: float = 0.5
    """Weight of the mask's cross-entropy."""
    eikonal_weight: float = 0.05
    """Weight of the eikonal loss: gradients of distances have length 1."""
    laplacian_weight: float | None = None
    """Weight of the squared Laplacian of the distances, against bending; 0.005 with masks, else 0.05."""
    albedo_tv_weight: float | None = None
    """Weight of the albedo's total variation, whose gradual changes shading explains better; 1 with masks, else 0.1."""
    blur: int = 2
    """Passes of blur over the gradient of the distances, so that neighbours move together."""
    loss_trim_fraction: float = 1.0
    """Fraction of errors, the smallest, that count after the first level; below 1 for views that disagree."""
    depth_weight: float = 1.0
    """Weight of depth maps, where views have them; 0 ignores them."""
    normal_weight: float = 0.1
    """Weight of normal maps, where views have them; 0 ignores them."""
    view_dependence: bool = False
    """Separate specular reflection and exposures from the diffuse colour: for photos of shiny things, with masks."""
    background: tuple[int, int] = (0, 32)
    """Samples in front of and behind the box, for captures without masks. What is in front of the box is free space by
    default: a few views would each paint their own picture there."""
    flat_base: bool = True
    """Close the underside with a plane where all cameras look from above."""
    max_views: int = 100
    """Photos that the surface is fitted to, at most: of more, those that stand evenly around, the sharp ones first."""
    seed: int = 0
    """Seed of the ray draws."""

    def __post_init__(self) -> None:
        if not self.levels or len(self.levels) != len(self.iterations):
            raise SettingsError(
                f"the fit has {len(self.levels)} levels and {len(self.iterations)} numbers of iterations",
                fix="Give each level its number of iterations.",
            )
        if min(self.levels) < 8 or self.rays < 16:
            raise SettingsError("a fit needs grids of at least 8 voxels and steps of at least 16 rays")
        if not (0 <= self.depth_weight < math.inf and 0 <= self.normal_weight < math.inf):
            raise SettingsError("maps cannot have a negative weight", fix="Give 0 to ignore them.")
        if not (
            min(self.photo_view_weights) >= 0 and 0 < self.photo_view_weights[0] < math.inf > self.photo_view_weights[1]
        ):
            raise SettingsError(
                f"photo_view_weights {self.photo_view_weights} are no weights",
                fix="Give the photo more than 0, the others 0 or more.",
            )
        if not 0 < self.loss_trim_fraction <= 1:
            raise SettingsError(
                f"cannot keep {self.loss_trim_fraction:g} of the errors", fix="Give a fraction above 0, up to 1."
            )
        require_length(self, "levels", 16)
        require_ranges(self, FIT_RANGES)

    def filled(self, *, masked: bool) -> FitSettings:
        """The settings with values for what was left open, as suits views with or without masks."""
        # Real rooms and gardens are lit from everywhere, and their textures would pass for shading.
        shading, laplacian, albedo_tv = (0.03, 0.005, 1.0) if masked else (0.0, 0.05, 0.1)
        return replace(
            self,
            shading_lr=shading if self.shading_lr is None else self.shading_lr,
            laplacian_weight=laplacian if self.laplacian_weight is None else self.laplacian_weight,
            albedo_tv_weight=albedo_tv if self.albedo_tv_weight is None else self.albedo_tv_weight,
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
    evidence: Literal["attribute", "none"] = "attribute"
    """Where each vertex's colour comes from (seen, mirrored, generated, invented): a vertex attribute of the GLB."""
    scale: Literal["fit", "capture"] = "fit"
    """fit: the longest side as set; capture: the size that the capture's own units say, taken as metres."""
    with_camera: bool = False
    """Put the photos' cameras into the GLB, for viewers that can stand where a photo was taken."""
    formats: tuple[Format, ...] = ("glb",)
    """Files to write; the GLB always comes with them."""

    def __post_init__(self) -> None:
        if not 0 < self.longest_side < math.inf:
            raise SettingsError(f"an asset cannot be {self.longest_side} m long", fix="Give a positive longest side.")
        if not 1 <= self.jpeg_quality <= 100:
            raise SettingsError(f"JPEG has no quality {self.jpeg_quality}", fix="Give 1 to 100.")
        require_ranges(self, {"longest_side": (1e-3, 1e6), "front_azimuth_deg": (-3600, 3600)})
