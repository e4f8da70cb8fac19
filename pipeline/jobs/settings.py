"""Settings of the jobs; light to import, so that command lines start at once."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.diffusion.settings import (
    AlignSettings,
    FusionSampling,
    Memory,
    PoseEntry,
    Precision,
    PrepareSettings,
    SamplingSettings,
)
from pipeline.editing.settings import ConsolidateSettings
from recon.profiles import PROFILES, Profile, ProfileName
from recon.settings import FitSettings, GlbSettings
from scene.errors import SettingsError
from scene.limits import require_length, require_ranges

Busy = Literal["refuse", "wait"]
"""What a job does whose folder is busy with another one."""
_MOST_VIEWS = 256
"""Of all rings."""


@dataclass(frozen=True)
class RingSettings:
    """Where the generated views stand: rings of cameras around the object."""

    views: tuple[int, ...] = (8, 6, 2)
    """Views on each ring."""
    elevations_deg: tuple[float, ...] = (10.0, 40.0, -20.0)
    """Elevation of each ring."""
    offsets_deg: tuple[float, ...] = (22.5, 0.0, 90.0)
    """Azimuth of each ring's first view, from the photo."""

    def __post_init__(self) -> None:
        if not self.views or not len(self.views) == len(self.elevations_deg) == len(self.offsets_deg):
            raise SettingsError(
                f"there are {len(self.views)} rings with {len(self.elevations_deg)} elevations and "
                f"{len(self.offsets_deg)} offsets",
                fix="Give each ring its number of views, its elevation and its offset.",
            )
        if min(self.views) < 1:
            raise SettingsError(f"a ring cannot have {min(self.views)} views", fix="Give each ring one view at least.")
        if not all(abs(angle) <= 90 for angle in self.elevations_deg):
            raise SettingsError(
                f"rings cannot stand at {self.elevations_deg} degrees", fix="Give elevations from -90 to 90."
            )
        if not all(math.isfinite(angle) for angle in self.offsets_deg):
            raise SettingsError(f"rings cannot be turned by {self.offsets_deg} degrees", fix="Give finite offsets.")
        require_length(self, "views", 16)
        require_ranges(self, {"views": (1, 128), "offsets_deg": (-3600, 3600)})
        if sum(self.views) > _MOST_VIEWS:
            raise SettingsError(f"{sum(self.views)} views are too many", fix=f"Give {_MOST_VIEWS} in all at most.")


Symmetry = Literal["auto", "none"] | float
"""What to do about an object's symmetry; a number is the azimuth of the plane's normal, degrees."""


@dataclass(frozen=True)
class ViewsSettings:
    """How views are made from a photo."""

    weights: Path | None = None
    """Checkpoint: a folder, a file, or owner/name on the Hugging Face hub; the embedded nano model by default."""
    pose: PoseEntry = "auto"
    """Last number of Zero123's poses: radius, or polar for Stable Zero123; auto goes by the checkpoint's name."""
    elevation_deg: float | None = None
    """Elevation of the photo's camera above the horizon; predicted by default."""
    symmetry: Symmetry = "auto"
    """Vertical symmetry plane in which the photo is mirrored for the other side: none, or the azimuth of its normal in
    degrees from the photo's camera, counter-clockwise from above: 0 for an object in profile, 40 for one that looks to
    the left of the picture and towards the camera. auto uses a plane that is certain; of others it names the likeliest.
    """
    rings: RingSettings = RingSettings()
    """Where the views stand."""
    sampling: SamplingSettings = SamplingSettings()
    """How they are sampled."""
    photo_weight: float = 1.0
    """Confidence in the photo itself."""
    front_weight: float = 0.8
    """Confidence in generated views next to the photo."""
    back_weight: float = 0.5
    """Confidence in generated views opposite to it."""

    def __post_init__(self) -> None:
        if self.elevation_deg is not None and not -90 <= self.elevation_deg <= 90:
            raise SettingsError(
                f"a camera cannot stand {self.elevation_deg:g} degrees above the horizon",
                fix="Give an elevation from -90 to 90.",
            )
        if not isinstance(self.symmetry, str):
            if not math.isfinite(self.symmetry):
                raise SettingsError(f"{self.symmetry:g} is no heading of a symmetry plane", fix="Give degrees.")
            # Opposite normals are one plane.
            object.__setattr__(self, "symmetry", float(self.symmetry % 180))
        for name in ("photo_weight", "front_weight", "back_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(
                    f"{name} {getattr(self, name):g} is no weight", fix="Give 0 or more; 1 is full confidence."
                )
        require_ranges(self, dict.fromkeys(("photo_weight", "front_weight", "back_weight"), (0, 1e6)))


@dataclass(frozen=True)
class MeshSettings:
    """How the surface becomes an asset."""

    profile: ProfileName = "standard"
    """Triangles, texture side and file size: draft 6,000, 512, 1 MB; photo 12,000, 1024, 3 MB (what one photo's views
    hold); lite 20,000, 1024, 3 MB; standard 50,000, 2048, 5 MB; high 100,000, 2048, 10 MB."""
    max_faces: int | None = None
    """Triangles at most; the profile's if not given."""
    texture: int | None = None
    """Texture side in pixels, a power of two; the profile's if not given, and then less where the file is too large."""
    smoothing: int = 6
    """Rounds of Taubin smoothing."""
    texture_views: int = 100
    """Photos that the texture is made from, at most: of more, those that together show the surface best."""
    turntable: tuple[int, int] = (512, 48)
    """Side in pixels and number of frames of the turning picture in the report."""

    def __post_init__(self) -> None:
        if self.max_faces is not None and self.max_faces < 4:
            raise SettingsError(f"a solid cannot have {self.max_faces} triangles", fix="Allow 4 max_faces at least.")
        if self.texture is not None and self.texture < 16:
            raise SettingsError(f"a texture of {self.texture} pixels holds nothing", fix="Give 16 pixels at least.")
        if self.texture is not None and self.texture & (self.texture - 1):
            below = 1 << (self.texture.bit_length() - 1)
            raise SettingsError(
                f"a texture of {self.texture} pixels is no power of two, which viewers ask for",
                fix=f"Give {below} or {2 * below}.",
            )
        if self.smoothing < 0:
            raise SettingsError(f"a mesh cannot be smoothed {self.smoothing} times", fix="Give 0 for no smoothing.")
        if self.turntable[0] < 32 or self.turntable[1] < 2:
            raise SettingsError(
                f"a turntable of {self.turntable[0]} pixels and {self.turntable[1]} frames shows nothing",
                fix="Give 32 pixels and 2 frames at least.",
            )
        require_ranges(
            self,
            {
                "max_faces": (4, 5_000_000),
                "texture": (16, 8192),
                "smoothing": (0, 1000),
                "texture_views": (3, 100_000),
                "turntable": (2, 2048),
            },
        )

    @property
    def limits(self) -> Profile:
        """The profile, with what was given in place of its own."""
        chosen = PROFILES[self.profile]
        return dataclasses.replace(
            chosen,
            max_faces=chosen.max_faces if self.max_faces is None else self.max_faces,
            texture=chosen.texture if self.texture is None else self.texture,
        )


Corners = tuple[float, float, float, float, float, float]
MaskSource = Literal["auto", "object", "ignore", "given", "background", "none"]
UpAxis = Literal["auto", "+x", "-x", "+y", "-y", "+z", "-z"]
CaptureFormat = Literal[
    "auto",
    "nerfstudio",
    "cameras_json",
    "neus",
    "middlebury",
    "projections",
    "bundler",
    "colmap",
    "gaussians",
    "metashape",
    "realitycapture",
    "realitycapture_xmp",
    "polycam",
    "record3d",
    "opensfm",
    "meshroom",
    "openmvg",
    "sdfstudio",
    "nvm",
    "mvsnet",
    "llff",
    "predictions",
    "named",
]

GENERATED_FIT = FitSettings(
    levels=(24, 48, 80),
    iterations=(80, 80, 80),
    rays=4096,
    prior_weight=30.0,
    photo_view_weights=(8.0, 0.1),
    laplacian_weight=0.03,
    shading_lr=0.0,
    colour_pull=0.0,
)
"""With a coarse volume, the shape is the volume's, made to agree with the photo's outline; generated views hardly bend
it, and colours do not."""


@dataclass(frozen=True)
class CaptureSettings:
    """How a capture is read."""

    masks: MaskSource = "auto"
    """auto: the capture's own masks, else a uniform background's, else none. Without, a background is modelled. object
    and ignore say what the capture's own mean: outlines of the object (given is the same), or, where they are black,
    what is not to be looked at, such as a passer-by; auto goes by how they lie in the pictures."""
    up: UpAxis = "auto"
    """Axis of the capture's world that points up; auto is what its file says, unless the cameras agree on another, or
    what the cameras tell."""
    format: CaptureFormat = "auto"
    """Which of several descriptions of the cameras is read; by default the first that can be."""
    bounds: Corners | None = None
    """Region of interest in the capture's world (z up): x, y, z of one corner, then of the other; found by default."""
    check: bool = True
    """Look for blurred, over-exposed, badly masked, turned and missing views first, and say what was found."""
    turn: bool = True
    """Turn pictures that the check finds stored upside down, or on one side, against their cameras. Needs masks."""

    def __post_init__(self) -> None:
        if self.bounds is not None and not all(
            a < b and math.isfinite(b - a) for a, b in zip(self.bounds[:3], self.bounds[3:], strict=True)
        ):
            raise SettingsError("the bounds hold nothing", fix="Give the smaller corner first: X0 Y0 Z0 X1 Y1 Z1.")
        require_ranges(self, {"bounds": (-1e9, 1e9)})


@dataclass(frozen=True)
class ReconstructSettings:
    """Settings of `viewloom reconstruct`."""

    capture: CaptureSettings = CaptureSettings()
    """How the capture is read."""
    fit: FitSettings = FitSettings()
    """The surface fit."""
    mesh: MeshSettings = MeshSettings()
    """The mesh and its texture."""
    glb: GlbSettings = GlbSettings()
    """The exported asset."""
    device: str = "auto"
    """Where the surface is fitted: auto and cpu use compiled kernels; cuda or mps fit a hash grid with torch."""


EditMethod = Literal["deform", "consolidate", "both"]
"""How an edit is made. deform: the surface is bound to the target and deformed, without a model. consolidate: the views
are drawn anew by diffusion, under the target's control, and a surface is fitted to them. both: views of the deformed
surface are drawn over."""
DRAFT_START = 0.3
"""Noise that views of a deformed surface get before they are drawn over, as a fraction of the timesteps."""


@dataclass(frozen=True)
class DeformSettings:
    """How a surface is deformed."""

    softness: float = 0.5
    """Of boxes: the width over which neighbours blend, as a multiple of half the shortest side of all boxes."""

    def __post_init__(self) -> None:
        require_ranges(self, {"softness": (1e-3, 1e3)})


@dataclass(frozen=True)
class EditorSettings:
    """The model that draws views anew."""

    weights: Path | None = None
    """Folder, or owner/name of the hub: viewloom's editor or Stable Diffusion 1.5; the embedded editor by default."""
    skeleton_net: str | None = None
    """Folder or hub id of the ControlNet for skeletons, of Stable Diffusion only; OpenPose's by default."""
    depth_net: str | None = None
    """The same for depth."""
    prompt: str = ""
    """What the pictures show, of Stable Diffusion only."""
    dtype: Precision = "float32"
    """Precision of its networks."""
    memory: Memory = "normal"
    """low: view by view, and without keeping inner results for gradients."""
    most_views: int = 64
    """Views that are drawn at most, evenly chosen; 0 for all of the capture."""

    def __post_init__(self) -> None:
        require_ranges(self, {"most_views": (0, 10_000)})


@dataclass(frozen=True)
class EditSettings(ReconstructSettings):
    """Settings of `viewloom edit`."""

    method: EditMethod = "deform"
    """Deform the surface, draw its views anew (consolidate), or both."""
    device: str = "auto"
    """Where models run: auto, cpu, cuda or mps. Surfaces are fitted there too if it is named."""
    fit_bones: bool = False
    """Take only the directions of the target's bones, and the lengths of the capture's skeleton."""
    view_side: int = 1024
    """Longest side of the edited views in pixels, at most; smaller captures keep their size."""
    deform: DeformSettings = DeformSettings()
    """The deformation."""
    editor: EditorSettings = EditorSettings()
    """The model of consolidate and both."""
    consolidate: ConsolidateSettings = ConsolidateSettings(mode="none")
    """How that draws the views, and makes them agree."""

    def __post_init__(self) -> None:
        require_ranges(self, {"view_side": (16, 4096)})


@dataclass(frozen=True)
class Image2MeshSettings:
    """Settings of `viewloom image2mesh` and `viewloom views`."""

    prepare: PrepareSettings = PrepareSettings()
    """The cut-out."""
    views: ViewsSettings = ViewsSettings()
    """The views."""
    align: bool = False
    """Decode the views again, together, along a draft of the surface."""
    aligning: AlignSettings = AlignSettings()
    """How that is done."""
    fit: FitSettings = GENERATED_FIT
    """The surface fit."""
    mesh: MeshSettings = MeshSettings(profile="photo")
    """The mesh and its texture."""
    glb: GlbSettings = GlbSettings()
    """The exported asset."""
    device: str = "auto"
    """Where models run: auto, cpu, cuda or mps. Surfaces are fitted there too if it is named; auto fits on the CPU."""
    dtype: Precision = "float32"
    """Precision of the view model; halves need half the memory."""
    memory: Memory = "normal"
    """low: views one by one, decoded in tiles; normal: four together; high: all. Nano models always run all."""


@dataclass(frozen=True)
class FusionSettings:
    """The model that fuses photos into views, and what it draws."""

    weights: Path | None = None
    """A folder that scripts/train_fusion.py wrote, or a file of ViewFusion's published code, or its repository on the
    Hugging Face hub."""
    views: int = 24
    """Of the ring, evenly spread over a turn."""
    elevation_deg: float | None = None
    """Elevation of the first photo's camera, and of the ring; predicted by default."""
    seeds: int = 1
    """Rings that are drawn, to see how sure the model is; the first is kept."""
    sampling: FusionSampling = FusionSampling()
    """How they are drawn."""

    def __post_init__(self) -> None:
        require_ranges(self, {"views": (1, _MOST_VIEWS), "elevation_deg": (-90, 90), "seeds": (1, 64)})


@dataclass(frozen=True)
class FuseSettings:
    """Settings of `viewloom fuse`."""

    prepare: PrepareSettings = PrepareSettings()
    """The cut-outs."""
    fusion: FusionSettings = FusionSettings()
    """The model and its views."""
    fit: FitSettings = FitSettings()
    """The surface fit."""
    mesh: MeshSettings = MeshSettings(profile="photo")
    """The mesh and its texture."""
    glb: GlbSettings = GlbSettings()
    """The exported asset."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda or mps. Surfaces are fitted there too if it is named."""


def settings_as_dict(settings: Any) -> dict[str, Any]:
    """Plain values of settings, for manifests and hashes; paths become strings."""
    return json.loads(json.dumps(dataclasses.asdict(settings), default=str))
