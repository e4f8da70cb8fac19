"""Rays of tokens go where the tokens lie in the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qnerf.rays import token_camera, token_rays
from scene.camera import Camera, look_at, orbit_camera
from scene.errors import InputError

ODD = Camera(look_at(np.array([1.2, -0.7, 0.9])), 140.0, 133.0, 61.0, 70.0, 128, 128)
"""Its principal point is not in the middle."""


@pytest.mark.parametrize("side", [4, 8, 16])
@pytest.mark.parametrize("camera", [orbit_camera(0.7, 0.3), ODD])
def test_points_on_a_tokens_ray_project_to_its_place_in_the_picture(camera: Camera, side: int) -> None:
    origins, directions = token_rays(camera, side)
    assert torch.allclose(directions.norm(dim=-1), torch.ones(side, side), atol=1e-6)
    for distance in (0.5, 2.0):
        pixels, _ = camera.project((origins + distance * directions).double().numpy())
        rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
        expected = np.stack([(columns + 0.5) / side, (rows + 0.5) / side], -1) * 128
        assert pixels == pytest.approx(expected, abs=1e-3)


def test_a_points_token_falls_where_the_camera_projects_it() -> None:
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (20, 3))
    pixels, _ = ODD.project(points)
    inside = ODD.shows(pixels, np.ones(20))
    assert inside.sum() > 10
    side = 16
    origins, directions = token_rays(ODD, side)
    for point, pixel in zip(points[inside], pixels[inside], strict=True):
        away = torch.from_numpy(point).float() - origins
        off = (away - (away * directions).sum(-1, keepdim=True) * directions).norm(dim=-1)
        nearest = divmod(int(off.argmin()), side)
        # Rays fan out, so near the border between two tokens either may be nearer.
        assert abs(nearest[1] + 0.5 - pixel[0] / 128 * side) < 0.55
        assert abs(nearest[0] + 0.5 - pixel[1] / 128 * side) < 0.55


def test_grids_of_pictures_that_are_not_square_are_refused() -> None:
    camera = Camera(np.eye(4), 100.0, 100.0, 64.0, 48.0, 128, 96)
    with pytest.raises(InputError, match="128x96"):
        token_camera(camera, 16)
    with pytest.raises(InputError, match="Crop"):
        token_rays(camera, 16)
