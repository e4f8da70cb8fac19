"""Sampling: guidance, seeds, conditions in the right frame, and the whole way from photo to posed views."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.diffusion.denoising.loop import RowNoise, view_seeds
from pipeline.diffusion.denoising.schedule import leading_timesteps, trailing_timesteps
from pipeline.diffusion.generate import DEFAULT_ELEVATION_DEG, generate_views, source_camera
from pipeline.diffusion.modules.attention import AttentionHook, HookedAttention, Step
from pipeline.diffusion.modules.conditioning import Conditioning, Conditions, fold_visibility
from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.diffusion.modules.poses import Poses, pluecker_maps
from pipeline.diffusion.sample import (
    coarse_renders,
    coarse_volume,
    decode_views,
    sample_latents,
    sample_views,
    transfer_low_frequencies,
    view_conditions,
)
from pipeline.diffusion.settings import SamplingPlan, SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from scene.camera import DEFAULT_RADIUS, ZERO123_FOV, orbit_camera, zero123_pose

FULL = Conditioning(source_row=True, coarse=True, pluecker=True, joint=(4, 2))
Make = Callable[..., ViewDiffusion]
CPU = torch.device("cpu")
ORBITS = torch.tensor([[0.0, 0.2, 1.5], [2.0, -0.1, 1.5], [4.0, 0.6, 1.8]])
SOURCE = torch.tensor([[0.3, 1.1, 0.5, 0.48]])


def photo(seed: int = 0) -> torch.Tensor:
    """A disc with random colours on transparency."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:16, :16]
    rgba = rng.integers(0, 256, (1, 16, 16, 4), dtype=np.uint8)
    rgba[..., 3] = np.where((x - 7.5) ** 2 + (y - 7.5) ** 2 < 36, 255, 0)
    return torch.from_numpy(rgba)


def make_conditions(model: ViewDiffusion, orbits: torch.Tensor = ORBITS, objects: int = 1) -> Conditions:
    """Conditions of views of a photo."""
    photos, sources = photo().expand(objects, -1, -1, -1), SOURCE.expand(objects, 4)
    return view_conditions(model, photos, sources, orbits.expand(objects, -1, 3), coarse_volume(model, photos, sources))


# --- conditions -------------------------------------------------------------------------------------------------------


def test_conditions_of_a_plain_model(make_model: Make) -> None:
    model = make_model()
    conditions = make_conditions(model)
    assert torch.equal(conditions.source, model.codec.encode_raw(photo()))
    assert torch.allclose(conditions.source_clean, conditions.source * 0.18215, atol=1e-6)
    assert conditions.coarse is conditions.visible is conditions.rays is conditions.source_rays is None
    embedding = model.image_encoder(images_from_rgba(photo(), 4))
    source = orbit_camera(0.0, float(SOURCE[0, 0]), DEFAULT_RADIUS)
    poses = np.stack([zero123_pose(source, orbit_camera(*orbit)) for orbit in ORBITS.tolist()])
    assert torch.allclose(conditions.tokens, model.tokens(embedding, torch.from_numpy(poses)[None].float()), atol=1e-5)
    identity = model.tokens(embedding, torch.tensor([[[0.0, 0, 1, 0]]]))[:, 0]
    assert torch.allclose(conditions.source_token, identity, atol=1e-6)


def test_conditions_of_a_full_model(make_model: Make) -> None:
    model = make_model(FULL)
    conditions = make_conditions(model)
    assert torch.allclose(conditions.rays[0], pluecker_maps(Poses.of_orbits(ORBITS), 8), atol=1e-6)
    assert torch.allclose(conditions.source_rays, pluecker_maps(Poses.of_sources(SOURCE), 8), atol=1e-6)
    assert conditions.coarse.shape == (1, 3, 4, 8, 8)
    assert conditions.visible.shape == (1, 3, 4, 8, 8)


def test_coarse_pictures_are_encoded_over_white_per_object(make_model: Make) -> None:
    model = make_model(FULL)
    photos = torch.cat([photo(0), photo(1)])
    sources = torch.cat([SOURCE, SOURCE + 0.05])
    volume = coarse_volume(model, photos, sources)
    poses = Poses.of_orbits(torch.stack([ORBITS, ORBITS + 0.1]))
    latents, visible = coarse_renders(model, photos, volume, poses)
    alone_latents, alone_visible = coarse_renders(model, photos[1:], volume[1:], poses[1:])
    assert torch.allclose(latents[1:], alone_latents, atol=1e-5)
    assert torch.allclose(visible[1:], alone_visible, atol=1e-5)
    # An empty volume is a white picture, and nothing of it is visible.
    empty = replace(volume, occupancy=torch.zeros_like(volume.occupancy))
    blank, unseen = coarse_renders(model, photos, empty, poses)
    white = model.codec.encode_raw(torch.tensor([255, 255, 255, 0], dtype=torch.uint8).expand(1, 16, 16, 4))
    assert torch.allclose(blank, white.expand_as(blank), atol=1e-4)
    assert torch.equal(unseen, fold_visibility(torch.zeros(2, 3, 1, 8, 8), 8))


# --- guidance, seeds, hooks -------------------------------------------------------------------------------------------


def count_calls(model: ViewDiffusion) -> list[torch.Tensor]:
    """The tokens of every pass of the U-Net from now on."""
    calls: list[torch.Tensor] = []
    model.unet.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[2]))
    return calls


def test_guidance_of_one_needs_half_the_passes(make_model: Make) -> None:
    for guidance, passes in ((1.0, 4), (2.0, 8)):
        model = make_model()
        calls = count_calls(model)
        sample_latents(model, make_conditions(model), SamplingSettings(steps=4, guidance=guidance))
        assert len(calls) == passes
        blank = [tokens for tokens in calls if not tokens.any()]
        assert len(blank) == passes - 4  # the null token is zero, not the projection of zeros


def test_a_checkpoint_says_how_it_is_sampled_where_nobody_else_does(make_model: Make) -> None:
    """All three of steps, guidance and strength, or none: half a plan of each would be nobody's."""

    def passes(settings: SamplingSettings) -> int:
        model.sampling = SamplingPlan(steps=3, guidance=1.0, strength=1.0)
        calls = count_calls(model)
        sample_latents(model, make_conditions(model), settings)
        return len(calls)

    model = make_model()
    assert passes(SamplingSettings()) == 3
    assert passes(SamplingSettings(steps=4)) == 8
    assert passes(SamplingSettings(guidance=1.0)) == 14
    assert passes(SamplingSettings(strength=1.0)) == 28


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_guidance_extrapolates_from_the_null(
    make_model: Make, monkeypatch: pytest.MonkeyPatch, guidance: float
) -> None:
    """The network sees a constant of its own for each kind of input: the guided prediction is known."""
    model, seen = make_model(), []
    conditions = make_conditions(model)

    def predict(z: torch.Tensor, t: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        return torch.full_like(z, 0.7 if conditions.tokens.any() else 0.2)

    monkeypatch.setattr(model, "predict", predict)
    monkeypatch.setattr(
        "pipeline.diffusion.sample.denoise", lambda network, z, *rest, **options: seen.append(network(z, 100)) or z
    )
    sample_latents(model, conditions, SamplingSettings(steps=2, guidance=guidance))
    assert torch.allclose(seen[0], torch.tensor(0.2 + guidance * (0.7 - 0.2)))


def test_a_view_is_the_same_whatever_the_views_beside_it(make_model: Make) -> None:
    model, settings = make_model(), SamplingSettings(steps=3, guidance=2.0, eta=1.0)
    three = sample_latents(model, make_conditions(model), settings)
    one = sample_latents(model, make_conditions(model, ORBITS[:1]), settings)
    assert torch.allclose(one[0, 0], three[0, 0], atol=1e-4)
    two = sample_latents(model, make_conditions(model, objects=2), settings)
    assert torch.allclose(two, three.expand(2, -1, -1, -1, -1), atol=1e-4)


def test_seeds_decide(make_model: Make) -> None:
    model = make_model()
    conditions = make_conditions(model)
    first = sample_latents(model, conditions, SamplingSettings(steps=2))
    assert torch.equal(sample_latents(model, conditions, SamplingSettings(steps=2)), first)
    assert not torch.allclose(sample_latents(model, conditions, SamplingSettings(steps=2, seed=1)), first, atol=0.1)
    assert torch.equal(sample_latents(model, conditions, SamplingSettings(steps=2), seeds=view_seeds(0, 3)), first)
    same = sample_latents(model, make_conditions(model, ORBITS[[1, 1, 1]]), SamplingSettings(steps=2), seeds=[5, 6, 5])
    assert torch.allclose(same[0, 0], same[0, 2], atol=1e-5)
    assert not torch.allclose(same[0, 0], same[0, 1], atol=0.1)


def test_spacing_follows_the_schedule(make_model: Make) -> None:
    for conditioning, timesteps in ((Conditioning(), leading_timesteps(4)), (FULL, trailing_timesteps(4))):
        model, steps = make_model(conditioning), []
        sample_latents(model, make_conditions(model), SamplingSettings(steps=4, strength=1.0), on_step=steps.append)
        assert [step.t for step in steps] == timesteps
        assert [step.index for step in steps] == [0, 1, 2, 3]


class Watcher(AttentionHook):
    """Counts the calls that it gets."""

    def __init__(self) -> None:
        self.begun, self.ended, self.reset_count, self.rows = 0, 0, 0, set[int]()

    def begin_pass(self, step: Step) -> None:
        self.begun += 1

    def end_step(self, step: Step) -> None:
        self.ended += 1

    def reset(self) -> None:
        self.reset_count += 1

    def project(self, layer: object, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.rows.add(q.shape[0])
        return q, k, v


def test_hooks_are_installed_notified_and_removed(make_model: Make) -> None:
    model, watcher = make_model(FULL), Watcher()
    sample_latents(model, make_conditions(model), SamplingSettings(steps=3), hooks=[watcher])
    assert (watcher.begun, watcher.ended, watcher.reset_count) == (3, 3, 1)
    assert watcher.rows == {4}  # three views and the source
    assert not any(isinstance(p, HookedAttention) for p in model.unet.attn_processors.values())


def test_joint_views_can_be_turned_off(make_model: Make) -> None:
    model = make_model(FULL)
    conditions = make_conditions(model)
    apart = sample_latents(model, conditions, SamplingSettings(steps=2, joint=False))
    assert not torch.allclose(sample_latents(model, conditions, SamplingSettings(steps=2)), apart, atol=1e-5)
    alone = sample_latents(model, make_conditions(model, ORBITS[:1]), SamplingSettings(steps=2, joint=False))
    assert torch.allclose(alone[0, 0], apart[0, 0], atol=1e-4)


def test_start_noise_is_drawn_per_view(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = make_model(), []
    monkeypatch.setattr("pipeline.diffusion.sample.denoise", lambda network, z, *rest, **options: seen.append(z) or z)
    sample_latents(model, make_conditions(model), SamplingSettings(seed=4))
    assert torch.equal(seen[0], RowNoise.of(view_seeds(4, 3)).draw((4, 8, 8), CPU))


def test_less_strength_starts_from_the_noised_coarse_picture(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = make_model(FULL), []
    conditions = make_conditions(model)

    def remember(network: object, z: torch.Tensor, schedule: object, pairs: list, **options: object) -> torch.Tensor:
        seen.append((z, pairs))
        return z

    monkeypatch.setattr("pipeline.diffusion.sample.denoise", remember)
    for strength in (1.0, 0.5, 1e-6):
        sample_latents(model, conditions, SamplingSettings(steps=4, strength=strength))
    noise = RowNoise.of(view_seeds(0, 3)).draw((4, 8, 8), CPU)
    assert torch.equal(seen[0][0], noise)
    t = seen[1][1][0][0]
    assert [pair[0] for pair in seen[1][1]] == trailing_timesteps(4, 500)
    known = model.codec.normalise(conditions.coarse[0])
    assert torch.allclose(seen[1][0], model.schedule.add_noise(known, noise, torch.full((3,), t)))
    assert [pair[0] for pair in seen[2][1]] == [3, 2, 1, 0]  # never fewer steps than asked for


def test_without_a_coarse_picture_all_of_the_way_is_walked(make_model: Make) -> None:
    model, steps = make_model(), []
    sample_latents(model, make_conditions(model), SamplingSettings(steps=4, strength=0.3), on_step=steps.append)
    assert len(steps) == 4


# --- colours ----------------------------------------------------------------------------------------------------------


def test_broad_colours_are_the_guides_and_detail_stays() -> None:
    side = 64
    stripes = 0.1 * torch.sin(torch.arange(side) * math.pi / 2 + 0.3)
    picture = torch.cat([torch.full((side, side, 3), 0.4) + stripes[None, :, None], torch.ones(side, side, 1)], -1)
    guide = torch.tensor([0.7, 0.3, 0.2, 1.0]).expand(side, side, 4)
    out = transfer_low_frequencies(picture[None, None], guide[None, None])[0, 0]
    assert torch.equal(out[..., 3], picture[..., 3])
    middle = out[16:48, 16:48]
    assert middle[..., :3].mean((0, 1)).tolist() == pytest.approx([0.7, 0.3, 0.2], abs=0.01)
    assert (middle[0, :, 0] - middle[..., 0].mean()).tolist() == pytest.approx(stripes[16:48].tolist(), abs=0.02)


def test_colours_stay_where_the_guide_covers_nothing_and_do_not_leak_from_the_background() -> None:
    side = 64
    picture = torch.tensor([0.2, 0.5, 0.6, 1.0]).repeat(side, side, 1)
    guide = torch.zeros(side, side, 4)
    assert torch.equal(transfer_low_frequencies(picture[None, None], guide[None, None])[0, 0], picture)
    guide[:, :8] = torch.tensor([0.9, 0.1, 0.1, 1.0])  # the rest is black, and transparent
    out = transfer_low_frequencies(picture[None, None], guide[None, None])[0, 0]
    assert torch.allclose(out[:, -16:], picture[:, -16:], atol=1e-3)
    assert out[32, 4, :3].tolist() == pytest.approx([0.9, 0.1, 0.1], abs=0.02)
    assert float(out[32, :24, 0].min()) > 0.2


def test_views_take_their_colours_from_the_coarse_volume_if_asked_to(make_model: Make) -> None:
    model = make_model(FULL)
    image, source = photo(), source_camera(model, photo())
    volume = coarse_volume(model, image, source)
    plain, coloured = (
        sample_views(
            model, image, source, ORBITS[None], volume, SamplingSettings(steps=2, coarse_colours=coarse), on_step=None
        )
        for coarse in (False, True)
    )
    latents = sample_latents(
        model, view_conditions(model, image, source, ORBITS[None], volume), SamplingSettings(steps=2)
    )
    assert torch.equal(plain, decode_views(model, latents))
    assert torch.equal(plain[..., 3], coloured[..., 3])
    assert not torch.allclose(plain[..., :3], coloured[..., :3], atol=1e-3)


def test_decoding_in_chunks_is_decoding_at_once(model: ViewDiffusion) -> None:
    latents = torch.randn(2, 3, 4, 8, 8)
    pictures = decode_views(model, latents)
    assert pictures.shape == (2, 3, 16, 16, 4)
    assert torch.allclose(decode_views(model, latents, chunk=2), pictures, atol=1e-5)
    assert torch.allclose(model.codec.decode(latents[1]), pictures[1], atol=1e-5)
    assert float(pictures.min()) >= 0
    assert float(pictures.max()) <= 1


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_generated_views_have_the_cameras_asked_for(model: ViewDiffusion) -> None:
    reported: list[tuple[int, int]] = []
    views = generate_views(
        model,
        photo()[0].numpy(),
        ORBITS,
        SamplingSettings(steps=3),
        elevation_deg=20.0,
        on_step=lambda done, of: reported.append((done, of)),
    )
    assert views.rgba.shape == (3, 16, 16, 4)
    assert views.rgba.dtype == np.uint8
    assert reported == [(1, 3), (2, 3), (3, 3)]
    for camera, orbit in zip(views.cameras, ORBITS.tolist(), strict=True):
        assert camera.c2w == pytest.approx(orbit_camera(*orbit).c2w, abs=1e-6)
        assert camera.fx == pytest.approx(8 / math.tan(ZERO123_FOV / 2))
    assert views.elevation == pytest.approx(math.radians(20))
    assert views.photo_camera.c2w == pytest.approx(orbit_camera(0.0, math.radians(20), DEFAULT_RADIUS).c2w, abs=1e-6)
    assert (views.occupancy is None) == (model.coarse is None)
    again = generate_views(model, photo()[0].numpy(), ORBITS, SamplingSettings(steps=3), elevation_deg=20.0)
    assert np.array_equal(again.rgba, views.rgba)


def test_the_coarse_volume_comes_along(make_model: Make) -> None:
    model = make_model(FULL)
    views = generate_views(model, photo()[0].numpy(), ORBITS, SamplingSettings(steps=1))
    source = source_camera(model, photo())
    volume = coarse_volume(model, photo(), source)
    assert views.elevation == pytest.approx(float(source[0, 0]), abs=1e-6)
    assert views.occupancy == pytest.approx(volume.occupancy[0].numpy(), abs=1e-5)
    assert views.colours == pytest.approx(volume.colours[0].movedim(0, -1).numpy(), abs=1e-5)
    camera, description = views.photo_camera, source[0].tolist()
    assert (camera.fx / 16, camera.cx / 16, camera.cy / 16) == pytest.approx(tuple(description[1:]), abs=1e-6)


def test_source_cameras_are_predicted_given_or_assumed(make_model: Make) -> None:
    plain, full, photos = make_model(), make_model(FULL), torch.cat([photo(0), photo(1)])
    assumed = source_camera(plain, photos)
    assert assumed.shape == (2, 4)
    assert assumed[1].tolist() == pytest.approx(
        [math.radians(DEFAULT_ELEVATION_DEG), 0.5 / math.tan(ZERO123_FOV / 2), 0.5, 0.5]
    )
    assert source_camera(plain, photos, 40.0)[0, 0] == pytest.approx(math.radians(40))
    predicted, fixed = source_camera(full, photos), source_camera(full, photos, -5.0)
    assert torch.equal(fixed[:, 1:], predicted[:, 1:])
    assert torch.allclose(fixed[:, 0], torch.tensor(math.radians(-5)))
    assert not torch.allclose(predicted[0], predicted[1])
