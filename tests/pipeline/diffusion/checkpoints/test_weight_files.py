"""Files of weights: whole or refused with what is wrong, and never a door for code."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from pipeline.diffusion.checkpoints.weight_files import (
    check_whole,
    chosen_files,
    entries,
    fill,
    part_files,
    read_part,
    read_state,
    read_weights,
)
from scene.errors import CheckpointError

PLAIN = "diffusion_pytorch_model.safetensors"


def meta_linear() -> torch.nn.Linear:
    """A layer without memory."""
    return torch.nn.Linear(3, 2, device="meta")


def sound() -> dict[str, torch.Tensor]:
    """Weights for it."""
    return {"weight": torch.arange(6.0).view(2, 3), "bias": torch.tensor([1.0, 2.0])}


# --- which files ------------------------------------------------------------------------------------------------------


def test_averaged_weights_go_first_then_safetensors() -> None:
    stem = "diffusion_pytorch_model"
    all_of_them = [f"{stem}{v}{e}" for v in ("", ".fp16", ".fp16_ema", ".non_ema") for e in (".bin", ".safetensors")]
    order = []
    while chosen := chosen_files(all_of_them):
        order += chosen
        all_of_them.remove(chosen[0])
    assert order == [f"{stem}{v}{e}" for v in (".fp16_ema", "", ".fp16") for e in (".safetensors", ".bin")]


def test_names_of_other_things_are_no_weights() -> None:
    assert chosen_files(["config.json", "training_args.bin", "zero123.py", "optimizer.bin", "model.onnx"]) == []
    assert chosen_files(["model.safetensors", "pytorch_model.bin"]) == ["model.safetensors"]


def test_shards_go_together_and_missing_ones_are_counted(tmp_path: Path) -> None:
    for k, (name, value) in enumerate(sound().items(), 1):
        save_file({name: value}, tmp_path / f"diffusion_pytorch_model-0000{k}-of-00002.safetensors")
    assert {name: value.tolist() for name, value in read_part(tmp_path).items()} == {
        name: value.tolist() for name, value in sound().items()
    }
    part_files(tmp_path)[1].unlink()
    with pytest.raises(CheckpointError, match="half-downloaded: 1 of 2 shards"):
        part_files(tmp_path)


# --- whole or not -----------------------------------------------------------------------------------------------------


@given(cut=st.integers(0, 10**6))
def test_every_cut_of_a_safetensors_file_is_seen(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / PLAIN
    save_file(sound(), path)
    data = path.read_bytes()
    cut %= len(data)
    path.write_bytes(data[:cut])
    with pytest.raises(CheckpointError, match="half-downloaded") as caught:
        check_whole(path)
    if cut >= len(data) - 32:  # the header is whole and tells how much there should be
        assert f"{cut:,} bytes of {len(data):,}" in str(caught.value)


@given(cut=st.integers(0, 10**6))
def test_every_cut_of_a_pickle_is_seen(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.ckpt"
    torch.save(sound(), path)
    data = path.read_bytes()
    path.write_bytes(data[: cut % len(data)])
    with pytest.raises(CheckpointError, match=r"half-downloaded|cannot be read"):
        read_weights(path)


def test_pointers_of_git_lfs_are_recognised(tmp_path: Path) -> None:
    for name in (PLAIN, "pytorch_model.bin"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3438354176\n")
        with pytest.raises(CheckpointError, match=r"pointer of git-lfs.*git lfs pull"):
            check_whole(tmp_path / name)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(CheckpointError, match=r"no file of weights.*\.safetensors"):
        read_weights(tmp_path / "a.txt")
    (tmp_path / PLAIN).write_bytes(b"GIF89a, and then more than eight bytes")
    with pytest.raises(CheckpointError, match=r"no safetensors file|half-downloaded"):
        read_weights(tmp_path / PLAIN)


@pytest.mark.parametrize("held", [[torch.zeros(1)], None, torch.zeros(1)])
def test_a_state_dict_that_is_none_is_refused(tmp_path: Path, held: object) -> None:
    torch.save({"state_dict": held}, tmp_path / "a.ckpt")
    message = f"a.ckpt: its state_dict is a {type(held).__name__}, not named tensors"
    for read in (entries, read_state):
        with pytest.raises(CheckpointError, match=message):
            read(tmp_path / "a.ckpt")


def test_tensors_without_a_name_are_left(tmp_path: Path) -> None:
    torch.save({**sound(), 3: torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    torch.save({"state_dict": {**sound(), 3: torch.zeros(1)}}, tmp_path / "a.ckpt")
    assert read_part(tmp_path).keys() == entries(tmp_path / "a.ckpt").keys() == sound().keys()


def test_heads_tell_shapes_and_bytes(tmp_path: Path) -> None:
    save_file({k: v.half() for k, v in sound().items()}, tmp_path / PLAIN)
    torch.save({"state_dict": sound(), "epoch": 3}, tmp_path / "a.ckpt")
    light, pickled = entries(tmp_path / PLAIN), entries(tmp_path / "a.ckpt")
    assert {k: (e.shape, e.bytes, e.count) for k, e in light.items()} == {
        "weight": ((2, 3), 12, 6),
        "bias": ((2,), 4, 2),
    }
    assert {k: e.bytes for k, e in pickled.items()} == {"weight": 24, "bias": 8}


# --- no code ----------------------------------------------------------------------------------------------------------


class Callback:
    """An object of a training library, as checkpoints hold them beside the weights."""

    def __init__(self) -> None:
        self.best = 0.5


class Trap:
    """Makes a folder when a pickle builds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_objects_beside_the_weights_are_left_inert(tmp_path: Path) -> None:
    torch.save({"state_dict": sound(), "callbacks": {"a": Callback()}}, tmp_path / "a.ckpt")
    content = read_weights(tmp_path / "a.ckpt")
    assert torch.equal(content["state_dict"]["weight"], sound()["weight"])
    assert not isinstance(content["callbacks"]["a"], Callback)
    assert not hasattr(content["callbacks"]["a"], "best")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_never_runs(tmp_path: Path, zipped: bool) -> None:
    made = tmp_path / "made"
    if zipped:
        torch.save({"weight": torch.zeros(1), "trap": Trap(made)}, tmp_path / "a.ckpt")
    else:
        (tmp_path / "a.ckpt").write_bytes(pickle.dumps({"trap": Trap(made)}))
    try:
        read_weights(tmp_path / "a.ckpt")
    except CheckpointError as error:
        assert "cannot be read" in str(error)  # noqa: PT017 - refusing it is as good as reading past it
    assert not made.exists()
    pickle.loads(pickle.dumps(Trap(made)))  # the trap works
    assert made.is_dir()


# --- into modules -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_arrive_frozen_in_the_wanted_precision(dtype: torch.dtype) -> None:
    layer = fill(meta_linear(), sound(), Path("here"), dtype)
    assert torch.equal(layer.weight, sound()["weight"].to(dtype))
    assert layer.weight.dtype == dtype
    assert not layer.weight.requires_grad
    assert not layer.training


def test_missing_weights_are_named_and_counted() -> None:
    with pytest.raises(CheckpointError, match=r"here: lacks 1 of 2 weights: bias.*1 it holds have no place: bypass"):
        fill(meta_linear(), {"weight": torch.zeros(2, 3), "bypass": torch.zeros(2)}, Path("here"), torch.float32)


def test_weights_left_over_are_named_unless_ignored() -> None:
    more = {**sound(), "position_ids": torch.arange(3), **{f"x{k}": torch.zeros(1) for k in range(5)}}
    with pytest.raises(
        CheckpointError, match=r"holds 5 weights that the model has no place for: x0, x1, x2 and 2 more"
    ):
        fill(meta_linear(), more, Path("here"), torch.float32, r"position_ids")
    fill(meta_linear(), {**sound(), "position_ids": torch.arange(3)}, Path("here"), torch.float32, r"position_ids")


def test_other_shapes_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"weight is \[3, 2\], not \[2, 3\]"):
        fill(meta_linear(), {**sound(), "weight": torch.zeros(3, 2)}, Path("here"), torch.float32)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_named(bad: float) -> None:
    with pytest.raises(CheckpointError, match=r"not finite: \['bias'\]"):
        fill(meta_linear(), {**sound(), "bias": torch.tensor([0.0, bad])}, Path("here"), torch.float32)


def test_numbers_that_a_half_cannot_hold_are_told_apart() -> None:
    large = {**sound(), "bias": torch.tensor([0.0, 1e6])}
    with pytest.raises(CheckpointError, match=r"bias holds numbers too large for float16.*bfloat16 or float32"):
        fill(meta_linear(), dict(large), Path("here"), torch.float16)
    assert fill(meta_linear(), dict(large), Path("here"), torch.bfloat16).bias[1].float() == pytest.approx(
        1e6, rel=0.01
    )


def test_matrices_of_zeros_are_refused_and_biases_of_zeros_are_not() -> None:
    with pytest.raises(CheckpointError, match=r"here: holds nothing but zeros in weight: it was not filled\. Download"):
        fill(meta_linear(), {**sound(), "weight": torch.zeros(2, 3)}, Path("here"), torch.float32)
    nearly = torch.zeros(2, 3)
    nearly[0, 1] = 1e-7
    layer = fill(meta_linear(), {"weight": nearly, "bias": torch.zeros(2)}, Path("here"), torch.float32)
    assert not layer.bias.any()


HEADERS: dict[str, Any] = {
    "a text for a shape": {"shape": "ab"},
    "no shape": {"shape": None},
    "a number for a shape": {"shape": 5},
    "texts in it": {"shape": ["x"]},
    "halves": {"shape": [1.5]},
    "a shape in a shape": {"shape": [[1]]},
    "beyond 64 bits": {"shape": [10**400]},
    "a product beyond 64 bits": {"shape": [2**40, 2**40]},
    "many sides": {"shape": [1] * 1000},
    "no start": {"data_offsets": [None, 4]},
    "a text for a start": {"data_offsets": ["0", 8]},
    "backwards": {"data_offsets": [8, 4]},
    "negative": {"data_offsets": [-4, 4]},
    "one place": {"data_offsets": [4]},
    "fewer bytes than numbers": {"shape": [3]},
    "no type": {"dtype": None},
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_headers_that_describe_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **change}
    head = json.dumps({"a": entry}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(8))
    for read in (entries, read_weights, check_whole):
        with pytest.raises(CheckpointError, match="is no safetensors file"):
            read(tmp_path / "a.safetensors")


@pytest.mark.parametrize("head", [b"[" * 100_000, b"[]", b"7", b'{"a": 7}', b'{"a": {}}', b"\xff" * 8])
def test_headers_that_are_none(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        entries(tmp_path / "a.safetensors")
