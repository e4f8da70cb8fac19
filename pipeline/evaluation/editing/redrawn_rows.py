"""Rows of the table of edits that an editor draws: per view, drawn towards a field, and the bounds of that."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.diffusion.denoising.loop import RowNoise, view_seeds
from pipeline.diffusion.modules.attention import Step, hooked
from pipeline.editing.boxes import BoxTarget
from pipeline.editing.consolidate import edit_latents
from pipeline.editing.control_pictures import both_control_pictures, control_kind
from pipeline.editing.controls import depth_controls
from pipeline.editing.guidance import explained_shares
from pipeline.editing.inversion import noised_at
from pipeline.editing.model import EditDiffusion
from pipeline.editing.queries import Queries, RunningStatistics, standardised
from pipeline.editing.redraw import as_control, bytes_of, encoded
from pipeline.editing.settings import ConsolidateSettings
from pipeline.editing.target import EditTarget, SkeletonTarget
from pipeline.editing.task import EditedLatents, EditTask
from pipeline.editing.views import Originals, ViewPasses
from pipeline.evaluation.editing.cases import EditCase, TrueViews, drawn
from pipeline.evaluation.editing.rows import Deform, Edited, Row
from pipeline.evaluation.editing.scores import Pictures, as_pictures
from qnerf.field import QueryField
from qnerf.render import render_queries
from qnerf.store import QueryLayer, QueryStore
from qnerf.train import train_field
from recon.fit import fit_surface
from recon.mesh.marching_cubes import asset_mesh
from recon.settings import FitSettings
from scene.errors import InputError, ViewloomError
from scene.mesh import ColouredMesh
from scene.view import View
from scene.viewset import ViewSet

Targets = Literal["own", "true", "true, rendered"]
"""Whose queries views are drawn towards: those of a field, as the method has it, or those of the true edit, as they are
or as a field renders them once it is fitted to them."""


def target_of(case: EditCase) -> EditTarget:
    """What a case aims at.

    Raises:
        InputError: it has no target.
    """
    if case.skeletons is not None:
        return SkeletonTarget(*case.skeletons)
    if case.boxes is None:
        raise InputError("a case has neither skeletons nor boxes", where=case.name)
    return BoxTarget(*case.boxes)


@dataclass(frozen=True, eq=False)
class RedrawnRow:
    """Edited views by an editor.

    Args:
        model: the editor.
        settings: of the method.
        draft: a deformed surface that is drawn over, with its depth as the control; None for the target's own control,
            from noise.
        targets: whose queries count.
        fit: of a surface to the views, for the mesh's scores; None for no surface.
    """

    model: EditDiffusion
    settings: ConsolidateSettings
    draft: Deform | None = None
    targets: Targets = "own"
    fit: FitSettings | None = None

    def __call__(self, views: TrueViews) -> Edited:
        """What it makes of a case."""
        task = self.task(views)
        true = None if self.targets == "own" else self._true(views, task)
        start = time.perf_counter()
        edited = edit_latents(self.model, task, self.settings, targets=true)
        seconds = time.perf_counter() - start
        with torch.no_grad():
            pictures = self.model.codec.decode(edited.latents).float().clamp(0, 1).numpy()
        mesh = None if self.fit is None else fitted_mesh(pictures, views, self.fit)
        return Edited(pictures, mesh, facts(edited, seconds))

    def task(self, views: TrueViews) -> EditTask:
        """What the editor is asked for."""
        originals, target = encoded(self.model, views.originals), target_of(views.case)
        if self.draft is None:
            before, after = both_control_pictures(target, views.cameras)
            own = None if before is None else as_control(bytes_of(before))
            return EditTask(originals, control_kind(target), as_control(bytes_of(after)), views.cameras, own)
        mesh = self.draft(views.case)
        controls = [
            as_control(bytes_of(depth_controls(one.vertices, one.faces, views.cameras)[0]))
            for one in (views.case.before, mesh)
        ]
        start = encoded(self.model, drawn(mesh, views.cameras))
        return EditTask(originals, "depth", controls[1], views.cameras, controls[0], start)

    def _true(self, views: TrueViews, task: EditTask) -> TrueQueries:
        truth = encoded(self.model, views.truths)
        return TrueQueries.of(self.model, task, self.settings, truth, rendered=self.targets == "true, rendered")


def facts(edited: EditedLatents, seconds: float) -> dict[str, float]:
    """What an edit tells of itself: time, the field's share of it, and how far off queries were, per interval."""
    found = {"edit_seconds": seconds}
    if edited.intervals:
        found["field_share"] = sum(interval.field_seconds for interval in edited.intervals) / seconds
        for number, interval in enumerate(edited.intervals):
            found[f"distance_{number}"] = float(np.mean([step.before for step in interval.guided]))
            found[f"distance_after_{number}"] = float(np.mean([step.after for step in interval.guided]))
            if interval.misfit is not None:
                found[f"misfit_{number}"] = interval.misfit
    return found


def fitted_truth(fit: FitSettings) -> Row:
    """The true edit, and a surface fitted to its views: the ceiling of meshes."""

    def row(views: TrueViews) -> Edited:
        pictures = as_pictures(views.truths)
        return Edited(pictures, fitted_mesh(pictures, views, fit))

    return row


def fitted_mesh(pictures: Pictures, views: TrueViews, fit: FitSettings) -> ColouredMesh | None:
    """The surface of edited views; None if they make none."""
    rgba = np.round(pictures * 255).astype(np.uint8)
    given = tuple(
        View(f"{k:03d}", camera, one, origin="generated")
        for k, (camera, one) in enumerate(zip(views.cameras, rgba, strict=True))
        if (one[..., 3] >= 128).any()
    )
    try:
        surface = fit_surface(ViewSet(given, True, {"normalised": True}), fit)
    except ViewloomError:
        return None
    vertices, faces = asset_mesh(surface, 20_000)
    return ColouredMesh(vertices, faces)


@dataclass(frozen=True, eq=False)
class TrueQueries:
    """Queries of the true edit at every step, standardised over all views of that step: what no method has.

    Their noise is their own: with that of the run, they would tell it what to predict.
    """

    stores: Mapping[int, QueryStore]
    explained: Mapping[int, Mapping[QueryLayer, Tensor]] = field(default_factory=dict)

    def shares(self, step: Step) -> Mapping[QueryLayer, Tensor] | None:
        """How much of each channel a field explains, of rendered ones."""
        return self.explained.get(step.t)

    def at(self, step: Step, views: Sequence[int]) -> Queries:
        """Of some views, all layers."""
        store = self.stores[step.t]
        return {layer: torch.stack([store.get(layer, view) for view in views]) for layer in store.layers}

    @classmethod
    @torch.no_grad()
    def of(
        cls, model: EditDiffusion, task: EditTask, settings: ConsolidateSettings, truth: Tensor, *, rendered: bool
    ) -> TrueQueries:
        """Record them.

        Args:
            model, task, settings: of the run that is drawn towards them.
            truth: latents of the true edit.
            rendered: give what a field renders that was fitted to them, at each step anew.
        """
        passes = ViewPasses(model, task, settings)
        originals = Originals(passes, None)
        noise = RowNoise.of(view_seeds(settings.seed + 1, task.views)).draw(truth.shape[1:], torch.device("cpu"))
        layers = tuple(passes.probe.layers.values())
        stores: dict[int, QueryStore] = {}
        explained: dict[int, Mapping[QueryLayer, Tensor]] = {}
        with hooked(model.unet, passes.hooks, model.latent_size):
            for index, (t, _) in enumerate(passes.pairs):
                step = Step(index, len(passes.pairs), t)
                for hook in passes.hooks:
                    hook.begin_pass(step)
                found: dict[int, Queries] = {}
                statistics = RunningStatistics()
                for part in passes.parts:
                    z = noised_at(truth, model.schedule, t, noise)[part.start : part.stop]
                    passes.probe.record()
                    passes.predict(z, t, part, originals.at(t, part))
                    taken = passes.probe.take(list(passes.edit_rows(len(part), t)))
                    statistics.add(taken)
                    found |= {view: {k: v[n] for k, v in taken.items()} for n, view in enumerate(part)}
                store = QueryStore.create(None, layers, task.views)
                for view, queries in found.items():
                    shown = standardised({k: v[None] for k, v in queries.items()}, statistics.result())
                    store.put(view, {layer: values[0] for layer, values in shown.items()})
                stores[t] = _through_field(store, task, settings, layers) if rendered else store
                if rendered and settings.by_share:
                    explained[t] = explained_shares(store, stores[t])
        return cls(stores, explained)


def _through_field(
    store: QueryStore, task: EditTask, settings: ConsolidateSettings, layers: tuple[QueryLayer, ...]
) -> QueryStore:
    """What a field renders that was fitted to queries."""
    low, high = task.corners
    field = QueryField(low, high, layers, settings.field, seed=settings.seed)
    with torch.enable_grad():
        train_field(field, store, task.cameras, settings.training, seed=settings.seed)
    out = QueryStore.create(None, layers, task.views)
    render_queries(field, task.cameras, layers, out)
    return out
