"""Training data of the editor: states of an object, their pictures and controls, and the pairs drawn of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from pipeline.diffusion.modules.latents import LatentCodec
from pipeline.training.data.edit_pairs import (
    PairPool,
    box_states,
    draw_states,
    figure_states,
    held_out_pairs,
    random_cameras,
    save_states,
    write_header,
)
from pipeline.training.procedural.humanoid import humanoid
from scene.camera import OBJECT_RADIUS, orbit_camera
from scene.errors import InputError
from scene.skeleton import Skeleton

SIDE, LATENT = 32, 8
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def codec() -> LatentCodec:
    """A tiny VAE that makes pictures four times smaller."""
    torch.manual_seed(0)
    return LatentCodec(
        AutoencoderKL(
            in_channels=4,
            out_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=2,
        ).eval()
    )


@pytest.fixture(scope="module")
def folder(codec: LatentCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two figures in three poses, and two things edited by boxes."""
    out = tmp_path_factory.mktemp("edits")
    write_header(out, "a")
    rng = np.random.default_rng(0)
    drawn = [draw_states(figure_states(humanoid(seed), rng), random_cameras(rng, 2, SIDE), LATENT) for seed in range(2)]
    save_states(out / "figures.npz", drawn, codec, True)
    drawn = [draw_states(box_states("sofa", seed), random_cameras(rng, 2, SIDE), LATENT) for seed in range(2)]
    save_states(out / "things.npz", drawn, codec, False)
    return out


def test_states_of_a_figure_are_normalised_by_the_first_and_differ() -> None:
    states = figure_states(humanoid(3), np.random.default_rng(1))
    assert len(states.meshes) == len(states.targets) == 3
    reach = [float(np.linalg.norm(mesh.vertices, axis=1).max()) for mesh in states.meshes]
    assert reach[0] == pytest.approx(OBJECT_RADIUS, rel=1e-3)
    first, *others = (target.positions for target in states.targets if isinstance(target, Skeleton))
    assert all(float(np.nanmax(np.linalg.norm(other - first, axis=1))) > 0.05 for other in others)


def test_pictures_controls_and_covers_show_the_same_thing() -> None:
    states = figure_states(humanoid(3), np.random.default_rng(1), count=2)
    camera = orbit_camera(0.4, 0.2, size=64)
    drawn = draw_states(states, [camera], 16)
    for state in range(2):
        alpha = drawn.pictures[state, 0, ..., 3].astype(float)
        # The skeleton lies on the figure, depth is where the figure is, and covers are its alpha, averaged.
        assert alpha[drawn.controls[state, 0].max(axis=-1) > 150].mean() > 200
        assert ((drawn.depths[state, 0] > 0) == (alpha > 127)).mean() > 0.97
        averaged = alpha.reshape(16, 4, 16, 4).mean(axis=(1, 3))
        np.testing.assert_allclose(drawn.cover[state, 0], averaged, atol=0.51)


def test_pairs_show_one_object_in_two_states(folder: Path) -> None:
    for figures, kinds in ((1.0, "figures"), (0.0, "things")):
        pool = PairPool([folder], "a", figures=figures, depth_share=0.5, surface_share=0.5)
        with np.load(folder / f"{kinds}.npz") as held:
            latents = held["latents"].astype(np.float32)
        batch = pool.batch(np.random.default_rng(2), 30, CPU)
        for k in range(30):
            places = []
            for side in (batch.source, batch.target):
                apart = np.abs(latents - side[k].numpy()).max(axis=(3, 4, 5))
                assert apart.min() == 0
                places.append(np.argwhere(apart == 0)[0])
            (source, before, camera), (target, after, other) = places
            assert (source, camera) == (target, other)
            assert before != after
    assert batch.target_control.shape == (30, 3, SIDE, SIDE)
    assert float(batch.target_control.max()) <= 1
    assert float(batch.target_cover.max()) <= 1


def test_skeletons_are_coloured_and_depth_is_grey(folder: Path) -> None:
    for depth_share, grey in ((0.0, False), (1.0, True)):
        pool = PairPool([folder], "a", figures=1.0, depth_share=depth_share)
        controls = pool.batch(np.random.default_rng(0), 12, CPU).target_control
        assert bool((controls.amax(1) == controls.amin(1)).all()) is grey


def test_files_that_come_later_are_taken_in(folder: Path, tmp_path: Path) -> None:
    write_header(tmp_path, "a")
    with pytest.raises(InputError, match="render_edits"):
        PairPool([tmp_path], "a")
    (tmp_path / "1.npz").write_bytes((folder / "figures.npz").read_bytes())
    pool = PairPool([tmp_path], "a")
    assert len(pool) == 2
    (tmp_path / "2.npz").write_bytes((folder / "things.npz").read_bytes())
    pool.reread()
    assert len(pool) == 4


def test_latents_of_another_vae_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another VAE"):
        PairPool([folder], "b")
    with pytest.raises(InputError, match="another VAE"):
        write_header(folder, "b")
    with pytest.raises(InputError, match="no rendered edits"):
        PairPool([tmp_path], "a")


def test_held_out_pairs_are_the_same_every_time(codec: LatentCodec) -> None:
    one, other = (held_out_pairs(codec, range(7, 9), SIDE) for _ in range(2))
    assert len(one) == 2
    assert torch.equal(one.source, other.source)
    assert torch.equal(one.target_control, other.target_control)
    assert not torch.equal(one.source, one.target)
