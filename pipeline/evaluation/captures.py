"""Captures: scores of views that the fit has not seen, and of the surface where the true one is known."""

from __future__ import annotations

import resource
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.table import Table

from pipeline.evaluation.meshes import trimesh
from pipeline.jobs.settings import ReconstructSettings
from pipeline.jobs.stages.capture import normalised, with_masks
from recon.checks.capture import check_capture
from recon.checks.orientation import turned
from recon.fit import fit_surface
from recon.mesh.marching_cubes import asset_mesh
from recon.mesh.metrics import compare_surfaces
from recon.surface import Surface
from recon.texture.bake import TexturedMesh, bake
from recon.unmasked.radiance_fit import fit_unmasked
from recon.views.ray_set import RaySet
from scene.camera import z_up_from_y_up
from scene.captures import load_capture
from scene.metrics import psnr, view_scores
from scene.render import UNLIT, MeshRenderer
from scene.viewset import ViewSet

LARGEST = 800
"""Longest side at which held-out views are compared."""


@dataclass(frozen=True)
class HeldOutSettings:
    """What is held out and what is left out.

    Args:
        hold: every n-th view is held out.
        ignore_maps: leave depth and normal maps out.
        truth: true mesh in the capture's world; a GLB's y up becomes z up.
    """

    hold: int = 8
    ignore_maps: bool = False
    truth: Path | None = None


def score_capture(path: Path, settings: ReconstructSettings, evaluated: HeldOutSettings) -> dict[str, float]:
    """Fit a capture without its held-out views, and score those; with a true mesh, the surface as well."""
    start = time.perf_counter()
    views = with_masks(load_capture(path), settings.capture.masks)
    views = turned(views, [found for found in check_capture(views).turned if not found.mirrored])
    held = [k for k in range(len(views)) if k % evaluated.hold == evaluated.hold // 2]
    train = replace(views, views=tuple(view for k, view in enumerate(views) if k not in held))
    if evaluated.ignore_maps:
        train = replace(train, views=tuple(replace(v, depth_source=None, normal_source=None) for v in train))
    train, matrix = normalised(train)
    kept = replace(views, views=tuple(views.views[k] for k in held)).transformed(matrix)
    surface = (fit_surface if train.has_masks else fit_unmasked)(train, settings.fit)
    mesh = textured(surface, train, settings)
    scores: dict[str, float] = {"views": len(train), "held out": len(held), "seconds": time.perf_counter() - start}
    scores |= held_out_scores(mesh, kept)
    scores["memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if evaluated.truth is not None:
        scores |= surface_scores(mesh, np.linalg.inv(matrix), evaluated.truth)
    return scores


def textured(surface: Surface, views: ViewSet, settings: ReconstructSettings) -> TexturedMesh:
    """The mesh that a job would export."""
    limits = settings.mesh.limits
    vertices, faces = asset_mesh(surface, limits.max_faces, settings.mesh.smoothing)
    return bake(
        vertices,
        faces,
        views,
        surface,
        limits.texture,
        specular=surface.specular,
        most_views=settings.mesh.texture_views,
    )


def surface_scores(mesh: TexturedMesh, matrix: Float[np.ndarray, "4 4"], truth: Path) -> dict[str, float]:
    """Distances of a mesh, moved by a matrix, to a true one; without registration.

    Raises:
        MissingBackendError: trimesh is not installed.
    """
    true = trimesh().load_mesh(truth, process=False)
    corners = np.asarray(true.vertices)
    corners = z_up_from_y_up(corners) if truth.suffix.lower() == ".glb" else corners
    vertices = mesh.vertices @ matrix[:3, :3].T + matrix[:3, 3]
    found = compare_surfaces(vertices, mesh.faces, corners, np.asarray(true.faces))
    return {key: value for key, value in asdict(found).items() if isinstance(value, float)}


def held_out_scores(mesh: TexturedMesh, views: ViewSet) -> dict[str, float]:
    """Means over views of what the mesh, drawn without light, has in common with them.

    With masks: PSNR over the pixels of the true mask on white, SSIM of the whole picture, IoU of the masks. Without:
    PSNR over the pixels that the mesh covers, and how much of the picture that is.
    """
    renderer = MeshRenderer(mesh.coloured(), UNLIT)
    rays = RaySet.of(views, LARGEST, masked=views.has_masks)
    rows = []
    for camera, colour, alpha in zip(rays.cameras, rays.colour, rays.alpha, strict=True):
        true, drawn = np.dstack([colour.numpy(), alpha.numpy()]), renderer.render(camera).rgba
        if views.has_masks:
            found = view_scores(drawn, true)
            rows.append({"PSNR": found["foreground_psnr"], "SSIM": found["ssim"], "mask IoU": found["iou"]})
        else:
            covered = drawn[..., 3] > 0.99
            rows.append({"PSNR": psnr(drawn[..., :3], true[..., :3], covered), "covered": float(covered.mean())})
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def captures_table(done: dict[str, dict[str, float]]) -> Table:
    """A column for each capture."""
    names = list(done)
    shown = Table("", *names, title="held-out views")
    for score in dict.fromkeys(key for row in done.values() for key in row):
        shown.add_row(score, *(f"{done[name][score]:.4g}" if score in done[name] else "-" for name in names))
    return shown
