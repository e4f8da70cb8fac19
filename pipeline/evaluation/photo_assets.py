"""Assets of one photo against the object itself: its hidden side, its shape, and what its evidence says of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.diffusion.modules.symmetry import SymmetryGuess
from pipeline.diffusion.sample import coarse_volume, sample_views
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.evaluation.statistics import mean_and_interval
from pipeline.evaluation.subjects import Subject
from pipeline.jobs.settings import Image2MeshSettings, Symmetry
from pipeline.jobs.stages.mirroring import Mirroring, mirrored_photo
from pipeline.jobs.stages.views import ring_orbits, view_confidence
from pipeline.training.data.samples import source_view, to_bytes
from pipeline.training.data.symmetry import HEADINGS, near_a_plane, reflection_errors, true_planes
from pipeline.training.tasks.symmetry import TOLERANCE_DEG
from recon.fit import fit_surface
from recon.mesh.marching_cubes import asset_mesh
from recon.mesh.metrics import compare_meshes, distance_to_mesh
from recon.texture.bake import TexturedMesh, bake
from recon.texture.evidence import KINDS
from scene.camera import DEFAULT_RADIUS, orbit_camera
from scene.mesh import ColouredMesh, face_areas
from scene.metrics import psnr
from scene.render import UNLIT, MeshRenderer, over_white
from scene.view import View
from scene.viewset import ViewSet

Distance = Callable[[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w 3"]], float]
"""Of two pictures, sRGB in [0, 1]; see :mod:`pipeline.evaluation.perceptual`."""
HIDDEN_DEG = (120, 150, 180, 210, 240)
"""Azimuths from which the side that the photo does not show is looked at; the photo stands at 0."""
_AROUND_DEG = tuple(range(0, 360, 45))
_ELEVATION = math.radians(12)
_SIDE = 256
_NEAR = 0.012
"""World units that are 1 % of an object's longest side, at the most."""


@dataclass(frozen=True, eq=False)
class PhotoAssets:
    """One object, its photo, and the views that a model draws of it from the photo's true camera.

    Args:
        subject: the object.
        settings: of the photo job.
        views: the photo and the generated views.
        prior: occupancy of the coarse volume.
        guess: where the model sees the object's symmetry plane.
        errors: the object's true reflection errors.
    """

    subject: Subject
    settings: Image2MeshSettings
    views: ViewSet
    prior: Float[np.ndarray, "r r r"] | None
    guess: SymmetryGuess | None
    errors: Float[np.ndarray, "k"]

    @classmethod
    def draw(cls, model: ViewDiffusion, subject: Subject, settings: Image2MeshSettings, side: int = 512) -> PhotoAssets:
        """Photograph the object and draw the views; the photo has ``side`` pixels.

        The camera stands at the distance that view models assume, so that the asset has the object's own size.
        """
        elevation = math.radians(float(np.random.default_rng(subject.index).uniform(0, 35)))
        small, large = (_photo(subject, elevation, size) for size in (model.image_size, side))
        photo = torch.from_numpy(small.rgba()[None])
        described = source_view(subject.mesh, elevation, DEFAULT_RADIUS, side)[1].astype(np.float32)
        source = torch.from_numpy(described[None]).to(model.device)
        volume = coarse_volume(model, photo, source)
        orbits = ring_orbits(settings.views.rings)
        sampled = sample_views(
            model, photo, source, torch.from_numpy(orbits[None]).float(), volume, settings.views.sampling
        )
        drawn = to_bytes(sampled[0].float().cpu().numpy())
        views = [large]
        for k, (rgba, orbit) in enumerate(zip(drawn, orbits, strict=True)):
            camera = orbit_camera(*orbit, size=model.image_size)
            weight = view_confidence(settings.views, orbit, elevation)
            views.append(View(f"view_{k:02d}", camera, rgba, weight=weight, origin="generated"))
        guess = None
        if model.symmetry is not None and model.coarse is not None:
            guess = model.symmetry.guess(model.coarse, images_from_rgba(photo.to(model.device), 4))[0]
        prior = None if volume is None else volume.occupancy[0].float().cpu().numpy()
        errors, _ = reflection_errors(subject.mesh, np.random.default_rng(0), points=1000, cloud=20_000)
        return cls(subject, settings, ViewSet(tuple(views), True), prior, guess, errors)

    @property
    def true_heading_deg(self) -> float | None:
        """The best plane's heading, if the object has one."""
        return float(self.errors.argmin() * 180 / HEADINGS) if true_planes(self.errors[None])[0].any() else None

    @property
    def guess_is_right(self) -> bool:
        """Whether the guessed plane is one of the true ones, within the tolerance."""
        if self.guess is None:
            return False
        heading = np.array([[self.guess.heading]])
        return bool(near_a_plane(self.errors[None], np.zeros(1), heading, TOLERANCE_DEG)[0, 0])

    def mirroring(self, wanted: Symmetry) -> Mirroring:
        """What becomes of the photo's symmetry under a setting."""
        return mirrored_photo(self.views.views[0], wanted, self.guess)

    def asset(self, mirrored: View | None, *, photo_is_reference: bool = True) -> TexturedMesh:
        """The asset, with the mirrored photo among its views if there is one."""
        views = self.views
        if mirrored is not None:
            views = ViewSet((*views.views, mirrored), True)
        surface = fit_surface(views, self.settings.fit, prior=self.prior)
        limits = self.settings.mesh.limits
        vertices, faces = asset_mesh(surface, limits.max_faces, self.settings.mesh.smoothing)
        return bake(vertices, faces, views, surface, limits.texture, photo_is_reference=photo_is_reference)

    def scores(self, mesh: TexturedMesh, distance: Distance | None) -> dict[str, float]:
        """PSNR of the hidden side on white where either has it, its perceptual distance, PSNR all around, Chamfer."""
        true = self.subject.mesh
        mine, truth = MeshRenderer(mesh.coloured(), UNLIT), MeshRenderer(true)
        values: dict[str, list[float]] = {"hidden": [], "perceptual": [], "around": []}
        for azimuth in sorted({*HIDDEN_DEG, *_AROUND_DEG}):
            camera = orbit_camera(math.radians(azimuth), _ELEVATION, size=_SIDE)
            a, b = mine.render(camera).rgba, truth.render(camera).rgba
            either = (a[..., 3] >= 0.5) | (b[..., 3] >= 0.5)
            score = psnr(over_white(a), over_white(b), either)
            if azimuth in _AROUND_DEG:
                values["around"].append(score)
            if azimuth in HIDDEN_DEG:
                values["hidden"].append(score)
                if distance is not None:
                    values["perceptual"].append(distance(over_white(a), over_white(b)))
        found = {name: float(np.mean(of)) for name, of in values.items() if of}
        vertices = mesh.vertices.astype(np.float64)
        found["chamfer"] = compare_meshes(vertices, mesh.faces, true.vertices, true.faces).chamfer
        return found

    def evidence_scores(self, mesh: TexturedMesh) -> dict[str, float]:
        """How far the evidence is right: the share of the area called seen that is near the true surface, and the mean
        colour error (of 255) of each kind of evidence, of pixels that both show all around.
        """
        assert mesh.evidence is not None
        true, kind = self.subject.mesh, mesh.evidence.argmax(axis=1)
        area = face_areas(mesh.vertices, mesh.faces)
        seen = (kind[mesh.faces] == 0).all(axis=1)
        middle = mesh.vertices[mesh.faces].mean(axis=1).astype(np.float64)
        away = distance_to_mesh(middle, true.vertices, true.faces)
        found = {"seen_true": float(area[seen & (away <= _NEAR)].sum() / max(area[seen].sum(), 1e-12))}
        # Corners of the colour cube: mixtures of two kinds are near no third one.
        corners = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]], np.uint8)
        colours = corners[kind]
        mine, truth = MeshRenderer(mesh.coloured(), UNLIT), MeshRenderer(true)
        kinds = MeshRenderer(ColouredMesh(mesh.vertices, mesh.faces, vertex_colours=colours), UNLIT)
        errors: dict[str, list[np.ndarray]] = {name: [] for name in KINDS}
        for azimuth in _AROUND_DEG:
            camera = orbit_camera(math.radians(azimuth), _ELEVATION, size=_SIDE)
            a, b, k = (renderer.render(camera).rgba for renderer in (mine, truth, kinds))
            both = (a[..., 3] > 0.98) & (b[..., 3] > 0.98)
            error = 255 * np.abs(a[..., :3] - b[..., :3]).mean(axis=-1)
            for corner, name in zip(corners, KINDS, strict=True):
                errors[name].append(error[both & (np.abs(255 * k[..., :3] - corner).max(axis=-1) < 25)])
        for name, parts in errors.items():
            together = np.concatenate(parts)
            if len(together) >= 100:
                found[f"error_{name}"] = float(together.mean())
        return found


def _photo(subject: Subject, elevation: float, side: int) -> View:
    camera, _ = source_view(subject.mesh, elevation, DEFAULT_RADIUS, side)
    return View("photo", camera, to_bytes(MeshRenderer(subject.mesh).render(camera).rgba))


def gains_table(
    scores: Sequence[Mapping[str, Mapping[str, float]]], base: str, other: str, keys: Sequence[str]
) -> list[list[str]]:
    """Rows of a table: a score's mean with the one, with the other, and the paired gain with its interval."""
    rows = []
    for key in keys:
        pairs = [(one[base][key], one[other][key]) for one in scores if key in one.get(other, {})]
        if not pairs:
            continue
        a, b = np.array(pairs).T
        rows.append([key, str(len(pairs)), f"{a.mean():.4f}", f"{b.mean():.4f}", mean_and_interval(b - a, "+.4f")])
    return rows


def looks(mesh: ColouredMesh, light: bool, size: int = 200) -> list[UInt8[np.ndarray, "s s 3"]]:
    """Pictures all around on white, for sheets."""
    renderer = MeshRenderer(mesh) if light else MeshRenderer(mesh, UNLIT)
    cameras = [orbit_camera(math.radians(angle), _ELEVATION, size=size) for angle in _AROUND_DEG]
    return [np.round(255 * over_white(renderer.render(camera).rgba)).astype(np.uint8) for camera in cameras]
