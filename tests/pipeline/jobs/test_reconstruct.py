"""Captures to assets: any scale and place, any damage, and the same surface as the photo's job from the same views."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.jobs.reconstruct import reconstruct
from pipeline.jobs.settings import CaptureSettings, ReconstructSettings, settings_as_dict
from pipeline.jobs.stages import asset as stages_asset
from pipeline.jobs.stages.capture import CaptureStage, normalised, with_masks
from recon.export.validate import validate_glb
from recon.mesh.marching_cubes import extract_mesh
from recon.surface import Surface
from recon.texture import bake
from scene.camera import OBJECT_RADIUS, apply_transform
from scene.captures import load_capture
from scene.errors import InputError, OutputError, SettingsError
from scene.view import View
from scene.viewset import ViewSet

Done = Any
Heard = Any
Tree = Callable[[Path], dict[str, bytes]]
AWAY = np.array([[3.0, 0, 0, 5], [0, 3, 0, -2], [0, 0, 3, 40], [0, 0, 0, 1]])
"""Where the captured object stands: three times larger, far from the origin."""


@pytest.fixture(scope="module")
def views(rendered: Callable[[int, int], ViewSet]) -> ViewSet:
    return rendered(8, 48)


@pytest.fixture
def capture(views: ViewSet, tmp_path: Path) -> Path:
    """A capture folder as other programs write it."""
    views.transformed(AWAY).save(tmp_path / "toy")
    return tmp_path / "toy"


def rewritten(capture: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a capture file."""
    content = json.loads((capture / "transforms.json").read_text())
    change(content)
    (capture / "transforms.json").write_text(json.dumps(content))


def test_a_capture_becomes_a_sound_asset(
    capture: Path, capture_settings: ReconstructSettings, heard: Heard, tmp_path: Path, tree: Tree
) -> None:
    before, out = tree(capture), tmp_path / "out"
    result = reconstruct(capture, out, capture_settings, reporter=heard)
    assert (result.name, result.folder, result.asset, result.error) == ("toy", out, out / "toy.glb", None)
    assert {p.name for p in out.iterdir()} == {"views", "surface", "asset", "toy.glb", "manifest.json", "report.html"}
    assert validate_glb(out / "toy.glb", khronos=False).clean
    assert heard.stages == [("views", False), ("surface", False), ("asset", False)]
    assert heard.steps[-1] == (4, 4)
    assert tree(capture) == before
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["capture"] == "toy"
    assert manifest["settings"] == settings_as_dict(capture_settings)
    assert manifest["asset"]["health"]["watertight"] is True
    assert "weights" not in manifest
    assert str(tmp_path) not in json.dumps(manifest)
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "8 views" in report
    assert 'href="toy.glb"' in report


def test_photos_that_were_left_out_are_counted_and_told(
    capture: Path, capture_settings: ReconstructSettings, heard: Heard, tmp_path: Path
) -> None:
    fit, mesh = replace(capture_settings.fit, max_views=6), replace(capture_settings.mesh, texture_views=5)
    out = tmp_path / "out"
    reconstruct(capture, out, replace(capture_settings, fit=fit, mesh=mesh), reporter=heard)
    asset = json.loads((out / "manifest.json").read_text())["asset"]
    assert asset["surface"]["views"] == {"used": 6, "given": 8}
    assert asset["texture_views"] == {"used": 5, "given": 8}
    assert any(note.startswith("The surface is made of 6 of 8 photos") for note in heard.notes)
    assert any(note.startswith("The texture is made of 5 of 8 photos") for note in heard.notes)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "6 of 8, which show enough" in page
    assert "5 of 8, which show enough" in page


def test_the_object_is_found_and_its_place_is_remembered(
    capture: Path, capture_settings: ReconstructSettings, tmp_path: Path, rendered: Callable[[int, int], ViewSet]
) -> None:
    finer = replace(capture_settings, fit=replace(capture_settings.fit, levels=(12, 24)))
    reconstruct(capture, tmp_path / "out", finer)
    facts = json.loads((tmp_path / "out" / "views" / "transforms.json").read_text())["viewloom"]
    matrix = np.array(facts["normalised_from_world"])
    assert np.allclose(matrix @ AWAY, np.eye(4), atol=0.12)  # the made-up object was normalised itself
    vertices, _ = extract_mesh(Surface.load(tmp_path / "out" / "surface" / "surface.npz"))
    world = apply_transform(np.linalg.inv(matrix), vertices)
    # In the capture's world the object fills a sphere of radius 1.8 about its place.
    assert np.allclose((world.min(axis=0) + world.max(axis=0)) / 2, AWAY[:3, 3], atol=0.3)
    assert np.linalg.norm(world - AWAY[:3, 3], axis=1).max() == pytest.approx(1.8, abs=0.3)


def test_a_second_run_does_no_work_and_a_changed_picture_redoes_it(
    capture: Path, capture_settings: ReconstructSettings, heard: Heard, tmp_path: Path, tree: Tree
) -> None:
    out = tmp_path / "out"
    reconstruct(capture, out, capture_settings)
    first = tree(out)
    reconstruct(capture, out, capture_settings, reporter=heard)
    assert heard.redone == []
    assert tree(out) == first
    for part, name in (("images", "v0.png"), ("masks", "v1.png")):
        picture = np.array(Image.open(capture / part / name))
        picture[20:24, 20:24] = 255 - picture[20:24, 20:24]
        Image.fromarray(picture).save(capture / part / name)
        heard.stages.clear()
        reconstruct(capture, out, capture_settings, reporter=heard)
        assert heard.redone == ["views", "surface", "asset"], part
    heard.stages.clear()
    rewritten(capture, lambda content: content["frames"][0].update(viewloom_weight=0.5))
    reconstruct(capture, out, capture_settings, reporter=heard)
    assert heard.redone == ["views", "surface", "asset"]


def test_depth_maps_and_what_lies_beside_the_file_are_part_of_the_capture(
    views: ViewSet, capture_settings: ReconstructSettings, heard: Heard, tmp_path: Path
) -> None:
    capture, out = tmp_path / "deep", tmp_path / "out"
    depth = np.full((views.views[0].camera.height, views.views[0].camera.width), 1.5, np.float32)
    ViewSet(tuple(replace(view, depth_source=depth) for view in views), True).save(capture)
    reconstruct(capture / "transforms.json", out, capture_settings)
    stored = next(iter(sorted((capture / "depths").iterdir())))
    np.save(stored, depth * 1.1)
    for change in (lambda: None, lambda: (capture / "points.ply").write_text("ply")):
        change()
        heard.stages.clear()
        reconstruct(capture / "transforms.json", out, capture_settings, reporter=heard)
        assert heard.redone == ["views", "surface", "asset"]
    heard.stages.clear()
    reconstruct(capture / "transforms.json", out, capture_settings, reporter=heard)
    assert heard.redone == []


def test_a_picture_of_another_name_is_another_view(
    views: ViewSet, capture_settings: ReconstructSettings, heard: Heard, tmp_path: Path
) -> None:
    capture = tmp_path / "named"
    capture.mkdir()
    for name, view in zip(("front", "left", "right"), views.views, strict=False):
        Image.fromarray(view.rgba()).save(capture / f"{name}.png")
    settings = replace(capture_settings, capture=CaptureSettings(check=False))
    reconstruct(capture, tmp_path / "out", settings)
    (capture / "left.png").rename(capture / "back.png")
    reconstruct(capture, tmp_path / "out", settings, reporter=heard)
    assert heard.redone == ["views", "surface", "asset"]


@pytest.mark.parametrize("given", [".", "transforms.json"])
def test_the_asset_is_called_after_the_folder_however_it_is_given(
    capture: Path, capture_settings: ReconstructSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(capture)
    result = reconstruct(Path(given), tmp_path / "out", capture_settings)
    assert result.name == "toy"
    assert result.asset is not None
    assert result.asset.is_file()


def test_generated_views_give_the_surface_that_the_photos_job_gave(
    done: Done, capture_settings: ReconstructSettings, tmp_path: Path, tree: Tree
) -> None:
    reconstruct(done.out / "toy" / "views", tmp_path / "out", capture_settings)
    ours, theirs = tree(tmp_path / "out"), tree(done.out / "toy")
    assert ours["surface/surface.npz"] == theirs["surface/surface.npz"]
    same = [name for name in theirs if name.startswith("views/") and not name.endswith("stage.json")]
    assert {"views/coarse.npz", "views/latents.npz"} <= set(same)
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}


def test_settings_without_effect_on_a_finished_capture_are_told_and_redo_nothing(
    done: Done, capture_settings: ReconstructSettings, heard: Heard, tmp_path: Path
) -> None:
    bare = replace(capture_settings, capture=CaptureSettings(masks="none"))
    reconstruct(done.out / "toy" / "views", tmp_path / "out", bare, reporter=heard)
    assert any("normalised already" in note for note in heard.notes)
    heard.stages.clear()
    reconstruct(done.out / "toy" / "views", tmp_path / "out", capture_settings, reporter=heard)
    assert heard.redone == []


def test_photos_of_a_capture_are_blended_as_equals(
    capture: Path, capture_settings: ReconstructSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No photo is the reference of the others: layers are for photos among generated views."""
    monkeypatch.setattr(bake, "_layered_colours", lambda *_: pytest.fail("layers of a capture"))
    first = reconstruct(capture, tmp_path / "first", capture_settings)
    real = stages_asset.bake
    monkeypatch.setattr(stages_asset, "bake", lambda *a, **named: real(*a, **named, photo_is_reference=False))
    second = reconstruct(capture, tmp_path / "second", capture_settings)
    assert first.asset is not None
    assert second.asset is not None
    assert first.asset.read_bytes() == second.asset.read_bytes()
    assert first.evidence is not None
    assert (first.evidence.mirrored, first.evidence.generated) == (0, 0)
    assert first.evidence.seen > 0.5


def test_pictures_stored_upside_down_are_turned_back(
    views: ViewSet, capture: Path, capture_settings: ReconstructSettings, heard: Heard, tmp_path: Path, tree: Tree
) -> None:
    for name in ("v2", "v5"):
        for part in ("images", "masks"):
            path = capture / part / f"{name}.png"
            Image.fromarray(np.array(Image.open(path))[::-1, ::-1]).save(path)
    before, out = tree(capture), tmp_path / "out"
    reconstruct(capture, out, capture_settings, reporter=heard)
    assert tree(capture) == before
    manifest = json.loads((out / "manifest.json").read_text())
    (told,) = [text for text in manifest["warnings"] if "v2 and v5 are stored upside down" in text]
    assert told in heard.notes
    assert "They were turned before the fit" in told
    facts = json.loads((out / "views" / "transforms.json").read_text())["viewloom"]
    assert facts["turned_deg"] == {"v2": 180, "v5": 180}
    for found, right in zip(ViewSet.load(out / "views"), views, strict=True):
        assert np.array_equal(found.rgba(), right.rgba())


def test_pictures_are_left_turned_where_that_is_asked_for(
    views: ViewSet, capture: Path, capture_settings: ReconstructSettings, tmp_path: Path
) -> None:
    for part in ("images", "masks"):
        path = capture / part / "v2.png"
        Image.fromarray(np.array(Image.open(path))[::-1, ::-1]).save(path)
    left = replace(capture_settings, capture=replace(capture_settings.capture, turn=False))
    reconstruct(capture, tmp_path / "out", left)
    stored = ViewSet.load(tmp_path / "out" / "views").views[2].rgba()
    assert np.array_equal(stored, views.views[2].rgba()[::-1, ::-1])
    warnings = json.loads((tmp_path / "out" / "manifest.json").read_text())["warnings"]
    assert any("v2 is stored upside down" in text and "Turn the pictures" in text for text in warnings)


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "there is no such file or folder"),
        (lambda c: (c / "transforms.json").write_text("{"), "is not a capture file"),
        (lambda c: _only(c / "images", "v3", "v4"), r"6 of 8 pictures are missing.*v0\.png: there is no such file"),
        (lambda c: _only(c / "masks", "v3", "v4"), r"6 of 8 masks are missing.*v0\.png: there is no such file"),
        (lambda c: rewritten(c, lambda content: content.update(frames=content["frames"][:1])), "Fewer than two views"),
    ],
    ids=["gone", "half", "no picture", "no mask", "one view"],
)
def test_damaged_captures_are_the_inputs_fault(
    capture: Path, capture_settings: ReconstructSettings, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(capture)
    with pytest.raises(InputError, match=message):
        reconstruct(capture, tmp_path / "out", capture_settings)
    assert not list((tmp_path / "out").glob("*"))


def _only(folder: Path, *stems: str) -> None:
    """Remove all other files."""
    for path in folder.iterdir():
        if path.stem not in stems:
            path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: (c / "images" / "v3.png").unlink(),
        lambda c: (c / "images" / "v3.png").write_text("x"),
        lambda c: (c / "images" / "v3.png").write_bytes((c / "images" / "v3.png").read_bytes()[:-500]),
        lambda c: (c / "masks" / "v3.png").write_text("x"),
        lambda c: (c / "depths" / "v3.npy").write_text("x"),
    ],
    ids=["no picture", "no image", "half an image", "no mask", "no depth"],
)
@pytest.mark.parametrize("masked", [True, False])
def test_one_damaged_file_costs_one_view_and_is_told(
    views: ViewSet, heard: Heard, tmp_path: Path, damage: Callable[[Path], object], masked: bool
) -> None:
    capture = tmp_path / "toy"
    depth = np.zeros((views.views[0].camera.height, views.views[0].camera.width), np.float32)
    ViewSet(tuple(replace(view, depth_source=depth) for view in views), masked).save(capture)
    (capture / "masks").mkdir(exist_ok=True)
    content = json.loads((capture / "transforms.json").read_text())
    del content["viewloom"]
    (capture / "transforms.json").write_text(json.dumps(content))
    damage(capture)
    loaded, said = load_capture(capture), list[str]()
    stage = CaptureStage(loaded, capture, [], CaptureSettings(masks="auto" if masked else "none"), said.append)
    (tmp_path / "views").mkdir()
    stage.run(tmp_path / "views")
    kept = stage.load(tmp_path / "views").views
    lost = {view.name for view in views} - {view.name for view in kept}
    whole = "depths" in str(damage.__code__.co_consts) or ("masks" in str(damage.__code__.co_consts) and not masked)
    assert lost == (set() if whole else {"v3"})
    assert len({view.depth_source for view in kept}) == len(kept)
    notes = " ".join([*loaded.metadata.get("notes", []), *said])
    assert "v3" in notes or (whole and not masked)


def test_masks_that_contradict_each_other_are_the_inputs_fault(
    views: ViewSet, capture_settings: ReconstructSettings, tmp_path: Path
) -> None:
    empty = ViewSet(tuple(View(v.name, v.camera, np.zeros((48, 48, 4), np.uint8)) for v in views), True)
    empty.save(tmp_path / "empty")
    with pytest.raises(InputError, match="8 of 8 masks are empty"):
        reconstruct(tmp_path / "empty", tmp_path / "out", capture_settings)


def test_a_capture_in_the_place_of_a_stage_is_not_overwritten(
    capture: Path, capture_settings: ReconstructSettings, tmp_path: Path, tree: Tree
) -> None:
    other = tmp_path / "job" / "views"
    other.mkdir(parents=True)
    (other / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds files of another origin"):
        reconstruct(capture, tmp_path / "job", capture_settings)
    capture.rename(tmp_path / "views")
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"would be replaced by this job's own views.*Choose an output folder other"):
        reconstruct(tmp_path / "views", tmp_path, capture_settings)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("given", ["views", "views/transforms.json", "../toy/views", "mine.json"])
def test_the_views_of_a_job_are_not_reconstructed_into_the_same_job(
    done: Done, capture_settings: ReconstructSettings, tmp_path: Path, tree: Tree, given: str
) -> None:
    out = tmp_path / "toy"
    shutil.copytree(done.out / "toy", out)
    content = json.loads((out / "views" / "transforms.json").read_text())
    for frame in content["frames"]:
        frame.update({key: f"views/{frame[key]}" for key in ("file_path", "mask_path") if key in frame})
    (out / "mine.json").write_text(json.dumps(content))  # beside the folder whose pictures it names
    before = tree(out)
    with pytest.raises(InputError, match="would be replaced by this job's own views"):
        reconstruct(out / given, out, capture_settings)
    assert tree(out) == before


def test_masks_are_found_chosen_and_insisted_on(views: ViewSet) -> None:
    """White pictures of an orange ball: their background is even enough to tell it from the ball."""
    plain = []
    for view in views:
        rgba = view.rgba().copy()
        rgba[rgba[..., 3] < 128] = (0, 0, 0, 255)
        rgba[..., 3] = 255
        plain.append(View(view.name, view.camera, rgba))
    bare = ViewSet(tuple(plain), False)
    found = with_masks(bare, "auto")
    assert found.has_masks
    for view, true in zip(found, views, strict=True):
        assert ((view.rgba()[..., 3] >= 128) == (true.rgba()[..., 3] >= 128)).mean() > 0.97
    assert not with_masks(views, "none").has_masks
    assert with_masks(views, "given") is views
    assert with_masks(views, "object") is views
    ignoring = with_masks(views, "ignore")
    assert (ignoring.has_masks, ignoring.has_ignored) == (False, True)
    assert with_masks(ignoring, "auto").has_ignored
    for asked, state in (("object", (True, False)), ("none", (False, False))):
        other = with_masks(ignoring, asked)
        assert (other.has_masks, other.has_ignored) == state
    for asked in ("object", "ignore"):
        with pytest.raises(InputError, match="has no masks"):
            with_masks(bare, asked)
    with pytest.raises(InputError, match="has no masks"):
        with_masks(bare, "given")
    noisy = np.random.default_rng(0).integers(0, 255, (48, 48, 4), dtype=np.uint8)
    noisy[..., 3] = 255
    uneven = ViewSet(tuple(View(v.name, v.camera, noisy) for v in views), False)
    assert not with_masks(uneven, "auto").has_masks
    with pytest.raises(InputError):
        with_masks(uneven, "background")


def test_bounds_become_the_bounding_sphere(views: ViewSet) -> None:
    moved, matrix = normalised(views, (-1.0, -2.0, 0.0, 1.0, 2.0, 2.0))
    assert apply_transform(matrix, np.array([0.0, 0.0, 1.0])) == pytest.approx([0, 0, 0])
    corner = apply_transform(matrix, np.array([1.0, 2.0, 2.0]))
    assert np.linalg.norm(corner) == pytest.approx(OBJECT_RADIUS)
    assert moved.views[0].camera.centre == pytest.approx(apply_transform(matrix, views.views[0].camera.centre))
    with pytest.raises(SettingsError, match="the bounds hold nothing"):
        CaptureSettings(bounds=(1.0, 0.0, 0.0, 0.0, 1.0, 1.0))
