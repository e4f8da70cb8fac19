"""What aligned views are worth: pictures, agreement, textured meshes of known objects, before and after aligning.

Latents are the encoder's of true views, or those that the model draws of a photo. Depth is the first pass's always: of
a draft surface, fitted to the plainly decoded views as jobs fit it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image

from pipeline.diffusion.align import aligned_pictures, surface_depths
from pipeline.diffusion.epipolar_attention import Guide
from pipeline.diffusion.generate import generate_views
from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.diffusion.modules.poses import Poses
from pipeline.diffusion.settings import AlignSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.evaluation.aligned import Scores, alignment_error, rows_table
from pipeline.evaluation.sheets import Tile, tile, write_sheet
from pipeline.evaluation.subjects import Subject
from pipeline.jobs.settings import GENERATED_FIT, MeshSettings, ViewsSettings
from pipeline.jobs.stages.aligned import draft_fit
from pipeline.jobs.stages.capture_folder import CoarseGrid
from pipeline.jobs.stages.surface import fit_drawn
from pipeline.jobs.stages.views import ring_orbits, view_confidence
from pipeline.training.data.samples import source_view, to_bytes
from recon.mesh.marching_cubes import asset_mesh
from recon.mesh.metrics import chamfer
from recon.settings import FitSettings
from recon.surface import Surface
from recon.texture.bake import TexturedMesh, bake
from scene.camera import DEFAULT_RADIUS, OBJECT_RADIUS, Camera, orbit_camera
from scene.framing import DEFAULT_FILL
from scene.mesh import ColouredMesh
from scene.metrics import view_scores
from scene.render import UNLIT, MeshRenderer
from scene.view import View
from scene.viewset import ViewSet

_HELD_OUT = tuple((math.radians(a + 11), math.radians(e)) for e in (0, 30) for a in range(0, 360, 60))
_ASSET = "held-out PSNR of the asset"


@dataclass(frozen=True)
class AlignedAssetSettings:
    """How assets are made of views, as jobs make them.

    Args:
        views: rings of cameras, and how views are drawn.
        aligning: how they are decoded together.
        fit: of the surface.
        mesh: of the texture.
        photo: side of the photo in pixels.
        held_out: side of the pictures in which assets are scored.
    """

    views: ViewsSettings = ViewsSettings()
    aligning: AlignSettings = AlignSettings()
    fit: FitSettings = GENERATED_FIT
    mesh: MeshSettings = MeshSettings()
    photo: int = 512
    held_out: int = 256


@dataclass(frozen=True, eq=False)
class AlignedCase:
    """One object, its photo, and views of it with their latents.

    Args:
        mesh: the object.
        photo: with its true camera.
        latents: of the views, normalised.
        plain: the views, each decoded by itself.
        true: the views as they should be.
        cameras: of the views.
        weights: of the views in fits.
        coarse: occupancy and colours of the coarse volume, of generated views.
    """

    mesh: ColouredMesh
    photo: View
    latents: Float[np.ndarray, "v c h w"]
    plain: UInt8[np.ndarray, "v s s 4"]
    true: UInt8[np.ndarray, "v s s 4"]
    cameras: tuple[Camera, ...]
    weights: tuple[float, ...]
    coarse: CoarseGrid | None = None

    @classmethod
    def encoded(cls, model: ViewDiffusion, subject: Subject, settings: AlignedAssetSettings) -> AlignedCase:
        """True views of the rings, through the model's encoder."""
        photo, _, elevation = _photo(model, subject, settings)
        orbits = ring_orbits(settings.views.rings)
        cameras, true = _true_views(subject.mesh, orbits, model.image_size)
        with torch.no_grad():
            latents = model.codec.normalise(model.codec.encode_raw(torch.from_numpy(true).to(model.device)))
            plain = to_bytes(model.codec.decode(latents).float().cpu().numpy())
        weights = tuple(view_confidence(settings.views, orbit, elevation) for orbit in orbits)
        return cls(subject.mesh, photo, latents.float().cpu().numpy(), plain, true, cameras, weights)

    @classmethod
    def generated(cls, model: ViewDiffusion, subject: Subject, settings: AlignedAssetSettings) -> AlignedCase:
        """Views that the model draws of the photo, told the photo's elevation."""
        photo, small, elevation = _photo(model, subject, settings)
        orbits = ring_orbits(settings.views.rings)
        cameras, true = _true_views(subject.mesh, orbits, model.image_size)
        of, sampling = torch.from_numpy(orbits).float(), settings.views.sampling
        drawn = generate_views(model, small, of, sampling, elevation_deg=math.degrees(elevation))
        assert drawn.latents is not None
        weights = tuple(view_confidence(settings.views, orbit, elevation) for orbit in orbits)
        grid = None
        if drawn.occupancy is not None and drawn.colours is not None:
            grid = (drawn.occupancy.astype(np.float32), drawn.colours.astype(np.float32))
        return cls(subject.mesh, photo, drawn.latents, drawn.rgba, true, cameras, weights, grid)

    def fitted(self, pictures: UInt8[np.ndarray, "v s s 4"], fit: FitSettings) -> Surface:
        """A surface of the photo and pictures in the views' place."""
        return fit_drawn(self._capture(pictures), self.coarse, fit, torch.device("cpu"))

    def asset(self, pictures: UInt8[np.ndarray, "v s s 4"], settings: AlignedAssetSettings) -> TexturedMesh:
        """The textured mesh of pictures in the views' place."""
        surface, limits = self.fitted(pictures, settings.fit), settings.mesh.limits
        vertices, faces = asset_mesh(surface, limits.max_faces, settings.mesh.smoothing)
        return bake(vertices, faces, self._capture(pictures), surface, limits.texture)

    def aligned(
        self, model: ViewDiffusion, draft: Surface, settings: AlignedAssetSettings
    ) -> UInt8[np.ndarray, "v s s 4"]:
        """The views, decoded together along a draft."""
        rgba, camera = self.photo.rgba(), self.photo.camera
        return aligned_pictures(model, self.latents, self.plain, self.cameras, rgba, camera, draft, settings.aligning)

    def tiles(self, pictures: UInt8[np.ndarray, "v s s 4"], count: int = 6) -> list[Tile]:
        """The photo, and some of the pictures."""
        kept = [pictures[k] for k in np.linspace(0, len(pictures), count, endpoint=False).astype(int)]
        return [tile(Image.fromarray(one), pictures.shape[1]) for one in (self.photo.rgba(), *kept)]

    def agreement(self, pictures: UInt8[np.ndarray, "v s s 4"], depths: Sequence[np.ndarray]) -> float:
        """The alignment error of pictures; see :func:`pipeline.evaluation.aligned.alignment_error`."""
        guide = Guide(Poses.of(self.cameras), torch.from_numpy(np.stack(depths).astype(np.float32)))
        return alignment_error(images_from_rgba(torch.from_numpy(pictures), 4), guide)

    @property
    def true_depths(self) -> list[Float[np.ndarray, "s s"]]:
        """Of the object in the views."""
        renderer = MeshRenderer(self.mesh)
        return [renderer.render(camera).depth for camera in self.cameras]

    def _capture(self, pictures: UInt8[np.ndarray, "v s s 4"]) -> ViewSet:
        views = [
            View(f"view_{k:02d}", camera, rgba, weight=weight, origin="generated")
            for k, (camera, rgba, weight) in enumerate(zip(self.cameras, pictures, self.weights, strict=True))
            if (rgba[..., 3] >= 128).any()
        ]
        return ViewSet((self.photo, *views), True)


def asset_scores(
    case: AlignedCase,
    rows: Mapping[str, UInt8[np.ndarray, "v s s 4"]],
    depths: Sequence[Float[np.ndarray, "s s"]],
    settings: AlignedAssetSettings,
) -> dict[str, dict[str, float]]:
    """Scores of views, by row: pictures against the true ones, agreement, and the asset.

    Args:
        case: the object.
        rows: pictures in the views' place.
        depths: of what they depict, in the views.
        settings: of the assets.
    """
    least = case.agreement(case.true, case.true_depths)
    found: dict[str, dict[str, float]] = {}
    for name, pictures in rows.items():
        row = _picture_scores(pictures, case.true)
        row["excess alignment error"] = case.agreement(pictures, depths) - least
        row.update(_held_out_scores(case.asset(pictures, settings), case.mesh, settings.held_out))
        found[name] = row
    return found


def assets_table(
    model: ViewDiffusion,
    chosen: Sequence[Subject],
    settings: AlignedAssetSettings,
    say: Callable[[str], None],
    *,
    encoded: bool,
    sheet: Path | None = None,
) -> str:
    """Assets of all objects before and after aligning, in Markdown.

    Args:
        model: with an aligned decoder.
        chosen: the objects.
        settings: of the assets.
        say: told of each object that is done.
        encoded: latents are the encoder's, whose views depict the object itself, and assets of true views are their
            bound; else the model draws them, and the draft's depth tells where views agree.
        sheet: picture of the photos and some views, before, after, and true ones.
    """
    found, errors, shown = [], [], []
    for subject in chosen:
        case = (AlignedCase.encoded if encoded else AlignedCase.generated)(model, subject, settings)
        draft = case.fitted(case.plain, draft_fit(settings.fit))
        rows = {"plain": case.plain, "aligned": case.aligned(model, draft, settings)}
        drafted, true = np.stack(surface_depths(draft, case.cameras)), np.stack(case.true_depths)
        shown += [case.tiles(pictures) for pictures in (*rows.values(), case.true)]
        if encoded:
            rows["true views"] = case.true
        found.append(asset_scores(case, rows, list(true if encoded else drafted), settings))
        told = (f"{name} {row['foreground PSNR']:.2f} and {row[_ASSET]:.2f} dB" for name, row in found[-1].items())
        say(f"{subject.name}, views and asset: {', '.join(told)}")
        errors.append(np.where((drafted > 0) & (true > 0), drafted - true, np.nan))
    if sheet is not None:
        write_sheet(shown, sheet)
    return f"{len(found)} objects\n\n{rows_table(gained(found))}\n\n{depth_errors_line(errors)}"


def depth_errors_line(errors: Sequence[Float[np.ndarray, "v s s"]], grids: Sequence[int] = (3, 32)) -> str:
    """How far drafts' depth is off, in units of the object's radius, and as amplitudes of structured noise.

    Args:
        errors: of each object's views; NaN where either shows nothing.
        grids: sides of the grids whose means are bands of error; what they leave is the last band.
    """
    bands: list[list[np.ndarray]] = [[] for _ in (*grids, None)]
    for views in errors:
        left = torch.from_numpy(views / OBJECT_RADIUS)[:, None].float()
        for band, side in zip(bands, grids, strict=False):
            there = left.isfinite().float()
            share = F.adaptive_avg_pool2d(there, side)
            mean = F.adaptive_avg_pool2d(left.nan_to_num(), side) / share.clamp(min=1e-6)
            coarse = F.interpolate(mean, left.shape[-2:], mode="nearest-exact")
            band.append(coarse[there > 0].numpy())
            left = left - coarse
        bands[-1].append(left[left.isfinite()].numpy())
    # Uniform noise of half range 1 on a grid has this deviation when it is brought to a larger size bilinearly.
    spread = [np.concatenate(band).std() / factor for band, factor in zip(bands, (0.447, 0.382, 0.362), strict=True)]
    every = np.abs(np.concatenate([views[np.isfinite(views)] for views in errors])) / OBJECT_RADIUS
    sides, noise = ", ".join(map(str, grids)), ", ".join(f"{x:.3f}" for x in spread)
    return (
        f"depth of drafts: off by {np.median(every):.3f} of the object's radius in the median, {np.mean(every):.3f} in "
        f"the mean; as noise on grids of {sides} and finer: {noise}"
    )


def gained(rows: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Scores]:
    """Rows as arrays over objects; the row of aligned views comes again, as its gains over plain ones."""
    found: dict[str, Scores] = {
        name: {key: np.array([one[name][key] for one in rows]) for key in row} for name, row in rows[0].items()
    }
    found["aligned less plain"] = {key: found["aligned"][key] - found["plain"][key] for key in found["plain"]}
    return found


def _photo(
    model: ViewDiffusion, subject: Subject, settings: AlignedAssetSettings
) -> tuple[View, UInt8[np.ndarray, "s s 4"], float]:
    """The photo with its camera, a small copy of it, and its elevation."""
    elevation = math.radians(float(np.random.default_rng(subject.index).uniform(0, 35)))
    renderer = MeshRenderer(subject.mesh)
    small_camera, _ = source_view(subject.mesh, elevation, DEFAULT_RADIUS, model.image_size, DEFAULT_FILL)
    camera = small_camera.resized(settings.photo, settings.photo)
    small, large = (to_bytes(renderer.render(one).rgba) for one in (small_camera, camera))
    return View("photo", camera, large, weight=settings.views.photo_weight), small, elevation


def _true_views(
    mesh: ColouredMesh, orbits: Float[np.ndarray, "v 3"], size: int
) -> tuple[tuple[Camera, ...], UInt8[np.ndarray, "v s s 4"]]:
    cameras, renderer = tuple(orbit_camera(*orbit, size=size) for orbit in orbits), MeshRenderer(mesh)
    return cameras, np.stack([to_bytes(renderer.render(camera).rgba) for camera in cameras])


def _picture_scores(pictures: UInt8[np.ndarray, "v s s 4"], true: UInt8[np.ndarray, "v s s 4"]) -> dict[str, float]:
    scores = [
        view_scores(one.astype(np.float32) / 255, truth.astype(np.float32) / 255)
        for one, truth in zip(pictures, true, strict=True)
    ]
    names = {"foreground PSNR": "foreground_psnr", "SSIM": "ssim"}
    return {name: float(np.mean([one[key] for one in scores])) for name, key in names.items()}


def _held_out_scores(mesh: TexturedMesh, true: ColouredMesh, side: int) -> dict[str, float]:
    """Of the textured mesh, seen from elsewhere."""
    mine, truth = MeshRenderer(mesh.coloured(), UNLIT), MeshRenderer(true)
    values = []
    for azimuth, elevation in _HELD_OUT:
        camera = orbit_camera(azimuth, elevation, size=side)
        values.append(view_scores(mine.render(camera).rgba, truth.render(camera).rgba)["foreground_psnr"])
    distance = chamfer(mesh.vertices.astype(np.float64), mesh.faces, true.vertices, true.faces)
    return {_ASSET: float(np.mean(values)), "Chamfer": distance}
