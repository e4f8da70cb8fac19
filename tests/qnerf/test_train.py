"""Fits to a ball whose queries are known: held-out views, noise, backgrounds, masks, depths, and the same run twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from qnerf.field import QueryField
from qnerf.rays import token_rays
from qnerf.render import render_opacity, render_queries
from qnerf.settings import FieldTrainingSettings, QueryFieldSettings
from qnerf.store import QueryLayer, QueryStore, Statistics, token_weights
from qnerf.train import FieldReport, train_field
from scene.camera import Camera
from scene.errors import InputError
from tests.qnerf.conftest import LAYERS, Ball

Box = tuple[Tensor, Tensor]
Ring = Callable[..., list[Camera]]
SMALL = QueryFieldSettings(width=32, geometry=32, hidden=48, samples=12, levels=5, finest=40, log2_size=13)
MEDIUM = replace(SMALL, width=48, geometry=64, hidden=64, levels=6, finest=48)
QUICK = FieldTrainingSettings(steps=120, rays=256, opacity_weight=0.1)


def masks_of(ball: Ball, cameras: Sequence[Camera], side: int = 16) -> Tensor:
    return torch.stack([ball.mask(camera, side) for camera in cameras])


def units(field: QueryField, cameras: Sequence[Camera], statistics: dict[QueryLayer, Statistics]) -> QueryStore:
    """Rendered queries in the units of the views' own."""
    out = QueryStore.create(None, field.layers, len(cameras))
    render_queries(field, cameras, field.layers, out)
    for view in range(len(cameras)):
        out.put(view, {k: out.get(k, view) * statistics[k].deviation + statistics[k].mean for k in field.layers})
    return out


def distance(one: QueryStore, other: QueryStore, layer: QueryLayer, masks: Tensor) -> float:
    """Root mean square of the difference on the ball, over the deviation of the first there."""
    weight = token_weights(masks, layer.side)
    error = sum(
        (weight[k] * (one.get(layer, k) - other.get(layer, k)).square().sum(-1)).sum() for k in range(one.views)
    )
    spread = float(weight.sum()) * one.statistics(layer, masks).deviation.square().sum()
    return math.sqrt(float(error / spread))


class Fit:
    """A field that was fitted to noisy queries of twelve views, with masks."""

    noise = 1.5

    def __init__(self, ball: Ball, box: Box, ring: Ring) -> None:
        self.cameras = ring(12)
        self.clean, self.noisy = ball.store(self.cameras), ball.store(self.cameras, self.noise)
        self.masks = masks_of(ball, self.cameras)
        self.field = QueryField(*box, LAYERS, MEDIUM)
        settings = replace(QUICK, steps=200, rays=384)
        self.report = train_field(self.field, self.noisy, self.cameras, settings, masks=self.masks, seed=1)


@pytest.fixture(scope="module")
def fit(ball: Ball, box: Box, cameras: Ring) -> Fit:
    # It is made before the first test sets this; see the conftest of all tests.
    torch.set_num_threads(1)
    return Fit(ball, box, cameras)


def test_views_that_were_never_seen_are_predicted(fit: Fit, ball: Ball, cameras: Ring) -> None:
    unseen = cameras(12, 0.5)[:6]
    masks, true = masks_of(ball, unseen), ball.store(unseen)
    found = units(fit.field, unseen, dict(fit.report.statistics))
    # The mean of all views, which is the best guess without knowing where things are, has distance 1. Tokens of a
    # coarse grid are means over areas that a single ray through their middle does not see.
    for layer in LAYERS:
        assert distance(true, found, layer, masks) < {4: 0.6, 8: 0.45, 16: 0.45}[layer.side]


def test_noise_of_single_views_is_averaged_out(fit: Fit) -> None:
    found = units(fit.field, fit.cameras, dict(fit.report.statistics))
    for layer in LAYERS[2:]:
        noise = distance(fit.clean, fit.noisy, layer, fit.masks)
        assert noise > 0.7
        assert distance(fit.clean, found, layer, fit.masks) < 0.6 * noise


def test_opacity_is_the_mask(fit: Fit, ball: Ball, cameras: Ring) -> None:
    camera = cameras(12, 0.5)[3]
    off = (render_opacity(fit.field, camera, 16) - ball.mask(camera)).abs()
    assert float(off.mean()) < 0.1


def test_the_report_says_what_happened(fit: Fit) -> None:
    report = fit.report
    assert report.first.keys() == report.last.keys() == report.distances.keys() == set(LAYERS)
    assert len(report.losses) == 200
    assert report.seconds > 0
    for layer in LAYERS:
        assert 0.5 < report.first[layer] < 1.5
        assert report.last[layer] < 0.6 * report.first[layer]
        # Distances are measured on each layer's own grid, in deviations over the masks.
        rendered = QueryStore.create(None, LAYERS, 12)
        render_queries(fit.field, fit.cameras, [layer], rendered)
        weight, (mean, deviation) = token_weights(fit.masks, layer.side), report.statistics[layer]
        errors = [
            ((fit.noisy.get(layer, k) - mean) / deviation - rendered.get(layer, k)).square().mean(-1) for k in range(12)
        ]
        expected = ((torch.stack(errors) * weight).sum() / weight.sum()).sqrt()
        assert report.distances[layer] == pytest.approx(float(expected), rel=1e-3)
    assert torch.equal(report.statistics[LAYERS[0]].mean, fit.noisy.statistics(LAYERS[0], fit.masks).mean)


def short(ball: Ball, box: Box, ring: Ring, **changes: object) -> tuple[QueryField, FieldReport]:
    views = ring(4)
    field = QueryField(*box, LAYERS, SMALL)
    settings = replace(QUICK, steps=3, rays=64)
    return field, train_field(field, ball.store(views), views, settings, **changes)


def test_the_same_seed_gives_the_same_field(ball: Ball, box: Box, cameras: Ring) -> None:
    (one, first), (two, second), (other, _) = (short(ball, box, cameras, seed=seed) for seed in (5, 5, 6))
    assert first.losses == second.losses
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.grid.table, other.grid.table)


def test_a_second_fit_goes_on_from_the_first(ball: Ball, box: Box, cameras: Ring) -> None:
    views = cameras(6)
    field, store = QueryField(*box, LAYERS, SMALL), ball.store(views)
    settings = replace(QUICK, steps=25)
    first = train_field(field, store, views, settings)
    again = train_field(field, store, views, settings)
    assert again.losses[0] < 0.8 * first.losses[0]
    assert again.distances[LAYERS[2]] < first.distances[LAYERS[2]]


def test_backgrounds_are_learned_where_nothing_stands(ball: Ball, box: Box, cameras: Ring) -> None:
    views, layer = cameras(6), LAYERS[2]
    store = ball.store(views)
    # Beside the box there is nothing else.
    away = torch.tensor([[0.0, 0.0, 5.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    corner = token_rays(views[0], 16)
    found, seen = {}, {}
    for background in (False, True):
        field = QueryField(*box, LAYERS, replace(SMALL, background=background))
        report = train_field(field, store, views, replace(QUICK, steps=50))
        found[background] = field.rendered(*away, [layer])[layer][0]
        seen[background] = field.rendered(corner[0][0, :1], corner[1][0, :1], [layer])[layer][0]
    mean, deviation = report.statistics[layer]
    true = (store.get(layer, 0)[0, 0] - mean) / deviation
    size = float(true.square().mean().sqrt())
    assert float((found[True] - true).square().mean().sqrt()) < 0.8 * size
    assert float((seen[True] - true).square().mean().sqrt()) < 0.4 * size
    assert float(found[False].abs().max()) == 0


def test_masks_leave_what_is_outside_out_of_the_loss(ball: Ball, box: Box, cameras: Ring) -> None:
    views = cameras(4)
    store, masks = ball.store(views), (masks_of(ball, views) == 1).float()
    spoilt = ball.store(views)
    for view in range(4):
        fine = {layer: store.get(layer, view) for layer in LAYERS if layer.side == 16}
        spoilt.put(view, {k: torch.where(masks[view][..., None] > 0, v, v + 100) for k, v in fine.items()})
    settings = replace(QUICK, steps=3, rays=64)
    fields = []
    for one in (store, spoilt):
        fields.append(QueryField(*box, LAYERS[2:], SMALL))
        train_field(fields[-1], one, views, settings, masks=masks)
    for a, b in zip(*(field.parameters() for field in fields), strict=True):
        assert torch.equal(a, b)


def test_depths_put_the_surface_where_it_is(ball: Ball, box: Box, cameras: Ring) -> None:
    views = cameras(6)
    store, masks = ball.store(views), masks_of(ball, views)
    depths = torch.stack([ball.depth(camera) for camera in views])
    off = {}
    for weight in (0.0, 0.3):
        field = QueryField(*box, LAYERS, SMALL)
        train_field(field, store, views, replace(QUICK, steps=60, depth_weight=weight), masks=masks, depths=depths)
        camera = cameras(6, 0.5)[0]
        origins, directions = (rays[6:10, 6:10].flatten(0, 1) for rays in token_rays(camera, 16))
        with torch.no_grad():
            samples = field.trace(origins, directions)
        true = ball.depth(camera)[6:10, 6:10].flatten()
        found = samples.depth * (directions @ torch.from_numpy(camera.forward).float())
        off[weight] = float((found - true).abs().mean())
    assert off[0.3] < 0.06
    assert off[0.3] < 0.6 * off[0.0]


def test_a_robust_fit_is_not_drawn_to_one_views_outliers(ball: Ball, box: Box, cameras: Ring) -> None:
    views, layer = cameras(8), LAYERS[1]
    store, masks = ball.store(views), masks_of(ball, views, 8)
    clean = ball.store(views)
    store.put(3, {layer: store.get(layer, 3) + 8})
    off = {}
    for robust in (False, True):
        field = QueryField(*box, [layer], SMALL)
        report = train_field(field, store, views, replace(QUICK, steps=60, robust=robust), masks=masks)
        off[robust] = distance(clean, units(field, views, dict(report.statistics)), layer, masks)
    assert off[True] < 0.8 * off[False]


def test_progress_is_told_and_may_end_the_fit(ball: Ball, box: Box, cameras: Ring) -> None:
    told: list[tuple[int, int]] = []
    short(ball, box, cameras, progress=lambda step, steps: told.append((step, steps)))
    assert told == [(1, 3), (2, 3), (3, 3)]

    def stop(step: int, steps: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        short(ball, box, cameras, progress=stop)


def test_no_steps_are_a_measurement(ball: Ball, box: Box, cameras: Ring) -> None:
    views = cameras(4)
    field = QueryField(*box, LAYERS, replace(SMALL, background=False))
    before = [parameter.clone() for parameter in field.parameters()]
    report = train_field(field, ball.store(views), views, replace(QUICK, steps=0))
    assert report.losses == ()
    assert report.first == report.last == {}
    assert all(torch.equal(a, b) for a, b in zip(before, field.parameters(), strict=True))
    # Of standardised queries, which are about zero, to about zero.
    assert all(value == pytest.approx(1, abs=0.15) for value in report.distances.values())


def test_what_does_not_go_together_is_refused(ball: Ball, box: Box, cameras: Ring) -> None:
    views = cameras(4)
    store, field = ball.store(views), QueryField(*box, LAYERS, SMALL)
    with pytest.raises(InputError, match="3 cameras for the queries of 4 views"):
        train_field(field, store, views[:3])
    with pytest.raises(InputError, match="masks have the shape"):
        train_field(field, store, views, masks=torch.ones(4, 8, 8))
    with pytest.raises(InputError, match="depths have the shape"):
        train_field(field, store, views, depths=torch.ones(3, 16, 16))
    with pytest.raises(InputError, match="no queries of layer"):
        train_field(field, QueryStore.create(None, LAYERS, 4), views)
    with pytest.raises(InputError, match="no square"):
        train_field(field, store, [replace(views[0], height=64), *views[1:]])
    with pytest.raises(InputError, match="leave no token"):
        train_field(field, store, views, masks=torch.zeros(4, 16, 16))
    with pytest.raises(InputError, match="no layer 3 of side 8"):
        train_field(QueryField(*box, [QueryLayer(8, 2, 3)], SMALL), store, views)
