"""Multi-resolution hash grids: features at points of a cube, by tiny-cuda-nn on its devices and by torch elsewhere.

Source: Instant Neural Graphics Primitives (Mueller et al. 2022), section 3, in the layout of tiny-cuda-nn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from scene.backends import optional_module
from scene.errors import SettingsError, ViewloomError

# As 32-bit integers; the products wrap around, and only their low bits are used.
_PRIMES = (1, 2654435761 - 2**32, 805459861)
_TCNN_LEVELS = 16


@dataclass(frozen=True)
class HashLayout:
    """Where the features of each level stand in one table, the same for torch and tiny-cuda-nn.

    Level l has ``scales[l] + 1`` vertices along each axis, and vertex k stands at ``(k - 0.5) / scales[l]``. Levels
    follow each other in the table. One whose vertices fit into ``2 ** log2_size`` rows is dense, with x running fastest
    and its rows rounded up to a multiple of 8; finer ones have ``2 ** log2_size`` rows, shared by hash.
    """

    levels: int = 8
    """Number of grids."""
    features: int = 2
    """Features of a vertex."""
    coarsest: int = 16
    """Vertices along each axis of the first grid."""
    finest: int = 128
    """Vertices along each axis of the last grid."""
    log2_size: int = 15
    """Binary logarithm of the most rows that a level may have."""
    smooth: bool = False
    """Smoothstep instead of linear weights: values without kinks, and no slope at vertices."""

    def __post_init__(self) -> None:
        if self.levels < 1 or self.features < 1 or not 3 <= self.log2_size <= 30:
            raise SettingsError(
                f"a hash grid cannot have {self.levels} levels of {self.features} features in 2^{self.log2_size} rows",
                fix="Use at least one level and one feature, and log2_size between 3 and 30.",
            )
        if not 2 <= self.coarsest <= self.finest:
            raise SettingsError(
                f"a hash grid cannot grow from {self.coarsest} to {self.finest} vertices",
                fix="Give 2 <= coarsest <= finest.",
            )

    @property
    def growth(self) -> float:
        """Ratio of successive resolutions."""
        if self.levels == 1:
            return 1.0
        # Kept a little below the round number: single and double precision then agree on how many vertices there are.
        return math.exp(math.log(self.finest / self.coarsest) / (self.levels - 1)) * (1 - 1e-5)

    @property
    def scales(self) -> tuple[float, ...]:
        """Cells along the unit length, for each level."""
        return tuple(self.coarsest * self.growth**level - 1 for level in range(self.levels))

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Vertices along each axis, for each level."""
        return tuple(math.ceil(scale) + 1 for scale in self.scales)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of the table, for each level."""
        return tuple(min(-(-(r**3) // 8) * 8, 2**self.log2_size) for r in self.resolutions)

    @property
    def offsets(self) -> tuple[int, ...]:
        """First row of each level."""
        return tuple(sum(self.sizes[:level]) for level in range(self.levels))

    @property
    def dense_levels(self) -> int:
        """How many levels, counted from the coarsest, have a row for each vertex."""
        return sum(r**3 <= 2**self.log2_size for r in self.resolutions)


class HashGrid(nn.Module):
    """Features at points of the unit cube, interpolated from a coarse-to-fine stack of grids.

    The table is the same whichever library reads it, so a grid trained on a GPU works on a CPU. The libraries differ
    only in the outermost half cell of dense levels, where torch repeats the border and tiny-cuda-nn wraps around.

    Args:
        layout: sizes.
        spread: the table starts uniformly in ``[-spread, spread]``.
    """

    _scales: Tensor
    _first: Tensor
    _last: Tensor
    _strides: Tensor
    _primes: Tensor

    def __init__(self, layout: HashLayout = HashLayout(), *, spread: float = 1e-4) -> None:
        super().__init__()
        self.layout = layout
        self.active_levels = layout.levels
        """Levels that count; the features of finer ones are zero."""
        self.table = nn.Parameter(torch.empty(sum(layout.sizes), layout.features).uniform_(-spread, spread))
        dense = layout.dense_levels
        self.register_buffer("_scales", torch.tensor(layout.scales).view(-1, 1, 1), persistent=False)
        for name, values in (
            ("_first", [[first] for first in layout.offsets]),
            ("_last", [[[r - 1]] for r in layout.resolutions[:dense]]),
            ("_strides", [[[1, r, r * r]] for r in layout.resolutions[:dense]]),
            ("_primes", _PRIMES),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=torch.int32), persistent=False)
        self._native: TcnnHashGrid | None = None

    @property
    def width(self) -> int:
        """Features of a point, all levels together; coarse levels first."""
        return self.layout.levels * self.layout.features

    @property
    def finest_active(self) -> int:
        """Vertices along each axis of the finest level that counts."""
        return self.layout.resolutions[max(self.active_levels, 1) - 1]

    def forward(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n f"]:
        """Features at points; points outside the unit cube get those of its border."""
        flat = points.reshape(-1, 3).clamp(0, 1)
        native = self._tcnn(points.device)
        if native is None:
            return self._interpolated(flat).reshape(*points.shape[:-1], self.width)
        out = native(flat, self.table).to(points.dtype)
        kept = torch.arange(self.width, device=out.device) < self.active_levels * self.layout.features
        return (out * kept).reshape(*points.shape[:-1], self.width)

    def get_extra_state(self) -> Tensor:
        """The number of active levels is saved with the table."""
        return torch.tensor(self.active_levels)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore what :meth:`get_extra_state` gave."""
        self.active_levels = int(state)

    def _interpolated(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n f"]:
        active, features = self.active_levels, self.layout.features
        if not active:
            return points.new_zeros(len(points), self.width)
        position = points * self._scales[:active] + 0.5
        low = position.detach().floor()
        part = position - low
        if self.layout.smooth:
            part = part * part * (3 - 2 * part)
        x, y, z = torch.stack([1 - part, part]).unbind(-1)
        weight = x * y[:, None] * z[:, None, None]
        found = _weighted_rows(self.table, self._rows(low.int()).reshape(8, -1), weight.reshape(8, -1))
        out = found.reshape(active, len(points), features).movedim(0, 1).reshape(len(points), active * features)
        return F.pad(out, (0, self.width - active * features))

    def _rows(self, low: Int[Tensor, "l n 3"]) -> Int[Tensor, "2 2 2 l n"]:
        """Table rows of the eight vertices around each point; the first axis is that of z."""
        active, dense = len(low), min(len(low), len(self._last))
        # Corners come first, so that the long axis of points stays contiguous.
        ends = torch.stack([low, low + 1])
        rows = low.new_empty((2, 2, 2, *low.shape[:2]))
        if dense:
            # Half a cell at the border lies beyond the last vertex.
            x, y, z = (torch.minimum(ends[:, :dense], self._last[:dense]) * self._strides[:dense]).unbind(-1)
            rows[..., :dense, :] = x + y[:, None] + z[:, None, None]
        if dense < active:
            x, y, z = (ends[:, dense:] * self._primes).unbind(-1)
            rows[..., dense:, :] = (x ^ y[:, None] ^ z[:, None, None]) & (2**self.layout.log2_size - 1)
        return rows.add_(self._first[:active])

    def _tcnn(self, device: torch.device) -> TcnnHashGrid | None:
        """The native grid where there is one for this device, made when it is first asked for."""
        if not uses_tcnn(device, self.layout):
            return None
        if self._native is None:
            # In a list of its own the native module would add a second table to the parameters.
            object.__setattr__(self, "_native", TcnnHashGrid(self.layout))
        return self._native


class TcnnHashGrid:
    """tiny-cuda-nn's grid, reading a table that is given with each call.

    Args:
        layout: sizes.
        module: tiny-cuda-nn's Python package; found if not given.

    Raises:
        ViewloomError: the library lays its table out in another way.
    """

    def __init__(self, layout: HashLayout, module: ModuleType | Any | None = None) -> None:
        library: Any = optional_module("tinycudann") if module is None else module
        self._encoding = library.Encoding(n_input_dims=3, encoding_config=tcnn_config(layout), dtype=torch.float32)
        expected, found = sum(layout.sizes) * layout.features, self._encoding.params.numel()
        if found != expected:
            raise ViewloomError(
                f"this tiny-cuda-nn has {found} parameters where {expected} were expected",
                fix="Use a version of tiny-cuda-nn with the default hash, or uninstall it to use torch.",
            )

    def __call__(self, points: Float[Tensor, "n 3"], table: Float[Tensor, "t k"]) -> Float[Tensor, "n f"]:
        """Features of all levels at points of the unit cube."""
        out: Tensor = functional_call(self._encoding, {"params": table.reshape(-1)}, (points,))
        return out


def uses_tcnn(device: torch.device, layout: HashLayout) -> bool:
    """Whether a grid on this device is read by tiny-cuda-nn; it has 16 levels at most."""
    return device.type == "cuda" and layout.levels <= _TCNN_LEVELS and optional_module("tinycudann") is not None


def tcnn_config(layout: HashLayout) -> dict[str, object]:
    """The encoding configuration that makes tiny-cuda-nn build the same grids."""
    return {
        "otype": "HashGrid",
        "n_levels": layout.levels,
        "n_features_per_level": layout.features,
        "log2_hashmap_size": layout.log2_size,
        "base_resolution": layout.coarsest,
        "per_level_scale": layout.growth,
        "interpolation": "Smoothstep" if layout.smooth else "Linear",
    }


class _WeightedRows(torch.autograd.Function):
    """Weighted sums of table rows; torch's ready-made way (embedding bags) sorts all indices in its backward pass."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
        """Sum ``weight * table[rows]`` over the eight corners."""
        ctx.save_for_backward(table, rows, weight)
        flat = rows.reshape(-1)
        columns = [
            column.contiguous().index_select(0, flat).view_as(weight).mul_(weight).sum(0) for column in table.unbind(-1)
        ]
        return torch.stack(columns, -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        """Spread the gradient over the rows; and, if points learn, over the weights."""
        table, rows, weight = ctx.saved_tensors
        flat, columns = rows.reshape(-1), [column.contiguous() for column in grad.unbind(-1)]
        to_table = to_weight = None
        if ctx.needs_input_grad[0]:
            to_table = torch.stack(
                [grad.new_zeros(len(table)).index_add_(0, flat, (weight * g).reshape(-1)) for g in columns], -1
            )
        if ctx.needs_input_grad[2]:
            to_weight = torch.zeros_like(weight)
            for values, g in zip(table.unbind(-1), columns, strict=True):
                to_weight.add_(values.contiguous().index_select(0, flat).view_as(weight) * g)
        return to_table, None, to_weight


def _weighted_rows(
    table: Float[Tensor, "t k"], rows: Int[Tensor, "8 m"], weight: Float[Tensor, "8 m"]
) -> Float[Tensor, "m k"]:
    out: Tensor = _WeightedRows.apply(table, rows, weight)
    return out
