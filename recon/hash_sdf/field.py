"""The surface model on hash grids: small networks over multi-resolution features, refined band by band.

Source: the fast NeuS relatives (Instant NSR, Neuralangelo): hash features beside the raw position, one hidden layer,
sphere initialisation, progressive bands, and gradients by central differences as wide as the finest active cell, which
tie neighbouring cells together and need no second derivatives.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scene.errors import SettingsError
from scene.hashgrid import HashGrid, HashLayout
from scene.volume_rendering import SH_TERMS, spherical_harmonics

_BLOCK = 1 << 13


class HashField(nn.Module):
    """Signed distance and colour over a box, world units.

    The signed distance is a sphere at first. Where ``start`` is given it is that grid, and the network learns a change.

    Args:
        low, high: corners of the box.
        layout: of the hash grid over the box, whose cells are cubes: the longest side decides.
        radius: of the sphere; 0.4 of the longest side by default.
        centre: of the sphere; by default the middle of the box.
        start: signed distances at voxel centres of the box to begin with, axes (x, y, z), positive outside.
        hidden: width of the hidden layers.
        features: width of what the distance network hands to the colour network.
        directional: let colour depend on the viewing direction. Highlights of generated views contradict each other.
        first_levels: levels that are active from the beginning.
        level_interval: fraction of the run after which each further level joins.
    """

    low: Tensor
    high: Tensor
    centre: Tensor
    start: Tensor | None

    def __init__(
        self,
        low: Float[Tensor, "3"],
        high: Float[Tensor, "3"],
        *,
        layout: HashLayout = HashLayout(),
        radius: float | None = None,
        centre: Float[Tensor, "3"] | None = None,
        start: Float[Tensor, "_ _ _"] | None = None,
        hidden: int = 64,
        features: int = 15,
        directional: bool = False,
        first_levels: int = 4,
        level_interval: float = 0.05,
    ) -> None:
        super().__init__()
        if not bool((high > low).all()):
            raise SettingsError("the box of a field needs corners low < high")
        self.register_buffer("low", low.float().clone())
        self.register_buffer("high", high.float().clone())
        self.register_buffer("centre", (low + high).float() / 2 if centre is None else centre.float().clone())
        self.register_buffer("start", None if start is None else start.float()[None, None].contiguous())
        self.extent = float((high - low).max())
        self.directional, self.first_levels, self.level_interval = directional, first_levels, level_interval
        self.grid = HashGrid(layout)
        self.sdf_hidden = nn.Linear(3 + self.grid.width, hidden)
        self.sdf_out = nn.Linear(hidden, 1 + features)
        seen = 3 + SH_TERMS if directional else 0
        self.colour_mlp = nn.Sequential(
            nn.Linear(3 + features + seen, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.colour_out = nn.Linear(hidden, 3)
        self._initialise(0.4 * self.extent if radius is None else radius)

    @property
    def cell(self) -> float:
        """Side of the finest active cell, world units."""
        return self.extent / self.grid.finest_active

    def set_progress(self, progress: float) -> None:
        """Activate the levels that belong to this fraction of the run, 0 to 1."""
        every = self.level_interval
        joined = math.floor(progress / every + 1e-6) if every > 0 else self.grid.layout.levels
        self.grid.active_levels = min(self.first_levels + joined, self.grid.layout.levels)

    def set_mean_colour(self, colour: Float[Tensor, "3"]) -> None:
        """Begin with this sRGB colour everywhere."""
        with torch.no_grad():
            self.colour_out.bias.copy_(torch.logit(colour.clamp(0.02, 0.98)))
            self.colour_out.weight.mul_(0.1)

    def parameter_groups(self, step: float) -> list[dict[str, Any]]:
        """Groups for an optimiser of Adam's kind.

        Args:
            step: of the networks. Each point touches few rows of the table, so these move ten times as far.
        """
        networks = [
            p for part in (self.sdf_hidden, self.sdf_out, self.colour_mlp, self.colour_out) for p in part.parameters()
        ]
        return [
            {"name": "table", "params": [self.grid.table], "lr": 10 * step},
            {"name": "networks", "params": networks, "lr": step},
        ]

    def sdf(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """Signed distance at world points."""
        flat = points.reshape(-1, 3)
        # Blocks that fit into a CPU's cache are three times as fast as all points at once.
        size = len(flat) if flat.is_cuda else _BLOCK
        if len(flat) <= size:
            return self._distance(flat).reshape(points.shape[:-1])
        return torch.cat([self._distance(part) for part in flat.split(size)]).reshape(points.shape[:-1])

    def sdf_and_features(self, points: Float[Tensor, "*n 3"]) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n f"]]:
        """Signed distance at world points, and the features that go into the colour network."""
        out = self.sdf_out(self._hidden(points))
        return self._started(points, out[..., 0]), out[..., 1:]

    def gradient(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Gradient of the signed distance by central differences over the finest active cell."""
        after, before = self._taps(points)
        return (after - before) / (2 * self.cell)

    def gradient_and_laplacian(
        self, points: Float[Tensor, "*n 3"], sdf: Float[Tensor, "*n"] | None = None
    ) -> tuple[Float[Tensor, "*n 3"], Float[Tensor, "*n"]]:
        """Gradient, and sum of second derivatives (per world unit), from the same six neighbours.

        Args:
            points: world points.
            sdf: the signed distance there, if it is known already.
        """
        after, before = self._taps(points)
        middle = self.sdf(points) if sdf is None else sdf
        laplacian = ((after + before).sum(-1) - 6 * middle) / self.cell**2
        return (after - before) / (2 * self.cell), laplacian

    def rgb(
        self,
        points: Float[Tensor, "*n 3"],
        *,
        directions: Float[Tensor, "*n 3"] | None = None,
        normals: Float[Tensor, "*n 3"] | None = None,
        features: Float[Tensor, "*n f"] | None = None,
    ) -> Float[Tensor, "*n 3"]:
        """sRGB in [0, 1] at world points.

        Args:
            points: world points.
            directions: unit viewing directions, from the camera on; by default head-on. Unused unless directional.
            normals: unit normals; by default from the gradient. Unused unless directional.
            features: those of :meth:`sdf_and_features`, if they are known already.
        """
        inputs = [self._local(points), self.sdf_and_features(points)[1] if features is None else features]
        if self.directional:
            if normals is None:
                normals = F.normalize(self.gradient(points), dim=-1)
            inputs += [normals, spherical_harmonics(-normals if directions is None else directions)]
        return torch.sigmoid(self.colour_out(self.colour_mlp(torch.cat(inputs, -1))))

    @torch.no_grad()
    def dense(self, shape: tuple[int, int, int], chunk: int = 1 << 16) -> Float[Tensor, "x y z"]:
        """Signed distance at the voxel centres of the box cut into ``shape`` voxels."""
        axes = [
            torch.linspace(float(a) + 0.5 * float(b - a) / n, float(b) - 0.5 * float(b - a) / n, n)
            for a, b, n in zip(self.low, self.high, shape, strict=True)
        ]
        out = torch.empty(math.prod(shape), device=self.low.device)
        for first in range(0, len(out), chunk):
            index = torch.arange(first, min(first + chunk, len(out)))
            x, rest = index // (shape[1] * shape[2]), index % (shape[1] * shape[2])
            points = torch.stack([axes[0][x], axes[1][rest // shape[2]], axes[2][rest % shape[2]]], -1)
            out[first : first + chunk] = self.sdf(points.to(out.device))
        return out.reshape(shape)

    def _local(self, points: Tensor) -> Tensor:
        """Positions in about [-1, 1], as the networks like them."""
        return (points - self.centre) * (2 / self.extent)

    def _distance(self, points: Tensor) -> Tensor:
        out = F.linear(self._hidden(points), self.sdf_out.weight[:1], self.sdf_out.bias[:1])[..., 0]
        return self._started(points, out)

    def _hidden(self, points: Tensor) -> Tensor:
        encoded = self.grid((points - self.low) / self.extent)
        return F.softplus(self.sdf_hidden(torch.cat([self._local(points), encoded], -1)), beta=100)

    def _started(self, points: Tensor, out: Tensor) -> Tensor:
        out = out * (self.extent / 2)
        if self.start is None:
            return out
        grid = ((points - self.low) / (self.high - self.low) * 2 - 1).reshape(1, 1, 1, -1, 3).flip(-1)
        begun = F.grid_sample(self.start, grid, padding_mode="border", align_corners=False)
        return begun.reshape(points.shape[:-1]) + out

    def _taps(self, points: Float[Tensor, "*n 3"]) -> tuple[Float[Tensor, "*n 3"], Float[Tensor, "*n 3"]]:
        """Signed distances one cell further, and one cell back, along each axis."""
        step = torch.eye(3, device=points.device, dtype=points.dtype) * self.cell
        found = self.sdf(points[..., None, None, :] + torch.stack([step, -step]))
        return found[..., 0, :], found[..., 1, :]

    @torch.no_grad()
    def _initialise(self, radius: float) -> None:
        """A sphere: directions spread evenly, since the sum of ``relu(d . x)`` over them is |x| times a constant."""
        hidden = self.sdf_hidden.out_features
        nn.init.zeros_(self.sdf_hidden.weight)
        nn.init.zeros_(self.sdf_hidden.bias)
        nn.init.zeros_(self.sdf_out.bias)
        nn.init.normal_(self.sdf_out.weight, std=math.sqrt(1 / hidden))
        directions = _even_directions(hidden)
        weight = math.sqrt(math.pi / hidden)
        self.sdf_hidden.weight[:, :3] = directions * (4 / (hidden * weight))
        if self.start is None:
            self.sdf_out.weight[0] = weight
            # The softplus is a little above the relu everywhere: the surface is put where it belongs.
            there = F.softplus(
                F.linear(directions * (2 * radius / self.extent), self.sdf_hidden.weight[:, :3]), beta=100
            )
            self.sdf_out.bias[0] = -(there @ self.sdf_out.weight[0]).mean()
        else:
            self.sdf_out.weight[0] = 0


def _even_directions(count: int) -> Float[Tensor, "n 3"]:
    """Unit vectors spread over the sphere by a Fibonacci lattice."""
    index = torch.arange(count) + 0.5
    height = 1 - 2 * index / count
    turn = math.pi * (3 - math.sqrt(5)) * index
    ring = (1 - height**2).sqrt()
    return torch.stack([ring * turn.cos(), ring * turn.sin(), height], -1)
