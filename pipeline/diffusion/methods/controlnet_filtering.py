"""Resampling and attention map filtering in diffusers' own ControlNet pipelines, without changing a line of them.

The pipeline's loop asks its scheduler for timesteps and for every step. A scheduler that repeats timesteps, and noises
up again between repetitions, so makes it resample; the ControlNet is evaluated anew on every pass, as it must be.
Filtered is the self-attention of the U-Net, not that of the ControlNet's copy of the encoder.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.denoising.schedule import FINAL, NoiseSchedule, Span, equivalent_timestep
from pipeline.diffusion.methods.attention_map_filtering import MapFilter
from pipeline.diffusion.modules.attention import AttentionHook, Step, hooked
from pipeline.diffusion.settings import ControlNetFilterSettings
from scene.errors import InputError


class ResamplingScheduler(DDIMScheduler):
    """DDIM whose timesteps come several times where they are resampled, and which notifies hooks of every pass.

    Noise levels, prediction type and spacing are those of its config.
    """

    timesteps: Tensor
    resample: Span = Span(0, 0)
    resample_passes: int = 1
    hooks: Sequence[AttentionHook] = ()

    def use(self, resample: Span, passes: int, hooks: Sequence[AttentionHook]) -> ResamplingScheduler:
        """Resample in a range, in so many passes.

        Args:
            resample: timesteps that are resampled.
            passes: of a resampled step.
            hooks: notified of steps and passes; installing them is up to the caller.
        """
        self.resample, self.resample_passes, self.hooks = resample, passes, hooks
        return self

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """The usual timesteps, each as often as it has passes."""
        super().set_timesteps(num_inference_steps, device)
        self.process = NoiseSchedule.of_config(dict(self.config))
        single = [int(t) for t in self.timesteps]
        self.steps = [
            (Step(index, len(single), t, k, passes), t_next)
            for index, (t, t_next) in enumerate(itertools.zip_longest(single, single[1:], fillvalue=FINAL))
            for passes in [self.resample_passes if t in self.resample else 1]
            for k in range(passes)
        ]
        self.timesteps = torch.tensor([step.t for step, _ in self.steps], device=self.timesteps.device)
        self.done = 0
        for hook in self.hooks:
            hook.reset()

    def scale_model_input(self, sample: Tensor, timestep: int | Tensor | None = None) -> Tensor:
        """The sample as it is; the loop calls this before the U-Net, so hooks are notified of the pass here."""
        if timestep is not None and self.done < len(self.steps):
            for hook in self.hooks:
                hook.begin_pass(self.steps[self.done][0])
        return sample

    def step(
        self,
        model_output: Float[Tensor, "b *s"],
        timestep: int | Tensor,
        sample: Float[Tensor, "b *s"],
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
        **unused: Any,
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """One pass: down to the next timestep, and up again if more passes follow."""
        if self.done == len(self.steps) or int(timestep) != self.steps[self.done][0].t:
            raise InputError(
                f"the pipeline leaves timesteps out (now at {int(timestep)}), so passes would be mixed up",
                where="filtered_controlnet",
                fix="Use a pipeline that goes through all timesteps of its scheduler (not image to image).",
            )
        (now, t_next), self.done = self.steps[self.done], self.done + 1
        clean, noise = self.process.predict_x0_eps(model_output.float(), sample.float(), now.t)
        fresh = _drawn(sample, generator) if eta > 0 else None
        lower = self.process.ddim(clean, noise, now.t, t_next, eta, fresh)
        if now.pass_index < now.passes - 1:
            lower = self.process.renoise(lower, t_next, now.t, _drawn(sample, generator))
        else:
            for hook in self.hooks:
                hook.end_step(now)
        lower, clean = lower.to(sample.dtype), clean.to(sample.dtype)
        return DDIMSchedulerOutput(lower, clean) if return_dict else (lower, clean)


def _drawn(like: Tensor, generator: torch.Generator | list[torch.Generator] | None) -> Tensor:
    """Normal noise, drawn where the generator is; row by row if each has one of its own."""
    if isinstance(generator, list):
        return torch.cat([_drawn(row, g) for row, g in zip(like.split(1), generator, strict=True)])
    where = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=where).to(like.device)


@dataclass(frozen=True)
class _CondHalf:
    """The second half of a batch, in which diffusers' guidance keeps the conditional rows."""

    def __call__(self, rows: int) -> Tensor:
        return torch.arange(rows // 2, rows)


@contextlib.contextmanager
def filtered_controlnet(
    pipeline: Any, settings: ControlNetFilterSettings = ControlNetFilterSettings(), *, latent_size: int | None = None
) -> Iterator[MapFilter]:
    """Resample and filter in every call of a diffusers pipeline within this block.

    The pipeline's scheduler becomes DDIM of the same noise process, and its own again afterwards. Inside, ``eta`` and
    ``generator`` mean what they usually do; ``control_guidance_start`` and ``_end`` count passes, not steps.

    Args:
        pipeline: a ``StableDiffusionControlNetPipeline`` or any other with ``unet`` and ``scheduler`` whose U-Net
            has plain self-attention and runs once a step, and which takes all of its scheduler's timesteps.
        settings: ranges and numbers.
        latent_size: side of the latents, if not that of the U-Net's config.

    Raises:
        InputError: the scheduler's noise process is not supported; in a call, the pipeline leaves timesteps out.
    """
    side = int(latent_size or pipeline.unet.config["sample_size"])
    usual = pipeline.scheduler
    process = NoiseSchedule.of_config(dict(usual.config))

    def span(bounds: tuple[int, int]) -> Span:
        return Span(*(equivalent_timestep(process, t, side, settings.reference_size) for t in bounds))

    hook = MapFilter(
        span(settings.in_step),
        span(settings.cross_step),
        settings.pool,
        settings.amf_accumulate == "blended",
        settings.alpha_current,
        settings.alpha_history,
        settings.alpha_pool,
        settings.amf_sides,
        rows=_CondHalf() if settings.amf_cfg == "cond" else None,
        half=settings.half,
        heads=settings.heads_at_once,
        buffer_gb=settings.buffer_gb,
    )
    scheduler = ResamplingScheduler.from_config(usual.config, clip_sample=False, thresholding=False)
    pipeline.scheduler = scheduler.use(span(settings.resample), settings.passes, [hook])
    try:
        with hooked(pipeline.unet, [hook], side):
            yield hook
    finally:
        pipeline.scheduler = usual
