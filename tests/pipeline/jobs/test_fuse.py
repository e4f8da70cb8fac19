"""A few photos without cameras: what is written, what is kept, what is left out, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.settings import FusionSampling
from pipeline.diffusion.viewfusion.model import ViewFusionModel, linear_gammas
from pipeline.diffusion.viewfusion.published import NETWORK, their_name
from pipeline.diffusion.viewfusion.unet import FusionUNet
from pipeline.jobs.fuse import fuse
from pipeline.jobs.settings import FuseSettings, FusionSettings
from pipeline.training.tasks.fusion import FusionNetwork, fresh_fusion
from recon.export.validate import validate_glb
from scene.errors import CheckpointError, InputError, OutputError
from scene.resources import default_weights
from scene.viewset import ViewSet
from tests.pipeline.jobs.conftest import SMALL_FIT, SMALL_MESH, Heard
from viewloom.cli import main


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network for the embedded VAE, whose views are as good as noise."""
    torch.manual_seed(0)
    vae = cast(AutoencoderKL, load_part(AutoencoderKL, default_weights() / "vae"))
    made = fresh_fusion(vae, FusionNetwork(width=16, multipliers=(1.0,), attended=(), groups=8))
    torch.nn.init.normal_(made.unet.head["conv"].weight, std=0.1)
    folder = tmp_path_factory.mktemp("fusion") / "model"
    made.save(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Three cut-outs of a box of two colours."""
    paths = []
    for k, width in enumerate((60, 44, 52)):
        rgba = np.zeros((96, 96, 4), np.uint8)
        rgba[20:76, 48 - width // 2 : 48 + width // 2] = (200, 60, 40, 255)
        rgba[40:56, 48 - width // 2 : 48 + width // 2] = (40, 60, 200, 255)
        paths.append(tmp_path / f"side-{k}.png")
        Image.fromarray(rgba).save(paths[-1])
    return paths


def small(weights: Path | None, **more: object) -> FuseSettings:
    fusion = FusionSettings(weights, 6, 20.0, sampling=FusionSampling(steps=2, keep_weights=2))
    return FuseSettings(fusion=replace(fusion, **more), fit=SMALL_FIT, mesh=SMALL_MESH)  # type: ignore[arg-type]


def test_photos_become_a_ring_around_the_first(weights: Path, photos: list[Path], tmp_path: Path) -> None:
    heard = Heard()
    result = fuse(photos, tmp_path / "out", small(weights, seeds=2), reporter=heard)
    folder = tmp_path / "out" / "side-0"
    assert result.folder == folder
    assert result.views == folder / "views"
    assert result.asset is None
    assert [name for name, _ in heard.stages] == ["photo-00", "photo-01", "photo-02", "views"]
    assert heard.steps == [(k, 4) for k in range(1, 5)]
    views = ViewSet.load(folder / "views")
    assert views.metadata["photos"] == 3
    assert views.metadata["elevation"] == "given"
    first = next(iter(views))
    assert (first.name, first.origin) == ("photo", "photo")
    # The texture takes the photo at its own size.
    assert first.camera.width == 512
    up = [math.degrees(math.asin(view.camera.c2w[2, 3] / np.linalg.norm(view.camera.c2w[:3, 3]))) for view in views]
    assert up == pytest.approx([20.0] * len(up), abs=1e-3)
    told = json.loads((folder / "views" / "weights.json").read_text())
    assert len(told["levels"]) == 2
    for one in told["weights"]:
        assert sum(one["shares"]) == pytest.approx(1, abs=1e-3)
        assert all((folder / "views" / file).is_file() for file in one["files"])
    assert told["spread"]
    assert min(told["spread"].values()) > 0
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [one["name"] for one in manifest["photos"]] == ["side-0.png", "side-1.png", "side-2.png"]
    assert "weights" not in manifest["settings"]["fusion"]
    page = (folder / "report.html").read_text()
    for title in ("<h2>Photos</h2>", "What each photo counts in view_00", "Where rings of other seeds differ"):
        assert title in page


def test_what_is_finished_is_kept(weights: Path, photos: list[Path], tmp_path: Path) -> None:
    def stages(given: list[Path], settings: FuseSettings) -> list[bool]:
        heard = Heard()
        fuse(given, tmp_path / "out", settings, reporter=heard)
        return [cached for _, cached in heard.stages]

    assert stages(photos[:2], small(weights)) == [False] * 3
    assert stages(photos[:2], small(weights)) == [True] * 3
    assert stages(photos, small(weights)) == [True, True, False, False]
    assert stages(photos, small(weights, views=4)) == [True] * 3 + [False]
    # In another order the first photo stays where it is.
    assert stages([photos[0], photos[2], photos[1]], small(weights, views=4))[0]


def test_a_mesh_of_them(weights: Path, photos: list[Path], tmp_path: Path) -> None:
    result = fuse(photos, tmp_path / "out", small(weights), mesh=True)
    assert result.asset == tmp_path / "out" / "side-0" / "side-0.glb"
    assert validate_glb(result.asset, khronos=False).clean


def test_photos_of_no_use_are_left_out_and_named(weights: Path, photos: list[Path], tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty.png", tmp_path / "broken.png"
    Image.fromarray(np.zeros((64, 64, 4), np.uint8)).save(empty)
    broken.write_bytes(photos[1].read_bytes()[:60])
    green = np.zeros((64, 64, 4), np.uint8)
    green[16:48, 16:48] = (10, 250, 10, 255)
    other = tmp_path / "other.png"
    Image.fromarray(green).save(other)
    heard = Heard()
    given = [empty, photos[0], tmp_path / "gone.png", broken, other]
    result = fuse(given, tmp_path / "out", small(weights), reporter=heard)
    assert result.name == "empty"
    for name in ("empty.png", "gone.png", "broken.png"):
        assert any(name in note and note.endswith("It is left out.") for note in heard.notes), name
    assert any("other.png has hardly a colour in common with side-0.png" in note for note in heard.notes)
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert [one["name"] for one in manifest["photos"]] == ["side-0.png", "other.png"]
    assert set(manifest["warnings"]) <= set(heard.notes)


def test_bad_input(weights: Path, photos: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no photos were given"):
        fuse([], out, small(weights))
    with pytest.raises(InputError, match="no such photo"):
        fuse([tmp_path / "gone.png"], out, small(weights))
    many = [tmp_path / f"copy-{k}.png" for k in range(24)]
    for k, path in enumerate(many):
        Image.fromarray(np.full((32, 32, 3), k, np.uint8)).save(path)
    with pytest.raises(InputError, match="24 photos are more"):
        fuse(many, out, small(weights))
    with pytest.raises(CheckpointError, match="no weights for fusing"):
        fuse(photos, out, small(None))
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        fuse(photos, out, small(tmp_path / "nothing"))
    assert not out.exists()
    fuse(photos[:1], out, small(weights))
    other = tmp_path / "elsewhere" / "side-0.jpg"
    other.parent.mkdir()
    Image.open(photos[1]).convert("RGB").save(other)
    with pytest.raises(OutputError, match="another photo"):
        fuse([other], out, small(weights))


def test_an_old_result_is_withdrawn_with_its_photo(weights: Path, photos: list[Path], tmp_path: Path) -> None:
    made = fuse(photos[:1], tmp_path / "out", small(weights))
    assert made.report is not None
    Image.fromarray(np.zeros((64, 64, 4), np.uint8)).save(photos[0])
    with pytest.raises(InputError):
        fuse(photos[:1], tmp_path / "out", small(weights))
    assert not made.report.exists()
    assert not (made.folder / "manifest.json").exists()


def test_many_photos_are_told(weights: Path, photos: list[Path], tmp_path: Path) -> None:
    heard, given = Heard(), []
    for k in range(7):
        rgba = np.array(Image.open(photos[0]))
        rgba[:2, :2, :3] = k
        given.append(tmp_path / f"many-{k}.png")
        Image.fromarray(rgba).save(given[-1])
    fuse(given, tmp_path / "out", small(weights, views=2), reporter=heard)
    assert any("7 photos: the network was trained with 6" in note for note in heard.notes)


def test_a_published_file_by_the_command(
    photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It draws 64 pixels, in the heading of its training data; no photo has a camera then."""
    torch.manual_seed(0)
    unet = FusionUNet(width=32)
    model = {NETWORK + their_name(key): value for key, value in unet.state_dict().items()}
    torch.save({"model": {**model, "gammas": linear_gammas().float()}}, tmp_path / "best_model_all.pt")
    out = tmp_path / "out"
    line = ["fuse", *map(str, photos[:2]), "-o", str(out), "--weights", str(tmp_path / "best_model_all.pt")]
    code = main([*line, "--azimuths", "3", "--elevation", "10", "--fusion.sampling.steps", "1"])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert str(out / "side-0" / "views") in said.out
    views = ViewSet.load(out / "side-0" / "views")
    assert {view.camera.width for view in views} == {64}
    assert "photo" not in {view.name for view in views}
    assert any("heading" in text for text in views.metadata["warnings"])
    assert main(["fuse", str(photos[0]), "-o", str(out), "--weights", str(photos[0])]) == 2
    assert main(["fuse", str(photos[0]), "-o", str(out)]) == 2
    assert main(["fuse", str(photos[0]), "--seeds", "0"]) == 2
    said = capsys.readouterr()
    assert "no weights for fusing photos" in said.err


def test_the_weights_of_a_folder_are_read(weights: Path) -> None:
    model = ViewFusionModel.from_pretrained(weights, default_weights() / "vae")
    assert model.unet.config["relative"]
    assert model.image_size == 128
