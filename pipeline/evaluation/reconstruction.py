"""Reconstruction of known objects: fits of rendered views, scored against the true mesh and against held-out views."""

from __future__ import annotations

import resource
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from scipy.spatial import cKDTree

from pipeline.evaluation.meshes import trimesh
from pipeline.jobs.settings import ReconstructSettings
from recon.export.export_mesh import export_mesh
from recon.fit import fit_surface, hull_surface
from recon.mesh.marching_cubes import asset_mesh
from recon.mesh.metrics import compare_surfaces
from recon.sdf_grid.render import render_surface
from recon.settings import FitSettings
from recon.surface import Surface
from recon.texture.bake import TexturedMesh, bake
from scene.errors import ViewloomError
from scene.mesh import ColouredMesh
from scene.metrics import view_scores
from scene.raycast import mesh_caster, unoccluded
from scene.render import UNLIT, MeshRenderer
from scene.view import View
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras

VIEWS, SIZE, EVERY = 24, 256, 3
CONCAVE = ("bowl", "ramekin", "shoe", "sneakers", "frypan", "dish", "cup")
"""Words in the names of hollow objects."""

Scores = dict[str, dict[str, Any]]
"""By ``object/preset``."""


def rendered_views(mesh: ColouredMesh, count: int) -> tuple[ViewSet, ViewSet]:
    """Fitted and held-out views of a normalised mesh."""
    renderer = MeshRenderer(mesh)
    views = [
        View(f"{k:03d}", camera, np.round(renderer.render(camera).rgba * 255).astype(np.uint8))
        for k, camera in enumerate(sphere_cameras(count, SIZE, 1.5))
    ]
    train = tuple(v for k, v in enumerate(views) if k % EVERY != 1)
    return ViewSet(train, True), ViewSet(tuple(v for k, v in enumerate(views) if k % EVERY == 1), True)


def compile_kernels(views: ViewSet) -> None:
    """A fit so short that all it takes is the compiling."""
    fit_surface(views, FitSettings(levels=(16, 24), iterations=(2, 2), rays=64, hull_resolution=16))


def reachable(mesh: ColouredMesh, count: int, samples: int = 30_000) -> dict[str, float]:
    """What fitted views allow at best.

    Returns:
        The fraction of the true surface that they see, the fraction within 1 % of that, and the F-score at 1 % of all
        that is seen, perfectly found.
    """
    vertices = mesh.vertices.astype(np.float64)
    points = trimesh().Trimesh(vertices, mesh.faces, process=False).sample(samples, seed=0)
    caster, seen = mesh_caster(vertices, mesh.faces), np.zeros(samples, bool)
    for k, camera in enumerate(sphere_cameras(count, SIZE, 1.5)):
        if k % EVERY != 1:
            seen |= unoccluded(caster, camera.centre, points, absolute=2e-3)
    near = cKDTree(points[seen]).query(points)[0] < 0.01 * np.ptp(vertices, axis=0).max()
    return {"seen": float(seen.mean()), "near": float(near.mean()), "F": float(2 * near.mean() / (1 + near.mean()))}


def score_fit(
    train: ViewSet, held: ViewSet, truth: ColouredMesh, settings: ReconstructSettings, *, hull_only: bool = False
) -> dict[str, Any]:
    """Fit, mesh and texture; scores of the mesh, of the held-out views, time and memory.

    Args:
        train, held: fitted and held-out views.
        truth: the true mesh.
        settings: of ``viewloom reconstruct``.
        hull_only: stop at the visual hull, without a texture.
    """
    start = time.perf_counter()
    surface = hull_surface(train, settings.fit) if hull_only else fit_surface(train, settings.fit)
    fitted = time.perf_counter() - start
    limits = settings.mesh.limits
    vertices, faces = asset_mesh(surface, limits.max_faces, settings.mesh.smoothing)
    row: dict[str, Any] = {}
    if hull_only:
        row["seconds"] = time.perf_counter() - start
    else:
        textured = bake(vertices, faces, train, surface, limits.texture)
        row["seconds"] = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            exported = export_mesh(Path(folder) / "mesh.glb", textured, settings.glb)
            row["export_seconds"] = time.perf_counter() - begun
            row["clean"] = exported.report is not None and exported.report.clean
        if truth.texture is not None or truth.vertex_colours is not None:
            row.update(held_out_scores(textured, surface, held))
    row["fit_seconds"] = fitted
    scores = compare_surfaces(vertices, faces, truth.vertices.astype(np.float64), truth.faces)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {**row, **asdict(scores), "faces": len(faces), "memory_gb": memory}


def held_out_scores(mesh: TexturedMesh, surface: Surface, held: ViewSet) -> dict[str, float]:
    """Means over held-out views of the textured mesh and of the volume rendering."""
    renderer = MeshRenderer(mesh.coloured(), UNLIT)
    volume = render_surface(surface, [view.camera for view in held])
    scores: dict[str, list[float]] = {"psnr": [], "ssim": [], "mask_iou": [], "volume_psnr": []}
    for view, soft in zip(held, volume, strict=True):
        true = view.rgba().astype(np.float32) / 255
        found = view_scores(renderer.render(view.camera).rgba, true)
        scores["psnr"].append(found["foreground_psnr"])
        scores["ssim"].append(found["ssim"])
        scores["mask_iou"].append(found["iou"])
        scores["volume_psnr"].append(view_scores(soft.astype(np.float32), true)["foreground_psnr"])
    return {name: float(np.mean(values)) for name, values in scores.items()}


def score_neus_facto(python: Path, script: Path, train: ViewSet, truth: ColouredMesh, seconds: float) -> dict[str, Any]:
    """NeuS-facto with torch's hash grid at a given wall time, in an environment that has nerfstudio.

    Args:
        python: of that environment.
        script: scripts/baseline_neus_facto.py.
        train: fitted views.
        truth: the true mesh.
        seconds: for the optimisation.

    Raises:
        ViewloomError: the baseline failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        train.save(Path(folder) / "capture")
        command = [str(python), str(script), "--threads", "2"]
        command += ["--capture", f"{folder}/capture", "--seconds", f"{seconds:.1f}", "--out", f"{folder}/out"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ViewloomError(f"the baseline failed:\n{done.stderr[-2000:]}")
        with np.load(f"{folder}/out/mesh.npz") as data:
            vertices, faces = data["vertices"].astype(np.float64), data["faces"].astype(np.int64)
    scores = compare_surfaces(vertices, faces, truth.vertices.astype(np.float64), truth.faces)
    return {"seconds": seconds, **asdict(scores), "faces": len(faces)}


def medians_table(done: Scores) -> Table:
    """Medians per preset, and how much nearer than the hull."""
    rows = sorted({key.rpartition("/")[2] for key in done})
    shown = Table("", *rows, title="medians; lengths in % of the longest side")
    mine = [{k.rpartition("/")[0]: v for k, v in done.items() if k.rpartition("/")[2] == row} for row in rows]
    shown.add_row("objects", *(str(len(m)) for m in mine))
    for label, name, scale in _SCORES:
        shown.add_row(label, *(_median(m, name, scale) for m in mine))
    for label, words in (("below hull", ("",)), ("concave below hull", CONCAVE)):
        shown.add_row(label, *(_gain(m, done, words) for m in mine))
    return shown


_SCORES = (
    ("seconds", "seconds", 1.0),
    ("of these the fit", "fit_seconds", 1.0),
    ("export seconds", "export_seconds", 1.0),
    ("memory (GB)", "memory_gb", 1.0),
    ("Chamfer", "chamfer", 100.0),
    ("accuracy", "accuracy", 100.0),
    ("completeness", "completeness", 100.0),
    ("F at 0.5 %", "f_half", 1.0),
    ("F at 1 %", "f_1", 1.0),
    ("normals", "normal_consistency", 1.0),
    ("IoU", "iou", 1.0),
    ("thinned Chamfer", "thinned_chamfer", 100.0),
    ("PSNR", "psnr", 1.0),
    ("volume PSNR", "volume_psnr", 1.0),
    ("SSIM", "ssim", 1.0),
    ("mask IoU", "mask_iou", 1.0),
)


def _median(rows: Mapping[str, Mapping[str, Any]], name: str, scale: float) -> str:
    values = [row[name] * scale for row in rows.values() if name in row]
    return f"{np.median(values):.3f}" if values else "-"


def _gain(rows: Mapping[str, Mapping[str, Any]], done: Scores, words: Sequence[str]) -> str:
    """Median fraction by which the distance is below the hull's, of objects with one of these words in their names."""
    gains = [
        1 - row["chamfer"] / done[f"{name}/hull"]["chamfer"]
        for name, row in rows.items()
        if f"{name}/hull" in done and any(word in name.lower() for word in words)
    ]
    return f"{100 * np.median(gains):.0f} %" if gains else "-"
