"""Hash fields: the sphere they start as, bands, derivatives, colours, and what an optimiser is given."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage import measure
from torch import Tensor

from recon.hash_sdf.field import HashField
from recon.mesh.health import mesh_health
from recon.neus import neus_alpha
from scene.errors import SettingsError
from scene.hashgrid import HashLayout
from scene.volume_rendering import ray_box_span, render_weights
from scene.voxels import voxel_centres

LOW, HIGH = -torch.ones(3), torch.ones(3)
SMALL = HashLayout(levels=5, coarsest=4, finest=32, log2_size=10)


def sphere(radius: float = 0.5, **options: object) -> HashField:
    return HashField(LOW, HIGH, layout=SMALL, radius=radius, **options)


def trained(**options: object) -> HashField:
    """A field that is no sphere any more."""
    field = HashField(LOW, HIGH, layout=SMALL, **options)
    with torch.no_grad():
        field.grid.table.normal_(std=0.3)
        field.sdf_hidden.weight.add_(0.2 * torch.randn_like(field.sdf_hidden.weight))
        field.sdf_out.weight.add_(0.2 * torch.randn_like(field.sdf_out.weight))
    return field


def inner(count: int, reach: float = 0.8) -> Tensor:
    return (torch.rand(count, 3) * 2 - 1) * reach


def grid_of(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float()


@pytest.mark.parametrize("sharpness", [64.0, 512.0])
def test_a_ray_through_the_first_sphere_ends_at_its_front(sharpness: float) -> None:
    field = sphere()
    aside = torch.tensor([[0.0, 0.0], [0.2, -0.1], [-0.1, 0.3]])
    origin = torch.cat([aside, torch.full((3, 1), 2.0)], -1)
    direction = torch.tensor([[0.0, 0.0, -1.0]]).expand(3, 3)
    near, far = ray_box_span(origin, direction, -1.0, 1.0)
    t = near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, 513)
    sdf = field.sdf(origin[:, None] + t[..., None] * direction[:, None])
    length = t.diff(dim=-1)
    weights = render_weights(neus_alpha((sdf[:, 1:] + sdf[:, :-1]) / 2, sdf.diff(dim=-1) / length, length, sharpness))
    depth = (weights * (t[:, 1:] + t[:, :-1]) / 2).sum(-1)
    expected = 2 - (0.25 - aside.square().sum(-1)).sqrt()
    assert weights.sum(-1).detach().numpy() == pytest.approx(1, abs=1e-3)
    # The sphere itself is a polyhedron of 64 directions: half a percent of its radius.
    assert depth.detach().numpy() == pytest.approx(expected.numpy(), abs=0.003 * 1.5 + 0.005 * 0.5)


@pytest.mark.parametrize("centre", [(0.0, 0.0, 0.0), (0.2, -0.1, 0.3)])
def test_the_first_sphere_is_a_distance_with_gradients_of_length_one(centre: tuple[float, float, float]) -> None:
    middle = torch.tensor(centre)
    field = sphere(0.4, centre=middle)
    points = inner(500)
    # The softplus rounds the tip of the cone at the middle.
    points = points[(points - middle).norm(dim=-1) > 0.25]
    assert float(field.sdf(middle).detach()) < 0 < float(field.sdf(LOW).detach())
    assert torch.allclose(field.sdf(points), (points - middle).norm(dim=-1) - 0.4, atol=0.02)
    gradient = field.gradient(points)
    assert gradient.norm(dim=-1).detach().numpy() == pytest.approx(1, abs=0.1)
    outward = torch.nn.functional.normalize(points - middle, dim=-1)
    assert float((gradient * outward).sum(-1).min()) > 0.9


def test_marching_cubes_of_the_first_field_is_a_closed_sphere() -> None:
    values = sphere().dense((48, 48, 48)).numpy()
    vertices, faces, _, _ = measure.marching_cubes(values, 0.0)
    points = ((vertices + 0.5) / 24 - 1).astype(np.float64)
    health = mesh_health(points, faces.astype(np.int64))
    assert health.watertight
    assert (health.components, health.euler) == (1, 2)
    assert health.volume == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.03)
    assert np.linalg.norm(points, axis=1) == pytest.approx(0.5, abs=0.01)


def test_a_field_begins_as_the_grid_it_is_given_and_learns_a_change() -> None:
    slopes = np.array([0.5, -0.3, 0.2])
    start = grid_of(voxel_centres(8, 1.0) @ slopes + 0.1)
    field = HashField(LOW, HIGH, layout=SMALL, start=start)
    points = inner(50)
    expected = points @ torch.tensor(slopes).float() + 0.1
    assert torch.allclose(field.sdf(points), expected, atol=1e-5)
    gradient, laplacian = field.gradient_and_laplacian(inner(50, 0.6))
    assert torch.allclose(gradient, torch.tensor(slopes).float().expand(50, 3), atol=1e-4)
    assert float(laplacian.abs().max()) < 1e-2
    assert "start" not in {name for name, _ in field.named_parameters()}
    optimiser = torch.optim.Adam(field.parameter_groups(1e-3), eps=1e-15)
    for _ in range(3):
        optimiser.zero_grad()
        (field.sdf(points) - expected - 0.05).square().mean().backward()
        optimiser.step()
    assert float((field.sdf(points) - expected).mean()) > 0.002
    assert torch.equal(field.start[0, 0], start)


def test_differences_of_a_quadratic_are_exact() -> None:
    class Quadratic(HashField):
        def sdf(self, points: Tensor) -> Tensor:
            return (points.square() * torch.tensor([1.0, 2.0, -0.5])).sum(-1)

    field = Quadratic(LOW, HIGH, layout=SMALL)
    points = inner(20)
    gradient, laplacian = field.gradient_and_laplacian(points)
    assert torch.allclose(gradient, points * torch.tensor([2.0, 4.0, -1.0]), atol=1e-4)
    assert torch.allclose(field.gradient(points), gradient)
    assert laplacian.numpy() == pytest.approx(5, abs=1e-2)
    assert torch.allclose(field.gradient_and_laplacian(points, field.sdf(points))[1], laplacian)


def test_bands_join_one_by_one_and_steps_follow_the_finest() -> None:
    field = HashField(LOW, HIGH, layout=SMALL, first_levels=2, level_interval=0.25)
    seen = []
    for share in (0.0, 0.24, 0.25, 0.5, 0.75, 1.0):
        field.set_progress(share)
        seen.append(field.grid.active_levels)
        assert field.cell == pytest.approx(2 / SMALL.resolutions[seen[-1] - 1])
    assert seen == [2, 2, 3, 4, 5, 5]


@pytest.mark.parametrize("shape", [(6, 6, 6), (5, 7, 4)])
@pytest.mark.parametrize("chunk", [16, 1 << 16])
def test_the_dense_grid_holds_the_distances_at_its_voxels(shape: tuple[int, int, int], chunk: int) -> None:
    low, high = torch.tensor([-1.0, -0.5, 0.0]), torch.tensor([0.5, 1.0, 0.8])
    field = HashField(low, high, layout=SMALL, radius=0.3, centre=torch.tensor([0.1, 0.2, 0.3]))
    with torch.no_grad():
        field.grid.table.normal_()
        field.sdf_hidden.weight.normal_(std=0.3)
    axes = [
        a + (torch.arange(n) + 0.5) / n * (b - a) for a, b, n in zip(low.tolist(), high.tolist(), shape, strict=True)
    ]
    expected = field.sdf(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1))
    assert torch.allclose(field.dense(shape, chunk), expected, atol=1e-4)


def test_the_features_of_the_distance_network_are_those_of_colours() -> None:
    field, points = trained(), inner(7)
    sdf, features = field.sdf_and_features(points)
    assert torch.allclose(sdf, field.sdf(points), atol=1e-5)
    assert torch.allclose(field.rgb(points, features=features), field.rgb(points), atol=1e-5)
    assert features.shape == (7, 15)
    colours = field.rgb(points.reshape(1, 7, 3))
    assert colours.shape == (1, 7, 3)
    assert 0 <= float(colours.min()) < float(colours.max()) <= 1


def test_many_points_in_blocks_are_as_few_at_once() -> None:
    field, points = trained(), inner(9000)
    whole = field.sdf(points.reshape(3, 3000, 3))
    assert whole.shape == (3, 3000)
    assert torch.allclose(whole.reshape(-1)[8000:], field.sdf(points[8000:]), atol=1e-5)
    (gradient,) = torch.autograd.grad(whole.sum(), field.grid.table)
    parts = [torch.autograd.grad(field.sdf(part).sum(), field.grid.table)[0] for part in points.split(3000)]
    assert torch.allclose(gradient, sum(parts), rtol=1e-3, atol=1e-2)


def test_colours_begin_at_the_mean() -> None:
    field, mean = sphere(), torch.tensor([0.8, 0.3, 0.1])
    field.set_mean_colour(mean)
    assert field.rgb(inner(50)).detach().numpy() == pytest.approx(mean.expand(50, 3).numpy(), abs=0.05)


def test_only_directional_colours_depend_on_the_view() -> None:
    points = inner(9)
    one, other = torch.nn.functional.normalize(torch.randn(2, 9, 3), dim=-1)
    flat = trained()
    assert torch.equal(flat.rgb(points, directions=one), flat.rgb(points, directions=other))
    shiny = trained(directional=True)
    assert not torch.allclose(shiny.rgb(points, directions=one), shiny.rgb(points, directions=other), atol=1e-4)
    normals = torch.nn.functional.normalize(shiny.gradient(points), dim=-1)
    assert torch.equal(shiny.rgb(points), shiny.rgb(points, directions=-normals, normals=normals))


def test_every_parameter_is_in_one_group() -> None:
    field = sphere(directional=True)
    groups = field.parameter_groups(1e-3)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in field.parameters())
    assert {group["name"]: group["lr"] for group in groups} == {"table": 1e-2, "networks": 1e-3}
    torch.optim.Adam(groups)


def test_a_saved_field_is_the_same_field() -> None:
    field, other = trained(directional=True), sphere(directional=True)
    field.set_progress(0.0)
    other.load_state_dict(field.state_dict())
    points = inner(20)
    assert torch.equal(other.sdf(points), field.sdf(points))
    assert torch.equal(other.rgb(points), field.rgb(points))


def test_a_field_learns_a_box() -> None:
    field = sphere(0.3, level_interval=0.1, first_levels=2)
    optimiser = torch.optim.Adam(field.parameter_groups(2e-3), betas=(0.9, 0.99), eps=1e-15)

    def error() -> Tensor:
        points = inner(1500, 0.9)
        away = points.abs() - torch.tensor([0.5, 0.3, 0.6])
        truth = away.clamp(min=0).norm(dim=-1) + away.amax(-1).clamp(max=0)
        return (field.sdf(points) - truth).abs().mean()

    first = float(error().detach())
    for step in range(120):
        field.set_progress(step / 120)
        optimiser.zero_grad()
        error().backward()
        optimiser.step()
    assert float(error().detach()) < 0.1 * first


def test_an_empty_box_is_refused() -> None:
    with pytest.raises(SettingsError, match="corners low < high"):
        HashField(LOW, LOW)
