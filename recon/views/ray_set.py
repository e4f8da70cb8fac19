"""Views as tensors: pixel rays, colours, masks, and lookups of masks at points."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from scene.camera import Camera
from scene.errors import InputError
from scene.view import LARGE, View
from scene.viewset import ViewSet

_WHOLE = 0.99
"""Alpha from which on a reduced pixel has no part that is ignored."""


@dataclass(frozen=True, eq=False)
class RaySet:
    """All pixels of a view set, reduced to a working size.

    Args:
        cameras: cameras at the working size.
        colour: straight sRGB in [0, 1] of each view.
        alpha: mask of each view in [0, 1]. Without masks it is 1 where the view may be looked at.
        weight: confidence of each view.
        known: for each view, whether its mask tells anything at a pixel, object or background; None if it does
            everywhere.
    """

    cameras: tuple[Camera, ...]
    colour: tuple[Float[Tensor, "_ _ 3"], ...]
    alpha: tuple[Float[Tensor, "_ _"], ...]
    weight: Float[Tensor, "v"]
    known: tuple[Bool[Tensor, "_ _"] | None, ...] = ()

    def __post_init__(self) -> None:
        if not self.known:
            object.__setattr__(self, "known", (None,) * len(self.cameras))

    @classmethod
    def of(cls, views: ViewSet, max_side: int, *, masked: bool = True) -> RaySet:
        """Load the views, reduced so that the longest side is at most ``max_side``; large ones are decoded reduced.

        Without ``masked``, alpha is 1 everywhere, but 0 where a pixel has a part that the set ignores.

        Raises:
            InputError: there are no masks, or every mask is empty.
        """
        if masked and not views.has_masks:
            raise InputError("a surface fit needs masks", fix="Give RGBA pictures, or mask files beside them.")
        cameras, colours, alphas, known = [], [], [], []
        for view, rgba in zip(views, _pictures(views, max_side), strict=True):
            camera = view.camera
            size = working_size(camera, max_side)
            camera = camera if size == (camera.width, camera.height) else camera.resized(*size)
            values = torch.from_numpy(rgba.astype(np.float32) / 255)
            if not masked:
                values[..., 3] = (values[..., 3] > _WHOLE).float() if views.has_ignored else 1.0
            cameras.append(camera)
            colours.append(values[..., :3])
            alphas.append(values[..., 3])
            unknown = view.unknown(size) if masked else None
            known.append(None if unknown is None else torch.from_numpy(unknown == 0))
        if not any(bool((a > 0.5).any()) for a in alphas):
            raise InputError("the masks of all views are empty", fix="Check the masks: white must be the object.")
        weight = torch.tensor([v.weight for v in views]).float()
        return cls(tuple(cameras), tuple(colours), tuple(alphas), weight, tuple(known))

    def __len__(self) -> int:
        return len(self.cameras)

    def to(self, device: torch.device) -> RaySet:
        """The same views on a device."""
        return RaySet(
            self.cameras,
            tuple(c.to(device) for c in self.colour),
            tuple(a.to(device) for a in self.alpha),
            self.weight.to(device),
            tuple(None if k is None else k.to(device) for k in self.known),
        )

    def flat(
        self,
    ) -> tuple[
        Float[Tensor, "n 3"], Float[Tensor, "n 3"], Float[Tensor, "n 3"], Float[Tensor, "n"], Float[Tensor, "n"]
    ]:
        """Origins, unit directions, colours, alphas and weights of all pixels of all views."""
        parts = []
        for k, camera in enumerate(self.cameras):
            origin, direction = camera.rays()
            count = camera.width * camera.height
            parts.append(
                (
                    self._tensor(origin),
                    self._tensor(direction),
                    self.colour[k].reshape(-1, 3),
                    self.alpha[k].reshape(-1),
                    self.weight[k].expand(count),
                )
            )
        o, d, c, a, w = (torch.cat(column) for column in zip(*parts, strict=True))
        return o, d, c, a, w

    def sample_alpha(self, k: int, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Mask of view ``k`` at projected points (bilinear), and whether its picture holds the point (0 or 1)."""
        cover, seen, _ = self._looked_up(k, points)
        return cover, seen

    def _looked_up(
        self, k: int, points: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"], Float[Tensor, "n"]]:
        """As :meth:`sample_alpha`, and whether the mask tells anything there, which it does beside the picture."""
        camera = self.cameras[k]
        local = (points - self._tensor(camera.centre)) @ self._tensor(camera.c2w[:3, :3])
        depth = -local[:, 2]
        x = camera.cx + camera.fx * local[:, 0] / depth
        y = camera.cy - camera.fy * local[:, 1] / depth
        grid = torch.stack([x / camera.width, y / camera.height], -1) * 2 - 1
        cover = F.grid_sample(self.alpha[k][None, None], grid[None, None], padding_mode="border", align_corners=False)[
            0, 0, 0
        ]
        seen = (depth > 0) & (grid.abs() <= 1).all(-1)
        known, tells = self.known[k], torch.ones_like(depth)
        if known is not None:
            # The mask must be known at all pixels that are mixed.
            silent = (~known).float()[None, None]
            near = F.grid_sample(silent, grid[None, None], padding_mode="border", align_corners=False)[0, 0, 0]
            tells = (~(seen & (near > 0))).float()
        return torch.where(seen, cover, 0.0), seen.float(), tells

    def votes(self, k: int, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """What view ``k`` says of points in a visual hull: its mask there, and whether it has a vote at all (0 or 1).

        A view whose mask ends inside the picture shows the whole object, so it votes against all that lies beside the
        picture; a view that cuts the object off votes only on what it sees. Where its mask is unknown it has no vote.
        """
        cover, seen, tells = self._looked_up(k, points)
        return cover, tells if self.shows_all(k) else seen * tells

    def shows_all(self, k: int) -> bool:
        """Whether view ``k`` has the whole object in its picture: the mask is not empty and touches no border.

        Nor does what is unknown, if it touches the mask: the object may go on behind a hand that comes from beside the
        picture, but not behind a black border that the object ends well within.
        """
        solid, known = self.alpha[k] > 0.5, self.known[k]
        open_to = solid
        if known is not None:
            near = F.max_pool2d(solid.float()[None, None], 5, 1, 2)[0, 0] > 0
            open_to = solid | ~known if bool((near & ~known).any()) else solid
        rim = torch.cat([open_to[0], open_to[-1], open_to[:, 0], open_to[:, -1]])
        return bool(solid.any()) and not bool(rim.any())

    def small(
        self, k: int, size: int
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"], Bool[Tensor, "n"], Bool[Tensor, "n"]]:
        """Rays and mask of view ``k`` at about ``size`` pixels along its longest side, and where it is known."""
        camera = self.cameras[k]
        scale = size / max(camera.width, camera.height)
        camera = camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))
        origin, direction = camera.rays()
        mask = F.interpolate(self.alpha[k][None, None], (camera.height, camera.width), mode="area")[0, 0] >= 0.5
        known = self.known[k]
        whole = torch.ones_like(mask)
        if known is not None:
            whole = F.interpolate(known.float()[None, None], (camera.height, camera.width), mode="area")[0, 0] >= 1
        return self._tensor(origin), self._tensor(direction), mask.reshape(-1), whole.reshape(-1)

    def _tensor(self, values: np.ndarray) -> Float[Tensor, "n 3"]:
        return torch.from_numpy(np.ascontiguousarray(values)).float().reshape(-1, 3).to(self.weight.device)


def working_size(camera: Camera, max_side: int) -> tuple[int, int]:
    """Width and height of a picture reduced so that its longer side is at most ``max_side`` pixels."""
    longest = max(camera.width, camera.height)
    if longest <= max_side:
        return camera.width, camera.height
    return max(1, round(camera.width * max_side / longest)), max(1, round(camera.height * max_side / longest))


def _pictures(views: ViewSet, max_side: int) -> Iterator[UInt8[np.ndarray, "_ _ 4"]]:
    """Pictures of the views at their working size, in order."""

    def small(view: View) -> UInt8[np.ndarray, "_ _ 4"]:
        rgba = view.reduced(2 * max_side)
        size = working_size(view.camera, max_side)
        return rgba if size == rgba.shape[1::-1] else _reduced(rgba, *size)

    if all(view.pixels is not None or view.camera.width * view.camera.height < LARGE for view in views):
        yield from map(small, views)
        return
    with ThreadPoolExecutor(2) as pool:  # codecs leave the interpreter's lock alone
        yield from pool.map(small, views)


def reduced_mask(mask: UInt8[np.ndarray, "h w"], width: int, height: int) -> UInt8[np.ndarray, "_ _"]:
    """A mask at a smaller size: the alpha that :meth:`RaySet.of` makes of it."""
    if (width, height) == mask.shape[::-1]:
        return mask
    plane = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.clip(np.round(np.asarray(plane)), 0, 255).astype(np.uint8)


def _reduced(rgba: np.ndarray, width: int, height: int) -> np.ndarray:
    values = rgba.astype(np.float32)
    values[..., :3] *= values[..., 3:] / 255
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(values[..., k])).resize((width, height), Image.Resampling.BOX))
        for k in range(4)
    ]
    alpha = planes[3]
    colour = np.stack(planes[:3], -1) / np.maximum(alpha / 255, 1e-3)[..., None]
    return np.clip(np.round(np.concatenate([colour, alpha[..., None]], -1)), 0, 255).astype(np.uint8)
