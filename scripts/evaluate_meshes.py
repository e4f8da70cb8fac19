"""How good meshes of one photo are, and which stage costs most: the same fitter from better and worse views.

Rows: true views at the cameras that jobs use; the same through the VAE; the same shifted by about 2 px each; generated
views with the photo's true and with its predicted camera; views of a second round, which begins with pictures of a
draft fitted to the first round's; and for comparison the hull of the true masks, the coarse volume alone, the true
solid in its place, an extruded outline of the photo, and a sphere.

Meshes are scored by the protocol of recon/mesh/metrics.py: longest side 1, centred, no registration, 20,000 points a
side, distances to triangles, IoU of solids (37 voxels along the longest side); by SyncDreamer's Chamfer distance, of
points that cameras see; and by *outline*, the mask IoU of mesh and photo at the photo's camera, predicted where the row
has it so. Means over objects with 95 % bootstrap intervals; leads are those of the first row computed.
Objects are those of the pool's val split, or GLB files. A run goes on from the file given as --out.

Example: python scripts/evaluate_meshes.py --objects DATA/meshes_train --count 32
         python scripts/evaluate_meshes.py --meshes DATA/meshes_eval --out meshes.json
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import tyro
from jaxtyping import Float
from rich.progress import track
from torch import Tensor

from pipeline.diffusion.generate import source_camera
from pipeline.diffusion.modules.coarse_volume import CoarseVolume
from pipeline.diffusion.preparation.prepare import LEAST_SIDE
from pipeline.diffusion.sample import (
    coarse_volume,
    decode_views,
    sample_latents,
    sample_views,
    view_conditions,
    with_broad_colours,
)
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.jobs.settings import GENERATED_FIT, ViewsSettings
from pipeline.jobs.stages import ring_orbits, view_confidence
from pipeline.training.data.samples import SampleSettings, claimed_camera, to_bytes
from pipeline.training.procedural import superellipsoid
from recon.fit import fit_surface, hull_surface, prior_surface
from recon.mesh.marching_cubes import extract_mesh, taubin
from recon.mesh.metrics import compare_meshes
from recon.mesh.topology import remove_small_components
from recon.sdf_grid.render import render_surface
from recon.settings import FitSettings
from recon.surface import Surface
from scene.backends import pick_device
from scene.camera import OBJECT_RADIUS, Camera, orbit_camera
from scene.files import write_text
from scene.mesh import ColouredMesh, Faces, Vertices
from scene.metrics import mask_iou
from scene.render import MeshRenderer
from scene.resources import default_weights
from scene.view import View
from scene.viewset import ViewSet
from scene.voxels import carve_solid
from scripts.evaluate_views import Subject, cell, near_symmetric, subjects


@dataclass(frozen=True)
class Arguments:
    """Score meshes fitted to true, degraded and generated views."""

    objects: Path | None = None
    """Folder of the object pool; its val split is used unless meshes are given."""
    meshes: tuple[Path, ...] = ()
    """Folders with GLB files, to be used in place of the val split."""
    weights: Path | None = None
    """Checkpoint; the embedded one by default."""
    count: int | None = None
    """So many objects, spread evenly over the list; all by default."""
    photo: int = LEAST_SIDE
    """Side of the photo in pixels, by default what jobs keep at the least; generated views have the model's size."""
    views: ViewsSettings = ViewsSettings()
    """Cameras, sampling and confidences of generated views."""
    fit: FitSettings = GENERATED_FIT
    """The fit."""
    only: tuple[str, ...] = ()
    """Rows to compute; all by default."""
    device: str = "auto"
    """Where the model runs."""
    out: Path | None = None
    """Scores of every object as JSON, written after each; those that it holds are not computed again."""


class Bench:
    """Everything one object needs."""

    def __init__(self, model: ViewDiffusion, subject: Subject, arguments: Arguments) -> None:
        self.model, self.arguments, self.mesh = model, arguments, subject.mesh
        self.sample = subject.sample(SampleSettings(size=model.image_size, targets=1, volume=0))
        # The model sees a small copy; the fit gets the photo as `prepare` leaves it.
        self.photo = subject.sample(SampleSettings(size=arguments.photo, targets=1, volume=0)).source
        self.small = torch.from_numpy(self.sample.source[None])
        true = torch.from_numpy(self.sample.source_camera[None]).to(model.device)
        # The photo's camera by whether it is predicted.
        self.sources = {False: true, True: source_camera(model, self.small)}
        self.orbits = ring_orbits(arguments.views.rings)
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
        told = self._told(predict)
        orbits = torch.from_numpy(self.orbits[None]).float()
        out = sample_views(self.model, *told[:2], orbits, told[2], self.arguments.views.sampling)[0].cpu().numpy()
        return self._fit_told(out, *told[1:], self.arguments.fit)

    @torch.no_grad()
    def in_the_loop(self, *, predict: bool) -> Surface:
        """Generated views of a second round, which begins with the noised pictures of a draft from the first."""
        model, sampling = self.model, self.arguments.views.sampling
        photo, source, volume = self._told(predict)
        orbits = torch.from_numpy(self.orbits[None]).float()
        given = view_conditions(model, photo, source, orbits, volume)
        first = sample_views(model, photo, source, orbits, volume, sampling)[0].cpu().numpy()
        levels = self.arguments.fit.levels[:2]
        quick = replace(self.arguments.fit, levels=levels, iterations=self.arguments.fit.iterations[:2])
        draft = self._fit_told(first, source, volume, quick)
        guides = torch.from_numpy(np.stack(render_surface(draft, self.cameras))).float()
        raw = model.codec.encode_raw(torch.from_numpy(to_bytes(guides.numpy())).to(model.device))
        second = decode_views(model, sample_latents(model, replace(given, coarse=raw[None]), sampling))
        return self._fit_told(
            with_broad_colours(second, guides[None].to(second.device))[0].cpu().numpy(),
            source,
            volume,
            self.arguments.fit,
        )

    def _fit_told(
        self, views: Float[np.ndarray, "v s s 4"], source: Tensor, volume: CoarseVolume | None, fit: FitSettings
    ) -> Surface:
        """The fit to the photo, generated views and the coarse volume, as jobs make it."""
        prior = None if volume is None else volume.occupancy[0].cpu().numpy()
        weights = [view_confidence(self.arguments.views, orbit, float(source[0, 0])) for orbit in self.orbits]
        seen = self._set(to_bytes(views), weights, View("photo", self._photo_camera(source), self.photo))
        return fit_surface(seen, fit, prior=prior)

    def coarse(self, *, predict: bool) -> Surface:
        """The coarse volume as a mesh."""
        _, _, volume = self._told(predict)
        if volume is None:
            raise SystemExit("this checkpoint has no coarse volume")
        return prior_surface(
            volume.occupancy[0].cpu().numpy(), volume.colours[0].movedim(0, -1).cpu().numpy(), self.arguments.fit
        )

    def true_solid(self) -> Surface:
        """The true solid at the coarse volume's resolution, as a mesh."""
        side = 32 if self.model.coarse is None else int(self.model.coarse.config["resolution"])
        solid, _ = carve_solid(MeshRenderer(self.mesh), side)
        return prior_surface(solid.astype(np.float32), np.zeros((2, 2, 2, 3), np.float32), self.arguments.fit)

    def _told(self, predict: bool) -> tuple[Tensor, Tensor, CoarseVolume | None]:
        """The photo, its camera and the coarse volume."""
        source = self.sources[predict]
        return self.small, source, coarse_volume(self.model, self.small, source)

    def hull(self) -> Surface:
        """The hull of the true masks."""
        return hull_surface(self._set(self.true), self.arguments.fit)

    def silhouette(self) -> tuple[Vertices, Faces]:
        """The photo's outline pushed along the view, as thick as its shorter side."""
        camera = orbit_camera(0.0, float(self.sample.source_camera[0]), size=64)
        mask = cv2.resize(self.sample.source[..., 3], (64, 64), interpolation=cv2.INTER_AREA) >= 128
        rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
        shorter = int(min(np.ptp(rows), np.ptp(columns))) + 1
        grid = np.zeros((64, 64, 64), np.float32)
        low = max(1, 32 - shorter // 2)
        grid[:, :, low : 64 - low] = mask[:, :, None]
        from recon.views.visual_hull import signed_distance

        vertices, faces = extract_mesh(
            Surface.cube(signed_distance(grid, 0.5, 1.0), np.zeros((2, 2, 2, 3), np.float32), 1.0)
        )
        # Array axes (row, column, depth) are image down, right and away from the camera.
        local = np.stack([vertices[:, 1], -vertices[:, 0], -vertices[:, 2]], axis=-1)
        return local @ camera.c2w[:3, :3].T, faces

    def sphere(self) -> tuple[Vertices, Faces]:
        """The bounding sphere."""
        return superellipsoid(1.0, 1.0, (OBJECT_RADIUS,) * 3, 32, 64)

    def _set(self, rgba: np.ndarray, weights: list[float] | None = None, photo: View | None = None) -> ViewSet:
        views = [
            View(f"view_{k:02d}", camera, rgba[k], weight=1.0 if weights is None else weights[k])
            for k, camera in enumerate(self.cameras)
        ]
        return ViewSet(tuple(views if photo is None else [photo, *views]), True)

    def _fit(self, rgba: np.ndarray) -> Surface:
        return fit_surface(self._set(rgba), self.arguments.fit)

    def outline(self, vertices: Vertices, faces: Faces, *, predict: bool) -> float:
        """The mask IoU of a mesh and the photo, at the photo's true or predicted camera."""
        drawn = MeshRenderer(ColouredMesh(vertices, faces)).render(self._photo_camera(self.sources[predict])).rgba
        return mask_iou(drawn[..., 3] >= 0.5, self.photo[..., 3] >= 128)

    def _photo_camera(self, source: Tensor) -> Camera:
        return claimed_camera(source[0].cpu().numpy(), len(self.photo))


ROWS: dict[str, Callable[[Bench], Surface | tuple[Vertices, Faces]]] = {
    "(d') generated views, predicted camera": lambda bench: bench.generated(predict=True),
    "(d) generated views, true camera": lambda bench: bench.generated(predict=False),
    "(e') second round of views, predicted camera": lambda bench: bench.in_the_loop(predict=True),
    "coarse volume alone, predicted camera": lambda bench: bench.coarse(predict=True),
    "coarse volume alone, true camera": lambda bench: bench.coarse(predict=False),
    "extruded outline": Bench.silhouette,
    "sphere": Bench.sphere,
    "(a) true views": Bench.true_views,
    "(b) true views through the VAE": Bench.vae_views,
    "(c) true views shifted by 2 px": Bench.shifted_views,
    "hull of the true masks": Bench.hull,
    "true solid at the coarse volume's resolution": Bench.true_solid,
}


def score(name: str, bench: Bench) -> dict[str, float]:
    """Scores of a row's mesh against the true mesh."""
    made = ROWS[name](bench)
    if isinstance(made, Surface):
        vertices, faces = remove_small_components(*extract_mesh(made))
        made = taubin(vertices, faces), faces
    scores = compare_meshes(*made, bench.mesh.vertices.astype(np.float64), bench.mesh.faces)
    return {**asdict(scores), "outline": bench.outline(*made, predict=name.endswith("predicted camera"))}


def main(arguments: Arguments) -> None:
    """Score all rows and print a table."""
    model = ViewDiffusion.from_pretrained(arguments.weights or default_weights()).to(pick_device(arguments.device))
    names = [name for name in ROWS if not arguments.only or name in arguments.only]
    held: dict[str, dict[str, Any]] = {}
    if arguments.out is not None and arguments.out.is_file():
        held = json.loads(arguments.out.read_text(encoding="utf-8"))
    chosen = list(subjects(arguments.objects, arguments.meshes, arguments.count))
    for subject in track(chosen, "objects"):
        known = held.setdefault(subject.name, {})
        missing = [name for name in names if name not in known]
        if not missing and "near_symmetric" in known:
            continue
        known["near_symmetric"] = near_symmetric(subject.mesh)
        bench = Bench(model, subject, arguments)
        for name in missing:
            known[name] = score(name, bench)
        if arguments.out is not None:
            write_text(arguments.out, json.dumps(held, indent=1))
    found = [held[subject.name] for subject in chosen]
    alike = np.array([f["near_symmetric"] for f in found])
    print(f"\n{len(chosen)} objects, {len(ring_orbits(arguments.views.rings))} views of {model.image_size} px")
    print_table({name: [f[name] for f in found] for name in names})
    if alike.any():
        print(f"\nwithout the {alike.sum()} near-symmetric ones")
        print_table({name: [f[name] for f, a in zip(found, alike, strict=True) if not a] for name in names})


def print_table(rows: dict[str, list[dict[str, float]]]) -> None:
    """Means with intervals, and how far the first row is ahead (less Chamfer, more IoU)."""
    print(
        "\n| fitted from | Chamfer | median | SyncDreamer's | F at 1 % | F at 5 % | IoU | outline "
        "| lead, Chamfer | lead, IoU |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    first = next(iter(rows.values()))
    for name, found in rows.items():
        of = {key: np.array([f[key] for f in found]) for key in found[0]}
        lead = "– | –"
        if found is not first:
            ours = {key: np.array([f[key] for f in first]) for key in ("chamfer", "iou")}
            lead = f"{cell(of['chamfer'] - ours['chamfer'], 4)} | {cell(ours['iou'] - of['iou'], 3)}"
        means = [of[key].mean() for key in ("thinned_chamfer", "f_score_1", "f_score_5", "outline")]
        print(
            f"| {name} | {cell(of['chamfer'], 4)} | {np.median(of['chamfer']):.4f} | {means[0]:.4f} "
            f"| {means[1]:.3f} | {means[2]:.3f} | {cell(of['iou'], 3)} | {means[3]:.3f} | {lead} |"
        )


if __name__ == "__main__":
    main(tyro.cli(Arguments))
