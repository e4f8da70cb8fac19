"""Captures as nerfstudio reads them: the same rays, masks as a fourth channel, rays outside the masks too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from recon.nerfstudio.data import CaptureDataset
from recon.nerfstudio.method import surface_method
from scene.camera import Camera
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet


def parsed(folder: Path) -> CaptureDataset:
    """All pictures of a capture through the parser of the method."""
    config: NerfstudioDataParserConfig = surface_method().config.pipeline.datamanager.dataparser
    config.data, config.eval_mode = folder, "all"
    return CaptureDataset(config.setup().get_dataparser_outputs(split="train"))


@pytest.fixture
def odd_views(odd_cameras: list[Camera]) -> ViewSet:
    rng = np.random.default_rng(1)
    return ViewSet(
        tuple(
            View(f"{k:03d}", camera, rng.integers(0, 256, (camera.height, camera.width, 4), np.uint8))
            for k, camera in enumerate(odd_cameras)
        ),
        has_masks=True,
    )


def test_nerfstudio_casts_the_same_rays(odd_views: ViewSet, tmp_path: Path) -> None:
    odd_views.save(tmp_path)
    cameras = parsed(tmp_path).cameras
    for k, view in enumerate(odd_views):
        bundle = cameras.generate_rays(camera_indices=k)
        origin, direction = view.camera.rays()
        assert bundle.origins.numpy() == pytest.approx(origin, abs=1e-4)
        assert bundle.directions.numpy() == pytest.approx(direction, abs=1e-4)


def test_points_lie_on_nerfstudios_rays_through_their_pixels(odd_views: ViewSet, tmp_path: Path) -> None:
    odd_views.save(tmp_path)
    cameras = parsed(tmp_path).cameras
    points = np.random.default_rng(2).uniform(-0.3, 0.3, (50, 3))
    for k, view in enumerate(odd_views):
        pixels, _ = view.camera.project(points)
        # nerfstudio's coordinates are (row, column), with the first pixel's centre at a half, as here.
        coords = torch.from_numpy(pixels[:, ::-1].copy()).float()
        bundle = cameras.generate_rays(camera_indices=k, coords=coords)
        away = points - bundle.origins.numpy()
        along = (away * bundle.directions.numpy()).sum(-1, keepdims=True)
        distance = np.linalg.norm(away - along * bundle.directions.numpy(), axis=-1)
        assert distance.max() < 1e-4
        # In pixels: a hundredth, where the half-pixel mistake would be fifty times as much.
        assert (distance / along[:, 0] * view.camera.fx).max() < 0.01


def test_masks_are_the_fourth_channel(odd_views: ViewSet, tmp_path: Path) -> None:
    odd_views.save(tmp_path)
    dataset = parsed(tmp_path)
    for k, view in enumerate(odd_views):
        item = dataset[k]
        assert torch.equal(item["image"], torch.from_numpy(view.rgba()).float() / 255)
        assert "mask" not in item
        assert torch.equal(dataset.get_data(k, "uint8")["image"], torch.from_numpy(view.rgba()))


def test_mask_files_come_before_alpha_and_alpha_serves_without_them(odd_views: ViewSet, tmp_path: Path) -> None:
    odd_views.save(tmp_path)
    for view in odd_views:
        mask = Image.fromarray(np.full((view.camera.height, view.camera.width), 99, np.uint8))
        mask.save(tmp_path / "masks" / f"{view.name}.png")
    assert float(parsed(tmp_path)[0]["image"][..., 3].min()) == pytest.approx(99 / 255)
    content = json.loads((tmp_path / "transforms.json").read_text())
    for frame in content["frames"]:
        del frame["mask_path"]
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    assert torch.equal(parsed(tmp_path)[1]["image"], torch.from_numpy(odd_views.views[1].rgba()).float() / 255)


def test_masks_follow_a_change_of_the_pictures_size(odd_views: ViewSet, tmp_path: Path) -> None:
    odd_views.save(tmp_path)
    half = CaptureDataset(parsed(tmp_path)._dataparser_outputs, scale_factor=0.5)
    assert half[0]["image"].shape == (15, 20, 4)
    assert 0.2 < float(half[0]["image"][..., 3].mean()) < 0.8


def test_pictures_without_masks_are_refused(odd_views: ViewSet, tmp_path: Path) -> None:
    ViewSet(odd_views.views, has_masks=False).save(tmp_path)
    with pytest.raises(InputError, match=r"000\.png: a surface fit needs masks.*mask_path"):
        parsed(tmp_path)[0]


def test_rays_are_drawn_inside_and_outside_of_masks(capture: Path) -> None:
    config = surface_method().config.pipeline.datamanager
    config.data, config.dataparser.data = capture, capture
    manager = config.setup(device="cpu")
    bundle, batch = manager.next_train(0)
    alpha = batch["image"][:, 3]
    assert bundle.origins.shape == (1024, 3)
    assert int((alpha > 0.9).sum()) > 50
    assert int((alpha < 0.1).sum()) > 50
