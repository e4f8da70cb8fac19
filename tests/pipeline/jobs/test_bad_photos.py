"""Photos that fail: what one does to the others, whose fault it is, and names of folders."""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.diffusion import generate
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.jobs import runner
from pipeline.jobs.image2mesh import image2mesh, make_views
from pipeline.jobs.item_result import ItemResult
from pipeline.jobs.settings import Image2MeshSettings
from pipeline.jobs.stages.prepare import PrepareStage
from scene.errors import CheckpointError, InputError, ViewloomError
from scene.photo import load_rgba
from scene.viewset import ViewSet
from tests.pipeline.jobs.conftest import Done, Heard

Tree = Callable[[Path], dict[str, bytes]]


def changed_copy(checkpoint: Path, folder: Path, change: Callable[[ViewDiffusion], object]) -> Path:
    """Another checkpoint."""
    model = ViewDiffusion.from_pretrained(checkpoint)
    with torch.no_grad():
        change(model)
    model.save_pretrained(folder)
    return folder


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_one_bad_photo_fails_alone(
    photo: Path, settings: Image2MeshSettings, heard: Heard, tmp_path: Path, tree: Tree, done: Done
) -> None:
    text, glass = tmp_path / "text.png", tmp_path / "glass.png"
    text.write_text("no picture")
    Image.new("RGBA", (32, 32)).save(glass)
    bad = [text, tmp_path / "gone.png", glass]
    told: list[ItemResult] = []

    def listen(result: ItemResult) -> None:
        told.append(result)
        raise RuntimeError("whoever listens is broken")  # costs none of the photos that follow

    results = image2mesh([*bad, photo], tmp_path / "out", settings, reporter=heard, done=listen)
    assert [r.name for r in results] == ["text", "gone", "glass", "toy"]
    assert told == results
    expected = ["cannot be read as a picture", "there is no such photo", "fully transparent"]
    for result, path, message in zip(results, bad, expected, strict=False):
        assert isinstance(result.error, InputError)
        assert message in str(result.error)
        assert result.error.where == str(path)
        assert result.asset is None
        assert not (tmp_path / "out" / result.name).exists()
    assert heard.failures == [str(r.error) for r in results[:3]]
    assert heard.ends == [*["failed"] * 3, "finished"]
    assert heard.notes == done.heard.notes
    assert results[3].error is None
    assert tree(tmp_path / "out" / "toy") == tree(done.out / "toy")


def test_a_failed_photo_leaves_no_empty_folder(
    photo: Path, settings: Image2MeshSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, out = tmp_path / "text.png", tmp_path / "out"
    text.write_text("no picture")
    make_views([text], out, settings)
    assert not out.exists()
    (out / "text").mkdir(parents=True)  # what was there stays
    make_views([text], out, settings)
    assert list(out.iterdir()) == [out / "text"]
    (out / "text").rmdir()
    make_views([text, photo], out, settings)
    assert list(out.iterdir()) == [out / "toy"]

    def broken(*_: object) -> None:
        raise ViewloomError("it broke")

    monkeypatch.setattr("pipeline.jobs.stages.views.draw_views", broken)
    other = tmp_path / "other.png"
    shutil.copy(photo, other)
    make_views([other], out, settings)
    assert (out / "other" / "prepare").is_dir()  # work that a next run goes on from


def difficult(kind: str, pixels: np.ndarray) -> np.ndarray:
    """A photo that asks for trouble: of nothing, or of the object with a dark rim as cheap lenses give."""
    if kind in ("black", "white"):
        return np.full((64, 64, 3), 255 * (kind == "white"), np.uint8)
    alpha = pixels[..., 3:] / 255
    on_grey = pixels[..., :3] * alpha + 190 * (1 - alpha)
    row, column = np.mgrid[:64, :64] / 31.5 - 1
    return np.round(on_grey * np.clip(1 - 0.45 * (row**2 + column**2), 0.05, 1)[..., None]).astype(np.uint8)


@pytest.mark.parametrize("way", ["grabcut", "auto"])
def test_difficult_photos_work_or_say_what_to_do_and_others_go_on(
    way: Any, photo: Path, pixels: np.ndarray, settings: Image2MeshSettings, tmp_path: Path
) -> None:
    paths = []
    for kind in ("black", "white", "vignetting"):
        paths.append(tmp_path / f"{kind}.png")
        Image.fromarray(difficult(kind, pixels)).save(paths[-1])
    chosen = replace(settings, prepare=replace(settings.prepare, cutout=way))
    black, white, vignetting, good = make_views([*paths, photo], tmp_path / "out", chosen)
    assert good.error is None
    for nothing in (black, white):
        assert isinstance(nothing.error, InputError)
        assert "no object" in nothing.error.what
        assert "--mask" in (nothing.error.fix or "")
    assert vignetting.error is None
    assert any("Look at cutout.png, and give a mask with --mask" in text for text in vignetting.warnings)
    mask = np.array(Image.open(vignetting.folder / "prepare" / "mask.png")) >= 128
    true = pixels[..., 3] >= 128
    if way == "auto":  # colours alone cannot tell the object from dark corners, and the warning says what to do
        assert (mask & true).sum() > 0.6 * (mask | true).sum()


def test_an_empty_mask_says_what_to_do(photo: Path, settings: Image2MeshSettings, tmp_path: Path) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "mask.png")
    (result,) = make_views([photo], tmp_path / "out", settings, mask=tmp_path / "mask.png")
    assert isinstance(result.error, InputError)
    assert "the object covers fewer than 64 pixels. Give a larger or better masked photo" in str(result.error)


def test_a_hint_tells_that_photos_look_like_one_object(
    pixels: np.ndarray, settings: Image2MeshSettings, heard: Heard, tmp_path: Path
) -> None:
    (tmp_path / "shots").mkdir()
    for k in range(3):
        Image.fromarray(np.roll(pixels, k, axis=1)).save(tmp_path / "shots" / f"{k}.png")
    results = make_views([tmp_path / "shots"], tmp_path / "out", settings, reporter=heard)
    assert [result.name for result in results] == ["0", "1", "2"]
    assert len([note for note in heard.notes if "look like one object" in note]) == 1
    assert [(work.number, work.count) for work in heard.works] == [(1, 3), (2, 3), (3, 3)]


def test_a_single_bad_photo_is_reported_once(settings: Image2MeshSettings, heard: Heard, tmp_path: Path) -> None:
    (result,) = image2mesh([tmp_path / "gone.png"], tmp_path / "out", settings, reporter=heard)
    assert isinstance(result.error, InputError)
    assert (heard.failures, heard.notes) == ([str(result.error)], [])


@pytest.mark.parametrize("which", ["photo", "mask", "weights"])
def test_files_that_may_not_be_read_are_the_inputs_fault(
    which: str,
    photo: Path,
    settings: Image2MeshSettings,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mask = tmp_path / "mask.png"
    shutil.copy(photo, mask)
    locked = {"photo": photo, "mask": mask, "weights": next(tiny_checkpoint.rglob("*.safetensors"))}[which]
    real = runner.digest_of_file

    def refusing(path: Path) -> str:
        if path == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    def make() -> None:
        (result,) = make_views([photo], tmp_path / "out", settings, mask=mask)
        if result.error is not None:
            raise result.error

    monkeypatch.setattr(runner, "digest_of_file", refusing)
    monkeypatch.setattr("pipeline.jobs.image2mesh.digest_of_file", refusing)
    monkeypatch.setattr("pipeline.jobs.view_model.digest_of_file", refusing)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)") as caught:
        make()
    assert caught.value.where == str(locked)
    assert caught.value.exit_code == 2


def test_faults_that_are_ours_fail_alone_too_and_are_not_swallowed(
    photo: Path, settings: Image2MeshSettings, heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cause, real = RuntimeError("out of memory\nin a kernel"), PrepareStage.run

    def broken(stage: PrepareStage, folder: Path) -> None:
        if stage.photo.name == "other.png":
            raise cause
        real(stage, folder)

    monkeypatch.setattr(PrepareStage, "run", broken)
    other = tmp_path / "other.png"
    shutil.copy(photo, other)
    bad, good = make_views([other, photo], tmp_path / "out", settings, reporter=heard)
    assert good.error is None
    assert type(bad.error) is ViewloomError
    assert bad.error.exit_code == 1
    assert bad.error.__cause__ is cause
    assert str(bad.error).startswith(f"{other}: unexpected RuntimeError (out of memory). ")
    assert "--debug" in str(bad.error)
    assert heard.failures == [str(bad.error)]


def test_what_is_wrong_with_the_whole_job_is_said_before_it_starts(
    photo: Path, settings: Image2MeshSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no photos were given"):
        image2mesh([], out, settings)
    with pytest.raises(InputError, match="--mask fits one photo only"):
        image2mesh([photo, tmp_path / "other.png"], out, settings, mask=photo)
    with pytest.raises(InputError, match=r"nowhere: there is no such checkpoint folder"):
        image2mesh([photo], out, replace(settings, views=replace(settings.views, weights=tmp_path / "nowhere")))
    monkeypatch.setattr("scene.resources._ROOT", tmp_path)
    with pytest.raises(CheckpointError, match="the embedded weights are missing"):
        image2mesh([photo], out, replace(settings, views=replace(settings.views, weights=None)))
    assert not out.exists()


def test_a_missing_mask_and_a_wrong_device(photo: Path, settings: Image2MeshSettings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such mask"):
        make_views([photo], tmp_path / "other", settings, mask=tmp_path / "mask.png")
    with pytest.raises(InputError, match="device 'abacus' cannot be used here"):
        make_views([photo], tmp_path / "other", replace(settings, device="abacus"))
    assert not (tmp_path / "other").exists()  # told before any work


def test_a_missing_part_of_a_checkpoint_is_told_before_any_work(
    photo: Path, settings: Image2MeshSettings, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "half", ignore=shutil.ignore_patterns("vae"))
    half = replace(settings, views=replace(settings.views, weights=tmp_path / "half"))
    with pytest.raises(CheckpointError, match=r"half.vae: a part of the checkpoint is missing"):
        make_views([photo], tmp_path / "out", half)
    assert not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_is_the_inputs_fault(
    photo: Path, settings: Image2MeshSettings, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    damaged = changed_copy(tiny_checkpoint, tmp_path / "damaged", lambda m: m.unet.conv_in.bias[0].fill_(math.nan))
    (result,) = make_views([photo], tmp_path / "out", replace(settings, views=replace(settings.views, weights=damaged)))
    assert isinstance(result.error, CheckpointError)
    assert str(damaged / "unet") in str(result.error)
    assert {p.name for p in (tmp_path / "out" / "toy").iterdir()} == {"prepare"}


def test_a_model_that_draws_nothing_is_our_fault(
    photo: Path, settings: Image2MeshSettings, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    empty = changed_copy(tiny_checkpoint, tmp_path / "empty", lambda m: m.vae.decoder.conv_out.bias[3].fill_(-9))
    (result,) = make_views([photo], tmp_path / "out", replace(settings, views=replace(settings.views, weights=empty)))
    assert type(result.error) is ViewloomError
    assert result.error.exit_code == 1
    assert "empty views only" in str(result.error)
    assert "--views.sampling.seed" in str(result.error)


def test_empty_views_are_left_out_with_a_warning(
    photo: Path, settings: Image2MeshSettings, heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = generate.generate_views

    def second_is_empty(*given: Any, **named: Any) -> generate.GeneratedViews:
        made = real(*given, **named)
        rgba = made.rgba.copy()
        rgba[..., 3] = 255
        rgba[1] = 0
        return replace(made, rgba=rgba)

    monkeypatch.setattr("pipeline.jobs.stages.views.generate_views", second_is_empty)
    for _ in range(2):
        (result,) = image2mesh([photo], tmp_path / "out", settings, reporter=heard)
        assert result.error is None
    views = ViewSet.load(result.folder / "views")
    assert [view.name for view in views] == ["photo", "view_00", "view_02"]
    azimuths = [math.degrees(math.atan2(*view.camera.centre[1::-1])) % 360 for view in list(views)[1:]]
    assert azimuths == pytest.approx([45, 285], abs=1e-3)
    told = [note for note in heard.notes if "left out" in note]
    assert (
        told
        == ["1 of 3 generated views are empty and were left out: view_01. Another --views.sampling.seed may fill them."]
        * 2
    )
    assert json.loads((result.folder / "manifest.json").read_text())["warnings"] == told[:1]


# --- names ------------------------------------------------------------------------------------------------------------


def test_the_results_of_photos_of_the_same_name_do_not_mix(
    photo: Path, pixels: np.ndarray, settings: Image2MeshSettings, heard: Heard, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    other = tmp_path / "b" / "toy.png"
    Image.fromarray(np.ascontiguousarray(pixels[:, ::-1])).save(other)
    results = make_views([photo, other], tmp_path / "out", settings, reporter=heard)
    assert [r.folder.name for r in results] == ["toy", "toy-2"]
    told = "toy.png would have its results where those of toy.png are: they are called toy-2."
    assert told in heard.notes
    assert [told in r.warnings for r in results] == [False, True]
    for result, path in zip(results, (photo, other), strict=True):
        assert np.array_equal(load_rgba(result.folder / "prepare" / "cutout.png"), load_rgba(path))


@pytest.mark.parametrize("name", ["a" * 240, "杯" * 80, "n" * 251])
def test_every_name_that_a_photo_can_have_works_for_its_results(
    photo: Path, settings: Image2MeshSettings, heard: Heard, tmp_path: Path, name: str
) -> None:
    named = photo.rename(tmp_path / f"{name}.png")
    settings = replace(settings, glb=replace(settings.glb, formats=("glb", "obj")))
    (result,) = image2mesh([named], tmp_path / "out", settings, reporter=heard)
    assert result.error is None
    assert [path.suffix for path in result.files] == [".glb", ".obj"]
    assert all(path.is_file() for path in result.files)
    assert any("too long" in note for note in heard.notes) is (name[0] == "n")


def test_a_name_that_no_file_can_have_fails_alone(photo: Path, settings: Image2MeshSettings, tmp_path: Path) -> None:
    bad, good = make_views([tmp_path / ("a" * 300 + ".png"), photo], tmp_path / "out", settings)
    assert isinstance(bad.error, InputError)
    assert "File name too long" in str(bad.error)
    assert "free space" not in str(bad.error)
    assert good.error is None


def test_what_is_left_of_a_name_of_dots_stays_in_the_output_folder(
    photo: Path, settings: Image2MeshSettings, heard: Heard, tmp_path: Path
) -> None:
    named = photo.rename(tmp_path / "...png")
    (result,) = make_views([named], tmp_path / "deep" / "out", settings, reporter=heard)
    assert result.folder == tmp_path / "deep" / "out" / "photo"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".") == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert "no name for a folder" in heard.notes[0]
