"""The ablation's work: views of rows, scored; values tuned; surfaces fitted. What the result file holds stays."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.methods.oracle import true_maps
from pipeline.diffusion.modules.attention import Step
from pipeline.diffusion.sample import decode_views, sample_latents, transfer_low_frequencies
from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.evaluation.meshes import load_glb
from pipeline.evaluation.results import ResultFile
from pipeline.evaluation.zero_to_hero.pairs import KEYS, Case, EncodedCase, cases, score_pairs
from pipeline.evaluation.zero_to_hero.rows import AblationSettings, Row, rows_of, shuffled_meshes, with_joint
from pipeline.jobs.settings import GENERATED_FIT, ViewsSettings
from pipeline.jobs.stages.views import ring_orbits, view_confidence
from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.samples import heldout_mesh, source_view, to_bytes
from recon.fit import fit_surface
from recon.mesh.marching_cubes import extract_mesh, taubin
from recon.mesh.metrics import compare_meshes
from recon.mesh.topology import remove_small_components
from scene.camera import DEFAULT_RADIUS, orbit_camera
from scene.errors import InputError
from scene.render import MeshRenderer
from scene.view import View
from scene.viewset import ViewSet

GUIDANCES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
GRIDS: dict[str, tuple[Any, ...]] = {
    "msa_range": ((600, 1000), (800, 1000), (1000, 1000)),
    "msa_cfg": ("both", "cond"),
    "alpha_current": (0.2, 0.5, 0.8),
    "cross_step": ((600, 1000), (800, 1000)),
    "pool": ("min", "mean"),
    "passes": (5, 3),
}
"""What tuning tries, one after the other; the paper's value first."""


@dataclass(frozen=True)
class Ablation:
    """A model, the settings, the result file, and where progress goes, line by line."""

    model: ViewDiffusion
    settings: AblationSettings
    results: ResultFile
    report: Callable[[str], None]

    def rows(self) -> dict[str, Row]:
        """All rows, with those that tuning has made possible."""
        return rows_of(self.settings, self.results["tuned"])

    def encoded(self, path: Path, index: int) -> list[EncodedCase]:
        """The pairs of an object, as the model reads them."""
        found = cases(load_glb(path), index, self.model.image_size, self.settings.pairs)
        return [EncodedCase.of(self.model, case) for case in found]


@dataclass(frozen=True)
class Cost:
    """What the sampling of a case took: passes of the loop, and seconds."""

    passes: int
    seconds: float


@torch.no_grad()
def sampled(
    model: ViewDiffusion, encoded: EncodedCase, row: Row, seed: int
) -> tuple[Float[np.ndarray, "v s s 4"], Cost]:
    """Views of a case, and what they cost."""
    samples: list[np.ndarray] = []
    passes, begun = 0, time.perf_counter()

    def count(step: Step) -> None:
        nonlocal passes
        passes += step.passes

    conditions = encoded.conditions
    if row.told == "truth":
        assert conditions.visible is not None
        everywhere = torch.ones_like(conditions.visible)
        conditions = replace(conditions, coarse=_true_latents(model, encoded.case)[None], visible=everywhere)
    for k in range(row.samples):
        settings = replace(row.settings, seed=seed + 1000 * k)
        if row.shown == "coarse":
            assert encoded.renders is not None
            views = encoded.renders
        elif row.shown == "vae":
            views = decode_views(model, model.codec.normalise(_true_latents(model, encoded.case))[None])
        else:
            hooks = [true_maps(model, _true_latents(model, encoded.case), conditions, settings)] if row.maps else []
            latents = sample_latents(model, conditions, settings, hooks=hooks, on_step=count)
            views = decode_views(model, latents)
            if encoded.renders is not None and settings.coarse_colours:
                views = transfer_low_frequencies(views, encoded.renders)
        rgba = views[0].float().cpu().numpy()
        # Averages are those of premultiplied colour.
        samples.append(np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], -1))
    mean = np.mean(samples, 0)
    mean[..., :3] /= np.maximum(mean[..., 3:], 1e-3)
    return mean.clip(0, 1), Cost(passes, time.perf_counter() - begun)


def _true_latents(model: ViewDiffusion, case: Case) -> Float[Tensor, "v c h w"]:
    return model.codec.encode_raw(torch.from_numpy(case.truths).to(model.device))


def score_rows(ablation: Ablation, names: Sequence[str]) -> None:
    """Score rows on all objects; rows whose settings have changed since are scored again.

    Raises:
        InputError: there is no row of one of these names.
    """
    rows, settings, results = ablation.rows(), ablation.settings, ablation.results
    for name in names:
        if name not in rows:
            known = f"Rows: {', '.join(rows)}; after --parts tune also best-guidance, all-guided and all-tuned."
            raise InputError(f"there is no row {name}", fix=known)
    for index, path in shuffled_meshes(settings):
        keys = {
            f"{name}/joint-{joint}/{settings.pairs}/seed-{seed}/{path.stem}": (name, joint, seed)
            for name, joint, seed in itertools.product(names, settings.joint, settings.seeds)
        }
        todo = {
            key: (name, joint, seed)
            for key, (name, joint, seed) in keys.items()
            if results["scores"].get(key, {}).get("row") != rows[name].digest
        }
        if not todo:
            continue
        encoded = ablation.encoded(path, index)
        for key, (name, joint, seed) in todo.items():
            value = _row_scores(ablation, encoded, with_joint(rows[name], joint), seed)
            results.put("scores", key, {**value, "row": rows[name].digest})
            ablation.report(f"{key} {_rounded(value, (*KEYS, 'nfe', 'seconds'), 3)}")


def _row_scores(ablation: Ablation, encoded: Sequence[EncodedCase], row: Row, seed: int) -> dict[str, Any]:
    """Means over the pairs of an object, passes, seconds, and the PSNR of every pair."""
    pairs, costs = [], []
    for case in encoded:
        views, cost = sampled(ablation.model, case, row, seed)
        pairs += score_pairs(views, case.case.truths, ablation.settings.mask_threshold)
        costs.append(cost)
    value: dict[str, Any] = {k: float(np.mean([p[k] for p in pairs])) for k in pairs[0]}
    value["nfe"] = costs[0].passes
    value["seconds"] = sum(cost.seconds for cost in costs)
    value["pairs"] = [p["foreground_psnr"] for p in pairs]
    return value


def tune(ablation: Ablation, pool_folder: Path, count: int, grids: Sequence[str]) -> None:
    """Choose values on the val split, one after the other, by foreground PSNR; and the base's own best guidance.

    Args:
        ablation: the row ``all`` is tuned, and the guidance of ``uniform-25``.
        pool_folder: of the object pool.
        count: objects of its val split.
        grids: which of :data:`GRIDS`.
    """
    model, settings, results = ablation.model, ablation.settings, ablation.results
    pool = ObjectPool(pool_folder, "val")
    chosen = np.linspace(0, len(pool) - 1, min(count, len(pool))).round().astype(int)
    encoded = [
        EncodedCase.of(model, next(cases(heldout_mesh(pool, int(k)), int(k), model.image_size, settings.pairs)))
        for k in chosen
    ]
    rows = rows_of(settings, {})

    def score(sampling: SamplingSettings, label: str) -> float:
        label = f"{len(encoded)} of {len(pool)} val objects, {settings.pairs} pairs: {label}"
        if label not in results["tuning"]:
            found = [
                scores
                for case in encoded
                for scores in score_pairs(
                    sampled(model, case, Row(sampling), 0)[0], case.case.truths, settings.mask_threshold
                )
            ]
            results.put("tuning", label, {k: float(np.mean([s[k] for s in found])) for k in KEYS})
            ablation.report(f"{label} {_rounded(results['tuning'][label], KEYS, 3)}")
        found = results["tuning"][label]
        return float(found["foreground_psnr"] + 20 * found["iou_white"])

    base = rows["uniform-25"].settings
    best = max(GUIDANCES, key=lambda g: score(replace(base, guidance=g), f"uniform-25, guidance {g}"))
    results.put("tuned", "guidance", best)
    every, changes = rows["all"].settings, dict(results["tuned"].get("zero-to-hero", {}))
    for name, values in GRIDS.items():
        if name not in grids:
            continue
        changes.pop(name, None)

        def candidate(value: Any, name: str = name, first: Any = values[0]) -> float:
            tried = {**changes, name: value} if value != first else changes
            numbers = replace(every.zero_to_hero, **tried)
            return score(replace(every, zero_to_hero=numbers), f"all {json.dumps(tried)}")

        value = max(values, key=candidate)
        if value != values[0]:
            changes[name] = value
        results.put("tuned", "zero-to-hero", dict(changes))


def fit_meshes(ablation: Ablation, names: Sequence[str]) -> None:
    """Fit the same surface to the views of some rows, at the cameras and with the votes that jobs use."""
    model, settings, results = ablation.model, ablation.settings, ablation.results
    rows, views = ablation.rows(), ViewsSettings()
    orbits = ring_orbits(views.rings)
    cameras = [orbit_camera(*orbit, size=model.image_size) for orbit in orbits]
    for index, path in shuffled_meshes(settings):
        keys = {
            f"{name}/joint-{joint}/seed-{seed}/{path.stem}": (name, joint, seed)
            for name in names
            for joint, seed in itertools.product(settings.joint, settings.seeds)
        }
        todo = {key: what for key, what in keys.items() if key not in results["meshes"]}
        if not todo:
            continue
        mesh = load_glb(path)
        elevation = math.radians(float(np.random.default_rng([9, index]).uniform(0, 40)))
        camera, description = source_view(mesh, elevation, DEFAULT_RADIUS, model.image_size)
        photo = to_bytes(MeshRenderer(mesh).render(camera).rgba)
        blank = np.zeros((len(orbits), *photo.shape), np.uint8)
        case = Case(photo[None], description[None].astype(np.float32), orbits[None].astype(np.float32), blank)
        encoded = EncodedCase.of(model, case)
        prior = None if encoded.volume is None else encoded.volume.occupancy[0].cpu().numpy()
        for key, (name, joint, seed) in todo.items():
            rgba = to_bytes(sampled(model, encoded, with_joint(rows[name], joint), seed)[0])
            weights = [view_confidence(views, orbit, elevation) for orbit in orbits]
            seen = [View(f"view_{k:02d}", c, rgba[k], weight=weights[k]) for k, c in enumerate(cameras)]
            surface = fit_surface(ViewSet((View("photo", camera, photo), *seen), True), GENERATED_FIT, prior=prior)
            vertices, faces = remove_small_components(*extract_mesh(surface))
            true = mesh.vertices.astype(np.float64), mesh.faces
            scores = asdict(compare_meshes(taubin(vertices, faces), faces, *true))
            results.put("meshes", key, scores)
            ablation.report(f"{key} {_rounded(scores, tuple(scores), 4)}")


def _rounded(scores: Mapping[str, float], keys: Sequence[str], digits: int) -> dict[str, float]:
    """Some scores, as progress lines show them."""
    return {key: round(scores[key], digits) for key in keys}
