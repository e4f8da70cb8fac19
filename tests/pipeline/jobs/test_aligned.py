"""Jobs that align views: what they leave, and what they refuse."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.diffusion.aligned_decoder import AlignedLayers, LayerPlace
from pipeline.diffusion.epipolar_attention import EpipolarSettings
from pipeline.diffusion.settings import AlignSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.jobs.image2mesh import image2mesh, make_views
from pipeline.jobs.runner import StageRun
from pipeline.jobs.settings import Image2MeshSettings
from pipeline.jobs.stages.aligned import AlignedStage, draft_fit, pictures_of_one_size
from pipeline.jobs.stages.capture_folder import LATENTS_FILE, CaptureFolder, read_latents, write_latents
from pipeline.jobs.view_model import JobViewModel
from recon.settings import FitSettings
from scene.camera import orbit_camera
from scene.errors import CheckpointError, InputError
from scene.view import View
from scene.viewset import ViewSet
from tests.pipeline.jobs.conftest import Heard


@pytest.fixture(scope="module")
def aligning(tiny_checkpoint: Path, settings: Image2MeshSettings, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """Settings of a job that aligns, with layers that change pictures."""
    model = ViewDiffusion.from_pretrained(tiny_checkpoint)
    torch.manual_seed(0)
    place = LayerPlace.of(model.vae, None, 1, EpipolarSettings(width=8, samples=2, nearest=2))
    layers = AlignedLayers.fresh(model.vae, [place])
    torch.nn.init.normal_(layers.layers[0].gate.weight, std=0.5)
    folder = tmp_path_factory.mktemp("aligned")
    replace(model, aligned=layers).save_pretrained(folder)
    return replace(settings, views=replace(settings.views, weights=folder), align=True)


def test_a_job_that_aligns(aligning: Image2MeshSettings, photo: Path, tmp_path: Path) -> None:
    heard, out = Heard(), tmp_path / "out"
    (result,) = image2mesh([photo], out, aligning, reporter=heard)
    assert result.error is None
    assert [name for name, _ in heard.stages] == ["prepare", "views", "aligned", "surface", "asset"]
    assert list(heard.works[0].shares) == ["prepare", "views", "aligned", "surface", "asset"]
    assert sum(heard.works[0].shares.values()) == pytest.approx(1)
    plain, aligned = (ViewSet.load(out / "toy" / name) for name in ("views", "aligned"))
    assert [view.name for view in aligned] == [view.name for view in plain]
    assert [view.weight for view in aligned] == [view.weight for view in plain]
    for before, after in zip(plain, aligned, strict=True):
        same = np.array_equal(before.rgba(), after.rgba())
        assert same == (before.origin != "generated")
    assert "Each view by itself, and aligned" in (out / "toy" / "report.html").read_text(encoding="utf-8")


def test_views_alone_are_aligned_too_and_kept(aligning: Image2MeshSettings, photo: Path, tmp_path: Path) -> None:
    def redone(settings: Image2MeshSettings) -> list[str]:
        heard = Heard()
        (result,) = make_views([photo], tmp_path / "out", settings, reporter=heard)
        assert result.error is None
        return heard.redone

    assert redone(aligning) == ["prepare", "views", "aligned"]
    assert (tmp_path / "out" / "toy" / "aligned" / "transforms.json").is_file()
    assert redone(aligning) == []
    assert redone(replace(aligning, aligning=AlignSettings(colours=False))) == ["aligned"]
    assert redone(replace(aligning, align=False)) == []


def test_a_model_without_an_aligned_decoder_is_refused(
    settings: Image2MeshSettings, photo: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"no aligned decoder.*--align"):
        image2mesh([photo], tmp_path / "out", replace(settings, align=True))
    assert not (tmp_path / "out").exists()


def test_layers_of_another_decoder_are_refused(aligning: Image2MeshSettings, photo: Path, tmp_path: Path) -> None:
    weights = aligning.views.weights
    assert weights is not None
    shutil.copytree(weights, tmp_path / "weights")
    model = ViewDiffusion.from_pretrained(tmp_path / "weights")
    other = replace(model, aligned=None)
    with torch.no_grad():
        other.vae.decoder.conv_out.weight.add_(0.1)
    other.save_pretrained(tmp_path / "weights")
    changed = replace(aligning, views=replace(aligning.views, weights=tmp_path / "weights"))
    (result,) = image2mesh([photo], tmp_path / "out", changed)
    assert isinstance(result.error, CheckpointError)
    assert "another decoder" in str(result.error)


@pytest.fixture
def stage(aligning: Image2MeshSettings, photo: Path, tmp_path: Path) -> AlignedStage:
    """The stage, behind views that are there."""
    (result,) = make_views([photo], tmp_path / "out", replace(aligning, align=False))
    assert result.error is None
    folder = tmp_path / "out" / "toy" / "views"
    done = StageRun("views", folder, "key", 0.0, False, CaptureFolder)
    assert aligning.views.weights is not None
    model = JobViewModel(aligning.views.weights, "cpu")
    (tmp_path / "aligned").mkdir()
    return AlignedStage(done, model, aligning.aligning, aligning.fit)


def test_views_without_latents_are_encoded_and_say_so(stage: AlignedStage, tmp_path: Path) -> None:
    (stage.capture.folder / LATENTS_FILE).unlink()
    stage.run(tmp_path / "aligned")
    result = stage.load(tmp_path / "aligned")
    assert [view.name for view in result.views] == [view.name for view in stage.capture.result.views]
    side = stage.model.loaded.image_size
    assert result.warnings[-1] == f"The views have no latents: they were encoded at {side} pixels to be aligned."


def test_larger_views_without_latents_are_reduced_on_demand_only(stage: AlignedStage, tmp_path: Path) -> None:
    side = stage.model.loaded.image_size
    views = stage.capture.result.views
    larger = [
        View(v.name, v.camera.resized(2 * side, 2 * side), v.rgba().repeat(2, 0).repeat(2, 1), origin=v.origin)
        if v.origin == "generated"
        else v
        for v in views
    ]
    folder = tmp_path / "larger"
    ViewSet(tuple(larger), True, views.metadata).save(folder)
    (tmp_path / "reduced").mkdir()
    stage = replace(stage, capture=StageRun("views", folder, "key", 0.0, False, CaptureFolder))
    with pytest.raises(InputError, match=rf"no latents, and {2 * side} pixels where the model draws {side}.*reduce"):
        stage.run(tmp_path / "aligned")
    replace(stage, settings=AlignSettings(reduce=True)).run(tmp_path / "reduced")
    drawn = [view for view in stage.load(tmp_path / "reduced").views if view.origin == "generated"]
    assert {(view.camera.width, view.rgba().shape[0]) for view in drawn} == {(side, side)}


def test_a_single_view_stays_as_it_is_and_says_so(stage: AlignedStage, tmp_path: Path) -> None:
    views = list(stage.capture.result.views)
    folder = tmp_path / "one"
    ViewSet(tuple(views[:2]), True, stage.capture.result.views.metadata).save(folder)
    replace(stage, capture=StageRun("views", folder, "key", 0.0, False, CaptureFolder)).run(tmp_path / "aligned")
    result = stage.load(tmp_path / "aligned")
    assert "one view only" in result.warnings[-1]
    assert np.array_equal(list(result.views)[1].rgba(), views[1].rgba())


def test_a_capture_without_its_photo_is_refused(stage: AlignedStage, tmp_path: Path) -> None:
    views = [view for view in stage.capture.result.views if view.origin == "generated"]
    ViewSet(tuple(views), True, stage.capture.result.views.metadata).save(tmp_path / "bare")
    capture = StageRun("views", tmp_path / "bare", "key", 0.0, False, CaptureFolder)
    with pytest.raises(InputError, match=r"no photo among the cameras.*--align"):
        replace(stage, capture=capture).run(tmp_path / "aligned")


def test_views_of_other_sizes_are_refused() -> None:
    camera = orbit_camera(0.0, 0.0, 1.5, size=4)
    views = [View(str(size), camera.resized(size, size), np.zeros((size, size, 4), np.uint8)) for size in (4, 8)]
    with pytest.raises(InputError, match=r"one square size, not 4x4, 8x8"):
        pictures_of_one_size(views)


def test_latents_come_back_by_name(tmp_path: Path) -> None:
    latents = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    write_latents(tmp_path, ["view_00", "view_02"], latents, "abc")
    assert np.array_equal(read_latents(tmp_path, ["view_02", "view_00"], "abc"), latents[::-1])
    with pytest.raises(InputError, match=r"another model.*Draw the views anew"):
        read_latents(tmp_path, ["view_00"], "abd")
    with pytest.raises(InputError, match=r"lacks the latents of view_01"):
        read_latents(tmp_path, ["view_00", "view_01"], "abc")
    latents[1, 0, 0, 0] = np.nan
    write_latents(tmp_path, ["view_00", "view_02"], latents, "abc")
    with pytest.raises(InputError, match="view_02 holds numbers that are not finite"):
        read_latents(tmp_path, ["view_00", "view_02"], "abc")
    (tmp_path / LATENTS_FILE).unlink()
    with pytest.raises(InputError, match="the views have no latents"):
        read_latents(tmp_path, ["view_00"], "abc")


def test_the_draft_has_no_finest_level() -> None:
    assert draft_fit(FitSettings(levels=(8, 16), iterations=(3, 2))).levels == (8,)
    assert draft_fit(FitSettings(levels=(8,), iterations=(3,))).iterations == (3,)
