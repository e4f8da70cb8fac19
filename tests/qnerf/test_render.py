"""Rendering: each layer at its own grid, and pictures for people."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qnerf.field import QueryField
from qnerf.rays import token_rays
from qnerf.render import principal_picture, render_opacity, render_queries
from qnerf.settings import QueryFieldSettings
from qnerf.store import QueryLayer, QueryStore
from scene.camera import Camera
from scene.errors import InputError
from tests.qnerf.conftest import LAYERS

Box = tuple[Tensor, Tensor]


@pytest.fixture
def field(box: Box) -> QueryField:
    made = QueryField(*box, LAYERS, QueryFieldSettings(width=16, geometry=16, hidden=16, density=3.0))
    with torch.no_grad():
        made.grid.table.uniform_(-1, 1)
        for background in made.backgrounds:
            background.normal_()
    return made


def test_every_layer_is_rendered_at_its_own_grid(field: QueryField, cameras: Callable[..., list[Camera]]) -> None:
    views = cameras(2)
    out = QueryStore.create(None, LAYERS, 2)
    render_queries(field, views, LAYERS, out)
    for view, camera in enumerate(views):
        for layer in LAYERS:
            origins, directions = token_rays(camera, layer.side)
            with torch.no_grad():
                samples = field.trace(origins[2], directions[2])
                expected = field.queries(samples, layer)
            assert torch.allclose(out.get(layer, view)[2], expected, atol=5e-3)


def test_only_the_layers_asked_for_are_put(field: QueryField, cameras: Callable[..., list[Camera]]) -> None:
    out = QueryStore.create(None, LAYERS, 1)
    render_queries(field, cameras(1), LAYERS[:1], out)
    out.get(LAYERS[0], 0)
    with pytest.raises(InputError, match="has no queries"):
        out.get(LAYERS[1], 0)


def test_opacity_is_that_of_the_rays(field: QueryField, cameras: Callable[..., list[Camera]]) -> None:
    (camera,) = cameras(1)
    found = render_opacity(field, camera, 12)
    origins, directions = token_rays(camera, 12)
    with torch.no_grad():
        expected = field.trace(origins.flatten(0, 1), directions.flatten(0, 1)).opacity.unflatten(0, (12, 12))
    assert torch.allclose(found, expected, atol=1e-6)
    assert float(found.min()) >= 0
    assert 0.3 < float(found.max()) <= 1


def test_pictures_are_colours_of_any_size(field: QueryField, cameras: Callable[..., list[Camera]]) -> None:
    (camera,) = cameras(1)
    picture = principal_picture(field, camera, 24)
    assert picture.shape == (24, 24, 3)
    assert float(picture.min()) >= 0
    assert float(picture.max()) <= 1
    assert float(picture.std(dim=(0, 1)).min()) > 0.02
    assert not torch.equal(principal_picture(field, camera, 8, LAYERS[0]), principal_picture(field, camera, 8))


def test_what_does_not_go_together_is_refused(field: QueryField, cameras: Callable[..., list[Camera]]) -> None:
    out = QueryStore.create(None, LAYERS, 3)
    with pytest.raises(InputError, match="2 cameras for a store of 3 views"):
        render_queries(field, cameras(2), LAYERS, out)
    with pytest.raises(InputError, match="the field has no layer 5 of side 4"):
        render_queries(field, cameras(3), [QueryLayer(4, 24, 5)], out)
