"""The way back: from nerfstudio's training world to the capture's own, for points and for the exported asset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.trainer import Trainer

from recon.hash_sdf.field import HashField
from recon.nerfstudio.export import export_run, field_surface, parsed_views, training_from_original
from scene.camera import apply_transform
from scene.errors import InputError
from scene.hashgrid import HashLayout
from scene.viewset import ViewSet

MIDDLE, RADIUS = np.array([3.0, -1.0, 2.0]), 1.0
"""The ball in the capture's world; see conftest.py."""
APPLIED = [[1, 0, 0, 0.5], [0, 0, 1, -0.3], [0, -1, 0, 0.2]]


@pytest.mark.parametrize("orientation", ["none", "up", "vertical"])
@pytest.mark.parametrize("applied", [False, True])
def test_points_come_back_to_the_original_world(capture: Path, tmp_path: Path, orientation: str, applied: bool) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).symlink_to(capture / name)
    content = json.loads((capture / "transforms.json").read_text())
    if applied:
        content["applied_transform"] = APPLIED
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    config = NerfstudioDataParserConfig(data=tmp_path, orientation_method=orientation, downscale_factor=1)
    parsed = config.setup().get_dataparser_outputs(split="train")
    parsed.save_dataparser_transform(tmp_path / "dataparser_transforms.json")
    matrix = training_from_original(tmp_path / "dataparser_transforms.json")
    # The cameras know both worlds.
    saved = ViewSet.load(tmp_path)
    names = [path.stem for path in parsed.image_filenames]
    centres = np.array([view.camera.centre for view in saved if view.name in names])
    if applied:
        centres = apply_transform(np.linalg.inv(np.vstack([APPLIED, [0, 0, 0, 1]])), centres)
    training = parsed.cameras.camera_to_worlds[:, :, 3].numpy()
    assert apply_transform(matrix, centres) == pytest.approx(training, abs=1e-5)
    points = np.random.default_rng(0).uniform(-2, 2, (50, 3))
    assert apply_transform(np.linalg.inv(matrix), apply_transform(matrix, points)) == pytest.approx(points, abs=1e-5)
    assert np.linalg.det(matrix[:3, :3]) > 0


def test_parsed_views_are_those_of_the_capture_in_the_training_world(capture: Path) -> None:
    config = NerfstudioDataParserConfig(data=capture, downscale_factor=1)
    parser = config.setup()
    views = parsed_views(parser)
    original = ViewSet.load(capture)
    assert len(views) == len(original)
    parsed = parser.get_dataparser_outputs(split="train")
    for view in views:
        twin = next(v for v in original if v.image_path == view.image_path)
        assert (view.rgba() == twin.rgba()).all()
        ball = torch.tensor(MIDDLE).float() @ parsed.dataparser_transform[:, :3].T + parsed.dataparser_transform[:, 3]
        mine, _ = view.camera.project((ball * parsed.dataparser_scale).numpy()[None])
        theirs, _ = twin.camera.project(MIDDLE[None])
        assert mine == pytest.approx(theirs, abs=1e-2)


def test_an_exported_run_knows_its_place_in_the_original_world(
    run: tuple[Trainer, list[float]], tmp_path: Path
) -> None:
    trainer, _ = run
    export_run(trainer.base_dir / "config.yml", tmp_path / "ball.glb", resolution=48, faces=2000, texture=128)
    data = (tmp_path / "ball.glb").read_bytes()
    head = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    back = np.array(head["asset"]["extras"]["world_from_asset"])
    mesh = trimesh.load(tmp_path / "ball.glb", force="mesh", process=True, merge_tex=True, merge_norm=True)
    points = apply_transform(back, np.asarray(mesh.vertices))
    distance = np.linalg.norm(points - MIDDLE, axis=1)
    assert mesh.is_watertight
    assert distance.mean() == pytest.approx(RADIUS, rel=0.1)
    assert distance.std() < 0.1
    # The ball is orange, and was photographed so.
    colours = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB")).reshape(-1, 3)
    assert np.median(colours, axis=0) == pytest.approx([200, 60, 20], abs=25)


def test_the_orientation_that_nerfstudio_does_not_record_is_refused(
    run: tuple[Trainer, list[float]], tmp_path: Path
) -> None:
    text = (run[0].base_dir / "config.yml").read_text()
    assert "orientation_method: up" in text
    (tmp_path / "config.yml").write_text(text.replace("orientation_method: up", "orientation_method: pca"))
    (tmp_path / "nerfstudio_models").symlink_to(run[0].checkpoint_dir)
    with pytest.raises(InputError, match="pca orientation"):
        export_run(tmp_path / "config.yml", tmp_path / "ball.glb")
    assert not (tmp_path / "ball.glb").exists()


def test_surfaces_of_fields_have_the_fields_colours() -> None:
    half = torch.full((3,), 0.5)
    field = HashField(-half, half, layout=HashLayout(levels=2, coarsest=4, finest=8, log2_size=10))
    field.set_mean_colour(torch.tensor([0.7, 0.2, 0.4]))
    surface = field_surface(field, 12, 6)
    assert surface.low == pytest.approx([-0.5] * 3)
    assert surface.voxel == pytest.approx(1 / 12)
    assert surface.sdf == pytest.approx(field.dense((12, 12, 12)).numpy())
    points = np.array([[0.1, -0.2, 0.3]])
    expected = field.rgb(torch.from_numpy(points).float()).detach().numpy()
    assert surface.colours_at(points) == pytest.approx(expected, abs=0.02)


def test_boxes_that_are_no_cubes_are_refused() -> None:
    field = HashField(-torch.ones(3), torch.tensor([1.0, 1.0, 2.0]), layout=HashLayout(levels=1, finest=16))
    with pytest.raises(InputError, match="no cube"):
        field_surface(field, 8)
