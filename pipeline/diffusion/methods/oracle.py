"""The oracle: what attention maps are worth, tried with those of the true views."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.denoising.loop import RowNoise
from pipeline.diffusion.denoising.schedule import equivalent_timestep
from pipeline.diffusion.methods.attention_map_filtering import Key
from pipeline.diffusion.modules.attention import AttentionHook, Heads, Layer, Scores, Step, hooked
from pipeline.diffusion.modules.conditioning import Conditions
from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion


@dataclass(eq=False)
class MapOracle(AttentionHook):
    """Records scores of one run of the U-Net, and puts them in the place of those of later ones.

    The test of what attention maps are worth: maps of the true view, injected at every step.

    Args:
        mode: what to do at the moment.
    """

    mode: Literal["record", "inject"] = "record"
    _call: int = 0
    _head: int = 0
    _kept: dict[Key, Tensor] = field(default_factory=dict)

    def begin_pass(self, step: Step) -> None:
        """Begin with the first call."""
        self._call = 0

    def begin_call(self, call: int) -> None:
        """Note which call comes."""
        self._call = call

    def project(self, layer: Layer, q: Heads, k: Heads, v: Heads) -> tuple[Heads, Heads, Heads]:
        """Begin a layer."""
        self._head = 0
        return q, k, v

    def wants_scores(self, layer: Layer) -> bool:
        """Always."""
        return True

    def scores(self, layer: Layer, scores: Scores) -> Scores:
        """Record, or give back what was recorded."""
        key = layer, self._call, self._head
        self._head += scores.shape[1]
        if self.mode == "record":
            self._kept[key] = scores.clone()
            return scores
        return self._kept[key].to(scores.dtype)

    def clear(self) -> None:
        """Let go of the maps; the end of a run does not, since they are recorded in one and used in another."""
        self._kept.clear()


@torch.no_grad()
def true_maps(
    model: ViewDiffusion, truth: Float[Tensor, "v c h w"], conditions: Conditions, settings: SamplingSettings
) -> MapOracle:
    """The attention maps of one object's true views, to be passed to the sampler as a hook.

    The true views are noised as at the paper's timestep 5, seen once by the U-Net, and their maps recorded; every later
    call of the U-Net gets them.

    Args:
        model: the view model.
        truth: unscaled latents of the true views.
        conditions: of these views.
        settings: guidance and sharing of views, as in the run to come.

    Source: Zero-to-Hero (Sobol, Xu and Litany 2024), section 3.
    """
    hook, clean = MapOracle(), model.codec.normalise(truth)
    noise = RowNoise.of(range(len(clean))).draw(clean.shape[1:], clean.device)
    t = equivalent_timestep(model.schedule, 5, model.latent_size)
    times = torch.full((1, len(clean)), t, device=clean.device)
    z = model.schedule.add_noise(clean, noise, times[0])[None]
    sharing = model.shared_views(len(clean), joint=settings.joint)
    guidance = settings.plan(model.sampling).guidance
    with hooked(model.unet, [*([] if sharing is None else [sharing]), hook], model.latent_size):
        for call, read in enumerate([conditions] if guidance == 1 else [conditions, conditions.null()]):
            hook.begin_call(call)
            model.predict(z, times, read)
    hook.mode = "inject"
    return hook
