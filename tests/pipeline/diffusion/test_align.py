"""Generated views decoded once more along a surface."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.diffusion.align import align_views, encoded_views, resized_photo, surface_depths
from pipeline.diffusion.aligned_decoder import AlignedLayers, LayerPlace
from pipeline.diffusion.epipolar_attention import EpipolarSettings
from pipeline.diffusion.generate import GeneratedViews, generate_views
from pipeline.diffusion.settings import AlignSettings, SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from recon.surface import Surface
from scene.camera import orbit_camera
from scene.errors import CheckpointError, InputError

PLAIN = AlignSettings(colours=False)


def ball(radius: float = 0.4, side: int = 24) -> Surface:
    """A sphere about the origin."""
    axis = (np.arange(side) + 0.5) / side * 1.2 - 0.6
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    return Surface.cube(np.sqrt(x**2 + y**2 + z**2) - radius, np.full((4, 4, 4, 3), 0.5), 0.6)


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ViewDiffusion:
    found = ViewDiffusion.from_pretrained(tiny_checkpoint)
    torch.manual_seed(0)
    reads = EpipolarSettings(width=8, samples=2, nearest=2)
    layers = AlignedLayers.fresh(found.vae, [LayerPlace.of(found.vae, None, 1, reads)])
    return replace(found, aligned=layers.eval())


@pytest.fixture(scope="module")
def views(model: ViewDiffusion) -> tuple[GeneratedViews, np.ndarray]:
    side = model.image_size
    photo = np.zeros((side, side, 4), np.uint8)
    photo[side // 4 : -side // 4, side // 4 : -side // 4] = (200, 90, 40, 255)
    orbits = torch.tensor([[k * 2 * math.pi / 3, 0.2, 1.5] for k in range(3)])
    settings = SamplingSettings(steps=1, coarse_colours=False)
    return generate_views(model, photo, orbits, settings), photo


def test_closed_gates_give_the_views_back(model: ViewDiffusion, views: tuple[GeneratedViews, np.ndarray]) -> None:
    generated, photo = views
    assert generated.latents is not None
    assert generated.latents.shape == (3, model.codec.latents, model.latent_size, model.latent_size)
    aligned = align_views(model, generated, photo, ball(), PLAIN)
    assert [view.name for view in aligned] == ["photo", "view_00", "view_01", "view_02"]
    for view, rgba in zip(list(aligned)[1:], generated.rgba, strict=True):
        # Both are rounded; batches of other sizes may differ in the last digit.
        assert np.abs(view.rgba().astype(int) - rgba).max() <= 1
        assert view.origin == "generated"


def test_open_gates_change_the_object_only(model: ViewDiffusion, views: tuple[GeneratedViews, np.ndarray]) -> None:
    generated, photo = views
    assert model.aligned is not None
    gate = model.aligned.layers[0].gate.weight
    torch.nn.init.normal_(gate, std=0.5)
    try:
        aligned = align_views(model, generated, photo, ball(), PLAIN)
        other = align_views(model, generated, photo, ball(0.2), PLAIN)
    finally:
        torch.nn.init.zeros_(gate)
    changed = np.abs(list(aligned)[1].rgba().astype(int) - generated.rgba[0]).max(-1)
    middle = len(changed) // 2
    assert changed[middle, middle] > 2
    assert changed[0, 0] <= 1
    assert not np.array_equal(list(other)[1].rgba(), list(aligned)[1].rgba())


def test_what_is_missing_is_told(model: ViewDiffusion, views: tuple[GeneratedViews, np.ndarray]) -> None:
    generated, photo = views
    wide = np.repeat(np.repeat(generated.rgba, 2, axis=1), 2, axis=2)
    with pytest.raises(InputError, match="the views have no latents"):
        align_views(model, replace(generated, rgba=wide, latents=None), photo, ball())
    with pytest.raises(CheckpointError, match="the model has no aligned decoder"):
        align_views(replace(model, aligned=None), generated, photo, ball())
    with pytest.raises(InputError, match="the surface is empty"):
        align_views(model, generated, photo, ball(-1.0))


def test_views_without_latents_are_encoded(
    model: ViewDiffusion, views: tuple[GeneratedViews, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    generated, photo = views
    bare, size = replace(generated, latents=None), model.image_size
    with caplog.at_level("WARNING", logger="viewloom"):
        aligned = align_views(model, bare, photo, ball(), PLAIN)
    assert f"encoded at {size} pixels" in caplog.text
    small, latents = encoded_views(model, generated.rgba)
    assert np.array_equal(small, generated.rgba)
    again = align_views(model, replace(generated, latents=latents), photo, ball(), PLAIN)
    for one, other in zip(aligned, again, strict=True):
        assert np.array_equal(one.rgba(), other.rgba())


def test_depths_of_a_ball_are_those_of_its_rays() -> None:
    camera = orbit_camera(0.3, 0.2, 1.5, size=32)
    (depth,) = surface_depths(ball(side=48), [camera])
    assert depth[0, 0] == 0
    assert depth[16, 16] == pytest.approx(1.5 - 0.4, abs=0.01)


def test_photos_shrink_without_their_background() -> None:
    photo = np.zeros((8, 8, 4), np.uint8)
    photo[:, :5] = (255, 0, 0, 255)
    small = resized_photo(photo, 4)
    assert small[:, :3, 0].min() == 255
    assert small[0, :, 3].tolist() == [255, 255, 128, 0]
    assert resized_photo(photo, 8) is photo
