"""Public checkpoints in jobs: what is told and recorded, what a setting redoes, and what cannot be loaded."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from pipeline.diffusion.checkpoints import clip_encoder
from pipeline.diffusion.checkpoints.clip_encoder import ClipPhotoEncoder
from pipeline.diffusion.preparation.prepare import prepare_photo
from pipeline.diffusion.view_models.zero123plus import FOV, SixViewDiffusion
from pipeline.jobs.image2mesh import make_views
from pipeline.jobs.settings import Image2MeshSettings
from pipeline.jobs.stages.views import draw_views
from scene.errors import CheckpointError
from scene.viewset import ViewSet
from viewloom.cli import main

LAYOUT_FILES = Path(__file__).parents[1] / "diffusion" / "checkpoints" / "layout_files.py"
files = SimpleNamespace(**runpy.run_path(str(LAYOUT_FILES)))
Heard = Any
Tree = Callable[[Path], dict[str, bytes]]


def using(settings: Image2MeshSettings, weights: Path, **changes: Any) -> Image2MeshSettings:
    """The same settings with other weights."""
    return replace(settings, views=replace(settings.views, weights=weights), **changes)


def test_a_zero123_checkpoint_makes_views_and_is_told_and_recorded(
    photo: Path, settings: Image2MeshSettings, heard: Heard, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    weights = files.write_kxic(tmp_path / "zero123-xl")
    chosen = using(settings, weights, dtype="bfloat16", memory="low")
    (result,) = make_views([photo], tmp_path / "out", chosen, reporter=heard)
    assert result.error is None
    views = ViewSet.load(result.folder / "views")
    assert [view.name for view in views] == ["photo", "view_00", "view_01", "view_02"]
    assert views.metadata["elevation"] == "assumed"
    (line,) = heard.notes
    assert line.startswith("Zero123, diffusers layout with cc_projection: ")
    assert "licence mit" in line
    assert line.endswith(" GB in bfloat16")
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["weights"]["layout"] == "Zero123, diffusers layout with cc_projection"
    assert manifest["weights"]["licence"] == "mit"
    assert set(manifest["weights"]["parameters"]) == {"unet", "vae", "image_encoder", "cc_projection"}
    assert (manifest["settings"]["dtype"], manifest["settings"]["memory"]) == ("bfloat16", "low")


def test_precision_redoes_the_views_and_the_usual_settings_keep_their_key(
    done: Any, settings: Image2MeshSettings, heard: Heard, tmp_path: Path
) -> None:
    make_views([done.photo], tmp_path / "out", settings, reporter=heard)
    assert heard.redone == ["prepare", "views"]
    key = json.loads((tmp_path / "out/toy/views/stage.json").read_text())["key"]
    assert key == json.loads((done.out / "toy/views/stage.json").read_text())["key"]
    heard.stages.clear()
    make_views([done.photo], tmp_path / "out", replace(settings, dtype="bfloat16"), reporter=heard)
    assert heard.redone == ["views"]
    assert ViewSet.load(tmp_path / "out/toy/views").has_masks


def test_six_views_of_a_rig_become_a_capture(
    photo: Path, settings: Image2MeshSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet = UNet2DConditionModel.from_config({**files.UNET_CONFIG, "in_channels": 4})
    tower = torch.nn.Linear(1, 1)
    tower.config = SimpleNamespace(image_size=8, projection_dim=32)  # type: ignore[assignment]
    tower.forward = lambda pixels: SimpleNamespace(image_embeds=pixels.new_ones(len(pixels), 32))  # type: ignore[method-assign]
    model = SixViewDiffusion(
        unet.eval(),
        AutoencoderKL.from_config(files.VAE_CONFIG).eval(),
        ClipPhotoEncoder(tower),
        torch.randn(3, 32),
        torch.ones(3),
        files.PLUS_SCHEDULER,
        tile=16,
        image_size=32,
    )
    # Noise has no outline.
    monkeypatch.setattr("pipeline.diffusion.generate._object_mask", lambda tile: np.full(tile.shape[:2], 255, np.uint8))
    with torch.no_grad():
        draw_views(tmp_path, prepare_photo(photo, settings.prepare), model, replace(settings.views, elevation_deg=20.0))
    views = ViewSet.load(tmp_path)
    assert len(views) == 7
    assert views.views[1].camera.fx == pytest.approx(8 / np.tan(FOV / 2), rel=1e-5)
    heights = [view.camera.centre[2] / np.linalg.norm(view.camera.centre) for view in views.views[1:]]
    assert np.rad2deg(np.arcsin(heights)) == pytest.approx([20, -10] * 3, abs=1e-3)
    weights = [view.weight for view in views.views[1:]]
    assert weights[0] == max(weights)  # next to the photo


def test_what_cannot_be_loaded_is_said_before_any_work_and_loses_nothing(
    done: Any, settings: Image2MeshSettings, tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(done.out)
    cut = files.write_ldm(tmp_path / "zero123-xl.ckpt", ema=False)
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is half-downloaded") as caught:
        make_views([done.photo], done.out, using(settings, cut))
    assert caught.value.exit_code == 2
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", offline)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(CheckpointError, match=r"no folder owner/name here.*cannot be reached \(no route\)"):
        make_views([done.photo], done.out, using(settings, Path("owner/name")))
    assert tree(done.out) == before


def offline(*_: object, **__: object) -> None:
    """What every call to the hub does without a network."""
    raise ConnectionError("no route")


def test_the_command_line_exits_with_2(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", offline)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    out = ["-o", str(tmp_path / "out")]
    assert main(["views", str(photo), *out, "--views.weights", "owner/name", "--memory", "low"]) == 2
    assert "the hub cannot be reached (no route). Check the path or the network" in capsys.readouterr().err
    monkeypatch.setattr(clip_encoder, "optional_module", lambda name: None)
    monkeypatch.setattr(clip_encoder, "import_failure", lambda name: None)
    weights = files.write_ldm(tmp_path / "a.ckpt", ema=False)
    assert main(["views", str(photo), *out, "--views.weights", str(weights), "--dtype", "float16"]) == 2
    assert "pip install viewloom[checkpoints]" in capsys.readouterr().err


def nano(tiny: Path, root: Path) -> Path:
    """A copy of viewloom's own layout."""
    return Path(shutil.copytree(tiny, root / "nano"))


FOLDERS: dict[str, Callable[[Path, Path], Path]] = {
    "kxic": lambda _, root: files.write_kxic(root / "zero123-xl"),
    "nano": nano,
    "plus": lambda _, root: files.write_zero123plus(root / "zero123plus"),
}


@pytest.mark.parametrize("part", ["unet", "vae"])
@pytest.mark.parametrize("write", FOLDERS.values(), ids=FOLDERS)
def test_a_missing_part_ends_the_command_line_before_any_work(
    photo: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    write: Callable[[Path, Path], Path],
    part: str,
) -> None:
    weights = write(tiny_checkpoint, tmp_path)
    shutil.rmtree(weights / part)
    out = tmp_path / "out"
    assert main(["views", str(photo), "-o", str(out), "--views.weights", str(weights)]) == 2
    assert f"{part}: a part of the checkpoint is missing. Copy the whole" in capsys.readouterr().err
    assert not list(out.rglob("prepare*"))


def test_the_embedded_model_is_not_announced(
    photo: Path,
    settings: Image2MeshSettings,
    tiny_checkpoint: Path,
    heard: Heard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.jobs.image2mesh.default_weights", lambda: tiny_checkpoint)
    plain = replace(settings, views=replace(settings.views, weights=None))
    assert make_views([photo], tmp_path / "out", plain, reporter=heard)[0].error is None
    assert heard.notes == []
