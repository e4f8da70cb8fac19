"""Captures: how well views that the fit has not seen are drawn, and how near the surface is to a known one.

Protocol. A capture is read, checked and masked as `viewloom reconstruct` does; every n-th view (by name) is held out
before anything is fitted, and moves with the others. The held-out views are drawn from the textured mesh without light
(the texture holds it), at their own size up to 800 pixels. With masks: PSNR over the pixels of the true mask on white,
SSIM of the whole picture on white, IoU of the outlines. Without masks: PSNR over the pixels that the mesh covers, and
how much of the picture that is; a mesh that leaves the difficult parts out covers less. With a true mesh: distances to
triangles in % of its longest side, without registration.

Examples:
    python scripts/evaluate_captures.py DATA/captures/nerf_lego DATA/captures/fox
    python scripts/evaluate_captures.py DATA/captures/gso_chicken16 --truth DATA/meshes_eval/gso/chicken_nesting.glb
"""

from __future__ import annotations

import json
import resource
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import trimesh
import tyro
from rich.console import Console
from rich.table import Table

from pipeline.jobs.presets import load_preset
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
class Arguments:
    """Score reconstructions of captures."""

    captures: tyro.conf.Positional[tuple[Path, ...]]
    """Captures of any format."""
    hold: int = 8
    """Every n-th view is held out."""
    preset: str = "standard"
    """Of viewloom reconstruct."""
    truth: Path | None = None
    """True mesh of the only capture, in its world; a GLB's y up becomes z up."""
    ignore_maps: bool = False
    """Leave depth and normal maps out."""
    view_colour: bool = False
    """Tell gloss and exposures apart from the object's own colour."""
    out: Path | None = None
    """Write the scores as JSON."""


def main(arguments: Arguments) -> None:
    """Run and print the table."""
    console, done = Console(), {}
    for path in arguments.captures:
        done[path.name] = evaluate(path, arguments)
        console.print(path.name, done[path.name], highlight=False)
        if arguments.out is not None:
            arguments.out.write_text(json.dumps(done, indent=1) + "\n")
    names = list(done)
    shown = Table("", *names, title="held-out views")
    for score in dict.fromkeys(key for row in done.values() for key in row):
        shown.add_row(score, *(f"{done[name][score]:.4g}" if score in done[name] else "-" for name in names))
    console.print(shown)


def evaluate(path: Path, arguments: Arguments) -> dict[str, float]:
    """Scores of one capture."""
    settings = load_preset(arguments.preset, ReconstructSettings()).settings
    settings = replace(settings, fit=replace(settings.fit, view_dependence=arguments.view_colour))
    start = time.perf_counter()
    views = with_masks(load_capture(path), settings.capture.masks)
    views = turned(views, [found for found in check_capture(views).turned if not found.mirrored])
    held = [k for k in range(len(views)) if k % arguments.hold == arguments.hold // 2]
    train = replace(views, views=tuple(view for k, view in enumerate(views) if k not in held))
    if arguments.ignore_maps:
        train = replace(train, views=tuple(replace(v, depth_source=None, normal_source=None) for v in train))
    train, matrix = normalised(train)
    kept = replace(views, views=tuple(views.views[k] for k in held)).transformed(matrix)
    if train.has_masks:
        surface = fit_surface(train, settings.fit)
    else:
        surface = fit_unmasked(train, settings.fit)
    mesh = textured(surface, train, settings)
    scores: dict[str, float] = {"views": len(train), "held out": len(held), "seconds": time.perf_counter() - start}
    scores |= held_out_scores(mesh, kept)
    scores["memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if arguments.truth is not None:
        truth = trimesh.load_mesh(arguments.truth, process=False)
        corners = np.asarray(truth.vertices)
        corners = z_up_from_y_up(corners) if arguments.truth.suffix.lower() == ".glb" else corners
        inverse = np.linalg.inv(matrix)
        vertices = mesh.vertices @ inverse[:3, :3].T + inverse[:3, 3]
        found = compare_surfaces(vertices, mesh.faces, corners, np.asarray(truth.faces))
        scores |= {key: value for key, value in asdict(found).items() if isinstance(value, float)}
    return scores


def textured(surface: Surface, views: ViewSet, settings: ReconstructSettings) -> TexturedMesh:
    """The mesh that a job would export."""
    limits = settings.mesh.limits
    vertices, faces = asset_mesh(surface, limits.max_faces, settings.mesh.smoothing)
    return bake(vertices, faces, views, surface, limits.texture, specular=surface.specular)


def held_out_scores(mesh: TexturedMesh, views: ViewSet) -> dict[str, float]:
    """Means over views."""
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


if __name__ == "__main__":
    main(tyro.cli(Arguments))
