"""Reconstruction of known objects: geometry, pictures, time and memory, beside the visual hull and NeuS-facto.

Protocol. Every mesh of the data folder is normalised to the bounding sphere and rendered under the one light by 24
cameras spread evenly over the sphere (radius 1.5, 256 px, with masks); every third view, 8 in all, is held out and 16
are fitted. Lengths are in % of the true mesh's longest side, without registration; scores are those of
recon.mesh.metrics.compare_surfaces, of the exported mesh. Pictures: foreground PSNR of the held-out views, of the
textured mesh drawn without light (its texture holds the light), and of the fit's own volume rendering; objects with
textures or vertex colours only. Time: from views in memory to the mesh with its texture, plus export and check as a
column of its own. Kernels are compiled before the clock starts.

Example: python scripts/benchmark_recon.py --meshes DATA/meshes_eval --presets draft standard --out scores.json
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
import tyro
from rich.console import Console
from rich.table import Table
from scipy.spatial import cKDTree

from pipeline.jobs.settings import ReconstructSettings, settings_from_yaml
from recon.export.export_mesh import export_mesh
from recon.fit import fit_surface, hull_surface
from recon.mesh.marching_cubes import asset_mesh
from recon.mesh.metrics import compare_surfaces
from recon.sdf_grid.render import render_surface
from recon.settings import FitSettings
from recon.surface import Surface
from recon.texture.bake import TexturedMesh, bake
from scene.camera import z_up_from_y_up
from scene.errors import InputError
from scene.mesh import ColouredMesh
from scene.metrics import view_scores
from scene.raycast import mesh_caster, unoccluded
from scene.render import UNLIT, MeshRenderer
from scene.view import View
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras
from viewloom.cli import preset_path

VIEWS, SIZE, EVERY = 24, 256, 3
CONCAVE = ("bowl", "ramekin", "shoe", "sneakers", "frypan", "dish", "cup")


@dataclass(frozen=True)
class Arguments:
    """Score reconstructions of known meshes."""

    meshes: Path
    """Folder with GLB files, searched through."""
    presets: tuple[str, ...] = ("standard",)
    """Presets to run; hull stands for the visual hull alone."""
    only: tuple[str, ...] = ()
    """Names of meshes; all by default."""
    count: int | None = None
    """So many, spread evenly over the sorted names."""
    facto: Path | None = None
    """Python with nerfstudio: also runs the NeuS-facto baseline, at the seconds that the last preset took."""
    views: int = VIEWS
    """Views rendered; every third is held out."""
    unseen: bool = False
    """Fit nothing; only tell how much of each true surface the fitted views see, and the F that this allows."""
    out: Path | None = None
    """Write the scores of every object as JSON, and continue from it."""


def main(arguments: Arguments) -> None:
    """Run and print the table."""
    paths = sorted(arguments.meshes.rglob("*.glb"))
    if arguments.only:
        paths = [p for p in paths if p.stem in arguments.only]
    if arguments.count is not None:
        paths = [paths[round(k)] for k in np.linspace(0, len(paths) - 1, arguments.count)]
    if arguments.unseen:
        return tell_unseen(paths, arguments.views)
    done: dict[str, dict[str, Any]] = {}
    if arguments.out is not None and arguments.out.is_file():
        done = json.loads(arguments.out.read_text())
    console = Console()
    warm = False
    for path in paths:
        seconds = 60.0
        rows = [*arguments.presets, *(["neus-facto"] if arguments.facto else [])]
        if all(f"{path.stem}/{row}" in done for row in rows):
            continue
        mesh = load_glb(path)
        train, held = capture(mesh, arguments.views)
        if not warm:
            fit_surface(train, FitSettings(levels=(16, 24), iterations=(2, 2), rays=64, hull_resolution=16))
            warm = True
        for row in rows:
            key = f"{path.stem}/{row}"
            if key not in done:
                if row == "neus-facto":
                    assert arguments.facto is not None
                    done[key] = run_facto(arguments.facto, train, mesh, seconds)
                else:
                    done[key] = run_preset(row, train, held, mesh)
                if arguments.out is not None:
                    arguments.out.write_text(json.dumps(done, indent=1) + "\n")
            seconds = done[key]["seconds"]
            told = {k: round(v, 3) for k, v in done[key].items() if isinstance(v, float)}
            console.print(key, told, highlight=False)
    table(done, console)


def capture(mesh: ColouredMesh, count: int) -> tuple[ViewSet, ViewSet]:
    """Fitted and held-out views of a normalised mesh."""
    renderer = MeshRenderer(mesh)
    views = [
        View(f"{k:03d}", camera, np.round(renderer.render(camera).rgba * 255).astype(np.uint8))
        for k, camera in enumerate(sphere_cameras(count, SIZE, 1.5))
    ]
    train = tuple(v for k, v in enumerate(views) if k % EVERY != 1)
    return ViewSet(train, True), ViewSet(tuple(v for k, v in enumerate(views) if k % EVERY == 1), True)


def tell_unseen(paths: Sequence[Path], count: int, samples: int = 30_000) -> None:
    """Share of each true surface within 1 % of what fitted views see, and the F-score of all that, perfectly found."""
    console, best = Console(), []
    for path in paths:
        mesh = load_glb(path)
        vertices = mesh.vertices.astype(np.float64)
        points = trimesh.Trimesh(vertices, mesh.faces, process=False).sample(samples, seed=0)
        caster, seen = mesh_caster(vertices, mesh.faces), np.zeros(samples, bool)
        for k, camera in enumerate(sphere_cameras(count, SIZE, 1.5)):
            if k % EVERY != 1:
                seen |= unoccluded(caster, camera.centre, points, absolute=2e-3)
        near = cKDTree(points[seen]).query(points)[0] < 0.01 * np.ptp(vertices, axis=0).max()
        best.append(2 * near.mean() / (1 + near.mean()))
        console.print(f"{path.stem}: seen {seen.mean():.3f}, near {near.mean():.3f}, F {best[-1]:.3f}", highlight=False)
    console.print(
        f"median F {np.median(best):.3f}; {sum(f < 2 * 0.95 / 1.95 for f in best)} with more than 5 % far from it"
    )


def run_preset(preset: str, train: ViewSet, held: ViewSet, truth: ColouredMesh) -> dict[str, Any]:
    """Fit, mesh and texture under a preset; ``hull`` is the hull of the standard preset."""
    name = "standard" if preset == "hull" else preset
    settings = settings_from_yaml(preset_path(name), ReconstructSettings(), ignore=("prepare", "views", "device"))
    start = time.perf_counter()
    surface = hull_surface(train, settings.fit) if preset == "hull" else fit_surface(train, settings.fit)
    fitted = time.perf_counter() - start
    limits = settings.mesh.limits
    vertices, faces = asset_mesh(surface, limits.max_faces, settings.mesh.smoothing)
    row: dict[str, Any] = {}
    if preset != "hull":
        textured = bake(vertices, faces, train, surface, limits.texture)
        row["seconds"] = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            exported = export_mesh(Path(folder) / "mesh.glb", textured, settings.glb)
            row["export_seconds"] = time.perf_counter() - begun
            row["clean"] = exported.report is not None and exported.report.clean
        if truth.texture is not None or truth.vertex_colours is not None:
            row.update(picture_scores(textured, surface, held))
    else:
        row["seconds"] = time.perf_counter() - start
    row["fit_seconds"] = fitted
    scores = compare_surfaces(vertices, faces, truth.vertices.astype(np.float64), truth.faces)
    return {
        **row,
        **asdict(scores),
        "faces": len(faces),
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def picture_scores(mesh: TexturedMesh, surface: Surface, held: ViewSet) -> dict[str, float]:
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


def run_facto(python: Path, train: ViewSet, truth: ColouredMesh, seconds: float) -> dict[str, Any]:
    """NeuS-facto with torch's hash grid at a given wall time, in an environment that has nerfstudio."""
    with tempfile.TemporaryDirectory() as folder:
        train.save(Path(folder) / "capture")
        command = [str(python), str(Path(__file__).with_name("baseline_neus_facto.py")), "--threads", "2"]
        command += ["--capture", f"{folder}/capture", "--seconds", f"{seconds:.1f}", "--out", f"{folder}/out"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"the baseline failed:\n{done.stderr[-2000:]}")
        with np.load(f"{folder}/out/mesh.npz") as data:
            vertices, faces = data["vertices"].astype(np.float64), data["faces"].astype(np.int64)
    scores = compare_surfaces(vertices, faces, truth.vertices.astype(np.float64), truth.faces)
    return {"seconds": seconds, **asdict(scores), "faces": len(faces)}


def table(done: dict[str, dict[str, Any]], console: Console) -> None:
    """Medians per preset, and how much nearer than the hull."""
    rows = sorted({key.rpartition("/")[2] for key in done})
    shown = Table("", *rows, title="medians; lengths in % of the longest side")
    mine = [{k.rpartition("/")[0]: v for k, v in done.items() if k.rpartition("/")[2] == row} for row in rows]
    shown.add_row("objects", *(str(len(m)) for m in mine))
    for label, name, scale in _SCORES:
        shown.add_row(label, *(_median(m, name, scale) for m in mine))
    for label, gains in zip(("below hull", "concave below hull"), zip(*(_gain(m, done) for m in mine)), strict=True):
        shown.add_row(label, *gains)
    console.print(shown)


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


def _median(rows: dict[str, dict[str, Any]], name: str, scale: float) -> str:
    values = [row[name] * scale for row in rows.values() if name in row]
    return f"{np.median(values):.3f}" if values else "-"


def _gain(rows: dict[str, dict[str, Any]], done: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """Median share by which the distance is below the hull's: of all objects, and of hollow ones."""
    gains = {
        name: 1 - row["chamfer"] / done[f"{name}/hull"]["chamfer"]
        for name, row in rows.items()
        if f"{name}/hull" in done
    }
    hollow = [gain for name, gain in gains.items() if any(word in name.lower() for word in CONCAVE)]
    return tuple(f"{100 * np.median(g):.0f} %" if g else "-" for g in (list(gains.values()), hollow))  # type: ignore[return-value]


def load_glb(path: Path) -> ColouredMesh:
    """A mesh, z up, in the bounding sphere; with its texture if it has one part, else with vertex colours.

    Raises:
        InputError: the file holds no triangles.
    """
    loaded = trimesh.load_scene(path)
    parts = [part for part in loaded.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    if not parts:
        raise InputError("holds no triangles", where=path)
    material = getattr(parts[0].visual, "material", None)
    image = getattr(material, "baseColorTexture", None)
    uv = getattr(parts[0].visual, "uv", None)
    if len(parts) == 1 and image is not None and uv is not None:
        vertices = z_up_from_y_up(np.asarray(parts[0].vertices)).astype(np.float32)
        # trimesh measures v up.
        down = np.stack([uv[:, 0], 1 - uv[:, 1]], -1).astype(np.float32)
        texture = np.asarray(image.convert("RGB"))
        return ColouredMesh(vertices, np.asarray(parts[0].faces, np.int32), uv=down, texture=texture).normalised()
    colours, coloured, vertices_of, faces_of, count = [], False, [], [], 0
    for part in parts:
        values = _colours(part.visual)
        coloured |= len(values) > 1
        colours.append(np.broadcast_to(values, (len(part.vertices), 3)))
        vertices_of.append(np.asarray(part.vertices))
        faces_of.append(np.asarray(part.faces) + count)
        count += len(part.vertices)
    vertices = z_up_from_y_up(np.concatenate(vertices_of)).astype(np.float32)
    painted = np.concatenate(colours).astype(np.uint8) if coloured else None
    return ColouredMesh(vertices, np.concatenate(faces_of).astype(np.int32), vertex_colours=painted).normalised()


def _colours(visual: Any) -> np.ndarray:
    """One colour for each vertex, or one for all."""
    if visual.kind == "texture":
        if getattr(visual.material, "baseColorTexture", None) is None:
            return np.asarray(visual.material.main_color)[None, :3]
        visual = visual.to_color()
    return np.asarray(visual.vertex_colors)[:, :3] if visual.kind is not None else np.full((1, 3), 178)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
