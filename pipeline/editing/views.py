"""Views on their way through the network: with the original beside each, its trajectory, and its controls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.denoising.loop import Latents, RowNoise, view_seeds
from pipeline.diffusion.denoising.schedule import Span, leading_timesteps, timestep_pairs, trailing_timesteps
from pipeline.diffusion.methods.mutual_self_attention import MutualSelfAttention
from pipeline.diffusion.modules.attention import AttentionHook
from pipeline.editing.inversion import inverted, noised_at
from pipeline.editing.model import Controls, EditDiffusion
from pipeline.editing.queries import QueryProbe, query_layers
from pipeline.editing.settings import ConsolidateSettings, TrajectoryKind
from pipeline.editing.task import EditTask
from scene.errors import InputError
from scene.files import unwritable


def spaced_timesteps(scheduler: Mapping[str, object], steps: int, end: int) -> list[int]:
    """Falling timesteps below ``end``, spaced as a model's scheduler says: diffusers' ``trailing``, or else leading."""
    if scheduler.get("timestep_spacing") == "trailing":
        return trailing_timesteps(steps, end)
    offset = scheduler.get("steps_offset", 0)
    return leading_timesteps(steps, end, offset if isinstance(offset, int) and 0 <= offset < end - steps else 0)


class ViewPasses:
    """The network as an edit runs it, and which timesteps it runs at.

    Each view takes a group of rows: its original while keys and values are read from that, the edit without control if
    guidance needs it, and the edit, last.

    Raises:
        InputError: settings ask for what the task or the model does not have.
    """

    def __init__(self, model: EditDiffusion, task: EditTask, settings: ConsolidateSettings) -> None:
        self.model, self.task, self.settings = model, task, settings
        count, strength = len(model.schedule), 1.0 if settings.start is None else settings.start
        end = count if strength == 1 else max(settings.steps + 1, round(strength * count))
        self.timesteps = spaced_timesteps(model.scheduler, settings.steps, end)
        self.pairs = timestep_pairs(self.timesteps)
        self.index = {t: index for index, t in enumerate(self.timesteps)}
        self.edits = 1 if settings.guidance == 1 else 2
        clean = model.source == "clean"
        self.trajectory: TrajectoryKind = settings.trajectory or ("clean" if clean else "noise")
        given = task.source_pictures is not None
        self.own_control = (clean and given) if settings.source_control is None else settings.source_control
        if self.own_control and not given:
            raise InputError("the originals' own controls are not given", fix="Give them, or leave source_control out.")
        if settings.background == "mask" and task.masks is None:
            raise InputError("only what masks cover is to count, but there are none", fix="Use background query.")
        layers = query_layers(model)
        sides = sorted({layer.side for layer in layers.values()})
        shared = sides[-2:] if settings.shared_sides is None else settings.shared_sides
        if not set(shared) <= set(sides):
            raise InputError(f"the decoder has no tokens in grids of side {sorted(set(shared) - set(sides))}")
        first = settings.first_shared
        span = Span(0, self.timesteps[first] + 1) if first < settings.steps else Span(0, 0)
        self.sharing = MutualSelfAttention(1 + self.edits, span, tuple(shared))
        self.probe = QueryProbe(layers)
        at_once = max(1, settings.rows_at_once // self.sharing.rows)
        self.parts = [range(k, min(k + at_once, task.views)) for k in range(0, task.views, at_once)]
        """The views in order, as many at once as rows allow."""

    @property
    def hooks(self) -> Sequence[AttentionHook]:
        """To be installed on the U-Net and notified of passes."""
        return self.sharing, self.probe

    def edit_rows(self, views: int, t: int) -> range:
        """Rows of the edits, with control, in a pass of so many views."""
        group = self._group(t)
        return range(group - 1, views * group, group)

    def all_edit_rows(self, views: int, t: int) -> list[int]:
        """Rows of the edits with and without control."""
        group = self._group(t)
        return [row for row in range(views * group) if row % group >= group - self.edits]

    def predict(self, z: Latents, t: int, views: range, original: Latents) -> Latents:
        """The network's prediction for edits, guidance included; hooks must be installed by the caller.

        Args:
            z: noisy latents of the edits.
            t: timestep.
            views: which.
            original: their originals' latents at that timestep.
        """
        settings, task, share = self.settings, self.task, t in self.sharing.span
        pictures = self._on_device(task.pictures, views)
        own = pictures
        if self.own_control and task.source_pictures is not None:
            own = self._on_device(task.source_pictures, views)
        weight = settings.control_scale * float(self.own_control)
        roles = [(z, pictures, settings.control_scale)]
        if self.edits == 2:
            roles.insert(0, (z, pictures, 0.0))
        if share:
            roles.insert(0, (original.to(z.device), own, weight))
        latents = torch.stack([latent for latent, _, _ in roles], 1).flatten(0, 1)
        shown = torch.stack([picture for _, picture, _ in roles], 1).flatten(0, 1)
        scales = torch.tensor([scale for _, _, scale in roles], device=z.device).repeat(len(views))
        times = torch.full((len(roles),), t, device=z.device)
        if share and self.trajectory == "clean":
            times[0] = 0
        controls = Controls(task.kind, shown, scales)
        out = self.model.predict(latents, times.repeat(len(views)), controls).unflatten(0, (len(views), -1))
        if self.edits == 1:
            return out[:, -1]
        return out[:, -2] + settings.guidance * (out[:, -1] - out[:, -2])

    def predict_original(self, z: Latents, t: int, views: range) -> Latents:
        """The network's prediction for originals alone, with their own controls if settings say so."""
        controls = None
        if self.own_control and self.task.source_pictures is not None:
            scales = torch.full((len(views),), self.settings.control_scale, device=z.device)
            controls = Controls(self.task.kind, self._on_device(self.task.source_pictures, views), scales)
        return self.model.predict(z, t, controls)

    def _group(self, t: int) -> int:
        return self.edits + int(t in self.sharing.span)

    def _on_device(self, values: Tensor, views: range) -> Tensor:
        return values[views.start : views.stop].to(self.model.device)


class Originals:
    """The originals' latents at every step.

    Args:
        passes: the network.
        folder: keeps the trajectories of an inversion; None for memory.
        known: whether those in the folder are of this very task.
    """

    def __init__(self, passes: ViewPasses, folder: Path | None, *, known: bool = False) -> None:
        self._passes = passes
        self.must_invert = False
        """Whether :meth:`invert` has to be called, for all views, before anything is read."""
        task, settings = passes.task, passes.settings
        self._noise: Latents | None = None
        self._levels: np.ndarray | None = None
        if passes.trajectory != "ddim":
            noise = RowNoise.of(view_seeds(settings.seed, task.views))
            self._noise = noise.draw(task.originals.shape[1:], torch.device("cpu"))
            return
        shape = (settings.steps, *task.originals.shape)
        if folder is None:
            self._levels, self.must_invert = np.empty(shape, np.float32), True
            return
        path = folder / "trajectories.f32"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.must_invert = not (known and path.is_file() and path.stat().st_size == 4 * math.prod(shape))
            self._levels = np.memmap(path, np.float32, "w+" if self.must_invert else "r", shape=shape)
        except OSError as error:
            raise unwritable(error, path) from error

    def invert(self, views: range) -> None:
        """Find the trajectories of some views."""
        passes = self._passes
        clean = passes.task.originals[views.start : views.stop].to(passes.model.device)
        levels = inverted(
            lambda z, t: passes.predict_original(z, t, views), clean, passes.model.schedule, passes.timesteps
        )
        assert self._levels is not None
        self._levels[:, views.start : views.stop] = levels[:-1].cpu().numpy()

    def at(self, t: int, views: range) -> Float[Tensor, "v c h w"]:
        """Their latents beside the edits at a timestep of the run, on the CPU."""
        if self._passes.trajectory == "clean":
            return self._passes.task.originals[views.start : views.stop].cpu().float()
        return self._noised(t, views)

    def _noised(self, t: int, views: range) -> Float[Tensor, "v c h w"]:
        part = slice(views.start, views.stop)
        if self._noise is not None:
            clean = self._passes.task.originals[part].cpu().float()
            return noised_at(clean, self._passes.model.schedule, t, self._noise[part])
        assert self._levels is not None
        return torch.from_numpy(self._levels[self._passes.index[t], part].copy())

    def start(self) -> Float[Tensor, "n c h w"]:
        """What the edits begin with: the originals' noisiest latents, or the drafts with the same noise."""
        passes = self._passes
        first, task = passes.timesteps[0], passes.task
        z = self._noised(first, range(task.views))
        if task.start is None:
            return z
        return z + passes.model.schedule.at(first) ** 0.5 * (task.start - task.originals).cpu().float()
