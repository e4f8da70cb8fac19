"""A result is only replaced by one of the same input, or when that is asked for; and nothing is written outside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.jobs.image2mesh import image2mesh
from pipeline.jobs.publishing import ForeignResultError, Source, claim_results, publish, sweep, unpublish
from pipeline.jobs.reconstruct import reconstruct
from pipeline.jobs.runner import digest_of_file
from pipeline.jobs.settings import CaptureSettings, Image2MeshSettings, ReconstructSettings
from pipeline.jobs.stages.capture import CaptureStage
from scene.errors import InputError, OutputError
from scene.viewset import ViewSet

Done = Any
Heard = Any
Tree = Callable[[Path], dict[str, bytes]]


def manifest_of(folder: Path, **content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"versions": {"viewloom": "1"}, **content}))
    return folder


CUP = Source("photo", "cup.png", "a")
PLAIN = Source("capture", "plain", "a")
CASES: dict[str, tuple[dict[str, Any], Source, str | None]] = {
    "nothing is known": ({}, CUP, None),
    "the same photo": ({"photo": {"name": "cup.png", "sha256": "a"}}, CUP, None),
    "a photo of that name": ({"photo": {"name": "cup.png", "sha256": "b"}}, CUP, "other content"),
    "another photo": ({"photo": {"name": "cup.jpg", "sha256": "a"}}, CUP, "another photo, cup.jpg"),
    "a capture": ({"capture": "cup"}, CUP, "another capture, cup"),
    "the same capture": ({"capture": "plain", "capture_sha256": "a"}, PLAIN, None),
    "a capture of before": ({"capture": "plain"}, PLAIN, None),
    "another state of it": ({"capture": "plain", "capture_sha256": "b"}, PLAIN, "other content"),
    "another capture": ({"capture": "tagged", "capture_sha256": "a"}, PLAIN, "another capture, tagged"),
    "of another kind": ({"photo": [1], "capture": 7}, PLAIN, None),
}


@pytest.mark.parametrize(("content", "source", "said"), CASES.values(), ids=CASES)
def test_what_may_be_replaced(tmp_path: Path, content: dict[str, Any], source: Source, said: str | None) -> None:
    folder, notes = manifest_of(tmp_path / "out", **content), list[str]()
    if said is not None and "another" in said:
        with pytest.raises(ForeignResultError, match=f"out: holds the result of {said}.*--overwrite"):
            claim_results(folder, source, overwrite=False, note=notes.append)
        assert notes == []
    claim_results(folder, source, overwrite=said is not None, note=notes.append)
    assert [said in note and "is replaced" in note for note in notes] == ([] if said is None else [True])


def test_a_second_capture_does_not_replace_the_first(
    done: Done, capture_settings: ReconstructSettings, tmp_path: Path, tree: Tree, heard: Heard
) -> None:
    out, second = tmp_path / "out", tmp_path / "tagged"
    shutil.copytree(done.out / "toy", out)
    shutil.copytree(done.out / "toy" / "views", second)
    before = tree(out)
    with pytest.raises(ForeignResultError, match=r"holds the result of another photo, toy\.png"):
        reconstruct(second, out, capture_settings)
    (second / "transforms.json").write_text("{")  # nor does its failure
    with pytest.raises(Exception, match="is not a capture file"):
        reconstruct(second, out, capture_settings)
    assert tree(out) == before
    shutil.copy(done.out / "toy" / "views" / "transforms.json", second)
    reconstruct(second, out, capture_settings, overwrite=True, reporter=heard)
    assert (out / "tagged.glb").is_file()
    assert json.loads((out / "manifest.json").read_text())["capture"] == "tagged"
    assert sum("another photo, toy.png: it is replaced" in note for note in heard.notes) == 1


def test_a_photo_of_another_name_does_not_replace_the_first(
    done: Done, settings: Image2MeshSettings, tmp_path: Path, tree: Tree
) -> None:
    shutil.copytree(done.out, tmp_path / "out")
    before = tree(tmp_path / "out")
    for content in (done.photo.read_bytes(), b"no picture"):
        (tmp_path / "toy.jpg").write_bytes(content)
        (result,) = image2mesh([tmp_path / "toy.jpg"], tmp_path / "out", settings)
        assert isinstance(result.error, ForeignResultError)
        assert tree(tmp_path / "out") == before


def restamped(stage: Path) -> None:
    """A stamp that fits what the stage's folder holds now."""
    stamp = json.loads((stage / "stage.json").read_text())
    files = {p.relative_to(stage).as_posix(): digest_of_file(p) for p in stage.rglob("*") if p.is_file()}
    files.pop("stage.json")
    (stage / "stage.json").write_text(json.dumps({**stamp, "files": files}))


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def names(*files: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["files"][0].update(files=list(files))


TAMPERED: dict[str, Callable[[Path], object]] = {
    "names that lead outside": lambda item: edited(item / "asset" / "asset.json", names("../../victim.txt")),
    "a name from the root": lambda item: edited(item / "asset" / "asset.json", names(str(item.parent / "victim.txt"))),
    "the user's own file": lambda item: edited(item / "asset" / "asset.json", names("toy.glb", "notes.txt")),
    "no turntable": lambda item: (item / "asset" / "turntable.webp").unlink(),
    "texts for numbers": lambda item: edited(
        item / "asset" / "asset.json", lambda content: content["measures"].update(iou="much")
    ),
    "no measures": lambda item: edited(item / "asset" / "asset.json", lambda content: content.pop("measures")),
    "an asset of another kind": lambda item: (item / "asset" / "asset.json").write_text("[" * 100_000),
    "no surface": lambda item: (item / "surface" / "surface.npz").write_bytes(b"PK"),
    "a prepared photo of texts": lambda item: edited(
        item / "prepare" / "prepare.json", lambda content: content.update(scale="x")
    ),
    "a cut-out that is none": lambda item: (item / "prepare" / "framed.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0"),
    "views of another kind": lambda item: edited(
        item / "views" / "transforms.json", lambda content: content.update(viewloom={"warnings": 7})
    ),
}


@pytest.mark.parametrize("damage", TAMPERED.values(), ids=TAMPERED)
def test_results_that_were_edited_with_their_stamps_are_made_again(
    done: Done, settings: Image2MeshSettings, tmp_path: Path, tree: Tree, damage: Callable[[Path], object]
) -> None:
    item = tmp_path / "out" / "toy"
    shutil.copytree(done.out, tmp_path / "out")
    (item / "notes.txt").write_text("mine")
    (tmp_path / "victim.txt").write_text("precious")
    (tmp_path / "out" / "victim.txt").write_text("precious")
    damage(item)
    for stage in ("prepare", "views", "surface", "asset"):
        restamped(item / stage)
    (result,) = image2mesh([done.photo], tmp_path / "out", settings)
    assert result.error is None
    (item / "notes.txt").unlink()
    (tmp_path / "out" / "victim.txt").unlink()
    found, expected = (
        {name: data for name, data in tree(out).items() if not name.endswith("stage.json")}
        for out in (tmp_path / "out", done.out)
    )
    assert found == expected
    assert (tmp_path / "victim.txt").read_text() == "precious"


@pytest.mark.parametrize("name", ["../x.glb", "/x.glb", "a/x.glb", "..", "", "a\\x.glb", "c:x.glb"])
def test_names_that_are_none_are_not_published(tmp_path: Path, name: str) -> None:
    (tmp_path / "stage").mkdir()
    with pytest.raises(OutputError, match="is no name of one"):
        publish(tmp_path / "stage", [name], tmp_path / "item")
    assert not (tmp_path / "item").exists()


def test_withdrawing_touches_nothing_outside(tmp_path: Path) -> None:
    item = manifest_of(tmp_path / "item")
    (item / "asset").mkdir()
    for folder in (tmp_path, item):
        (folder / "x.txt").write_text("same")
    (item / "asset" / "asset.json").write_text(json.dumps({"files": [{"files": ["../../x.txt"]}]}))
    unpublish(item)
    assert (item / "x.txt").is_file()
    assert (tmp_path / "x.txt").is_file()


def test_what_a_killed_job_left_aside_is_swept(tmp_path: Path) -> None:
    gone = [".toy.123.0a1b2c3d.glb", ".manifest.9.ffffffff.json", "..surface-fit.77.01234567.npz"]
    kept = [".toy.glb", ".other.123.0a1b2c3d.glb", "toy.123.0a1b2c3d.glb", ".toy.123.0a1b2c3.glb"]
    for name in gone + kept:
        (tmp_path / name).write_text("x")
    sweep(tmp_path, "toy")
    assert {path.name for path in tmp_path.iterdir()} == set(kept)


def test_a_capture_that_only_says_that_it_is_normalised_is_read_like_any_other(
    rendered: Callable[[int, int], ViewSet], tmp_path: Path
) -> None:
    found, notes = rendered(6, 48), list[str]()
    for name, scale in (("as it is", 1.0), ("scaled", 5.0)):
        matrix = np.diag([scale, scale, scale, 1.0])
        replace(found.transformed(matrix), metadata={"normalised": True}).save(tmp_path / name)
        views = ViewSet.load(tmp_path / name)
        stage = CaptureStage(views, tmp_path / name, [], CaptureSettings(), notes.append)
        (tmp_path / f"{name} out").mkdir()
        stage.run(tmp_path / f"{name} out")
        radii = [np.linalg.norm(view.camera.centre) for view in stage.load(tmp_path / f"{name} out").views]
        assert np.median(radii) == pytest.approx(1.5, rel=0.25)
        assert bool(notes) is (scale != 1)
        assert (stage.key[2] == {}) is (scale == 1)
    assert "The capture says that it is normalised, but its masks reach" in notes[0]


@pytest.mark.parametrize("bounds", [None, (-0.3, -0.3, -0.3, 0.3, 0.3, 0.3)])
def test_a_world_five_times_too_large_is_found_without_masks(
    rendered: Callable[[int, int], ViewSet], bounds: tuple[float, ...] | None, tmp_path: Path
) -> None:
    found, notes = (
        replace(rendered(8, 48), has_masks=False, metadata={"region": {"centre": [0, 0, 0], "radius": 3}}),
        [],
    )
    settings = CaptureSettings(masks="none", bounds=bounds)  # type: ignore[arg-type]
    (tmp_path / "first").mkdir()
    CaptureStage(found, tmp_path, [], settings, notes.append).run(tmp_path / "first")
    assert any("in common" in note for note in notes) is (bounds is None)
    first = ViewSet.load(tmp_path / "first")
    radii = np.median([np.linalg.norm(view.camera.centre) for view in first])
    again = CaptureStage(first, tmp_path / "first", [], CaptureSettings())
    assert again.taken_as_it_is
    first.transformed(np.diag([5.0, 5.0, 5.0, 1.0])).save(tmp_path / "large")
    stage = CaptureStage(ViewSet.load(tmp_path / "large"), tmp_path / "large", [], settings)
    (tmp_path / "out").mkdir()
    stage.run(tmp_path / "out")
    assert "times" in str(stage.doubt)
    if bounds is None:
        out = [np.linalg.norm(view.camera.centre) for view in stage.load(tmp_path / "out").views]
        assert np.median(out) == pytest.approx(radii, rel=0.02)


def test_a_coarse_volume_of_another_kind_beside_a_finished_capture(
    rendered: Callable[[int, int], ViewSet], tmp_path: Path
) -> None:
    replace(rendered(4, 32), metadata={"normalised": True}).save(tmp_path / "in")
    cube = np.zeros((4, 4, 4))
    faults: list[tuple[dict[str, Any], str]] = [
        ({"occupancy": cube}, "colours is missing"),
        ({"occupancy": cube[0], "colours": cube}, "not n x n x n numbers"),
        ({"occupancy": cube, "colours": np.zeros((3, 3, 3, 3))}, "no cubes of one size"),
        ({"occupancy": cube + np.nan, "colours": np.zeros((4, 4, 4, 3))}, "not finite"),
        ({"occupancy": cube + 7, "colours": np.zeros((4, 4, 4, 3))}, "not between 0 and 1"),
    ]
    stage = CaptureStage(ViewSet.load(tmp_path / "in"), tmp_path / "in", [], CaptureSettings())
    (tmp_path / "out").mkdir()
    for content, message in faults:
        np.savez(tmp_path / "in" / "coarse.npz", **content)
        with pytest.raises(InputError, match=rf"coarse\.npz: .*{message}"):
            stage.run(tmp_path / "out")


def test_the_digest_of_a_capture_is_in_its_manifest(
    rendered: Callable[[int, int], ViewSet], capture_settings: ReconstructSettings, tmp_path: Path
) -> None:
    rendered(4, 32).save(tmp_path / "plain")
    reconstruct(tmp_path / "plain", tmp_path / "out", capture_settings)
    digest = json.loads((tmp_path / "out" / "manifest.json").read_text())["capture_sha256"]
    assert len(digest) == 64
