"""Meshes of one photo: the same fitter from true, degraded and generated views, beside simple baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.generate import source_camera
from pipeline.diffusion.modules.coarse_volume import CoarseVolume
from pipeline.diffusion.preparation.prepare import LEAST_SIDE
from pipeline.diffusion.sample import (
    coarse_volume,
    decode_views,
    sample_latents,
    sample_views,
    transfer_low_frequencies,
    view_conditions,
)
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.evaluation.mesh_baselines import bounding_sphere, extruded_silhouette
from pipeline.evaluation.statistics import mean_and_interval
from pipeline.evaluation.subjects import Subject
from pipeline.evaluation.tables import markdown_table
from pipeline.jobs.settings import GENERATED_FIT, ViewsSettings
from pipeline.jobs.stages.views import ring_orbits, view_confidence
from pipeline.training.data.samples import SampleSettings, claimed_camera, to_bytes
from recon.fit import fit_surface, hull_surface, prior_surface
from recon.mesh.marching_cubes import extract_mesh, taubin
from recon.mesh.metrics import compare_meshes
from recon.mesh.topology import remove_small_components
from recon.sdf_grid.render import render_surface
from recon.settings import FitSettings
from recon.surface import Surface
from scene.camera import Camera, orbit_camera
from scene.errors import InputError
from scene.mesh import ColouredMesh, Faces, Vertices
from scene.metrics import mask_iou
from scene.render import MeshRenderer
from scene.view import View
from scene.viewset import ViewSet
from scene.voxels import carve_solid


@dataclass(frozen=True)
class PhotoMeshSettings:
    """How meshes are made of one photo."""

    photo: int = LEAST_SIDE
    """Side of the photo in pixels, by default what jobs keep at the least; generated views have the model's size."""
    views: ViewsSettings = ViewsSettings()
    """Cameras, sampling and confidences of generated views."""
    fit: FitSettings = GENERATED_FIT
    """The fit."""


class Bench:
    """All rows of one object: its true views, what the model makes of its photo, and the fits of both."""

    def __init__(self, model: ViewDiffusion, subject: Subject, settings: PhotoMeshSettings) -> None:
        self.model, self.settings, self.mesh = model, settings, subject.mesh
        self.sample = subject.sample(SampleSettings(size=model.image_size, targets=1, volume=0))
        # The model sees a small copy; the fit gets the photo as `prepare` leaves it.
        self.photo = subject.sample(SampleSettings(size=settings.photo, targets=1, volume=0)).source
        self.small = torch.from_numpy(self.sample.source[None])
        true = torch.from_numpy(self.sample.source_camera[None]).to(model.device)
        # The photo's camera by whether it is predicted.
        self.sources = {False: true, True: source_camera(model, self.small)}
        self.orbits = ring_orbits(settings.views.rings)
        self.cameras = [orbit_camera(*orbit, size=model.image_size) for orbit in self.orbits]
        renderer = MeshRenderer(self.mesh)
        self.true = np.stack([to_bytes(renderer.render(camera).rgba) for camera in self.cameras])
        self.rng = np.random.default_rng(subject.index)

    def true_views(self) -> Surface:
        """(a) True views."""
        return self._fit(self.true)

    def vae_views(self) -> Surface:
        """(b) True views, encoded and decoded."""
        with torch.no_grad():
            raw = self.model.codec.encode_raw(torch.from_numpy(self.true).to(self.model.device))
            out = self.model.codec.decode(self.model.codec.normalise(raw))
        return self._fit(to_bytes(out.cpu().numpy()))

    def shifted_views(self) -> Surface:
        """(c) True views, each moved by a normal deviate of 2 px in x and y."""
        moved = []
        for rgba in self.true:
            dx, dy = self.rng.normal(0, 2, 2)
            matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
            moved.append(cv2.warpAffine(rgba, matrix, rgba.shape[1::-1], flags=cv2.INTER_LINEAR))
        return self._fit(np.stack(moved))

    def generated(self, *, predict: bool) -> Surface:
        """(d) Generated views with the photo, as jobs make them."""
        photo, source, volume = self._inputs(predict)
        orbits = torch.from_numpy(self.orbits[None]).float()
        sampling = self.settings.views.sampling
        out = sample_views(self.model, photo, source, orbits, volume, sampling)[0].cpu().numpy()
        return self._fit_generated(out, source, volume, self.settings.fit)

    @torch.no_grad()
    def in_the_loop(self, *, predict: bool) -> Surface:
        """(e) Generated views of a second round, which begins with noised renders of a draft from the first."""
        model, sampling, fit = self.model, self.settings.views.sampling, self.settings.fit
        photo, source, volume = self._inputs(predict)
        orbits = torch.from_numpy(self.orbits[None]).float()
        conditions = view_conditions(model, photo, source, orbits, volume)
        first = sample_views(model, photo, source, orbits, volume, sampling)[0].cpu().numpy()
        quick = replace(fit, levels=fit.levels[:2], iterations=fit.iterations[:2])
        draft = self._fit_generated(first, source, volume, quick)
        renders = torch.from_numpy(np.stack(render_surface(draft, self.cameras))).float()
        raw = model.codec.encode_raw(torch.from_numpy(to_bytes(renders.numpy())).to(model.device))
        second = decode_views(model, sample_latents(model, replace(conditions, coarse=raw[None]), sampling))
        second = transfer_low_frequencies(second, renders[None].to(second.device))
        return self._fit_generated(second[0].cpu().numpy(), source, volume, fit)

    def coarse(self, *, predict: bool) -> Surface:
        """The coarse volume as a mesh.

        Raises:
            InputError: the checkpoint has none.
        """
        _, _, volume = self._inputs(predict)
        if volume is None:
            raise InputError("this checkpoint has no coarse volume", fix="Leave that row out with --only.")
        colours = volume.colours[0].movedim(0, -1).cpu().numpy()
        return prior_surface(volume.occupancy[0].cpu().numpy(), colours, self.settings.fit)

    def true_solid(self) -> Surface:
        """The true solid at the coarse volume's resolution, as a mesh."""
        side = 32 if self.model.coarse is None else int(self.model.coarse.config["resolution"])
        solid, _ = carve_solid(MeshRenderer(self.mesh), side)
        return prior_surface(solid.astype(np.float32), np.zeros((2, 2, 2, 3), np.float32), self.settings.fit)

    def hull(self) -> Surface:
        """The hull of the true masks."""
        return hull_surface(self._set(self.true), self.settings.fit)

    def silhouette(self) -> tuple[Vertices, Faces]:
        """The photo's silhouette, extruded."""
        return extruded_silhouette(self.sample.source, float(self.sample.source_camera[0]))

    def silhouette_iou(self, vertices: Vertices, faces: Faces, *, predict: bool) -> float:
        """The mask IoU of a mesh and the photo, at the photo's true or predicted camera."""
        camera = self._photo_camera(self.sources[predict])
        drawn = MeshRenderer(ColouredMesh(vertices, faces)).render(camera).rgba
        return mask_iou(drawn[..., 3] >= 0.5, self.photo[..., 3] >= 128)

    def _inputs(self, predict: bool) -> tuple[Tensor, Tensor, CoarseVolume | None]:
        """The photo, its camera and the coarse volume."""
        source = self.sources[predict]
        return self.small, source, coarse_volume(self.model, self.small, source)

    def _fit_generated(
        self, views: Float[np.ndarray, "v s s 4"], source: Tensor, volume: CoarseVolume | None, fit: FitSettings
    ) -> Surface:
        """The fit to the photo, generated views and the coarse volume, as jobs make it."""
        prior = None if volume is None else volume.occupancy[0].cpu().numpy()
        weights = [view_confidence(self.settings.views, orbit, float(source[0, 0])) for orbit in self.orbits]
        seen = self._set(to_bytes(views), weights, View("photo", self._photo_camera(source), self.photo))
        return fit_surface(seen, fit, prior=prior)

    def _set(self, rgba: np.ndarray, weights: list[float] | None = None, photo: View | None = None) -> ViewSet:
        views = [
            View(
                f"view_{k:02d}",
                camera,
                rgba[k],
                weight=1.0 if weights is None else weights[k],
                origin="photo" if photo is None else "generated",
            )
            for k, camera in enumerate(self.cameras)
        ]
        return ViewSet(tuple(views if photo is None else [photo, *views]), True)

    def _fit(self, rgba: np.ndarray) -> Surface:
        return fit_surface(self._set(rgba), self.settings.fit)

    def _photo_camera(self, source: Tensor) -> Camera:
        return claimed_camera(source[0].cpu().numpy(), len(self.photo))


ROWS: dict[str, Callable[[Bench], Surface | tuple[Vertices, Faces]]] = {
    "(d') generated views, predicted camera": lambda bench: bench.generated(predict=True),
    "(d) generated views, true camera": lambda bench: bench.generated(predict=False),
    "(e') second round of views, predicted camera": lambda bench: bench.in_the_loop(predict=True),
    "coarse volume alone, predicted camera": lambda bench: bench.coarse(predict=True),
    "coarse volume alone, true camera": lambda bench: bench.coarse(predict=False),
    "extruded outline": Bench.silhouette,
    "sphere": lambda bench: bounding_sphere(),
    "(a) true views": Bench.true_views,
    "(b) true views through the VAE": Bench.vae_views,
    "(c) true views shifted by 2 px": Bench.shifted_views,
    "hull of the true masks": Bench.hull,
    "true solid at the coarse volume's resolution": Bench.true_solid,
}
"""What is scored, by the name of its row."""


def score_row(name: str, bench: Bench) -> dict[str, float]:
    """Scores of a row's mesh against the true mesh."""
    made = ROWS[name](bench)
    if isinstance(made, Surface):
        vertices, faces = remove_small_components(*extract_mesh(made))
        made = taubin(vertices, faces), faces
    scores = compare_meshes(*made, bench.mesh.vertices.astype(np.float64), bench.mesh.faces)
    return {**asdict(scores), "outline": bench.silhouette_iou(*made, predict=name.endswith("predicted camera"))}


def meshes_table(rows: dict[str, Sequence[dict[str, float]]]) -> str:
    """Means with intervals, and how far the first row is ahead (less Chamfer, more IoU)."""
    names = ["Chamfer", "median", "SyncDreamer's", "F at 1 %", "F at 5 %", "IoU", "outline"]
    first = next(iter(rows.values()))
    lines = []
    for name, found in rows.items():
        of = {key: np.array([f[key] for f in found]) for key in found[0]}
        leads = ["–", "–"]
        if found is not first:
            ours = {key: np.array([f[key] for f in first]) for key in ("chamfer", "iou")}
            leads = [
                mean_and_interval(of["chamfer"] - ours["chamfer"], ".4f"),
                mean_and_interval(ours["iou"] - of["iou"], ".3f"),
            ]
        cells = [mean_and_interval(of["chamfer"], ".4f"), f"{np.median(of['chamfer']):.4f}"]
        cells += [f"{of[key].mean():{form}}" for key, form in _PLAIN]
        cells += [mean_and_interval(of["iou"], ".3f"), f"{of['outline'].mean():.3f}", *leads]
        lines.append([name, *cells])
    return markdown_table(["fitted from", *names, "lead, Chamfer", "lead, IoU"], lines)


_PLAIN = (("thinned_chamfer", ".4f"), ("f_score_1", ".3f"), ("f_score_5", ".3f"))
