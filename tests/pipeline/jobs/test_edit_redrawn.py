"""Edits by views that are drawn anew: what they make and deliver, what is kept and redone, what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from pipeline.editing.control_pictures import control_pictures
from pipeline.editing.controls import MissedControlError, OpenControlError
from pipeline.editing.settings import ConsolidateSettings
from pipeline.editing.target import SkeletonTarget
from pipeline.jobs.edit import SHARES, edit
from pipeline.jobs.reconstruct import reconstruct
from pipeline.jobs.settings import EditMethod, EditorSettings, EditSettings, ReconstructSettings
from qnerf.settings import FieldTrainingSettings, QueryFieldSettings
from recon.export.glb_check import examine_glb
from recon.export.glb_read import read_glb
from recon.export.validate import validate_glb
from scene.captures import load_capture
from scene.errors import CheckpointError, InputError
from scene.skeleton import Skeleton
from scene.view import View
from scene.viewset import ViewSet
from tests.pipeline.jobs import seeing_editor as tiny
from tests.pipeline.jobs.edits import SETTINGS, Made, gap, in_world, pose, target_of

Tree = Callable[[Path], dict[str, bytes]]
FITTED = ["views", "surface", "asset"]
ANEW = ["edited-views", "edited-surface", "edited-asset"]
METHOD = ConsolidateSettings(
    steps=4,
    tau=1,
    start=0.03,  # with more noise the U-Net, which was never trained, leaves nothing of the body
    field=QueryFieldSettings(levels=2, coarsest=4, finest=8, log2_size=8, width=16, geometry=16, hidden=16, samples=6),
    training=FieldTrainingSettings(steps=4, rays=64),
    later_steps=2,
)


class Stepwise:
    """A reporter that keeps the steps of each stage, and stops when it is told to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.steps: dict[str, list[tuple[int, int]]] = {}
        self.stages: list[tuple[str, bool]] = []
        self.notes: list[str] = []
        self.works: list[Any] = []
        self._stop_at = stop_at

    def item(self, name: str, work: Any = None) -> None:
        self.works.append(work)

    def stage(self, name: str, cached: bool) -> None:
        self.stages.append((name, cached))

    def step(self, done: int, total: int) -> None:
        name = self.stages[-1][0]
        self.steps.setdefault(name, []).append((done, total))
        if name == "edited-views" and self._stop_at is not None and done >= self._stop_at:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finished(self) -> None: ...

    def failed(self, text: str) -> None: ...

    @property
    def redone(self) -> list[str]:
        return [name for name, cached in self.stages if not cached]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The editor's folder."""
    folder = tmp_path_factory.mktemp("weights") / "tiny-editor"
    tiny.seeing_editor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def settings(weights: Path) -> EditSettings:
    """Of an edit whose views are drawn anew from the originals."""
    editor = EditorSettings(weights=weights, most_views=6)
    return replace(SETTINGS, method="consolidate", editor=editor, consolidate=METHOD)


def edited(made: Made, folder: Path, settings: EditSettings) -> Made:
    """An edit in a folder that the deformed body was made in before."""
    torch.set_num_threads(1)  # as in tests, whose own start comes after that of fixtures
    told, out = Stepwise(), folder / "out"
    shutil.copytree(made.out, out)
    return Made(made.capture, out, edit(made.capture, out, settings, skeleton=target_of(made), reporter=told), told)


@pytest.fixture(scope="module")
def redrawn(made: Made, settings: EditSettings, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The edit by views drawn anew, made once."""
    return edited(made, tmp_path_factory.mktemp("redrawn"), settings)


@pytest.fixture(scope="module")
def over(made: Made, settings: EditSettings, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The edit by views of the deformed body that are drawn over, made once."""
    return edited(made, tmp_path_factory.mktemp("over"), replace(settings, method="both"))


def copy_of(made: Made, tmp_path: Path) -> Path:
    shutil.copytree(made.out, tmp_path / "out")
    return tmp_path / "out"


def edit_of(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "manifest.json").read_text())["edit"])


def test_views_drawn_anew_become_an_asset(redrawn: Made, weights: Path) -> None:
    out, result, told = redrawn.out, redrawn.result, redrawn.heard
    assert told.stages == [*((name, True) for name in FITTED), *((name, False) for name in ANEW)]
    assert (result.asset, result.original) == (out / "body-edited.glb", out / "body.glb")
    assert (result.rig, result.views) == (None, out / "edited-views")
    assert result.files == (out / "body-edited.glb",)
    assert result.turntable == out / "edited-asset" / "turntable.webp"
    assert not (out / "body-edited-rig.glb").exists()  # of the edit before, by deforming
    assert not (out / ".edit-work").exists()
    assert not list(out.glob(".*"))
    assert validate_glb(out / "body-edited.glb", khronos=False).clean
    made = edit_of(out)
    assert (made["method"], made["file"]) == ("consolidate", "body-edited.glb")
    assert [one["file"] for one in made["files"]] == ["body-edited.glb"]
    assert len(made["intervals"]) == 3
    assert all(one["misfit"] > 0 and len(one["guided"]) == 1 for one in made["intervals"])
    assert (made["editor"]["name"], made["editor"]["licence"]) == ("tiny-editor", "test")
    assert str(weights) not in (out / "manifest.json").read_text()
    extras = examine_glb((out / "body-edited.glb").read_bytes()).content["asset"]["extras"]
    assert extras["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert extras["edit"] == {"method": "consolidate"}
    assert (extras["manifest"]["licence"], extras["manifest"]["seed"]) == ("test", 0)
    assert len(set(told.notes)) == len(told.notes)
    assert "6 of 8 views were drawn; --editor.most-views takes more." in told.notes


def test_the_report_compares_before_target_and_after(redrawn: Made, over: Made) -> None:
    page = (redrawn.out / "report.html").read_text(encoding="utf-8")
    assert "Before, target, after" in page
    assert 'href="body-edited.glb"' in page
    assert "tiny-editor, licence test" in page
    assert "cut apart" not in page.split("manifest")[0]
    assert "edited-rig" not in page
    page = (over.out / "report.html").read_text(encoding="utf-8")
    assert 'href="body-edited-rig.glb"' in page
    assert "left shoulder turns by 90 degrees" in page


def test_the_edited_views_are_framed_alike_and_told_in_the_captures_world(redrawn: Made) -> None:
    folder, given = redrawn.out / "edited-views", load_capture(redrawn.capture)
    views = load_capture(folder)
    assert [view.name for view in views] == ["v0", "v1", "v2", "v4", "v5", "v6"]
    assert {(view.camera.width, view.camera.height) for view in views} == {(tiny.SIDE, tiny.SIDE)}
    moved = np.array(views.metadata["normalised_from_world"])
    positions = {view.name: view.camera.centre for view in given}
    target = Skeleton.load(folder / "skeleton.json")
    np.testing.assert_allclose(target.positions, pose("left").positions, atol=1e-9)
    inside = target.transformed(moved)
    controls = control_pictures(SkeletonTarget(inside, inside), [view.camera for view in views])
    for view, control in zip(views, controls, strict=True):
        there = moved[:3, :3] @ positions[view.name] + moved[:3, 3]
        np.testing.assert_allclose(view.camera.centre, there, atol=1e-6)
        shown = np.array(Image.open(folder / "controls" / f"{view.name}.png"))
        np.testing.assert_array_equal(shown, np.round(control * 255).astype(np.uint8))
        original = np.array(Image.open(folder / "originals" / f"{view.name}.png"))
        alike = (original[..., 3] >= 128) & (view.rgba()[..., 3] >= 128)
        assert alike.sum() > 0.5 * (original[..., 3] >= 128).sum()  # little noise: still the body as it was


def test_the_edited_asset_stands_in_the_frame_of_the_original(redrawn: Made, over: Made) -> None:
    for made in (redrawn, over):
        before, after = (read_glb(made.out / name) for name in ("body.glb", "body-edited.glb"))
        assert before.world_from_asset is not None
        assert after.world_from_asset is not None
        np.testing.assert_allclose(after.world_from_asset, before.world_from_asset, atol=1e-6)
    arm = 6 * 0.055  # with a pixel of the small pictures
    assert gap(in_world(redrawn.out / "body-edited.glb"), pose().joint("left_elbow")) < arm
    assert gap(in_world(over.out / "body-edited.glb"), pose("left").joint("left_elbow")) < arm


def test_views_of_the_deformed_body_are_drawn_over(over: Made) -> None:
    out, told = over.out, over.heard
    assert told.redone == ["edit", "draft-views", *ANEW]
    assert over.result.rig == out / "body-edited-rig.glb"
    assert over.result.files == (out / "body-edited.glb", out / "body-edited-rig.glb")
    assert validate_glb(out / "body-edited-rig.glb", khronos=False).clean
    made = edit_of(out)
    assert made["method"] == "both"
    assert made["moved"] == ["left shoulder turns by 90 degrees"]
    assert [one["file"] for one in made["files"]] == ["body-edited.glb", "body-edited-rig.glb"]
    assert (out / "body-edited.glb").read_bytes() == (out / "edited-asset" / "body-edited.glb").read_bytes()
    control = np.array(Image.open(out / "edited-views" / "controls" / "v0.png"))
    assert (control[..., 0] == control[..., 1]).all()  # depth, whatever the target
    assert len(set(told.notes)) == len(told.notes)


def test_progress_grows_to_its_total(redrawn: Made) -> None:
    steps = redrawn.heard.steps["edited-views"]
    done, totals = zip(*steps, strict=True)
    assert len(set(totals)) == 1
    assert list(done) == sorted(done)
    assert done[-1] == totals[0]


@pytest.mark.parametrize("method", SHARES)
def test_shares_of_time_are_those_of_all_stages(method: EditMethod, made: Made, redrawn: Made, over: Made) -> None:
    run = {"deform": made, "consolidate": redrawn, "both": over}[method]
    assert list(SHARES[method]) == [name for name, _ in run.heard.stages] == list(run.result.seconds)
    assert sum(SHARES[method].values()) == pytest.approx(1)


@pytest.mark.slow
def test_the_same_again_does_no_work_and_another_target_redoes_the_edit_only(
    redrawn: Made, settings: EditSettings, tmp_path: Path, tree: Tree
) -> None:
    out, told = copy_of(redrawn, tmp_path), Stepwise()
    first = tree(out)
    edit(redrawn.capture, out, settings, skeleton=target_of(redrawn), reporter=told)
    assert told.redone == []
    assert tree(out) == first
    assert (out / "body-edited.glb").stat().st_mtime_ns == (redrawn.out / "body-edited.glb").stat().st_mtime_ns
    told, other = Stepwise(), replace(settings, consolidate=replace(METHOD, seed=1))
    edit(redrawn.capture, out, other, skeleton=target_of(redrawn), reporter=told)
    assert told.redone == ANEW
    assert tree(out)["edited-views/images/v0.png"] != first["edited-views/images/v0.png"]
    assert tree(out)["body.glb"] == first["body.glb"]
    assert tree(out)["body-edited.glb"] != first["body-edited.glb"]
    pose("right").save(tmp_path / "other.json")
    told = Stepwise()
    edit(redrawn.capture, out, settings, skeleton=tmp_path / "other.json", reporter=told)
    assert told.redone == ANEW


@pytest.mark.slow
def test_other_methods_deliver_their_own_files(
    made: Made, redrawn: Made, over: Made, settings: EditSettings, tmp_path: Path, tree: Tree
) -> None:
    """Deformed, drawn anew, deformed; drawn over, drawn anew."""
    out, told = copy_of(redrawn, tmp_path), Stepwise()
    result = edit(made.capture, out, SETTINGS, skeleton=target_of(made), reporter=told)
    assert told.redone == ["edited-views"]
    assert result.rig == out / "body-edited-rig.glb"
    wanted, found = tree(made.out), tree(out)
    assert {name: found[name] for name in wanted} == wanted
    assert {name for name in set(found) - set(wanted) if "/" not in name} == set()
    shutil.rmtree(out)
    copy_of(over, tmp_path)
    result = edit(made.capture, out, settings, skeleton=target_of(made))
    assert result.rig is None
    assert not (out / "body-edited-rig.glb").exists()
    wanted, found = tree(redrawn.out), tree(out)
    assert {name: found[name] for name in wanted if not name.startswith("edit/")} == {
        name: content for name, content in wanted.items() if not name.startswith("edit/")
    }


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [1, 9, 15])
def test_a_killed_run_continues_to_the_same_bytes(
    redrawn: Made, settings: EditSettings, tmp_path: Path, tree: Tree, stop_at: int
) -> None:
    out = copy_of(redrawn, tmp_path)
    for name in ANEW:
        shutil.rmtree(out / name)
    (out / "body-edited.glb").unlink()
    with pytest.raises(KeyboardInterrupt):
        edit(redrawn.capture, out, settings, skeleton=target_of(redrawn), reporter=Stepwise(stop_at))
    assert (out / ".edit-work").is_dir()
    assert not (out / "edited-views").exists()
    assert not (out / "body-edited.glb").exists()
    told = Stepwise()
    edit(redrawn.capture, out, settings, skeleton=target_of(redrawn), reporter=told)
    if stop_at > 6:  # the first interval was done: three steps of two parts of the views
        assert told.steps["edited-views"][0][0] >= 6
    assert tree(out) == tree(redrawn.out)
    assert not (out / ".edit-work").exists()


_DIES = """
import os, pickle, signal, sys
from pipeline.jobs.edit import edit
from tests.pipeline.jobs.test_edit_redrawn import Stepwise

class Dying(Stepwise):
    def step(self, done, total):
        super().step(done, total)
        if self.stages[-1][0] == stage and done >= at:
            os.kill(os.getpid(), signal.SIGKILL)

capture, out, settings, target, stage, at = pickle.loads(sys.stdin.buffer.read())
edit(capture, out, settings, skeleton=target, reporter=Dying())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system kills in another way")
@pytest.mark.parametrize(("stage", "at"), [("edited-views", 9), ("edited-surface", 1)])
def test_what_a_killed_edit_left_does_not_outlast_one_by_deforming(
    made: Made, redrawn: Made, settings: EditSettings, tmp_path: Path, tree: Tree, stage: str, at: int
) -> None:
    out, target = copy_of(made, tmp_path), target_of(made)
    told = pickle.dumps((made.capture, out, settings, target, stage, at))
    died = subprocess.run([sys.executable, "-c", _DIES], input=told, cwd=Path(__file__).parents[3], check=False)
    assert died.returncode == -signal.SIGKILL
    (out / ".edited-surface-fit.npz").write_bytes(b"of a fit that takes longer")
    left = {path.name.split(".")[1] for path in out.glob(".*")}
    assert left >= {stage, "edited-surface-fit"} | ({"edit-work"} if stage == "edited-views" else set())
    assert not (out / "body-edited-rig.glb").exists()  # of the deformed body, which is no longer the edit
    edit(made.capture, out, SETTINGS, skeleton=target)
    wanted, found = tree(made.out), tree(out)
    assert found == wanted
    assert not list(out.glob(".*"))
    edit(made.capture, out, settings, skeleton=target)
    again = tree(redrawn.out)
    assert {name: content for name, content in tree(out).items() if name in again} == again


@pytest.mark.slow
def test_edited_views_are_a_capture_again(redrawn: Made, tmp_path: Path) -> None:
    again = reconstruct(
        redrawn.out / "edited-views",
        tmp_path / "again",
        ReconstructSettings(SETTINGS.capture, SETTINGS.fit, SETTINGS.mesh),
    )
    assert again.asset is not None
    before = in_world(redrawn.out / "body-edited.glb")
    np.testing.assert_allclose(in_world(again.asset).mean(axis=0), before.mean(axis=0), atol=0.3)
    pose("left", "right").save(tmp_path / "target.json")
    result = edit(redrawn.out / "edited-views", tmp_path / "more", SETTINGS, skeleton=tmp_path / "target.json")
    assert result.rig is not None
    moved = json.loads((tmp_path / "more" / "manifest.json").read_text())["edit"]["moved"]
    assert [text.split(" turns")[0] for text in moved] == ["right shoulder"]  # the left one was up already
    with pytest.raises(InputError, match="would be replaced by this job's own edited-views"):
        edit(redrawn.out / "edited-views", redrawn.out, SETTINGS, skeleton=tmp_path / "target.json", overwrite=True)


@pytest.mark.slow
def test_views_of_any_size_and_a_loose_mesh(made: Made, settings: EditSettings, tmp_path: Path) -> None:
    views = []
    for k, view in enumerate(load_capture(made.capture)):
        camera = view.camera.resized(64 - 8 * (k % 3), 64 - 8 * (k % 3))
        picture = Image.fromarray(view.rgba()).resize((camera.width, camera.height))
        views.append(View(view.name, camera, np.array(picture)))
    ViewSet(tuple(views), True).save(tmp_path / "body")
    (low, high) = (getattr(in_world(made.out / "body.glb"), end)(axis=0) for end in ("min", "max"))
    loose = trimesh.creation.box(bounds=np.stack([low - 0.1, high + 0.1]))
    loose.export(tmp_path / "loose.ply")
    told = Stepwise()
    result = edit(tmp_path / "body", tmp_path / "out", settings, depth=tmp_path / "loose.ply", reporter=told)
    assert result.files == (tmp_path / "out" / "body-edited.glb",)
    drawn = load_capture(tmp_path / "out" / "edited-views")
    assert {(view.camera.width, view.camera.height) for view in drawn} == {(tiny.SIDE, tiny.SIDE)}
    assert not (tmp_path / "out" / "edited-views" / "skeleton.json").exists()


def test_a_target_like_the_original_is_told(redrawn: Made, settings: EditSettings, tmp_path: Path) -> None:
    out, told = copy_of(redrawn, tmp_path), Stepwise()
    same = redrawn.capture / "skeleton.json"
    quick = replace(settings, consolidate=replace(METHOD, mode="none"))
    result = edit(redrawn.capture, out, quick, skeleton=same, reporter=told)
    assert told.notes.count("The target is equal to the original: nothing moves.") == 1
    assert result.warnings.count("The target is equal to the original: nothing moves.") == 1
    assert edit_of(out)["intervals"] == []


# --- what is refused --------------------------------------------------------------------------------------------------


def save_mesh(path: Path, made: Made, shift: float = 0.0, faces: int | None = None) -> Path:
    """The captured body in its world, or a part of its faces."""
    vertices = in_world(made.out / "body.glb")
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    box = trimesh.creation.box(bounds=np.stack([low, high]) + shift)
    trimesh.Trimesh(box.vertices, box.faces[:faces], process=False).export(path)
    return path


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("deformed", InputError, "--method deform cannot follow it"),
        ("drawn over", InputError, "--method both cannot follow it"),
        ("open", OpenControlError, "the control mesh is open"),
        ("empty", InputError, "control mesh"),
        ("away", MissedControlError, "the control mesh lies outside all views"),
        ("one view", InputError, "one view tells no surface"),
        ("no weights", CheckpointError, "there is no such checkpoint folder or file"),
        ("no editor", CheckpointError, "is a checkpoint of another kind"),
        ("no index", CheckpointError, "is no folder with a model_index.json"),
        ("another vae", CheckpointError, "was trained on the latents of another VAE"),
        ("damaged", CheckpointError, "unet"),
        ("no such control", CheckpointError, "the editor has no ControlNet for skeleton"),
        ("a prompt", InputError, "the editor has its own ControlNet, and an empty prompt"),
        ("none embedded", CheckpointError, "the embedded editor is missing.*use --method deform"),
    ],
)
def test_what_files_tell_is_refused_before_any_work(
    made: Made,
    settings: EditSettings,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: type[InputError],
    said: str,
) -> None:
    capture, given = made.capture, {"skeleton": target_of(made)}
    folder = tmp_path / "editor"
    if name in ("deformed", "drawn over"):
        given = {"depth": save_mesh(tmp_path / "mesh.ply", made)}
        settings = replace(settings, method="deform" if name == "deformed" else "both")
    elif name in ("open", "empty", "away"):
        faces, shift = {"open": (11, 0.0), "empty": (0, 0.0), "away": (None, 1e3)}[name]
        given = {"depth": save_mesh(tmp_path / "mesh.stl", made, shift, faces)}
    elif name == "one view":
        capture = tmp_path / "body"
        shutil.copytree(made.capture, capture)
        content = json.loads((capture / "transforms.json").read_text())
        (capture / "transforms.json").write_text(json.dumps({**content, "frames": content["frames"][:1]}))
    elif name == "none embedded":
        monkeypatch.setattr("scene.resources._ROOT", tmp_path)
        settings = replace(settings, editor=EditorSettings())
    else:
        shutil.copytree(weights, folder)
        index = folder / "model_index.json"
        plain = json.loads(index.read_text())
        prompt = ""
        if name == "no weights":
            shutil.rmtree(folder)
        elif name == "no editor":
            index.write_text(json.dumps({**plain, "_class_name": "ViewDiffusion"}))
        elif name == "no index":
            index.unlink()
        elif name == "another vae":
            shutil.rmtree(folder)
            tiny.seeing_editor().save_pretrained(folder, vae=False)
        elif name == "damaged":
            [file] = (folder / "unet").glob("*.safetensors")
            file.write_bytes(file.read_bytes()[:1000])
        elif name == "no such control":
            index.write_text(json.dumps({**plain, "viewloom": {**plain["viewloom"], "controls": ["depth"]}}))
        else:
            prompt = "a knight"
        settings = replace(settings, editor=EditorSettings(weights=folder, prompt=prompt))
    out = tmp_path / "out"
    with pytest.raises(kind, match=said) as caught:
        edit(capture, out, settings, **given)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert not [path for path in out.rglob("*") if path.name.endswith((".glb", ".json"))]


def test_deforming_needs_no_editor(made: Made, again: Path, heard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scene.resources._ROOT", again)
    edit(made.capture, again, SETTINGS, skeleton=target_of(made), reporter=heard)
    assert heard.redone == []


@pytest.mark.parametrize("name", ["skeletons elsewhere", "mesh elsewhere", "deaf"])
def test_what_the_surface_or_the_model_tells_leaves_what_was_made(
    redrawn: Made, settings: EditSettings, tmp_path: Path, name: str
) -> None:
    out = copy_of(redrawn, tmp_path)
    given, kind, said = {"skeleton": target_of(redrawn)}, InputError, ""
    if name == "skeletons elsewhere":
        for file, skeleton in (("target.json", pose("left")), ("rest.json", pose())):
            Skeleton(skeleton.positions + np.array((0, 1.9, 0.9))).save(tmp_path / file)
        given = {"skeleton": tmp_path / "target.json", "rest": tmp_path / "rest.json"}
        kind, said = MissedControlError, "the skeleton lies outside the object"
    elif name == "mesh elsewhere":
        cameras = [view.camera for view in load_capture(redrawn.capture)]
        place = pose().positions.mean(axis=0) + 0.45 * (cameras[0].centre - pose().positions.mean(axis=0))
        trimesh.creation.icosphere(radius=0.05).apply_translation(place).export(tmp_path / "mesh.ply")
        given, kind, said = {"depth": tmp_path / "mesh.ply"}, MissedControlError, "the control mesh misses the object"
    else:
        tiny.seeing_editor(deaf=True).save_pretrained(tmp_path / "deaf")
        settings = replace(settings, editor=EditorSettings(weights=tmp_path / "deaf"))
        kind, said = CheckpointError, r"the control \(skeleton\) changes nothing"
    with pytest.raises(kind, match=said) as caught:
        edit(redrawn.capture, out, settings, **given)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert (out / "body.glb").read_bytes() == (redrawn.out / "body.glb").read_bytes()
    assert "edit" not in json.loads((out / "manifest.json").read_text())
    assert "Before, target, after" not in (out / "report.html").read_text(encoding="utf-8")
    assert not (out / "body-edited-rig.glb").exists()
    assert not (out / "body-edited.glb").exists()  # it would pass for the result of this run


def test_captures_without_masks_are_refused_before_a_surface_is_fitted(
    made: Made, settings: EditSettings, heard: Any, tmp_path: Path
) -> None:
    unmasked = replace(settings, capture=replace(settings.capture, masks="none"))
    with pytest.raises(InputError, match=r"no masks.*--method deform") as caught:
        edit(made.capture, tmp_path / "out", unmasked, skeleton=target_of(made), reporter=heard)
    assert caught.value.exit_code == 2
    assert heard.redone == ["views"]
