"""The field on its own: what rays gather, and that compositing before the heads is exact."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from qnerf.field import QueryField, truncated_exp
from qnerf.settings import QueryFieldSettings
from qnerf.store import QueryLayer
from scene.errors import SettingsError
from scene.volume_rendering import composite

LAYERS = (QueryLayer(2, 5, 0), QueryLayer(4, 7, 0), QueryLayer(4, 3, 1))
SMALL = QueryFieldSettings(levels=3, coarsest=4, finest=16, log2_size=10, width=16, geometry=12, hidden=10, density=3.0)


def build(**changes: object) -> QueryField:
    half = torch.tensor([0.5, 0.6, 0.4])
    settings = QueryFieldSettings(**{**vars(SMALL), **changes})
    field = QueryField(-half, half, LAYERS, settings)
    with torch.no_grad():
        # As after some steps: the grid matters, and backgrounds are something.
        field.grid.table.uniform_(-1, 1)
        for background in field.backgrounds:
            background.normal_()
    return field


def rays(count: int) -> tuple[Tensor, Tensor]:
    """From outside, towards points in the box."""
    origins = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1) * 1.5
    return origins, torch.nn.functional.normalize((torch.rand(count, 3) - 0.5) * 0.6 - origins, dim=-1)


@pytest.mark.parametrize("background", [False, True])
def test_summing_before_the_heads_is_exact(background: bool) -> None:
    field = build(background=background).double()
    origins, directions = (one.double() for one in rays(40))
    samples = field.trace(origins, directions)
    points = origins[:, None] + directions[:, None] * samples.distances[..., None]
    hidden = field._features(field._encoded(points))
    for index, layer in enumerate(LAYERS):
        outputs = composite(samples.weights, field.heads[index](hidden))
        if background:
            outputs = outputs + (1 - samples.opacity)[:, None] * field.backgrounds[index]
        assert float((field.queries(samples, layer) - outputs).abs().max().detach()) < 1e-6


def test_a_density_that_is_the_same_everywhere_has_a_known_opacity() -> None:
    field = build()
    with torch.no_grad():
        field.density_out.weight.zero_()
    out = field.trace(torch.tensor([[2.0, 0.0, 0.1]]), torch.tensor([[-1.0, 0.0, 0.0]]))
    # The longest side is 1.2, the way through the box 1, the density 3 per longest side.
    assert float(out.opacity.detach()) == pytest.approx(1 - math.exp(-3 / 1.2), abs=1e-5)
    assert float(field.density(torch.zeros(3)).detach()) == pytest.approx(3 / 1.2, rel=1e-5)


def test_samples_lie_in_the_box_and_in_their_strata() -> None:
    field = build()
    origins, directions = rays(60)
    even = field.trace(origins, directions)
    shaken = field.trace(origins, directions, jitter="sample", generator=torch.Generator().manual_seed(1))
    assert even.distances.shape == (60, 16)
    assert torch.allclose(even.distances.diff(dim=-1), even.spacing[:, None].expand(60, 15), atol=1e-5)
    assert float(((shaken.distances - even.distances).abs() / even.spacing[:, None]).max()) <= 0.5001
    assert not torch.equal(shaken.distances, even.distances)
    points = origins[:, None] + directions[:, None] * shaken.distances[..., None]
    assert bool((points >= field.low - 1e-5).all())
    assert bool((points <= field.high + 1e-5).all())


def test_rays_that_miss_see_the_background_alone() -> None:
    field = build()
    origins = torch.tensor([[0.0, 0.0, 2.0], [3.0, 0.0, 2.0], [0.0, 0.0, 2.0]])
    directions = torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, -1.0], [0.0, 0.0, 1.0]])
    samples = field.trace(origins, directions)
    assert float(samples.opacity[0].detach()) > 0.1
    assert samples.opacity[1:].tolist() == [0, 0]
    assert samples.depth[1:].tolist() == [0, 0]
    assert 1.6 < float(samples.depth[0].detach()) < 2.4
    for index, layer in enumerate(LAYERS):
        queries = field.queries(samples, layer)
        assert torch.equal(queries[1], field.backgrounds[index])
        assert not torch.allclose(queries[0], field.backgrounds[index])
    bare = build(background=False)
    assert float(bare.queries(bare.trace(origins, directions), LAYERS[0])[1:].abs().max().detach()) == 0
    assert not list(bare.backgrounds)


def test_only_rays_that_miss_are_no_trouble_for_gradients() -> None:
    field = build()
    samples = field.trace(torch.full((4, 3), 5.0), torch.tensor([[0.0, 0.0, 1.0]]).expand(4, 3))
    field.queries(samples, LAYERS[1]).square().sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in field.parameters())
    assert float(field.backgrounds[1].grad.abs().sum()) > 0


def test_every_parameter_learns_and_has_a_group() -> None:
    field = build()
    samples = field.trace(*rays(30))
    sum(field.queries(samples, layer).square().sum() for layer in LAYERS).backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in field.parameters())
    groups = field.parameter_groups(0.5, 0.25)
    assert {group["name"]: group["lr"] for group in groups} == {"grid": 0.5, "networks": 0.25}
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in field.parameters())


def test_rendering_in_parts_is_rendering_at_once() -> None:
    field = build()
    origins, directions = rays(5000)
    out = field.rendered(origins, directions, LAYERS[:2])
    with torch.no_grad():
        samples = field.trace(origins, directions)
    assert out.keys() == set(LAYERS[:2])
    for layer in LAYERS[:2]:
        assert torch.allclose(out[layer], field.queries(samples, layer).detach(), atol=1e-5)


def test_queries_do_not_depend_on_where_they_are_seen_from() -> None:
    field = build()
    with torch.no_grad():
        # Opaque: a ray ends at its first sample, just inside the box's upper side.
        field.density_out.bias.fill_(14.0)
    point = torch.tensor([0.05, 0.1, 0.4])
    directions = torch.nn.functional.normalize(torch.tensor([[0.0, 0.0, -1.0], [0.3, -0.2, -1.0]]), dim=-1)
    out = field.trace(point - 1.0 * directions, directions)
    first = (point + directions * (out.spacing / 2)[:, None])[:, None]
    for index, layer in enumerate(LAYERS):
        expected = field.heads[index](field._features(field._encoded(first)))[:, 0]
        assert torch.allclose(field.queries(out, layer), expected, atol=1e-3)


def test_first_weights_come_from_the_seed_alone() -> None:
    one, two, other = (QueryField(-torch.ones(3), torch.ones(3), LAYERS, SMALL, seed=seed) for seed in (3, 3, 4))
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.grid.table, other.grid.table)


def test_the_exponential_is_cut_off_and_keeps_a_slope() -> None:
    exponent = torch.tensor([-200.0, -1.0, 0.0, 10.0, 14.9, 200.0], requires_grad=True)
    out = truncated_exp(exponent)
    assert out[1:4].tolist() == pytest.approx([math.exp(-1), 1, math.exp(10)], rel=1e-5)
    assert float(out[-1].detach()) == pytest.approx(math.exp(15), rel=1e-5)
    out.sum().backward()
    slope = exponent.grad.tolist()
    assert slope[1:4] == pytest.approx([math.exp(-1), 1, math.exp(10)], rel=1e-5)
    assert slope[0] == pytest.approx(math.exp(-15), rel=1e-4)
    assert slope[-1] == pytest.approx(math.exp(15), rel=1e-4)


def test_fields_of_nothing_are_refused() -> None:
    with pytest.raises(SettingsError, match="corners"):
        QueryField(torch.ones(3), torch.ones(3), LAYERS)
    with pytest.raises(SettingsError, match="needs a layer"):
        QueryField(-torch.ones(3), torch.ones(3), ())
    with pytest.raises(SettingsError, match="samples"):
        QueryFieldSettings(samples=0)
    with pytest.raises(SettingsError, match="coarsest <= finest"):
        QueryFieldSettings(coarsest=64, finest=32)
