"""Edits of captures: the asset and its edited twin, in any world; what is kept, what is redone, what is refused."""

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
from scipy.spatial import KDTree

from pipeline.editing.boxes import BoxTarget
from pipeline.jobs.edit import edit
from pipeline.jobs.reconstruct import reconstruct
from pipeline.jobs.settings import ReconstructSettings
from recon.export.glb_check import examine_glb
from recon.export.glb_read import read_glb
from recon.export.validate import validate_glb
from scene.camera import apply_transform
from scene.captures import load_capture
from scene.errors import InputError
from scene.skeleton import Skeleton
from tests.pipeline.jobs.edits import SETTINGS, STAGES, Made, gap, in_world, pose, target_of, to_world

Heard = Any
Tree = Callable[[Path], dict[str, bytes]]


def test_an_edit_makes_the_asset_and_its_twin(made: Made) -> None:
    out, result = made.out, made.result
    files = {"body.glb", "body-edited.glb", "body-edited-rig.glb", "manifest.json", "report.html"}
    assert {p.name for p in out.iterdir()} == {*STAGES, *files}
    assert (result.asset, result.original) == (out / "body-edited.glb", out / "body.glb")
    assert (result.rig, result.views) == (out / "body-edited-rig.glb", out / "edited-views")
    assert result.turntable == out / "edit" / "turntable.webp"
    assert result.files == (out / "body-edited.glb", out / "body-edited-rig.glb")
    assert list(result.seconds) == STAGES
    for name in ("body.glb", "body-edited.glb", "body-edited-rig.glb"):
        assert validate_glb(out / name, khronos=False).clean
    assert made.heard.stages == [(name, False) for name in STAGES]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["edit"]["moved"] == ["left shoulder turns by 90 degrees"]
    assert manifest["edit"]["health"]["watertight"] is True
    assert str(out.parent) not in json.dumps(manifest)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Before, target, after" in page
    assert 'id="turn-edited"' in page
    assert 'href="body-edited.glb"' in page


def test_the_surface_goes_where_the_target_is(made: Made) -> None:
    before, after = in_world(made.out / "body.glb"), in_world(made.out / "body-edited.glb")
    rest, target = pose(), pose("left")
    arm = 0.055 * 3  # times about 0.7, by which the body was normalised
    for points, there, away in ((before, rest, target), (after, target, rest)):
        assert gap(points, there.joint("left_wrist")) < arm
        assert gap(points, away.joint("left_wrist")) > 2 * arm
    far = np.abs(before[:, 1] - rest.joint("right_wrist")[1]) < arm  # the other hand stays
    assert far.any()
    assert max(gap(after, place) for place in before[far]) < 0.02


def test_the_rig_goes_from_the_one_to_the_other(made: Made) -> None:
    rig = examine_glb((made.out / "body-edited-rig.glb").read_bytes())
    assert len(rig.content["animations"]) == 1
    place = rig.arrays[rig.content["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    static = read_glb(made.out / "body.glb").vertices
    assert KDTree(place).query(static)[0].max() < 1e-5


def test_edited_views_are_a_capture_of_the_target(made: Made, tmp_path: Path) -> None:
    given, views = load_capture(made.capture), load_capture(made.out / "edited-views")
    assert [view.name for view in views] == [view.name for view in given]
    for one, other in zip(views, given, strict=True):
        np.testing.assert_allclose(one.camera.c2w, other.camera.c2w, atol=1e-6)
        assert (one.camera.width, one.camera.height) == (48, 48)
        assert one.camera.fx == pytest.approx(other.camera.fx * 48 / 64)
    target = Skeleton.load(made.out / "edited-views" / "skeleton.json")
    np.testing.assert_allclose(target.positions, pose("left").positions, atol=1e-9)
    seen = []
    for view in views:
        pixels, _ = view.camera.project(target.joint("left_elbow")[None])
        seen.append(view.rgba()[int(pixels[0, 1]), int(pixels[0, 0]), 3])
        control = np.array(Image.open(made.out / "edited-views" / "controls" / f"{view.name}.png"))
        assert control.shape == (48, 48, 3)
        assert control.max() > 100
    assert np.mean(np.array(seen) > 128) > 0.8
    again = reconstruct(
        made.out / "edited-views",
        tmp_path / "again",
        ReconstructSettings(SETTINGS.capture, SETTINGS.fit, SETTINGS.mesh),
    )
    assert again.asset is not None
    assert gap(in_world(again.asset), target.joint("left_wrist")) < 0.25


def test_a_second_run_does_no_work_and_another_target_redoes_the_edit_only(
    made: Made, again: Path, heard: Heard, tree: Tree
) -> None:
    first = tree(again)
    edit(made.capture, again, SETTINGS, skeleton=target_of(made), reporter=heard)
    assert heard.redone == []
    assert tree(again) == first
    other = again.parent / "other.json"
    pose("right").save(other)
    heard.stages.clear()
    edit(made.capture, again, SETTINGS, skeleton=other, reporter=heard)
    assert heard.redone == ["edit", "edited-views"]
    assert (again / "body.glb").read_bytes() == first["body.glb"]
    assert (again / "body-edited.glb").read_bytes() != first["body-edited.glb"]
    heard.stages.clear()
    reconstruct(made.capture, again, ReconstructSettings(SETTINGS.capture, SETTINGS.fit, SETTINGS.mesh), reporter=heard)
    assert heard.redone == []


@pytest.mark.parametrize("when", ["asset", "edit", "edited-views", "step"])
def test_a_stopped_run_continues_to_the_same_bytes(
    made: Made, again: Path, heard: Heard, tree: Tree, when: str
) -> None:
    """Of what the capture's own job has no test for: from the asset on."""

    class Stopping(type(heard)):  # type: ignore[misc]
        def stage(self, name: str, cached: bool) -> None:
            super().stage(name, cached)
            if name == when:
                raise KeyboardInterrupt

        def step(self, done: int, total: int) -> None:
            if when == "step" and self.stages[-1][0] == "edited-views" and done == 3:
                raise KeyboardInterrupt

    for name in STAGES[STAGES.index("edited-views" if when == "step" else when) :]:
        shutil.rmtree(again / name)
    with pytest.raises(KeyboardInterrupt):
        edit(made.capture, again, SETTINGS, skeleton=target_of(made), reporter=Stopping())
    assert not (again / "edited-views").exists()
    edit(made.capture, again, SETTINGS, skeleton=target_of(made), reporter=heard)
    assert tree(again) == tree(made.out)


def test_boxes_reshape_what_they_hold(made: Made, again: Path, heard: Heard) -> None:
    settings = replace(SETTINGS, glb=replace(SETTINGS.glb, formats=("glb", "ply")))
    result = edit(made.capture, again, settings, boxes=made.capture.parent / "boxes.json", reporter=heard)
    assert heard.redone == ["asset", "edit", "edited-views"]
    assert result.rig is None
    assert not (again / "body-edited-rig.glb").exists()  # of the edit before
    assert result.files == (again / "body-edited.glb", again / "body-edited.ply")
    before, after = in_world(again / "body.glb"), in_world(again / "body-edited.glb")
    scale = np.cbrt(np.linalg.det(to_world()[:3, :3]))
    lowest = apply_transform(to_world(), np.array([[0, 0, -0.45]]))[0, 2]
    assert after[:, 2].min() == pytest.approx(lowest, abs=0.15 * scale)
    assert after[:, 2].max() == pytest.approx(before[:, 2].max(), abs=0.01)
    moved = json.loads((again / "manifest.json").read_text())["edit"]["moved"]
    assert len(moved) == 1
    assert moved[0].startswith("box 0 is stretched by 1.50 x 1.00 x 1.00")
    assert not (again / "edited-views" / "skeleton.json").exists()


def test_a_target_like_the_original_is_told_and_changes_nothing(made: Made, again: Path, heard: Heard) -> None:
    result = edit(made.capture, again, SETTINGS, skeleton=made.capture / "skeleton.json", reporter=heard)
    assert "The target is equal to the original: nothing moves." in result.warnings
    before, after = (read_glb(again / name).vertices for name in ("body.glb", "body-edited.glb"))
    assert KDTree(after).query(before)[0].max() < 1e-6


def test_a_world_that_was_turned_upright_takes_its_skeleton_along(made: Made, heard: Heard, tmp_path: Path) -> None:
    """The file's world lies on its side; the skeleton is in that world."""
    lying = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    folder = tmp_path / "body"
    load_capture(made.capture).transformed(lying).save(folder)
    pose().transformed(lying).save(folder / "skeleton.json")
    pose("left").transformed(lying).save(tmp_path / "target.json")
    settings = replace(SETTINGS, capture=replace(SETTINGS.capture, up="+y"))
    result = edit(folder, tmp_path / "out", settings, skeleton=tmp_path / "target.json", reporter=heard)
    assert result.asset is not None
    target = pose("left").transformed(lying)
    assert gap(in_world(result.asset), target.joint("left_wrist")) < 0.165
    edited = Skeleton.load(tmp_path / "out" / "edited-views" / "skeleton.json")
    np.testing.assert_allclose(edited.positions, pose("left").positions, atol=1e-9)


def test_a_normalised_capture_remembers_the_world_of_its_skeleton(made: Made, tmp_path: Path) -> None:
    """What an earlier job made of the capture is one, too; targets stay as they are."""
    folder = tmp_path / "body"
    shutil.copytree(made.out / "views", folder)
    result = edit(folder, tmp_path / "out", SETTINGS, skeleton=target_of(made), rest=made.capture / "skeleton.json")
    assert result.asset is not None
    assert gap(in_world(result.asset), pose("left").joint("left_wrist")) < 0.165
    given, views = load_capture(folder), load_capture(tmp_path / "out" / "edited-views")
    np.testing.assert_allclose(views.views[3].camera.c2w, given.views[3].camera.c2w, atol=1e-9)
    edited = Skeleton.load(tmp_path / "out" / "edited-views" / "skeleton.json")
    matrix = np.array(given.metadata["normalised_from_world"])
    np.testing.assert_allclose(edited.positions, pose("left").transformed(matrix).positions, atol=1e-9)


def nowhere(skeleton: Skeleton, shift: tuple[float, float, float]) -> Skeleton:
    return Skeleton(skeleton.positions + np.array(shift))


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def bad(name: str, folder: Path) -> dict[str, Path]:
    """Arguments of an edit that cannot be made; the folder is a copy of the capture."""
    target, rest = folder.parent / "target.json", folder / "skeleton.json"
    given = {"skeleton": target}
    if name == "joint missing":
        changed(target, lambda content: content["joints"].pop("nose"))
    elif name == "joint too many":
        changed(target, lambda content: content["joints"].update(tail=[0, 0, 0]))
    elif name == "NaN":
        changed(target, lambda content: content["joints"].update(nose=[math.nan, 0, 0]))
    elif name == "trunk unknown":
        changed(target, lambda content: content["joints"].update(neck=None))
    elif name == "long bone":
        longer = pose("left").positions.copy()
        longer[7] += longer[7] - longer[6]
        Skeleton(longer).save(target)
    elif name == "behind the cameras":
        nowhere(pose("left"), (0, 0, 1e4)).save(target)
    elif name == "both skeletons outside the object":
        for path, skeleton in ((target, pose("left")), (rest, pose())):
            nowhere(skeleton, (0, 1.9, 0.9)).save(path)
    elif name == "no rest":
        rest.unlink()
    elif name == "box misses":
        boxes = BoxTarget.load(folder.parent / "boxes.json")
        boxes.before[0, :3, 3] += (0, 4, 0)
        boxes.save(folder.parent / "boxes.json")
        given = {"boxes": folder.parent / "boxes.json"}
    elif name == "both":
        given = {"skeleton": target, "boxes": folder.parent / "boxes.json"}
    elif name == "neither":
        given = {}
    elif name == "one view":
        changed(folder / "transforms.json", lambda content: content.update(frames=content["frames"][:1]))
    else:
        raise AssertionError(name)
    return given


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("joint missing", "joint is missing: nose"),
        ("joint too many", "there is no joint 'tail'"),
        ("NaN", "nose"),
        ("trunk unknown", "joint neck must be known"),
        ("long bone", "left_elbow to left_wrist 2.00 times"),
        ("behind the cameras", "joints of the target lie"),
        ("both skeletons outside the object", "the skeleton lies outside the object"),
        ("no rest", "the capture has no skeleton.json"),
        ("box misses", "box 0 misses the object"),
        ("both", "got a skeleton and boxes"),
        ("neither", "got none"),
        ("one view", "one view tells no surface"),
    ],
)
def test_bad_input_is_told_and_finished_work_is_kept(
    made: Made, again: Path, heard: Heard, tmp_path: Path, name: str, said: str
) -> None:
    folder = tmp_path / "body"
    shutil.copytree(made.capture, folder)
    for file in ("target.json", "boxes.json"):
        shutil.copy(made.capture.parent / file, tmp_path / file)
    given = bad(name, folder)
    with pytest.raises(InputError, match=said) as caught:
        edit(folder, again, SETTINGS, reporter=heard, **given)
    assert "\n" not in str(caught.value)
    assert (again / "body.glb").read_bytes() == (made.out / "body.glb").read_bytes()
    if name in ("both skeletons outside the object", "box misses"):
        assert not (again / "body-edited.glb").exists()  # it would pass for the result of this run
        assert (again / "report.html").exists()
        assert "edit" not in json.loads((again / "manifest.json").read_text())
    assert heard.redone in ([], ["edit"], ["views", "surface", "asset", "edit"])


def test_bones_of_other_lengths_can_be_fitted(made: Made, again: Path, tmp_path: Path) -> None:
    longer = pose("left").positions.copy()
    longer[7] += longer[7] - longer[6]
    Skeleton(longer).save(tmp_path / "target.json")
    settings = replace(SETTINGS, fit_bones=True)
    edit(made.capture, again, settings, skeleton=tmp_path / "target.json")
    np.testing.assert_allclose(in_world(again / "body-edited.glb"), in_world(made.out / "body-edited.glb"), atol=1e-5)
