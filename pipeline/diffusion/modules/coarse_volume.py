"""The coarse volume: one photo to a 32x32x32 solid with colours, and its renders from any camera.

A 2D network reads the photo and fills a frustum behind every pixel (32 depths of the claimed camera, which stands at
the default radius, so that the bounding sphere spans fixed depths). The frustum is then resampled into the world grid.
All weights are in 2D convolutions, which CPUs run fast, and the solid's silhouette in the photo is pixel-aligned
by construction.
The same trunk estimates the photo's camera: elevation, focal length and principal point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.diffusion.modules.poses import Poses
from scene.camera import DEFAULT_RADIUS, OBJECT_RADIUS

CAMERA_MEAN = (0.35, 1.1, 0.5, 0.5)
"""Centre of the predicted source description (elevation, focal, cx, cy)."""
CAMERA_SCALE = (0.3, 0.35, 0.1, 0.1)
"""Typical deviation of the predicted source description."""


@dataclass(frozen=True, eq=False)
class CoarseVolume:
    """A solid in the world frame of its photo (photo's camera at azimuth 0).

    Args:
        occupancy: probability that a voxel is solid; axes (x, y, z) over the cube ``[-0.6, 0.6]``.
        colours: sRGB in [0, 1].
        source: the photo's camera description (elevation, focal / size, cx / size, cy / size).
    """

    occupancy: Float[Tensor, "b r r r"]
    colours: Float[Tensor, "b 3 r r r"]
    source: Float[Tensor, "b 4"]

    def __getitem__(self, index: slice) -> CoarseVolume:
        return CoarseVolume(self.occupancy[index], self.colours[index], self.source[index])


class _Block(nn.Module):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, inside), nn.Conv2d(inside, outside, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, outside), nn.Conv2d(outside, outside, 3, padding=1)
        self.skip = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class _Attention(nn.Module):
    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.place = nn.Parameter(torch.randn(1, side * side, channels) * 0.02)
        self.mix = nn.MultiheadAttention(channels, 4, batch_first=True)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        tokens = self.norm(x).flatten(2).transpose(1, 2) + self.place
        return x + self.mix(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(x.shape)


def middle_layers(channels: int, side: int) -> nn.Sequential:
    """What connects all places of a map of ``side`` by ``side``."""
    return nn.Sequential(
        _Block(channels, channels), _Attention(channels, side), _Block(channels, channels), _Attention(channels, side)
    )


class CoarseVolumeModel(ModelMixin, ConfigMixin):
    """Photo to coarse volume; see the module's text.

    Args:
        image_size: side of the input image.
        resolution: voxels along each side of the grid; also the number of depths.
        channels: widths at image_size / 2, / 4, / 8.
        fine_channels: half the width at image_size.
        camera_channels: width of a map that keeps its places and that the camera is read from beside the mean of all
            places; 0 for the mean alone.
        sharpness: scale of the logits of volumes predicted for use. Volumes trained for overlap keep doubtful voxels
            around the object, through which renders show it too large.
        contrast: of the colours within the outline, for the shape of volumes predicted for use. With all of it (1), a
            model that was trained on objects without print sinks a hollow where letters are.
    """

    @register_to_config
    def __init__(
        self,
        image_size: int = 64,
        resolution: int = 32,
        channels: Sequence[int] = (64, 128, 192),
        fine_channels: int = 32,
        camera_channels: int = 0,
        sharpness: float = 1.0,
        contrast: float = 1.0,
    ) -> None:
        super().__init__()
        a, b, c = channels
        self.stem = nn.Conv2d(6, fine_channels, 3, padding=1)
        self.down1 = nn.Conv2d(fine_channels, a, 3, stride=2, padding=1)
        self.enc1 = nn.Sequential(_Block(a, a))
        self.down2 = nn.Conv2d(a, b, 3, stride=2, padding=1)
        self.enc2 = nn.Sequential(_Block(b, b), _Block(b, b))
        self.down3 = nn.Conv2d(b, c, 3, stride=2, padding=1)
        side = image_size // 8
        self.middle = middle_layers(c, side)
        if camera_channels:
            self.camera_map = nn.Sequential(nn.Conv2d(c, camera_channels, 1), nn.SiLU(), nn.Dropout(0.3))
        self.camera = nn.Sequential(nn.Linear(c + camera_channels * side**2, c), nn.SiLU(), nn.Linear(c, 4))
        self.dec2 = nn.Sequential(_Block(c + b, b), _Block(b, b))
        self.dec1 = nn.Sequential(_Block(b + a, a), _Block(a, a))
        self.fine = nn.Conv2d(a, 4 * fine_channels, 1)
        self.dec0 = _Block(2 * fine_channels, 2 * fine_channels)
        self.head = nn.Conv2d(2 * fine_channels, 5 * resolution, 1)

    def forward(
        self,
        rgba: Float[Tensor, "b 4 s s"],
        source: Float[Tensor, "b 4"] | None = None,
        azimuth: Float[Tensor, "b"] | None = None,
    ) -> tuple[Float[Tensor, "b r r r"], Float[Tensor, "b 3 r r r"], Float[Tensor, "b 4"]]:
        """Fill the world grid.

        Args:
            rgba: the prepared photo on white and its alpha, [-1, 1].
            source: the photo's camera, if known; otherwise the predicted one is used.
            azimuth: of the photo's camera in the grid's frame; 0, which is the photo's own frame, if None.

        Returns:
            Occupancy logits, colours in [0, 1], and the predicted source description.
        """
        rgba = self._sized(rgba)
        x0, x1, x2, x3 = self._trunk(rgba)
        x3 = self.middle(x3)
        pooled = x3.mean(dim=(2, 3))
        if self.config["camera_channels"]:
            pooled = torch.cat([pooled, self.camera_map(x3).flatten(1)], 1)
        raw = self.camera(pooled).float()
        predicted = raw * raw.new_tensor(CAMERA_SCALE) + raw.new_tensor(CAMERA_MEAN)
        h = self.dec2(torch.cat([F.interpolate(x3, scale_factor=2.0), x2], 1))
        h = self.dec1(torch.cat([F.interpolate(h, scale_factor=2.0), x1], 1))
        h = self.dec0(torch.cat([F.pixel_shuffle(self.fine(h), 2), x0], 1))
        values = self.head(F.silu(h)).float().unflatten(1, (5, self.config["resolution"]))
        occupancy, copy, colour = values[:, :1], values[:, 1:2].sigmoid(), values[:, 2:].sigmoid()
        photo = (rgba[:, :3, None].float() + 1) / 2
        frustum = torch.cat([occupancy, copy * photo + (1 - copy) * colour], 1)
        grid = self._frustum_places(predicted.detach() if source is None else source.float(), azimuth)
        world = F.grid_sample(frustum, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return world[:, 0], world[:, 1:].clamp(0, 1), predicted

    def features(self, rgba: Float[Tensor, "b 4 s s"]) -> Float[Tensor, "b c p p"]:
        """What the trunk makes of photos, at an eighth of the model's image size: for other heads."""
        return self._trunk(self._sized(rgba))[-1]

    def _sized(self, rgba: Float[Tensor, "b 4 s s"]) -> Float[Tensor, "b 4 t t"]:
        size = self.config["image_size"]
        if rgba.shape[-1] == size:
            return rgba
        return F.interpolate(rgba, (size, size), mode="bilinear", antialias=True, align_corners=False)

    def _trunk(self, rgba: Float[Tensor, "b 4 s s"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features at the full side, a half, a quarter and an eighth of it."""
        size = rgba.shape[-1]
        axis = torch.linspace(-1, 1, size, device=rgba.device, dtype=rgba.dtype)
        place = torch.stack(torch.meshgrid(axis, axis, indexing="xy")).expand(len(rgba), 2, size, size)
        x0 = self.stem(torch.cat([rgba, place], 1))
        x1 = self.enc1(self.down1(F.silu(x0)))
        x2 = self.enc2(self.down2(F.silu(x1)))
        return x0, x1, x2, self.down3(F.silu(x2))

    def _frustum_places(
        self, source: Float[Tensor, "b 4"], azimuth: Float[Tensor, "b"] | None
    ) -> Float[Tensor, "b r r r 3"]:
        """Where each world voxel lies in the frustum (grid_sample's x, y, depth in [-1, 1])."""
        r = self.config["resolution"]
        points = grid_points(r, source.device).reshape(1, -1, 3).expand(len(source), -1, -1)
        pixels, depth = Poses.of_sources(source, azimuth).project(points)
        depth = (depth - DEFAULT_RADIUS) / OBJECT_RADIUS
        return torch.cat([pixels * 2 - 1, depth[..., None]], -1).reshape(len(source), r, r, r, 3)

    @property
    def settings(self) -> dict[str, Any]:
        """What the model was built with; the config also says where it was loaded from."""
        return {name: value for name, value in self.config.items() if not name.startswith("_")}

    @torch.no_grad()
    def grown(self, camera_channels: int) -> CoarseVolumeModel:
        """A copy whose camera is also read from a map of so many channels, at first to no effect."""
        model = type(self)(**{**self.settings, "camera_channels": camera_channels})
        state, own = self.state_dict(), model.state_dict()
        wide = torch.zeros_like(own["camera.0.weight"])
        wide[:, : state["camera.0.weight"].shape[1]] = state["camera.0.weight"]
        model.load_state_dict({**own, **state, "camera.0.weight": wide})
        return model.train(self.training)

    @torch.no_grad()
    def predict(self, rgba: Float[Tensor, "b 4 s s"], source: Float[Tensor, "b 4"] | None = None) -> CoarseVolume:
        """The volume of photos, sharpened, with the predicted camera unless one is given."""
        logits, colours, predicted = self(rgba, source)
        used = predicted if source is None else source
        if self.config["contrast"] < 1:
            logits = self(flattened(rgba, self.config["contrast"]), used)[0]
        return CoarseVolume((self.config["sharpness"] * logits).sigmoid(), colours, used)


def flattened(rgba: Float[Tensor, "b 4 s s"], contrast: float) -> Float[Tensor, "b 4 s s"]:
    """Photos, on white, [-1, 1], with less contrast within the outline about the object's mean colour."""
    alpha = (rgba[:, 3:] + 1) / 2
    # The object's part of each pixel; the rest is white.
    own = rgba[:, :3] - (1 - alpha)
    mean = own.sum((2, 3), keepdim=True) / alpha.sum((2, 3), keepdim=True).clamp(min=1e-6)
    return torch.cat([contrast * own + (1 - contrast) * mean * alpha + 1 - alpha, rgba[:, 3:]], 1)


def grid_points(resolution: int, device: torch.device) -> Float[Tensor, "r r r 3"]:
    """World positions of voxel centres; as :func:`scene.voxels.voxel_centres`."""
    axis = ((torch.arange(resolution, device=device) + 0.5) / resolution * 2 - 1) * OBJECT_RADIUS
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)


@dataclass(frozen=True, eq=False)
class VolumeRenders:
    """Renders of volumes.

    Args:
        colour: premultiplied sRGB in [0, 1].
        alpha: coverage in [0, 1].
        distance: mean distance along the unit ray where covered, 0 elsewhere.
        visible: how far the photo's camera sees what the render shows, in [0, 1].
    """

    colour: Float[Tensor, "b v 3 s s"]
    alpha: Float[Tensor, "b v 1 s s"]
    distance: Float[Tensor, "b v 1 s s"]
    visible: Float[Tensor, "b v 1 s s"]


def render_volume(
    volume: CoarseVolume, poses: Poses, size: int, *, samples: int = 40, gain: float = 4.0
) -> VolumeRenders:
    """Volume-render coarse volumes.

    Opacity is composited along the ray; colour is looked up once, at the mean depth, which a volume of this coarseness
    does not tell from compositing and which costs a quarter.

    Args:
        volume: a batch of volumes.
        poses: cameras ``[b, v]`` of each volume.
        size: side of the renders.
        samples: steps through the bounding sphere's depth range.
        gain: optical depth of a fully solid voxel.
    """
    b, v = poses.focal.shape
    centre, directions = poses.rays(size)
    nearest = -(centre[..., None, None, :] * directions).sum(-1, keepdim=True)
    steps = torch.linspace(-OBJECT_RADIUS, OBJECT_RADIUS, samples, device=centre.device)
    t = nearest + steps
    points = centre[..., None, None, None, :] + directions[..., None, :] * t[..., None]
    occupancy = _look_up(volume.occupancy[:, None], points.reshape(b, v * size, size, samples, 3))
    occupancy = occupancy.reshape(b, v, size, size, samples).clamp(0, 1)
    voxel = 2 * OBJECT_RADIUS / volume.occupancy.shape[-1]
    alpha = 1 - torch.exp(-gain * occupancy * (steps[1] - steps[0]) / voxel)
    weight = alpha * torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha[..., :-1]], -1), -1)
    cover = weight.sum(-1)
    distance = (weight * t).sum(-1) / cover.clamp(min=1e-4)
    surface = centre[..., None, None, :] + directions * distance[..., None]
    # Solid voxels count most; the rest keeps rays whose mean depth lies between two surfaces from going black.
    count = volume.occupancy[:, None] + 1e-3
    solid = (
        _look_up(torch.cat([volume.colours * count, count], 1), surface.reshape(b, v * size, size, 1, 3))
        .reshape(b, 4, v, size, size)
        .movedim(1, 2)
    )
    colour = solid[:, :, :3] / solid[:, :, 3:].clamp(min=1e-6)
    cover, distance = cover[:, :, None], distance[:, :, None]
    return VolumeRenders(
        colour.clamp(0, 1) * cover, cover, torch.where(cover > 0.05, distance, 0.0), torch.zeros_like(cover)
    )


def _look_up(field: Float[Tensor, "b c r r r"], points: Float[Tensor, "b h w s 3"]) -> Float[Tensor, "b c h w s"]:
    """Trilinear values of a field over the world cube, 0 outside; grid_sample wants the last array axis (z) first."""
    return F.grid_sample(field.float(), (points / OBJECT_RADIUS).flip(-1), align_corners=False)


def render_coarse_volume(
    volume: CoarseVolume, photo: Float[Tensor, "b 4 p p"], poses: Poses, size: int = 64, *, tolerance: float = 0.08
) -> VolumeRenders:
    """Renders of coarse volumes, coloured by the photo itself wherever its camera sees the surface.

    Args:
        volume: a batch of volumes.
        photo: the prepared photos on white and their alpha, [-1, 1].
        poses: cameras ``[b, v]``.
        size: side of the renders.
        tolerance: how far behind the first surface seen from the photo a point still counts as seen (world units).
    """
    renders = render_volume(volume, poses, size)
    b, v = poses.focal.shape
    source = Poses.of_sources(volume.source)
    front = render_volume(volume, source.reshape(b, 1), size).distance[:, 0]
    centre, directions = poses.rays(size)
    points = centre[..., None, None, :] + directions * renders.distance[:, :, 0, ..., None]
    pixels, _ = source.project(points.reshape(b, -1, 3))
    # Background points stand at their own camera's centre, which the photo's camera may share: 0 / 0 there.
    grid = (pixels * 2 - 1).nan_to_num(2.0).clamp(-2, 2).reshape(b, v * size, size, 2)
    span = (points.reshape(b, -1, 3) - source.c2w[:, None, :3, 3]).norm(dim=-1).reshape(b, v, 1, size, size)
    seen_at = F.grid_sample(front, grid, mode="nearest", align_corners=False).reshape(b, v, 1, size, size)
    looked = F.grid_sample(photo.float(), grid, align_corners=False).reshape(b, 4, v, size, size).movedim(1, 2)
    alpha = (looked[:, :, 3:] + 1) / 2
    # Undo the white background under half-covered photo pixels before painting with them.
    paint = (((looked[:, :, :3] + 1) / 2 - (1 - alpha)) / alpha.clamp(min=0.05)).clamp(0, 1)
    fade = (1 - (span - seen_at - tolerance) / tolerance).clamp(0, 1)
    visible = fade * (seen_at > 0) * ((alpha - 0.5) * 4).clamp(0, 1) * renders.alpha
    own = renders.colour / renders.alpha.clamp(min=1e-4)
    fraction = visible / renders.alpha.clamp(min=1e-4)
    colour = (fraction * paint + (1 - fraction) * own).clamp(0, 1) * renders.alpha
    return VolumeRenders(colour, renders.alpha, renders.distance, visible)
