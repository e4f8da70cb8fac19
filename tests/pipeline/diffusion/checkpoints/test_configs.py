"""Configs of checkpoints: values that something can be built of, or the key's name; nothing is built before."""

from __future__ import annotations

import json
import math
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.diffusion.checkpoints.configs import conditioning_of, read_config, sampling_of
from pipeline.diffusion.settings import SamplingPlan
from pipeline.diffusion.view_models.load import checkpoint_info, load_view_model
from scene.errors import CheckpointError

FAULTS: dict[tuple[str, str], list[Any]] = {
    ("unet", "sample_size"): [0, -8, "x", [8, 8], 10**9, None, True, 1.5, math.nan],
    ("unet", "attention_head_dim"): [-4, 0, "8", [4, "x"], {}],
    ("unet", "downsample_padding"): [-1, 10**6],
    ("unet", "layers_per_block"): [10**6, -1, [2] * 1000],
    ("unet", "block_out_channels"): [[], "x", [0], [10**12], [8] * 10_000, 8.5],
    ("unet", "cross_attention_dim"): [10**400, "16"],
    ("unet", "class_embed_type"): ["identity"],
    ("vae", "scaling_factor"): ["x", None, 0, -1, math.inf, [0.2]],
    ("vae", "latents_mean"): ["x", [0.0], [math.nan] * 4, 7],
    ("vae", "latent_channels"): [0, 10**9, "4"],
    ("coarse", "sharpness"): ["x", None, [], 1e9],
    ("coarse", "resolution"): [1, 10**6],
    ("coarse", "channels"): [[8, 8], "x"],
    ("image_encoder", "image_size"): [0, -1, 10**9, "x", None, [], math.nan],
    ("image_encoder", "width"): [10**9, 0],
}
CASES = [(part, key, value) for (part, key), values in FAULTS.items() for value in values]


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_checkpoint, tmp_path / "model")
    return tmp_path / "model"


def edited(path: Path, key: str, value: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, key: value}))


@pytest.mark.parametrize(("part", "key", "value"), CASES, ids=[f"{p}.{k} {str(v)[:20]}" for p, k, v in CASES])
def test_a_value_that_is_none_is_told_before_any_work(folder: Path, part: str, key: str, value: Any) -> None:
    edited(folder / part / "config.json", key, value)
    with pytest.raises(CheckpointError) as caught:
        load_view_model(folder)
    assert part in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("part", ["unet", "vae", "coarse", "image_encoder", "cc_projection"])
def test_sound_configs_are_read_as_they_are(folder: Path, part: str) -> None:
    path = folder / part / "config.json"
    assert read_config(path) == json.loads(path.read_text())


def test_sizes_of_other_weights_are_refused_before_the_model_is_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(
        folder / "unet" / "config.json",
        "block_out_channels",
        [8192] * len(json.loads((folder / "unet" / "config.json").read_text())["block_out_channels"]),
    )
    monkeypatch.setattr("diffusers.UNet2DConditionModel.from_pretrained", None)
    with pytest.raises(CheckpointError, match=r"unet: cannot be loaded \(.* the config makes it \["):
        load_view_model(folder)


@pytest.mark.parametrize("size", [1, 4096])
def test_pictures_have_a_size_within_reason(folder: Path, size: int) -> None:
    edited(folder / "unet" / "config.json", "sample_size", size)
    with pytest.raises(CheckpointError, match="its pictures would be"):
        load_view_model(folder)


@pytest.mark.parametrize(
    "stated",
    ["x", [1], {"joint": "8"}, {"joint": [0]}, {"joint": [1] * 100}, {"fourth": "x"}, {"coarse": 1}, {"no": 1}],
)
def test_conditions_that_are_none(stated: Any) -> None:
    with pytest.raises(CheckpointError, match=r"i\.json: viewloom\.conditioning"):
        conditioning_of({"viewloom": {"conditioning": stated}}, Path("i.json"))


@pytest.mark.parametrize(
    "stated",
    [
        "x",
        [1, 1, 1],
        {"steps": 1},
        {"steps": 1, "guidance": 1, "strength": 1, "eta": 0},
        {"steps": 0, "guidance": 1, "strength": 1},
        {"steps": 1.5, "guidance": 1, "strength": 1},
        {"steps": 1, "guidance": "1", "strength": 1},
        {"steps": 1, "guidance": 1, "strength": 0},
        {"steps": 1, "guidance": 1, "strength": 1.1},
    ],
)
def test_ways_of_sampling_that_are_none(stated: Any) -> None:
    with pytest.raises(CheckpointError, match=r"i\.json: viewloom\.sampling"):
        sampling_of({"viewloom": {"sampling": stated}}, Path("i.json"))


def test_ways_of_sampling_are_read_where_they_are_named() -> None:
    assert sampling_of({"viewloom": {}}, Path("i.json")) is sampling_of({}, Path("i.json")) is None
    stated = {"steps": 2, "guidance": 1.5, "strength": 0.5}
    assert sampling_of({"viewloom": {"sampling": stated}}, Path("i.json")) == SamplingPlan(2, 1.5, 0.5)


@pytest.mark.parametrize("value", [0, "x", None, [8, 8], 10**9])
def test_the_look_before_any_work_sees_it_too(folder: Path, value: Any) -> None:
    edited(folder / "unet" / "config.json", "sample_size", value)
    with pytest.raises(CheckpointError, match="sample_size is"):
        checkpoint_info(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "coarse", "image_encoder"])
@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_files_that_end_in_zeros_in_viewlooms_own_layout(folder: Path, part: str, kept: float) -> None:
    path = next((folder / part).glob("*.safetensors"))
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    end = start + int(kept * (len(data) - start))
    path.write_bytes(data[:end] + bytes(len(data) - end))
    with pytest.raises(CheckpointError, match=rf"{part}: holds nothing but zeros in .*: it was not filled"):
        load_view_model(folder)


def test_matrices_of_zeros_before_others_are_where_training_begins(folder: Path) -> None:
    path = next((folder / "unet").glob("*.safetensors"))
    weights = load_file(path)
    weights["conv_in.weight"] = torch.zeros_like(weights["conv_in.weight"])
    save_file(weights, path)
    load_view_model(folder)
