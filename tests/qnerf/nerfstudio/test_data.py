"""Queries reach the rays of their own pixels, whatever order nerfstudio reads the pictures in."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from qnerf.nerfstudio.data import SOURCE, QueryDataManager, QuerySource
from qnerf.nerfstudio.method import query_field_method
from qnerf.store import QueryStore
from scene.camera import Camera
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet
from tests.qnerf.conftest import LAYERS, ring


def manager(capture: Path) -> QueryDataManager:
    config = query_field_method().config.pipeline.datamanager
    config.data = config.dataparser.data = capture
    made: QueryDataManager = config.setup(device="cpu")
    return made


def test_rays_bring_the_queries_that_their_own_camera_saw(capture: Path) -> None:
    data = manager(capture)
    bundle, batch = data.next_train(0)
    store = QueryStore.open(capture / "queries")
    assert len(batch["queries"]) == len(LAYERS)
    cameras = ring(10)
    centres = np.stack([camera.centre for camera in cameras])
    for layer, found in zip(LAYERS, batch["queries"], strict=True):
        assert found.shape == (512, layer.channels)
        mean, deviation = store.statistics(layer)
        for k in range(0, 512, 25):
            # By the ray alone: which camera it starts from, and where it goes in its picture.
            view = int(np.linalg.norm(centres - bundle.origins[k].numpy(), axis=1).argmin())
            pixel, _ = cameras[view].project((bundle.origins[k] + bundle.directions[k]).double().numpy())
            expected = store.sampled(layer, torch.tensor([view]), torch.tensor(pixel / 128).float()[None])[0]
            assert torch.allclose(found[k] * deviation + mean, expected, atol=5e-3)


def test_pictures_carry_their_queries_as_colours(capture: Path) -> None:
    data = manager(capture)
    source: QuerySource = data.train_dataset.metadata[SOURCE]
    assert (data.train_dataset.metadata[SOURCE], source.shown) == (data.eval_dataset.source, LAYERS[2])
    for k in range(len(data.train_dataset)):
        item = data.train_dataset[k]
        # Each picture's grey level tells its frame.
        frame = round((float(item["image"][0, 0, 0]) * 255 - 10) / 20)
        assert data.train_dataset.view(k) == frame
        assert torch.equal(item["principal"], source.picture(frame, 128, 128))
        assert "mask" not in item


def test_captures_without_or_with_other_queries_are_refused(capture: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(capture, folder)
    QueryStore.create(folder / "queries", LAYERS, 9)
    with pytest.raises(InputError, match="9 views, the capture has 10"):
        manager(folder)
    QueryStore.create(folder / "queries", LAYERS, 10)
    with pytest.raises(InputError, match="view 0 has no queries"):
        manager(folder)
    shutil.rmtree(folder / "queries")
    with pytest.raises(InputError, match=r"queries\.json: cannot be read"):
        manager(folder)


def test_pictures_that_are_not_square_are_refused(tmp_path: Path) -> None:
    camera = Camera(ring(1)[0].c2w, 100.0, 100.0, 64.0, 48.0, 128, 96)
    ViewSet((View("a", camera, np.zeros((96, 128, 4), np.uint8)),), has_masks=True).save(tmp_path)
    store = QueryStore.create(tmp_path / "queries", LAYERS[:1], 1)
    store.put(0, {LAYERS[0]: torch.rand(4, 4, 24)})
    with pytest.raises(InputError, match="128x96"):
        QuerySource.open(tmp_path, tmp_path / "queries")
