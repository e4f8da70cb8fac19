"""Filtering inside diffusers' ControlNet pipeline, on a tiny random one."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel

from pipeline.diffusion.denoising.schedule import Span, reference_schedule
from pipeline.diffusion.methods.controlnet_filtering import ResamplingScheduler, filtered_controlnet
from pipeline.diffusion.modules.attention import AttentionHook, HookedAttention, Step
from pipeline.diffusion.settings import ControlNetFilterSettings
from scene.errors import InputError

CONFIG: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
IDLE = ControlNetFilterSettings(passes=1, cross_step=(0, 0), in_step=(0, 0))


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """A pipeline without text encoder: prompts are given as embeddings."""
    pytest.importorskip("transformers")
    from diffusers import StableDiffusionControlNetPipeline

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8))
    for parameter in control.controlnet_mid_block.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
    )
    made = StableDiffusionControlNetPipeline(
        vae, None, None, unet, control, DDIMScheduler(**CONFIG), None, None, requires_safety_checker=False
    )
    made.set_progress_bar_config(disable=True)
    return made


def run(pipeline: Any, steps: int = 6, guidance: float = 3.0) -> torch.Tensor:
    """Latents of one picture."""
    draw = torch.Generator().manual_seed(1)
    return pipeline(
        image=torch.rand(1, 3, 16, 16, generator=draw),
        prompt_embeds=torch.randn(1, 3, 8, generator=draw),
        negative_prompt_embeds=torch.zeros(1, 3, 8),
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=draw,
        output_type="latent",
    ).images


def test_nothing_to_do_is_the_pipeline_as_it_was(pipeline: Any) -> None:
    plain = run(pipeline)
    with filtered_controlnet(pipeline, IDLE):
        assert torch.allclose(run(pipeline), plain, atol=1e-3)


def test_filtering_changes_the_picture_and_leaves_nothing_behind(pipeline: Any) -> None:
    plain, usual = run(pipeline), pipeline.scheduler
    calls: list[int] = []
    handle = pipeline.controlnet.register_forward_pre_hook(lambda *_: calls.append(1))
    with filtered_controlnet(pipeline, replace(ControlNetFilterSettings(), reference_size=8)) as hook:
        assert any(isinstance(p, HookedAttention) for p in pipeline.unet.attn_processors.values())
        first = run(pipeline)
        assert sum(calls) == 5 + 5  # 831 alone of the six timesteps lies above 700
        assert hook.held_bytes == 0
        again = run(pipeline)
    handle.remove()
    assert torch.equal(first, again)
    assert first.isfinite().all()
    assert not torch.allclose(first, plain, atol=1e-2)
    assert pipeline.scheduler is usual
    assert not any(isinstance(p, HookedAttention) for p in pipeline.unet.attn_processors.values())
    assert torch.equal(run(pipeline), plain)


def test_only_the_conditional_half(pipeline: Any) -> None:
    both = replace(ControlNetFilterSettings(), reference_size=8)
    outs = []
    for settings in (both, replace(both, amf_cfg="cond")):
        with filtered_controlnet(pipeline, settings):
            outs.append(run(pipeline))
    assert not torch.allclose(*outs, atol=1e-4)


class Recorder(AttentionHook):
    """Writes down passes and ends."""

    def __init__(self) -> None:
        self.passes: list[tuple[int, int, int]] = []
        self.ends: list[int] = []

    def begin_pass(self, step: Step) -> None:
        self.passes.append((step.index, step.t, step.pass_index))

    def end_step(self, step: Step) -> None:
        self.ends.append(step.t)


def test_the_scheduler_repeats_and_tells() -> None:
    recorder = Recorder()
    scheduler = ResamplingScheduler(**CONFIG).use(Span(700, 1000), 2, [recorder])
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [751, 751, 501, 251, 1]
    clean = torch.randn(1, 2, 3)
    z = torch.randn(1, 2, 3)
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(z, t)
        # The network that knows the answer.
        eps = reference_schedule().eps_from_x0(seen, clean, int(t))
        z = scheduler.step(eps, t, z, generator=torch.Generator().manual_seed(0), return_dict=False)[0]
    assert recorder.passes == [(0, 751, 0), (0, 751, 1), (1, 501, 0), (2, 251, 0), (3, 1, 0)]
    assert recorder.ends == [751, 501, 251, 1]
    assert torch.allclose(z, clean, atol=0.2)


def test_a_pass_begins_with_what_the_one_before_left_noised_up_again() -> None:
    scheduler = ResamplingScheduler(**CONFIG).use(Span(700, 1000), 2, [])
    scheduler.set_timesteps(4)
    z, eps = torch.randn(1, 2, 3), torch.randn(1, 2, 3)
    out = scheduler.step(eps, 751, z, generator=torch.Generator().manual_seed(5)).prev_sample
    process, fresh = reference_schedule(), torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(5))
    lower = process.ddim(*process.predict_x0_eps(eps, z, 751), 751, 501)
    assert torch.allclose(out, process.renoise(lower, 501, 751, fresh), atol=1e-6)


@pytest.mark.parametrize("skipped", [1, 2, 3])
def test_pipelines_that_leave_timesteps_out_are_refused(skipped: int) -> None:
    """Image to image begins late, within the passes of a step or after them."""
    scheduler = ResamplingScheduler(**CONFIG).use(Span(700, 1000), 2, [])
    scheduler.set_timesteps(4)

    def run_late() -> None:
        z = torch.randn(1, 2, 3)
        for t in scheduler.timesteps[skipped:]:
            z = scheduler.step(torch.tanh(z), t, z).prev_sample

    with pytest.raises(InputError, match="leaves timesteps out"):
        run_late()


def test_without_passes_it_is_diffusers_own() -> None:
    ours, theirs = ResamplingScheduler(**CONFIG), DDIMScheduler(**CONFIG)
    z = torch.randn(2, 4, 3, 3)
    twin = copy.deepcopy(z)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(5)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    for t in theirs.timesteps:
        z = ours.step(torch.tanh(z), t, z).prev_sample
        twin = theirs.step(torch.tanh(twin), t, twin).prev_sample
    assert torch.allclose(z, twin, atol=1e-4)


def test_draws_follow_each_rows_generator() -> None:
    def run_rows(generator: Any, rows: int) -> torch.Tensor:
        scheduler = ResamplingScheduler(**CONFIG).use(Span(0, 1000), 2, [])
        scheduler.set_timesteps(2)
        z = torch.ones(rows, 2, 2)
        for t in scheduler.timesteps:
            z = scheduler.step(torch.tanh(z), t, z, eta=1.0, generator=generator).prev_sample
        return z

    apart = run_rows([torch.Generator().manual_seed(k) for k in (1, 2)], 2)
    assert torch.allclose(apart[1:], run_rows(torch.Generator().manual_seed(2), 1), atol=1e-5)
    assert not torch.allclose(apart[0], apart[1])
