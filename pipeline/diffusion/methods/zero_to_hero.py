"""Zero-to-Hero: what sampling settings mean for one run of one model.

Source: Zero-to-Hero (Sobol, Xu and Litany 2024, arXiv 2405.18677). The paper leaves open: its integers of the schedule,
guidance, and which rows are filtered; the defaults of :class:`ZeroToHeroSettings` are our choice there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.diffusion.denoising.loop import SEED_STRIDE, SEEDS
from pipeline.diffusion.denoising.schedule import NoiseSchedule, Span, equivalent_timestep, hourglass
from pipeline.diffusion.methods.attention_map_filtering import MapFilter
from pipeline.diffusion.methods.mutual_self_attention import MutualSelfAttention
from pipeline.diffusion.modules.attention import AttentionHook, Step
from pipeline.diffusion.modules.conditioning import Conditions
from pipeline.diffusion.settings import SamplingSettings, ZeroToHeroSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from scene.errors import SettingsError


@dataclass(eq=False)
class ZeroToHero(AttentionHook):
    """One run's schedule, passes and hooks; itself the hook that minds the ends of ranges.

    Args:
        objects, views: of the run.
        timesteps: falling; None for the sampler's usual ones.
        resample: timesteps at which a step has several passes.
        resample_passes: how many.
        filter: of attention maps, if any.
        mutual: reading of the source, if any.
        adds_source: every object gets a row of its source at the identity pose, since the model has none.
        source_span: timesteps at which that row is denoised.
        forgets: drop the history of the layers that read the source when that ends.
    """

    objects: int
    views: int
    timesteps: list[int] | None
    resample: Span
    resample_passes: int
    filter: MapFilter | None = None
    mutual: MutualSelfAttention | None = None
    adds_source: bool = False
    source_span: Span = Span(0, 0)
    forgets: bool = True
    _read: bool = False
    _sources: bool = True
    _filtered: Callable[[int], Int[Tensor, "n"]] | None = None

    @property
    def hooks(self) -> list[AttentionHook]:
        """In the order in which they run."""
        return [self, *(hook for hook in (self.mutual, self.filter) if hook is not None)]

    def passes(self, t: int) -> int:
        """Passes of the U-Net at a timestep."""
        return self.resample_passes if t in self.resample else 1

    def rows(self, t: int) -> int:
        """Rows denoised at a timestep: views of all objects, then, as long as they are read, their sources."""
        targets = self.objects * self.views
        if not self.adds_source:
            return targets
        if self._sources and t not in self.source_span:
            self._sources = False
            if self.filter is not None:
                # If only targets are filtered, only their maps are held.
                if self.filter.rows is None:
                    self.filter.keep_rows(self._targets)
                self._filtered, self.filter.rows = self.filter.rows, None
        return targets + self.objects * self._sources

    def begin_pass(self, step: Step) -> None:
        """Forget the maps that the views had while they read the source, when that has ended."""
        reads = self.mutual is not None and step.t in self.mutual.span
        if self._read and not reads and self.filter is not None and self.mutual is not None and self.forgets:
            self.filter.forget(self.mutual.covers, self.mutual.calls)
        self._read = reads

    def reset(self) -> None:
        """Ready for another run."""
        if self.filter is not None and not self._sources:
            self.filter.rows = self._filtered
        self._read, self._sources, self._filtered = False, True, None

    def acts(self, timesteps: Sequence[int]) -> bool:
        """Whether resampling, filtering or reading happens at one of the timesteps, or none of them is asked for."""
        spans = [self.resample] if self.resample_passes > 1 else []
        if self.filter is not None:
            spans += [self.filter.cross_step, *([self.filter.in_step] if self.resample_passes > 1 else [])]
        if self.mutual is not None:
            spans.append(self.mutual.span)
        return not spans or any(t in span for t in timesteps for span in spans)

    def grouped(self, z: Float[Tensor, "r c h w"]) -> Float[Tensor, "o v c h w"]:
        """Rows of the loop as those of the U-Net: by object, the source first if there is one."""
        targets = self.objects * self.views
        views = z[:targets].unflatten(0, (self.objects, self.views))
        return views if len(z) == targets else torch.cat([z[targets:, None], views], 1)

    def flattened(self, z: Float[Tensor, "o v c h w"]) -> Float[Tensor, "r c h w"]:
        """The other way."""
        if z.shape[1] == self.views:
            return z.flatten(0, 1)
        return torch.cat([z[:, 1:].flatten(0, 1), z[:, 0]])

    def _targets(self, rows: int) -> Int[Tensor, "n"]:
        """Which of so many rows, in groups with their source first, are views."""
        return torch.arange(rows).view(-1, self.views + 1)[:, 1:].flatten()


def plan_zero_to_hero(model: ViewDiffusion, settings: SamplingSettings, objects: int, views: int) -> ZeroToHero | None:
    """What the settings ask for; None if that is nothing.

    Ranges are translated to the model's process and latents. Models with a source row of their own have it read;
    others get one more row for every object, which is dropped after the range.
    """
    if settings.filtering == "none":
        return None
    numbers = settings.zero_to_hero
    if settings.filtering == "amf":
        numbers = replace(numbers, hourglass=False, timesteps=None, msa=False, amf=True)
    schedule, side = model.schedule, model.latent_size

    def span(bounds: tuple[int, int]) -> Span:
        return Span(*(equivalent_timestep(schedule, t, side) for t in bounds))

    own_source = model.conditioning.source_row
    mutual = None
    if numbers.msa and numbers.msa_levels:
        sides = tuple(side >> level for level in range(numbers.msa_levels))
        calls = (0,) if numbers.msa_cfg == "cond" else None
        mutual = MutualSelfAttention(views + 1, span(numbers.msa_range), sides, calls)
    adds_source = mutual is not None and not own_source
    # Where views share attention among themselves, the number of rows cannot change on the way.
    keeps = numbers.keep_source_row or bool(model.conditioning.joint and settings.joint)
    # Rows that are dropped do not come back, so a source is there from the start, whenever it is read first.
    source_span = Span(0 if mutual is None or keeps else mutual.span.low, len(schedule))
    plan = ZeroToHero(
        objects,
        views,
        method_timesteps(schedule, numbers, side),
        span(numbers.resample),
        numbers.passes,
        map_filter(numbers, span(numbers.in_step), span(numbers.cross_step)) if numbers.amf else None,
        mutual,
        adds_source,
        source_span,
        numbers.reset_history_on_msa_end,
    )
    if plan.filter is not None and numbers.amf_rows == "target" and (own_source or adds_source):
        plan.filter.rows = plan._targets
    return plan


def method_timesteps(schedule: NoiseSchedule, numbers: ZeroToHeroSettings, latent_size: int) -> list[int] | None:
    """The method's own timesteps; None where it uses the sampler's."""
    if numbers.timesteps is not None:
        if not 0 <= numbers.timesteps[-1] <= numbers.timesteps[0] < len(schedule):
            raise SettingsError(
                f"timesteps from {numbers.timesteps[0]} to {numbers.timesteps[-1]} are not all of the model's process",
                where="zero_to_hero.timesteps",
                fix=f"Give timesteps from {len(schedule) - 1} down to 0.",
            )
        return list(numbers.timesteps)
    if not numbers.hourglass:
        return None
    bounds = [equivalent_timestep(schedule, t, latent_size) for t in numbers.bounds]
    # Ends of stages that fall together hold fewer timesteps than asked for.
    counts = [min(n, high - low) for n, low, high in zip(numbers.counts, bounds, bounds[1:])]
    stages = [k for k, n in enumerate(counts) if bounds[k] < bounds[k + 1]]
    ends = [bounds[k] for k in stages] + [bounds[-1]]
    return hourglass(ends, [counts[k] for k in stages], trailing=schedule.zero_terminal_snr)


def map_filter(numbers: ZeroToHeroSettings, in_step: Span, cross_step: Span) -> MapFilter:
    """The filter with these numbers, in a model's own timesteps."""
    return MapFilter(
        in_step,
        cross_step,
        numbers.pool,
        numbers.amf_accumulate == "blended",
        numbers.alpha_current,
        numbers.alpha_history,
        numbers.alpha_pool,
        numbers.amf_sides,
        calls=(0,) if numbers.amf_cfg == "cond" else None,
        half=numbers.half,
        heads=numbers.heads_at_once,
        buffer_gb=numbers.buffer_gb,
    )


def with_source_view(conditions: Conditions) -> Conditions:
    """Conditions with one more view in front of each object's: its source, seen from where it is."""

    def before(first: Tensor, rest: Tensor | None) -> Tensor | None:
        return None if rest is None else torch.cat([first[:, None], rest], 1)

    seen = None if conditions.visible is None else torch.ones_like(conditions.visible[:, 0])
    return replace(
        conditions,
        tokens=torch.cat([conditions.source_token[:, None], conditions.tokens], 1),
        coarse=before(conditions.source, conditions.coarse),
        visible=None if seen is None else before(seen, conditions.visible),
        rays=None if conditions.source_rays is None else before(conditions.source_rays, conditions.rays),
    )


def source_seeds(seeds: Sequence[int], views: int) -> list[int]:
    """Seeds of the sources' rows; they do not depend on the number of views."""
    # One stride before the first view's, in the ring of seeds; see view_seeds.
    return [(seed - SEED_STRIDE) % SEEDS for seed in seeds[::views]]


def shared_seeds(seeds: Sequence[int], views: int) -> list[int]:
    """One seed for all rows of an object, in the order of the loop: views of all objects, then their sources."""
    firsts = [seed + 104_729 for seed in seeds[::views]]
    return [seed for seed in firsts for _ in range(views)] + firsts
