"""Sound files of every kind that is read, and the readers that they are given to."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import trimesh
from PIL import Image

from pipeline.diffusion.preparation.prepare import PreparedPhoto
from pipeline.diffusion.settings import PrepareSettings
from pipeline.diffusion.view_models.load import checkpoint_info, load_view_model
from pipeline.editing.depth_target import DepthTarget
from pipeline.jobs.presets import settings_from_yaml
from pipeline.jobs.runner import Runner
from pipeline.jobs.settings import Image2MeshSettings, ReconstructSettings
from pipeline.jobs.stages.capture_folder import CaptureFolder
from pipeline.jobs.stages.prepare import PrepareStage
from pipeline.jobs.stages.redraw import RedrawnViewsStage
from recon.export.glb import write_glb
from recon.export.glb_read import read_glb
from recon.export.obj import obj_files
from recon.surface import Surface
from recon.texture.bake import TexturedMesh
from recon.views.claim import normalised_doubt
from scene.camera import Camera, colmap_from_c2w, orbit_camera
from scene.captures import load_capture, world_from_original
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet
from tests.scene.captures import (
    test_colmap,
    test_load_capture,
    test_neus,
    test_predictions,
    test_program_formats,
    test_projections,
)

Read = Callable[[Path], object]
NAMES = [f"{k:03d}.png" for k in range(7)]
TESTS = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Subject:
    """A kind of input: a sound folder is written once, copies of it are spoiled and read."""

    name: str
    write: Callable[[Path], None]
    read: Read


def subjects() -> list[Subject]:
    """Every kind."""
    captures = [Subject(name, write, read_capture) for name, write in CAPTURES.items()]
    others = [
        Subject("mesh", write_mesh, read_mesh),
        Subject("control_mesh", write_control_meshes, read_control_meshes),
        Subject("checkpoint", write_checkpoint, read_checkpoint),
        Subject("preset", write_preset, read_preset),
        Subject("stages", write_stages, read_stages),
    ]
    return captures + others


# --- captures ---------------------------------------------------------------------------------------------------------


def cameras() -> list[Camera]:
    ring = [orbit_camera(0.9 * k, 0.35, 2.0) for k in range(7)]
    return [Camera(camera.c2w, 70.0, 71.0, 33.0, 23.5, 64, 48) for camera in ring]


def draw(folder: Path, names: Sequence[str] = NAMES, mode: str = "RGBA") -> None:
    rng = np.random.default_rng(0)
    for name in names:
        pixels = rng.integers(0, 256, (48, 64, 4), dtype=np.uint8)
        pixels[..., 3] = np.where(np.hypot(*np.indices((48, 64)) - 24) < 15, 255, 0)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert(mode).save(folder / name)


def write_own(folder: Path) -> None:
    rgba = np.full((24, 24, 4), 255, np.uint8)
    depth, normals = np.full((24, 24), 1.5, np.float32), np.tile(np.array([0, 0, 1], np.float32), (24, 24, 1))
    views = [
        View(f"v{k}", orbit_camera(k, 0.3, size=24), rgba, depth_source=depth, normal_source=normals) for k in range(3)
    ]
    metadata = {"normalised": True, "warnings": ["dark"], "normalised_from_world": np.eye(4).tolist()}
    ViewSet(tuple(views), True, metadata, np.zeros((4, 3))).save(folder)
    np.savez(
        folder / "coarse.npz", occupancy=np.zeros((4, 4, 4), np.float16), colours=np.zeros((4, 4, 4, 3), np.float16)
    )


def write_nerfstudio(folder: Path) -> None:
    draw(folder)
    frames = [{"file_path": n, "transform_matrix": c.c2w.tolist()} for n, c in zip(NAMES, cameras(), strict=True)]
    content: dict[str, Any] = {"fl_x": 70.0, "fl_y": 71.0, "cx": 33.0, "cy": 23.5, "w": 64, "h": 48, "k1": 0.01}
    content |= {"applied_transform": np.eye(4)[:3].tolist(), "applied_scale": 0.5, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))


def write_neus(folder: Path) -> None:
    draw(folder / "image")
    test_neus.write_neus(folder, cameras())


def with_pictures(write: Callable[..., Any]) -> Callable[[Path], None]:
    def go(folder: Path) -> None:
        draw(folder)
        write(folder, cameras())

    return go


def write_bundler(folder: Path) -> None:
    draw(folder)
    test_projections.write_bundle(folder, cameras())
    (folder / "list.txt").write_text("\n".join(NAMES))


def colmap(write: Callable[..., Any], model: Any) -> Callable[[Path], None]:
    def go(folder: Path) -> None:
        draw(folder / "images")
        poses = [colmap_from_c2w(camera.c2w) for camera in cameras()]
        write(folder, model, (64, 48), [70, 71, 33, 23.5], poses, NAMES)

    return go


def write_named(folder: Path) -> None:
    draw(folder, ["front.png", "left.png", "back.png", "right.png"])


def write_seen_predictions(folder: Path) -> None:
    test_predictions.saved(folder, (48, 30), lambda photo: test_predictions.covering(photo, (56, 42)))


def of_a_program(name: str) -> Callable[[Path], None]:
    def go(folder: Path) -> None:
        for k, picture in enumerate(test_program_formats.cameras()):
            test_program_formats.picture(folder / "images" / f"{picture}.jpg", 40 * k)
        test_program_formats.WRITERS[name][0](folder)

    return go


CAPTURES: dict[str, Callable[[Path], None]] = {
    "own": write_own,
    "nerfstudio": write_nerfstudio,
    "neus": write_neus,
    "blender": with_pictures(test_load_capture.write_transforms),
    "projections": with_pictures(test_projections.write_matrices),
    "middlebury": with_pictures(test_projections.write_middlebury),
    "cameras_json": with_pictures(test_projections.write_cameras_json),
    "bundler": write_bundler,
    "colmap_text": colmap(test_colmap.write_text, "PINHOLE"),
    "colmap_binary": colmap(test_colmap.write_binary, 1),
    "named": write_named,
    "seen_predictions": write_seen_predictions,
    **{name: of_a_program(name) for name in test_program_formats.WRITERS},
}


def read_capture(folder: Path) -> object:
    views = load_capture(folder)
    for view in list(views)[:3]:
        view.rgba(), view.depth(), view.normals()
    doubt = normalised_doubt(views) if views.metadata.get("normalised") else None
    return world_from_original(views.metadata), doubt, CaptureFolder(folder).coarse_volume


# --- meshes, checkpoints, presets -------------------------------------------------------------------------------------


def write_mesh(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    texture = np.full((16, 16, 3), 90, np.uint8)
    mesh = TexturedMesh(vertices, faces, vertices * 0 + [0, 0, 1.0], vertices[:, :2], texture)
    write_glb(folder / "a.glb", mesh, extras={"a": 1}, normalised_from_world=np.eye(4))


def read_mesh(folder: Path) -> object:
    asset = read_glb(folder / "a.glb")
    return obj_files(asset, asset.jpeg or b"", "a")


def write_control_meshes(folder: Path) -> None:
    box = trimesh.creation.box(extents=(1, 2, 3))
    for ending in ("glb", "obj", "ply", "stl"):
        box.export(folder / f"a.{ending}")
    write_mesh(folder / "own")


def read_control_meshes(folder: Path) -> object:
    """All of them, whatever becomes of the others."""
    found, refused = [], None
    for path in sorted(path for path in folder.rglob("a.*") if path.suffix in (".glb", ".obj", ".ply", ".stl")):
        try:
            found.append(DepthTarget.load(path))
        except InputError as error:
            refused = error
    if refused is not None:
        raise refused
    return found


def write_checkpoint(folder: Path) -> None:
    tiny = runpy.run_path(str(TESTS / "pipeline" / "diffusion" / "conftest.py"))
    torch.manual_seed(0)
    tiny["build_model"](tiny["FULL"]).save_pretrained(folder)


def read_checkpoint(folder: Path) -> object:
    return checkpoint_info(folder).as_dict(), load_view_model(folder)


def write_preset(folder: Path) -> None:
    (folder / "a.yaml").write_text(
        "device: cpu\nfit: {levels: [20, 28], iterations: [600, 400], rays: 64, sdf_lr: 0.25}\n"
        "mesh: {profile: draft, texture: 64, turntable: [256, 24]}\n"
        "photos:\n  views:\n    elevation_deg: 10.5\n    sampling: {steps: 8, guidance: 2}\n"
        "    rings:\n      views: [8, 6, 2]\ncaptures:\n  fit: {image_side: 192, seed: 3}\n"
        "  capture:\n    bounds: [0, 0, 0, 1, 1, 1]\n"
    )


def read_preset(folder: Path) -> object:
    path = folder / "a.yaml"
    return settings_from_yaml(path, Image2MeshSettings()), settings_from_yaml(path, ReconstructSettings())


# --- stages -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stage:
    """A stage with the files and the reader of a real one."""

    name: str
    write: Callable[[Path], object]
    load: Callable[[Path], object]
    key: Sequence[Any] = (1,)

    def run(self, folder: Path) -> None:
        self.write(folder)


def _write_prepared(folder: Path) -> None:
    for name, mode in (("cutout", "RGBA"), ("framed", "RGBA"), ("mask", "L")):
        Image.new(mode, (16, 16)).save(folder / f"{name}.png")
    content = {"warnings": [], "confidence": 1.0, "came_cut_out": True, "scale": 1.0, "offset": [0.0, 0.0], "side": 16}
    (folder / "prepare.json").write_text(json.dumps(content))


def _write_surface(folder: Path) -> None:
    Surface.cube(np.zeros((4, 4, 4)), np.zeros((4, 4, 4, 3)), 0.6).save(folder / "surface.npz")


def _load_prepared(folder: Path) -> PreparedPhoto:
    return PrepareStage(Path("x"), "", PrepareSettings(), Path("m"), "").load(folder)


def _write_redrawn(folder: Path) -> None:
    write_own(folder)
    step = {"index": 0, "before": 1.0, "after": 0.5, "halved": 0, "kept": 0}
    told = {"views": ["v0", "v1", "v2"], "intervals": [{"guided": [step], "misfit": 0.5}]}
    (folder / "intervals.json").write_text(json.dumps(told))


def _load_redrawn(folder: Path) -> object:
    found = RedrawnViewsStage.load(cast(Any, None), folder)
    return found, found.told, found.empty


STAGES: list[Any] = [
    _Stage("prepare", _write_prepared, _load_prepared),
    _Stage("views", write_own, lambda folder: CaptureFolder(folder).looked_at()),
    _Stage("edited-views", _write_redrawn, _load_redrawn),
    _Stage("surface", _write_surface, lambda folder: Surface.load(folder / "surface.npz")),
]


def write_stages(folder: Path) -> None:
    for stage in STAGES:
        Runner(folder).run(stage)


def read_stages(folder: Path) -> object:
    results = [Runner(folder).run(stage).result for stage in STAGES]
    return results, CaptureFolder(folder / "views").coarse_volume
