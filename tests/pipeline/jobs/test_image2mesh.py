"""Photos to assets: what is written, and what is kept."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.jobs.image2mesh import image2mesh, make_views
from pipeline.jobs.manifest import versions
from pipeline.jobs.settings import Image2MeshSettings, settings_as_dict
from pipeline.jobs.time_left import Work
from pipeline.jobs.view_model import JobViewModel
from recon.export.validate import find_khronos_validator, validate_glb
from scene.photo import load_rgba
from scene.viewset import ViewSet
from tests.pipeline.jobs.conftest import STAGES, Done, Heard

Tree = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def again(done: Done, tmp_path: Path) -> Path:
    """A copy of the finished job's output folder, to go on with."""
    shutil.copytree(done.out, tmp_path / "out")
    return tmp_path / "out"


# --- what a job leaves ------------------------------------------------------------------------------------------------


def test_a_photo_becomes_a_sound_asset_with_everything_beside_it(done: Done) -> None:
    folder = done.out / "toy"
    assert (done.result.name, done.result.folder, done.result.error) == ("toy", folder, None)
    assert done.result.asset == folder / "toy.glb"
    assert {p.name for p in done.out.iterdir()} == {"toy"}
    assert {p.name for p in folder.iterdir()} == {*STAGES, "toy.glb", "manifest.json", "report.html"}
    assert validate_glb(done.result.asset, khronos=False).clean
    assert done.result.asset.read_bytes() == (folder / "asset" / "toy.glb").read_bytes()
    with Image.open(folder / "asset" / "turntable.webp") as turntable:
        assert (turntable.n_frames, turntable.size) == (4, (48, 48))
    with Image.open(folder / "asset" / "evidence.webp") as evidence:
        assert (evidence.n_frames, evidence.size) == (4, (24, 24))


def test_the_health_of_the_asset_is_told_in_a_line(done: Done) -> None:
    line = re.compile(r"toy\.glb: [\d,]+ triangles, \d+ pieces?, (watertight, genus \d+|.* edges), .* m, \d\.\d\d MB")
    assert len([note for note in done.heard.notes if line.fullmatch(note)]) == 1


def test_the_result_names_what_was_made(done: Done) -> None:
    folder, result = done.out / "toy", done.result
    assert result.files == (folder / "toy.glb",)
    assert (result.views, result.report) == (folder / "views", folder / "report.html")
    assert result.turntable == folder / "asset" / "turntable.webp"
    assert result.turntable.is_file()
    assert list(result.seconds) == STAGES
    assert min(result.seconds.values()) > 0
    asset = json.loads((folder / "manifest.json").read_text())["asset"]
    assert (asdict(result.evidence), result.verdict.word) == (asset["evidence"], asset["verdict"]["word"])
    assert asset["measures"]["cutout"] == 1.0  # the photo came cut out


def test_progress_is_told(done: Done) -> None:
    (work,) = done.heard.works
    assert (work.number, work.count) == (1, 1)
    assert list(work.shares) == STAGES
    assert sum(work.shares.values()) == pytest.approx(1)
    assert done.heard.ends == ["finished"]
    assert done.heard.items == [f"{done.photo} -> {done.out / 'toy'}"]
    assert done.heard.stages == [(stage, False) for stage in STAGES]
    assert done.heard.steps == [(1, 2), (2, 2), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_cut_out_is_kept_as_the_model_saw_it(done: Done, pixels: np.ndarray) -> None:
    folder = done.out / "toy" / "prepare"
    assert np.array_equal(load_rgba(folder / "cutout.png"), pixels)
    assert np.array_equal(np.array(Image.open(folder / "mask.png")), pixels[..., 3])
    assert load_rgba(folder / "framed.png").shape == (64, 64, 4)


def test_the_views_are_a_capture_of_the_photo_and_the_rings(done: Done, settings: Image2MeshSettings) -> None:
    views = ViewSet.load(done.out / "toy" / "views")
    assert [view.name for view in views] == ["photo", "view_00", "view_01", "view_02"]
    assert views.has_masks
    assert np.array_equal(views.views[0].rgba(), load_rgba(done.out / "toy" / "prepare" / "framed.png"))
    azimuths = [math.degrees(math.atan2(*view.camera.centre[[1, 0]])) % 360 for view in views.views[1:]]
    assert azimuths == pytest.approx([45, 165, 285], abs=1e-4)
    for view in views.views[1:]:
        assert math.degrees(math.asin(view.camera.centre[2] / 1.5)) == pytest.approx(10, abs=1e-4)
    # Confidence falls with the angle to the photo, from 0.8 to 0.5.
    directions = [view.camera.centre / np.linalg.norm(view.camera.centre) for view in views]
    expected = [0.8 - 0.3 * (1 - directions[0] @ direction) / 2 for direction in directions[1:]]
    assert [view.weight for view in views] == pytest.approx([1.0, *expected], abs=1e-5)
    assert views.metadata["normalised"] is True
    assert views.metadata["elevation"] == "predicted"


def test_the_manifest_says_what_the_asset_was_made_of(done: Done, settings: Image2MeshSettings) -> None:
    manifest = json.loads((done.out / "toy" / "manifest.json").read_text())
    plain = settings_as_dict(settings)
    del plain["views"]["weights"]
    assert manifest["settings"] == plain
    assert manifest["settings"]["views"]["sampling"]["seed"] == 0
    assert manifest["versions"] == versions()
    assert {"viewloom", "torch", "diffusers", "numpy", "python"} <= set(manifest["versions"])
    assert "unknown" not in manifest["versions"].values()
    assert manifest["weights"]["licence"] == "test"
    assert len(manifest["weights"]["sha256"]) == len(manifest["photo"]["sha256"]) == 64
    assert manifest["photo"]["name"] == "toy.png"
    assert manifest["asset"]["file"] == "toy.glb"
    assert manifest["asset"]["bytes"] == done.result.asset.stat().st_size
    assert manifest["asset"]["health"]["watertight"] is True
    assert max(manifest["asset"]["health"]["size"]) == pytest.approx(0.3, abs=1e-6)
    (glb,) = manifest["asset"]["files"]
    assert (glb["file"], glb["files"], glb["bytes"]) == ("toy.glb", ["toy.glb"], manifest["asset"]["bytes"])
    assert glb["limits"]["triangles"] == {"limit": 400, "value": manifest["asset"]["health"]["faces"], "held": True}
    assert manifest["asset"]["broken_limits"] == []
    assert manifest["warnings"] == []


def test_the_asset_itself_says_so_too(done: Done) -> None:
    data = done.result.asset.read_bytes()
    content = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    assert content["asset"]["generator"].startswith("viewloom")
    assert content["asset"]["extras"]["manifest"] == {"licence": "test", "versions": versions(), "seed": 0}
    kind = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    assert content["asset"]["extras"]["digitalSourceType"] == kind


def test_no_result_holds_a_path_or_a_time(done: Done, tiny_checkpoint: Path) -> None:
    for path in (done.out / "toy").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert str(done.out.parent).encode() not in data, path.name
            assert str(tiny_checkpoint).encode() not in data, path.name
            if path.suffix == ".json":
                assert b"second" not in data, path.name


# --- what is kept and what is redone ----------------------------------------------------------------------------------


def test_a_second_run_does_no_work(
    done: Done, again: Path, settings: Image2MeshSettings, tree: Tree, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = "pipeline.jobs.view_model.load_view_model"
    monkeypatch.setattr(loading, lambda *_, **__: pytest.fail("the model was loaded"))
    before = {p: p.stat().st_mtime_ns for p in again.glob("toy/*/**/*")}
    glb = (again / "toy" / "toy.glb").stat().st_mtime_ns
    result = image2mesh([done.photo], again, settings, reporter=heard)[0]
    assert result.asset == again / "toy" / "toy.glb"
    assert heard.stages == [(stage, True) for stage in STAGES]
    assert heard.steps == []
    assert tree(again) == tree(done.out)
    assert {p: p.stat().st_mtime_ns for p in again.glob("toy/*/**/*")} == before
    assert (again / "toy" / "toy.glb").stat().st_mtime_ns == glb


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        (lambda s: replace(s, prepare=replace(s.prepare, fill=0.6)), STAGES),
        (lambda s: replace(s, views=replace(s.views, sampling=replace(s.views.sampling, seed=1))), STAGES[1:]),
        (lambda s: replace(s, views=replace(s.views, back_weight=0.4)), STAGES[1:]),
        (lambda s: replace(s, fit=replace(s.fit, seed=1)), STAGES[2:]),
        (lambda s: replace(s, mesh=replace(s.mesh, texture=32)), STAGES[3:]),
        (lambda s: replace(s, glb=replace(s.glb, unlit=True)), STAGES[3:]),
        (lambda s: replace(s, glb=replace(s.glb, formats=("obj",), longest_side=1.0)), STAGES[3:]),
    ],
    ids=["fill", "seed", "weight", "fit", "texture", "unlit", "formats"],
)
def test_a_changed_setting_redoes_only_what_depends_on_it(
    done: Done,
    again: Path,
    settings: Image2MeshSettings,
    heard: Heard,
    change: Callable[[Image2MeshSettings], Image2MeshSettings],
    redone: list[str],
) -> None:
    result = image2mesh([done.photo], again, change(settings), reporter=heard)[0]
    assert result.error is None
    assert heard.redone == redone
    assert (again / "toy" / "toy.glb").read_bytes() == (again / "toy" / "asset" / "toy.glb").read_bytes()
    assert (again / "toy" / "toy.glb").read_bytes() != done.result.asset.read_bytes()
    manifest = json.loads((again / "toy" / "manifest.json").read_text())
    assert manifest["settings"] != json.loads((done.out / "toy" / "manifest.json").read_text())["settings"]


def test_weights_count_by_content_and_not_by_place(
    done: Done, again: Path, settings: Image2MeshSettings, tiny_checkpoint: Path, heard: Heard, tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    moved = replace(settings, views=replace(settings.views, weights=tmp_path / "copy"))
    image2mesh([done.photo], again, moved, reporter=heard)
    assert heard.redone == []
    index = json.loads((tmp_path / "copy" / "model_index.json").read_text())
    index["viewloom"]["licence"] = "another"
    (tmp_path / "copy" / "model_index.json").write_text(json.dumps(index))
    image2mesh([done.photo], again, moved, reporter=heard)
    assert heard.redone[0] == "views"
    assert json.loads((again / "toy" / "manifest.json").read_text())["weights"]["licence"] == "another"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin"])
def test_weights_in_every_kind_of_file_count(tmp_path: Path, name: str) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / name).write_bytes(b"1")
    first = JobViewModel(tmp_path, "cpu").digest
    (tmp_path / "unet" / name).write_bytes(b"2")
    assert JobViewModel(tmp_path, "cpu").digest != first


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("manifest.version_of", lambda name: f"0.0.1 of {name}"),
        ("asset.version_of", lambda name: f"0.0.1 of {name}"),
        ("stages.asset.find_khronos_validator", lambda: None),
    ],
)
def test_assets_are_made_again_where_other_tools_make_and_check_them(
    done: Done,
    again: Path,
    settings: Image2MeshSettings,
    heard: Heard,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    other: Callable[..., Any],
) -> None:
    if what.endswith("find_khronos_validator") and find_khronos_validator() is None:
        other = lambda: "one"  # noqa: E731
    monkeypatch.setattr(f"pipeline.jobs.{what}", other)
    (result,) = image2mesh([done.photo], again, settings, reporter=heard)
    assert result.error is None
    assert heard.redone == ["asset"]


def test_another_photo_of_the_same_name_is_another_photo(
    again: Path, pixels: np.ndarray, settings: Image2MeshSettings, heard: Heard, tmp_path: Path
) -> None:
    Image.fromarray(np.ascontiguousarray(pixels[:, ::-1])).save(tmp_path / "toy.png")
    make_views([tmp_path / "toy.png"], again, settings, reporter=heard)
    assert heard.redone == ["prepare", "views"]


def test_damage_between_two_runs_is_mended(
    done: Done, again: Path, settings: Image2MeshSettings, heard: Heard, tree: Tree
) -> None:
    (again / "toy" / "toy.glb").write_bytes(b"half")
    (again / "toy" / "manifest.json").unlink()
    (again / "toy" / "views" / "images" / "view_01.png").write_bytes(b"")
    image2mesh([done.photo], again, settings, reporter=heard)
    assert heard.redone == ["views"]  # what followed from it has the same key and is whole
    assert tree(again) == tree(done.out)


def test_results_are_not_visible_before_they_are_complete(
    photo: Path, settings: Image2MeshSettings, tmp_path: Path
) -> None:
    seen: list[tuple[str, list[str]]] = []

    class Looking:
        running = ""

        def item(self, name: str, work: Work = Work()) -> None: ...

        def stage(self, name: str, cached: bool) -> None:
            self.running = name

        def step(self, done: int, total: int) -> None:
            seen.append((self.running, sorted(p.name for p in (tmp_path / "out" / "toy").iterdir())))

        def note(self, text: str) -> None: ...

        def finished(self) -> None: ...

        def failed(self, text: str) -> None: ...

    make_views([photo], tmp_path / "out", settings, reporter=Looking())
    assert len(seen) == 2
    for stage, names in seen:
        assert stage == "views"
        assert [name for name in names if not name.startswith(".")] == ["prepare"]
        assert any(name.startswith(".views.") and name.endswith(".part") for name in names)
    assert not list((tmp_path / "out" / "toy").glob(".*"))


# --- views alone ------------------------------------------------------------------------------------------------------


def test_views_alone_and_then_the_mesh(
    photo: Path, settings: Image2MeshSettings, heard: Heard, tmp_path: Path, done: Done, tree: Tree
) -> None:
    result = make_views([photo], tmp_path / "out", settings, reporter=heard)[0]
    folder = tmp_path / "out" / "toy"
    assert (result.asset, result.error, result.folder) == (None, None, folder)
    assert {p.name for p in folder.iterdir()} == {"prepare", "views", "manifest.json", "report.html"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert "asset" not in manifest
    assert manifest["weights"]["licence"] == "test"
    heard.stages.clear()
    image2mesh([photo], tmp_path / "out", settings, reporter=heard)
    assert heard.redone == ["surface", "asset"]
    assert tree(tmp_path / "out") == tree(done.out)  # in another folder, in two goes: the same bytes


def test_views_of_a_finished_asset_keep_it_with_its_manifest_and_report(
    done: Done, again: Path, settings: Image2MeshSettings, heard: Heard
) -> None:
    names = ("toy.glb", "manifest.json", "report.html")
    before = {name: (again / "toy" / name).read_bytes() for name in names}
    (result,) = make_views([done.photo], again, settings, reporter=heard)
    assert heard.redone == []
    assert {name: (again / "toy" / name).read_bytes() for name in names} == before
    assert (result.asset, result.views, result.error) == (None, again / "toy" / "views", None)
    other = replace(settings, views=replace(settings.views, sampling=replace(settings.views.sampling, seed=3)))
    make_views([done.photo], again, other, reporter=heard)
    assert not (again / "toy" / "toy.glb").exists()  # it was made of other views
    assert "asset" not in json.loads((again / "toy" / "manifest.json").read_text())


def test_a_given_elevation_is_used(photo: Path, settings: Image2MeshSettings, tmp_path: Path) -> None:
    given_30 = replace(settings, views=replace(settings.views, elevation_deg=30.0))
    make_views([photo], tmp_path / "out", given_30)
    views = ViewSet.load(tmp_path / "out" / "toy" / "views")
    assert views.metadata["source_elevation_deg"] == pytest.approx(30)
    assert views.metadata["elevation"] == "given"
    assert views.views[0].camera.centre[2] == pytest.approx(1.5 * math.sin(math.radians(30)), abs=1e-5)


def test_a_mask_is_used_and_its_content_counts(
    pixels: np.ndarray, settings: Image2MeshSettings, heard: Heard, tmp_path: Path
) -> None:
    photo, mask = tmp_path / "toy.png", tmp_path / "mask.png"
    Image.fromarray(pixels[..., :3]).save(photo)
    Image.fromarray(pixels[..., 3]).save(mask)
    make_views([photo], tmp_path / "out", settings, mask=mask, reporter=heard)
    assert np.array_equal(np.array(Image.open(tmp_path / "out/toy/prepare/mask.png")), pixels[..., 3])
    assert [note.partition(":")[0] for note in heard.notes] == ["viewloom"]  # the model; no guess of a mask
    Image.fromarray(pixels[::-1, :, 3].copy()).save(mask)
    heard.stages.clear()
    make_views([photo], tmp_path / "out", settings, mask=mask, reporter=heard)
    assert heard.redone == ["prepare", "views"]


def test_warnings_are_told_every_time_and_kept(
    pixels: np.ndarray, settings: Image2MeshSettings, heard: Heard, tmp_path: Path
) -> None:
    photo = tmp_path / "toy.png"
    alpha = pixels[..., 3:] / 255
    Image.fromarray(np.round(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)).save(photo)
    for _ in range(2):
        make_views([photo], tmp_path / "out", settings, reporter=heard)
    warned = [note for note in heard.notes if "GrabCut" in note]
    assert len(warned) == 2
    assert json.loads((tmp_path / "out/toy/manifest.json").read_text())["warnings"] == warned[:1]
