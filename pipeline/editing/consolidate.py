"""Edits of many views that agree: keys and values of the originals, queries drawn towards those of one field.

Every view is denoised with its own control, and reads the keys and values of its original. In intervals a field is
fitted to the queries of all views as they would be a few steps later, and the latents of each view are moved so that
its queries come closer to what the field renders from its camera.

Source: Consolidating Attention Features for Multi-view Image Editing (Patashnik et al., arXiv 2402.14792); MasaCtrl
(Cao et al. 2023). No code of the former is public: where it is silent, see :mod:`pipeline.editing.settings`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.denoising.loop import Latents, RowNoise, denoise
from pipeline.diffusion.modules.attention import Step, hooked
from pipeline.editing.guidance import explained_shares, guided_step, least, objective
from pipeline.editing.intervals import Interval, plan_intervals
from pipeline.editing.model import EditDiffusion
from pipeline.editing.progress import Progress
from pipeline.editing.queries import Queries, RunningStatistics, restored
from pipeline.editing.settings import ConsolidateSettings
from pipeline.editing.task import EditedLatents, EditTask, IntervalReport, QueryTargets, StepReport, digest_of
from pipeline.editing.views import Originals, ViewPasses
from qnerf.field import QueryField
from qnerf.render import render_queries
from qnerf.store import QueryLayer, QueryStore, Statistics, token_weights
from qnerf.train import train_field
from scene.errors import InputError

OnProgress = Callable[[int, int, str], None]
"""Told how many steps of parts of the views are done, of how many, and what is being done. What it raises ends the run
and reaches the caller."""


@torch.no_grad()
def edit_latents(
    model: EditDiffusion,
    task: EditTask,
    settings: ConsolidateSettings = ConsolidateSettings(),
    *,
    folder: Path | None = None,
    targets: QueryTargets | None = None,
    on_progress: OnProgress | None = None,
) -> EditedLatents:
    """Edit all views.

    Args:
        model: the editor.
        task: photos, controls and cameras.
        settings: of the method.
        folder: for the queries of all views, and for what a killed run goes on from, to the same bytes. What is there
            of another task or of other settings is replaced. Without, all is kept in memory. Nothing is removed.
        targets: queries in place of a field's, to try what queries are worth; such a run does not go on from a folder.
        on_progress: see :data:`OnProgress`.

    Raises:
        InputError: the task lacks what the settings ask for, or the model does not go with them.
        OutputError: the folder cannot be written, or the disk is full.
    """
    return _Run(model, task, settings, folder, targets, on_progress).finish()


@dataclass(frozen=True, eq=False)
class _Rendered:
    """A field's queries, which are the same for every step."""

    store: QueryStore
    explained: Mapping[QueryLayer, Float[Tensor, "_c"]] | None

    def at(self, step: Step, views: Sequence[int]) -> Queries:
        return {layer: torch.stack([self.store.get(layer, view) for view in views]) for layer in self.store.layers}

    def shares(self, step: Step) -> Mapping[QueryLayer, Float[Tensor, "_c"]] | None:
        return self.explained


class _Run:
    """One edit, step by step."""

    def __init__(
        self,
        model: EditDiffusion,
        task: EditTask,
        settings: ConsolidateSettings,
        folder: Path | None,
        targets: QueryTargets | None,
        on_progress: OnProgress | None,
    ) -> None:
        wanted = (model.codec.latents, model.latent_size, model.latent_size)
        if tuple(task.originals.shape[1:]) != wanted:
            raise InputError(f"latents of shape {tuple(task.originals.shape[1:])} are not the model's {wanted}")
        self.model, self.task, self.settings, self.folder, self.targets = model, task, settings, folder, targets
        self.passes = ViewPasses(model, task, settings)
        self.layers = tuple(self.passes.probe.layers.values())
        self.plan = plan_intervals(settings)
        self.masks = task.masks.float() if task.masks is not None and settings.background == "mask" else None
        self.field: QueryField | None = None
        self.statistics: dict[int, Mapping[QueryLayer, Statistics]] = {}
        self.reports: list[IntervalReport] = []
        self.on_progress, self.done = on_progress, 0
        self.count = settings.steps - (self.plan[-1].guided.stop if self.plan else 0)
        self.count += sum(len(interval.free) + len(interval.guided) for interval in self.plan)
        self.count *= len(self.passes.parts)

    def finish(self) -> EditedLatents:
        """From the beginning, or from where the folder says."""
        kept = None if self.targets is not None or not self.plan else self.folder
        digest = "" if kept is None else digest_of(self.model, self.task, self.settings)
        found = None if kept is None else Progress.load(kept, digest, self.layers)
        self.originals = Originals(self.passes, self.folder, known=found is not None)
        if self.originals.must_invert:
            self.count += self.settings.steps * len(self.passes.parts)
            for views in self.passes.parts:
                self.originals.invert(views)
                self._tell(self.settings.steps, "inverting")
        z = self.originals.start() if found is None else self._restored(found)
        with hooked(self.model.unet, self.passes.hooks, self.model.latent_size):
            for interval in self.plan[len(self.reports) :]:
                z = self._interval(z, interval)
                if kept is not None:
                    state = {} if self.field is None else self.field.state_dict()
                    Progress(z, self.statistics, state, tuple(self.reports)).save(kept, digest)
            done = self.plan[-1].guided.stop if self.plan else 0
            z = self._walk(z, range(done, self.settings.steps), "denoising", _Way(self))
        return EditedLatents(z, tuple(self.reports), self.field)

    def _restored(self, found: Progress) -> Latents:
        self.statistics, self.reports = dict(found.statistics), list(found.intervals)
        if found.field:
            self.field = self._new_field()
            self.field.load_state_dict(dict(found.field))
        for interval in self.plan[: len(self.reports)]:
            self.done += (len(interval.free) + len(interval.guided)) * len(self.passes.parts)
        return found.latents

    def _interval(self, z: Latents, interval: Interval) -> Latents:
        """Look ahead, fit, go back, and be guided."""
        since = time.monotonic()
        ahead = _LookAhead(self, interval.free, QueryStore.create(self._place("queries"), self.layers, self.task.views))
        seen = self._walk(z, interval.free, "looking ahead", ahead)
        self.statistics |= ahead.statistics()
        looked = time.monotonic()
        targets, misfit = (self.targets, None) if self.targets is not None else self._fitted(ahead.store)
        fitted = time.monotonic()
        way = (_Replaced if self.settings.mode == "hard" else _Guided)(self, targets)
        z = self._walk(z if interval.back else seen, interval.guided, "guiding", way)
        diffusion = time.monotonic() - fitted + looked - since
        self.reports.append(IntervalReport(way.reports(), misfit, fitted - looked, diffusion))
        return z

    def _fitted(self, store: QueryStore) -> tuple[QueryTargets, float]:
        """What the field renders once it is fitted, and how far that is from what it was fitted to."""
        settings, number = self.settings, len(self.reports)
        if self.field is None:
            self.field = self._new_field()
        training = settings.training if number == 0 else replace(settings.training, steps=settings.later_steps)
        side = max(layer.side for layer in self.layers)
        with torch.enable_grad():
            report = train_field(
                self.field,
                store,
                self.task.cameras,
                training,
                masks=None if self.masks is None else token_weights(self.masks, side),
                seed=settings.seed + number,
                progress=lambda step, steps: self._tell(0, "fitting"),
            )
        rendered = QueryStore.create(self._place("rendered"), self.layers, self.task.views)
        render_queries(self.field, self.task.cameras, self.layers, rendered)
        shares = explained_shares(store, rendered) if settings.by_share else None
        return _Rendered(rendered, shares), sum(report.distances.values()) / len(report.distances)

    def _walk(self, z: Latents, steps: range, what: str, way: _Way) -> Latents:
        """Denoise all views along some steps, as many at once as rows allow."""
        out = [
            denoise(
                functools.partial(way.predict, views=views),
                z[views.start : views.stop].to(self.model.device),
                self.model.schedule,
                self.passes.pairs[steps.start : steps.stop],
                noise=RowNoise.of(()),
                hooks=self.passes.hooks,
                before=functools.partial(way.before, views=views),
                on_step=lambda step: self._tell(1, what),
            ).cpu()
            for views in self.passes.parts
        ]
        return torch.cat(out)

    def _new_field(self) -> QueryField:
        low, high = self.task.corners
        field = QueryField(low, high, self.layers, self.settings.field, seed=self.settings.seed)
        return field.to(self.model.device)

    def _place(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / name

    def _tell(self, steps: int, what: str) -> None:
        self.done += steps
        if self.on_progress is not None:
            self.on_progress(self.done, self.count, what)


class _Way:
    """How views take a stretch of steps: freely, unless something more is said."""

    def __init__(self, run: _Run) -> None:
        self.run = run

    def before(self, z: Latents, step: Step, views: range) -> Latents:
        return z

    def predict(self, z: Latents, t: int, views: range) -> Latents:
        return self.run.passes.predict(z, t, views, self.run.originals.at(t, views))

    def probed(self, z: Latents, t: int, views: range) -> tuple[Latents, Queries]:
        """The prediction, and the queries that the edits have in it."""
        passes = self.run.passes
        passes.probe.record()
        out = _Way.predict(self, z, t, views)
        return out, passes.probe.take(passes.edit_rows(len(views), t))

    def masks(self, views: range) -> Tensor | None:
        return None if self.run.masks is None else self.run.masks[views.start : views.stop]


class _LookAhead(_Way):
    """Freely; the statistics of every step are kept, and the queries of the last."""

    def __init__(self, run: _Run, steps: range, store: QueryStore) -> None:
        super().__init__(run)
        self.store, self.last = store, steps[-1]
        self._running = {index: RunningStatistics() for index in steps}

    def predict(self, z: Latents, t: int, views: range) -> Latents:
        out, queries = self.probed(z, t, views)
        index = self.run.passes.index[t]
        self._running[index].add(queries, self.masks(views))
        if index == self.last:
            for row, view in enumerate(views):
                self.store.put(view, {layer: values[row] for layer, values in queries.items()})
        return out

    def statistics(self) -> dict[int, Mapping[QueryLayer, Statistics]]:
        return {index: one.result() for index, one in self._running.items()}


@dataclass(frozen=True, eq=False)
class _Aim:
    """What the queries of some views are compared with at a step."""

    targets: Queries
    statistics: Mapping[QueryLayer, Statistics]
    masks: Tensor | None
    shares: Mapping[QueryLayer, Float[Tensor, "_c"]] | None

    def distance(self, queries: Queries) -> Float[Tensor, "v"]:
        return objective(queries, self.targets, self.statistics, self.masks, self.shares)


class _Towards(_Way):
    """Towards targets; how far off they are is kept."""

    def __init__(self, run: _Run, targets: QueryTargets) -> None:
        super().__init__(run)
        self._targets = targets
        self._kept: dict[int, list[Float[Tensor, "v 4"]]] = {}

    def aim(self, t: int, views: range) -> _Aim:
        """Standardised targets of some views, and statistics of the step, or of the last that was looked at."""
        run, index = self.run, self.run.passes.index[t]
        known = run.statistics[index if index in run.statistics else max(run.statistics)]
        step = Step(index, run.settings.steps, t)
        return _Aim(self._targets.at(step, views), known, self.masks(views), self._targets.shares(step))

    def keep(self, t: int, before: Tensor, after: Tensor, halved: Tensor, kept: Tensor) -> None:
        rows = torch.stack([before, after, halved.float(), kept.float()], 1).cpu()
        self._kept.setdefault(self.run.passes.index[t], []).append(rows)

    def reports(self) -> tuple[StepReport, ...]:
        layers = len(self.run.layers)
        found = []
        for index, parts in sorted(self._kept.items()):
            before, after, halved, kept = torch.cat(parts).double().unbind(1)
            distances = float(before.mean()) / layers, float(after.mean()) / layers
            found.append(StepReport(index, *distances, int(halved.sum()), int(kept.sum())))
        return tuple(found)


class _Guided(_Towards):
    """The latents move first, by the slope of the distance; the pass that tried them is the step's own."""

    _ready: tuple[Latents, Latents] | None = None

    def before(self, z: Latents, step: Step, views: range) -> Latents:
        aim = self.aim(step.t, views)

        def evaluate(latents: Latents) -> tuple[Tensor, Latents]:
            out, queries = self.probed(latents, step.t, views)
            return aim.distance(queries), out

        moved = guided_step(evaluate, z, self.run.settings.relative_step, least(len(self.run.layers)))
        self.keep(step.t, moved.before, moved.after, moved.halved, moved.kept)
        self._ready = moved.latents, moved.prediction
        return moved.latents

    def predict(self, z: Latents, t: int, views: range) -> Latents:
        assert self._ready is not None
        assert self._ready[0] is z
        return self._ready[1]


class _Replaced(_Towards):
    """The queries become the targets, with the step's own mean and deviation."""

    def predict(self, z: Latents, t: int, views: range) -> Latents:
        aim = self.aim(t, views)
        probe, masks = self.run.passes.probe, aim.masks
        given = restored(aim.targets, aim.statistics)
        repeats = self.run.passes.edits
        probe.replaced = {layer: values.repeat_interleave(repeats, 0) for layer, values in given.items()}
        probe.weights = None if masks is None else masks.repeat_interleave(repeats, 0)
        probe.rows = self.run.passes.all_edit_rows(len(views), t)
        out, queries = self.probed(z, t, views)
        probe.replaced, probe.weights, probe.rows = None, None, ()
        before = aim.distance(queries)
        none = torch.zeros_like(before)
        self.keep(t, before, none, none, none)
        return out
