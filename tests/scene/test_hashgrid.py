"""Hash grids: table layout, interpolation, gradients, bands, and the same values from tiny-cuda-nn's side."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from scene import hashgrid
from scene.errors import SettingsError, ViewloomError
from scene.hashgrid import HashGrid, HashLayout, TcnnHashGrid, tcnn_config, uses_tcnn

SMALL = HashLayout(levels=4, coarsest=3, finest=11, log2_size=8)
"""Two dense levels and two that share rows."""
CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Encoding(nn.Module):
    """What tinycudann.Encoding computes, one vertex at a time, with whole numbers as Python has them."""

    def __init__(
        self, n_input_dims: int, encoding_config: dict[str, Any], seed: int = 1337, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        assert (n_input_dims, dtype) == (3, torch.float32)
        self.config = encoding_config
        self.n_output_dims = encoding_config["n_levels"] * encoding_config["n_features_per_level"]
        self.levels = []
        first = 0
        for level in range(encoding_config["n_levels"]):
            growth = np.log2(np.float32(encoding_config["per_level_scale"]), dtype=np.float32)
            scale = np.exp2(np.float32(level) * growth) * np.float32(encoding_config["base_resolution"]) - np.float32(1)
            resolution = math.ceil(scale) + 1
            size = min((resolution**3 + 7) // 8 * 8, 2 ** encoding_config["log2_hashmap_size"])
            self.levels.append((float(scale), resolution, first, size))
            first += size
        self.params = nn.Parameter(torch.zeros(first * encoding_config["n_features_per_level"]))

    def forward(self, points: Tensor) -> Tensor:
        rows = self.params.view(-1, self.config["n_features_per_level"])
        out = torch.zeros(len(points), self.n_output_dims)
        for k, point in enumerate(points.tolist()):
            found = [self._level(rows, point, *level) for level in self.levels]
            out[k] = torch.cat(found)
        return out

    def _level(self, rows: Tensor, point: list[float], scale: float, resolution: int, first: int, size: int) -> Tensor:
        position = [scale * x + 0.5 for x in point]
        low = [math.floor(x) for x in position]
        part = [x - a for x, a in zip(position, low, strict=True)]
        if self.config["interpolation"] == "Smoothstep":
            part = [x * x * (3 - 2 * x) for x in part]
        total = torch.zeros(rows.shape[1])
        for corner in itertools.product((0, 1), repeat=3):
            x, y, z = (a + c for a, c in zip(low, corner, strict=True))
            if resolution**3 <= size:
                row = x + y * resolution + z * resolution**2
            else:
                row = x ^ (y * 2654435761 % 2**32) ^ (z * 805459861 % 2**32)
            weight = math.prod(p if c else 1 - p for p, c in zip(part, corner, strict=True))
            total = total + weight * rows[first + row % size]
        return total


TINYCUDANN = SimpleNamespace(Encoding=Encoding)


def random_grid(layout: HashLayout = SMALL) -> HashGrid:
    return HashGrid(layout, spread=1.0)


def inner(count: int, layout: HashLayout = SMALL) -> Tensor:
    """Points that are at least half a cell of the coarsest level away from the border."""
    margin = 0.5 / layout.scales[0]
    return margin + torch.rand(count, 3) * (1 - 2 * margin)


@given(
    st.builds(
        HashLayout,
        levels=st.integers(1, 16),
        features=st.integers(1, 4),
        coarsest=st.integers(2, 32),
        finest=st.sampled_from([32, 100, 128, 512, 2048]),
        log2_size=st.integers(8, 19),
    )
)
def test_levels_grow_as_asked_and_follow_each_other_in_the_table(layout: HashLayout) -> None:
    assert layout.resolutions[0] == layout.coarsest
    assert layout.levels == 1 or layout.resolutions[-1] == layout.finest
    assert list(layout.resolutions) == sorted(layout.resolutions)
    assert all(size % 8 == 0 and size <= 2**layout.log2_size for size in layout.sizes)
    for level, (resolution, size) in enumerate(zip(layout.resolutions, layout.sizes, strict=True)):
        assert (size >= resolution**3) == (level < layout.dense_levels)
    ends = [first + size for first, size in zip(layout.offsets, layout.sizes, strict=True)]
    assert ends[:-1] == list(layout.offsets[1:])
    # Single precision, which tiny-cuda-nn computes in, comes to the same numbers.
    native = Encoding(3, tcnn_config(layout), dtype=torch.float32)
    assert [(r, f, s) for _, r, f, s in native.levels] == list(
        zip(layout.resolutions, layout.offsets, layout.sizes, strict=True)
    )


@pytest.mark.parametrize(
    "wrong",
    [{"levels": 0}, {"features": 0}, {"log2_size": 2}, {"log2_size": 31}, {"coarsest": 1}, {"finest": 8}],
    ids=str,
)
def test_layouts_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="a hash grid cannot"):
        HashLayout(**wrong)


@pytest.mark.parametrize("level", [0, 1])
def test_dense_levels_are_trilinear_interpolation(level: int) -> None:
    grid = random_grid()
    r, first = SMALL.resolutions[level], SMALL.offsets[level]
    assert level < SMALL.dense_levels
    volume = grid.table[first : first + r**3].T.reshape(1, 2, r, r, r)
    points = torch.rand(200, 3)
    # Vertex k stands at (k - 0.5) / scale; grid_sample's coordinates run from -1 at the first vertex to 1 at the last.
    where = (points * SMALL.scales[level] + 0.5) / (r - 1) * 2 - 1
    expected = F.grid_sample(volume, where[None, None, None], padding_mode="border", align_corners=True)[0, :, 0, 0].T
    assert torch.allclose(grid(points)[:, 2 * level : 2 * level + 2], expected, atol=1e-5)


@pytest.mark.parametrize("smooth", [False, True])
def test_torch_and_tiny_cuda_nn_read_the_same_table(smooth: bool) -> None:
    layout = HashLayout(levels=4, coarsest=3, finest=11, log2_size=8, smooth=smooth)
    grid = random_grid(layout)
    native = TcnnHashGrid(layout, TINYCUDANN)
    points = inner(40)
    expected = native(points, grid.table)
    assert torch.allclose(grid(points), expected, atol=1e-5)
    (mine,) = torch.autograd.grad(grid(points).square().sum(), grid.table)
    (theirs,) = torch.autograd.grad(expected.square().sum(), grid.table)
    assert float(mine.abs().sum()) > 0
    assert torch.allclose(mine, theirs, atol=1e-4)


def test_another_table_of_tiny_cuda_nn_is_refused() -> None:
    class Larger(Encoding):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.params = nn.Parameter(torch.zeros(len(self.params) + 8))

    with pytest.raises(ViewloomError, match="parameters where"):
        TcnnHashGrid(SMALL, SimpleNamespace(Encoding=Larger))


def test_tiny_cuda_nn_is_for_its_devices_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashgrid, "optional_module", lambda _: None)
    assert not uses_tcnn(GPU, SMALL)
    monkeypatch.setattr(hashgrid, "optional_module", lambda name: TINYCUDANN if name == "tinycudann" else None)
    assert uses_tcnn(GPU, SMALL)
    assert not uses_tcnn(CPU, SMALL)
    assert not uses_tcnn(GPU, HashLayout(levels=17))


def test_the_table_stays_the_only_parameter_whoever_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, points = random_grid(), inner(20)
    grid.active_levels = 3
    expected = grid(points)
    monkeypatch.setattr(hashgrid, "optional_module", lambda _: TINYCUDANN)
    monkeypatch.setattr(hashgrid, "uses_tcnn", lambda *_: True)
    native = grid(points)
    assert torch.allclose(native, expected, atol=1e-5)
    assert torch.autograd.grad(native.sum(), grid.table)[0].shape == grid.table.shape
    assert [name for name, _ in grid.named_parameters()] == ["table"]
    assert "_native" not in "".join(grid.state_dict())


@pytest.mark.parametrize("smooth", [False, True])
def test_gradients_are_those_of_finite_differences(smooth: bool) -> None:
    layout = HashLayout(levels=3, features=2, coarsest=3, finest=7, log2_size=6, smooth=smooth)
    grid = random_grid(layout).double()
    table = grid.table.detach().clone().requires_grad_()
    points = (0.1 + 0.8 * torch.rand(3, 3, dtype=torch.float64)).requires_grad_()

    def features(table: Tensor, points: Tensor) -> Tensor:
        return functional_call(grid, {"table": table}, (points,))

    assert layout.dense_levels == 1
    assert torch.autograd.gradcheck(features, (table, points))


def test_smooth_weights_have_no_slope_at_vertices() -> None:
    grid = random_grid(HashLayout(levels=1, coarsest=5, finest=5, log2_size=8, smooth=True))
    vertex = ((torch.tensor([[1.0, 2.0, 3.0]]) - 0.5) / 4).requires_grad_()
    (slope,) = torch.autograd.grad(grid(vertex).sum(), vertex)
    assert float(slope.abs().max()) < 1e-4
    between = ((torch.tensor([[1.5, 2.5, 3.5]]) - 0.5) / 4).requires_grad_()
    (slope,) = torch.autograd.grad(grid(between).sum(), between)
    assert float(slope.abs().max()) > 1e-2


@pytest.mark.parametrize("active", range(5))
def test_inactive_levels_are_zero_and_learn_nothing(active: int) -> None:
    grid, points = random_grid(), torch.rand(30, 3)
    full = grid(points)
    grid.active_levels = active
    out = grid(points)
    assert torch.allclose(out[:, : 2 * active], full[:, : 2 * active], atol=1e-6)
    assert not out[:, 2 * active :].any()
    assert grid.finest_active == SMALL.resolutions[max(active, 1) - 1]
    if active:
        (gradient,) = torch.autograd.grad(out.sum(), grid.table)
        finer = gradient[SMALL.offsets[active] :] if active < 4 else gradient[:0]
        assert float(gradient.abs().sum()) > 0
        assert not finer.any()


def test_the_number_of_active_levels_is_saved() -> None:
    grid, other = random_grid(), random_grid()
    grid.active_levels = 2
    other.load_state_dict(grid.state_dict())
    points = torch.rand(9, 3)
    assert other.active_levels == 2
    assert torch.equal(grid(points), other(points))


@settings(max_examples=20)
@given(st.lists(st.tuples(*[st.floats(-3, 4)] * 3), min_size=1, max_size=4))
def test_beyond_the_cube_the_border_goes_on(points: list[tuple[float, float, float]]) -> None:
    torch.manual_seed(0)
    grid = random_grid()
    where = torch.tensor(points)
    assert torch.equal(grid(where), grid(where.clamp(0, 1)))


def test_points_come_in_any_shape() -> None:
    grid, points = random_grid(), torch.rand(2, 3, 4, 3)
    assert grid(points).shape == (2, 3, 4, grid.width)
    assert torch.allclose(grid(points)[1, 2, 3], grid(points[1, 2, 3]), atol=1e-6)
    assert grid(points[:0]).shape == (0, 3, 4, grid.width)
