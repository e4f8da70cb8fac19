"""The surface model: a signed distance grid that starts as a hull, and a colour grid."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scene.errors import InputError
from scene.files import written_aside


class GridField(nn.Module):
    """Signed distance = fixed start + learned change; colour = learned. Trilinear grids over ``[-reach, reach]^3``.

    The start keeps the hull's full resolution throughout, so thin parts survive while the change is still coarse.

    Args:
        start: signed distance to begin with, axes (x, y, z), positive outside, world units.
        reach: half side of the cube.
        resolution: of the learned grids; raised with :meth:`refine`.
    """

    start: Tensor

    def __init__(self, start: Float[Tensor, "r r r"], reach: float, resolution: int) -> None:
        super().__init__()
        self.reach = reach  # nn.Module.half is a method
        self.register_buffer("start", start[None, None].contiguous())
        self.change = nn.Parameter(torch.zeros(1, 1, resolution, resolution, resolution))
        self.colour = nn.Parameter(torch.full((1, 3, resolution, resolution, resolution), 0.0))

    def refine(self, resolution: int) -> None:
        """Resample the learned grids to another resolution, keeping their values."""
        for name in ("change", "colour"):
            grid = getattr(self, name).data
            wide = F.interpolate(grid, (resolution,) * 3, mode="trilinear", align_corners=False)
            setattr(self, name, nn.Parameter(wide))

    def sdf(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """Signed distance at world points."""
        grid = self._grid(points)
        out = F.grid_sample(self.start, grid, padding_mode="border", align_corners=False)
        out = out + F.grid_sample(self.change, grid, padding_mode="border", align_corners=False)
        return out.reshape(points.shape[:-1])

    def rgb(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """sRGB in [0, 1] at world points."""
        out = F.grid_sample(self.colour, self._grid(points), padding_mode="border", align_corners=False)
        return torch.sigmoid(out).reshape(3, -1).T.reshape(*points.shape[:-1], 3)

    def dense(self, resolution: int) -> Float[Tensor, "r r r"]:
        """Signed distance on a grid of voxel centres."""
        size = (resolution,) * 3
        return (
            F.interpolate(self.start, size, mode="trilinear", align_corners=False)
            + F.interpolate(self.change, size, mode="trilinear", align_corners=False)
        )[0, 0].detach()

    def _grid(self, points: Tensor) -> Tensor:
        # grid_sample wants the last array axis (z) first.
        return (points.reshape(1, 1, 1, -1, 3) / self.reach).flip(-1)


@dataclass(frozen=True, eq=False)
class Surface:
    """A fitted surface, ready for extraction.

    Args:
        sdf: signed distance at voxel centres of the cube, positive outside, world units; axes (x, y, z).
        colour: sRGB in [0, 1] at voxel centres of a grid over the same cube.
        half: half side of the cube.
        facts: how it was fitted (agreement of the masks, losses, warnings).
    """

    sdf: Float[np.ndarray, "r r r"]
    colour: Float[np.ndarray, "c c c 3"]
    half: float
    facts: dict[str, object]

    def colours_at(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Model colour at world points."""
        grid = torch.from_numpy(np.ascontiguousarray(points[:, ::-1] / self.half)).float()[None, None, None]
        field = torch.from_numpy(self.colour).movedim(-1, 0)[None].float()
        return F.grid_sample(field, grid, padding_mode="border", align_corners=False)[0, :, 0, 0].T.numpy()

    def save(self, path: Path) -> None:
        """Write as ``.npz``; byte for byte the same for the same surface."""
        import json

        with written_aside(path) as partial, partial.open("wb") as file:
            np.savez(
                file,
                sdf=self.sdf.astype(np.float32),
                colour=np.round(self.colour * 255).astype(np.uint8),
                half=np.float64(self.half),
                facts=np.array(json.dumps(self.facts, sort_keys=True)),
            )

    @classmethod
    def load(cls, path: Path) -> Surface:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file is missing, cut short or something else.
        """
        import json

        try:
            # Opened as an archive first: an array file would come back as an array, without the names below.
            with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as data:
                return cls(
                    data["sdf"],
                    data["colour"].astype(np.float32) / 255,
                    float(data["half"]),
                    json.loads(str(data["facts"])),
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"is not a stored surface ({error})", where=path) from error
