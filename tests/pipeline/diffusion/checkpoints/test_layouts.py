"""Published layouts of Zero123: found from their files, loaded to the values they hold, refused with what is wrong."""

from __future__ import annotations

import json
import math
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from pipeline.diffusion.checkpoints import clip_encoder
from pipeline.diffusion.checkpoints.layouts import (
    LdmFile,
    NanoFolder,
    Zero123Folder,
    Zero123PlusFolder,
    find_layout,
    fourth_entry,
    licence_of,
    load_unet,
    load_vae,
)
from pipeline.diffusion.sample import decode_views, sample_latents, view_conditions
from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.load import checkpoint_info, load_view_model
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from scene.errors import CheckpointError, MissingBackendError

files = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layout_files.py"))))
MAIN = "diffusion_pytorch_model.safetensors"
SOURCE = torch.tensor([[math.radians(10.0), 1.1, 0.5, 0.5]])
ORBITS = torch.tensor([[[math.radians(90.0), math.radians(40.0), 1.5], [0.0, math.radians(10.0), 1.7]]])


@pytest.fixture
def clip() -> None:
    """Skips where CLIP's library is not installed."""
    pytest.importorskip("transformers")


def photo(side: int = 16) -> torch.Tensor:
    """A disc with random colours on transparency."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    rgba = rng.integers(0, 256, (1, side, side, 4), dtype=np.uint8)
    rgba[..., 3] = np.where((x - side / 2) ** 2 + (y - side / 2) ** 2 < (0.4 * side) ** 2, 255, 0)
    return torch.from_numpy(rgba)


WRITERS: dict[str, Callable[[Path], Path]] = {
    "kxic": lambda root: files.write_kxic(root / "zero123-xl"),
    "bennyguo": lambda root: files.write_bennyguo(root / "zero123-xl-diffusers"),
    "ashawkey": lambda root: files.write_ashawkey(root / "zero123-xl-diffusers", root / "trap"),
    "ashawkey stable": lambda root: files.write_ashawkey(root / "stable-zero123-diffusers", root / "trap"),
    "ckpt": lambda root: files.write_ldm(root / "zero123-xl.ckpt"),
    "ckpt stable": lambda root: files.write_ldm(root / "stable_zero123.ckpt"),
    "single safetensors": lambda root: files.write_ldm(root / "105000.safetensors", ema=False),
}
written = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


# --- found ------------------------------------------------------------------------------------------------------------


def test_layouts_are_found_from_their_files(tiny_checkpoint: Path, tmp_path: Path) -> None:
    kinds = {name: type(find_layout(write(tmp_path / name))) for name, write in WRITERS.items()}
    assert {name for name, kind in kinds.items() if kind is Zero123Folder} == {
        "kxic",
        "bennyguo",
        "ashawkey",
        "ashawkey stable",
    }
    assert {name for name, kind in kinds.items() if kind is LdmFile} == {"ckpt", "ckpt stable", "single safetensors"}
    assert isinstance(find_layout(tiny_checkpoint), NanoFolder)
    assert isinstance(find_layout(files.write_zero123plus(tmp_path / "plus")), Zero123PlusFolder)
    # A folder that holds one such file and nothing else is that file.
    assert find_layout(tmp_path / "ckpt") == LdmFile(tmp_path / "ckpt" / "zero123-xl.ckpt")


def test_what_is_no_layout_says_what_would_be(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(CheckpointError, match=r"another kind \(StableDiffusionPipeline\).*Zero123"):
        find_layout(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match=r"lora\.safetensors: is no single-file checkpoint of Zero-1-to-3"):
        find_layout(tmp_path / "lora.safetensors")
    several = tmp_path / "several"
    for name in ("105000.ckpt", "165000.ckpt"):
        files.write_ldm(several / name, ema=False)
    with pytest.raises(CheckpointError, match=r"2 files of weights: 105000\.ckpt, 165000\.ckpt.*one of them"):
        find_layout(several)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ('---\ntags:\n- 3d\nlicense: "cc-by-nc-4.0"\n---\nlicense: mit\n', "cc-by-nc-4.0"),
        ("---\nlicense: other\nlicense_name: sai-nc-community\n---\n", "sai-nc-community"),
        ("# A model\nlicense: mit\n", "unknown"),
        ("---\ntags: []\n---\n", "unknown"),
    ],
)
def test_the_licence_is_what_the_card_states(tmp_path: Path, card: str, licence: str) -> None:
    assert licence_of(tmp_path) == "unknown"
    (tmp_path / "README.md").write_text(card)
    assert licence_of(tmp_path) == licence


def test_what_a_checkpoint_is_shows_without_loading(tmp_path: Path) -> None:
    unet = sum(value.numel() for value in files.unet_weights().values())
    info = checkpoint_info(WRITERS["kxic"](tmp_path))
    assert info.parameters["unet"] == unet
    assert info.parameters["cc_projection"] == 36 * 32 + 32
    assert (info.licence, info.layout) == ("mit", "Zero123, diffusers layout with cc_projection")
    stable = checkpoint_info(WRITERS["ckpt stable"](tmp_path))
    assert (stable.layout, stable.remarks) == ("Stable Zero123, original layout", ("averaged weights",))
    original = files.ldm_unet(32, (1, 2), 1, 1, 32)
    assert stable.parameters["unet"] == sum(math.prod(shape) for shape in original.values())
    line = info.line("float16", "normal")
    assert "licence mit" in line
    assert "GB in float16" in line
    assert "\n" not in line
    assert info.gigabytes("float16", "high") == pytest.approx(info.gigabytes("float32", "high") / 2)
    assert info.gigabytes("float32", "low") < info.gigabytes("float32", "normal")


# --- loaded -----------------------------------------------------------------------------------------------------------


@written
@pytest.mark.usefixtures("clip")
def test_the_token_is_the_layouts_own_formula(write: Callable[[Path], Path], tmp_path: Path) -> None:
    path = write(tmp_path)
    model = ViewDiffusion.from_pretrained(path)
    held = files.projection_weights()
    conditions = view_conditions(model, photo(model.image_size), SOURCE, ORBITS, None)
    embedding = model.image_encoder(on_white(photo(model.image_size)))[0]
    # [dtheta, sin dphi, cos dphi, last]: 30 degrees up is negative, 90 degrees to the right is sine 1.
    radius = "stable" not in str(path.relative_to(tmp_path))
    lasts = (0.0, 0.2) if radius else (math.radians(80),) * 2
    for token, pose in zip(
        conditions.tokens[0], ([-0.523599, 1.0, 0.0, lasts[0]], [0.0, 0.0, 1.0, lasts[1]]), strict=True
    ):
        expected = held["weight"] @ torch.cat([embedding, torch.tensor(pose)]) + held["bias"]
        assert torch.allclose(token, expected, atol=1e-4)
    assert not conditions.null().tokens.any()  # no bias, no pose
    assert not (tmp_path / "trap").exists()


def on_white(rgba: torch.Tensor) -> torch.Tensor:
    """A photo on white in [-1, 1]."""
    values = rgba.permute(0, 3, 1, 2).float() / 255
    return (values[:, :3] * values[:, 3:] + 1 - values[:, 3:]) * 2 - 1


@written
@pytest.mark.usefixtures("clip")
def test_the_u_net_sees_noise_then_the_unscaled_source(write: Callable[[Path], Path], tmp_path: Path) -> None:
    model = ViewDiffusion.from_pretrained(write(tmp_path))
    picture = photo(model.image_size)
    seen: list[tuple[torch.Tensor, ...]] = []
    handle = model.unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    conditions = view_conditions(model, picture, SOURCE, ORBITS, None)
    z = torch.randn(1, 2, 4, model.latent_size, model.latent_size)
    with torch.no_grad():
        out = model.predict(z, torch.full((1, 2), 500), conditions)
        source = model.vae.encode(on_white(picture)).latent_dist.mode()
    handle.remove()
    ((rows, times, tokens),) = seen
    assert torch.equal(rows[:, :4], z[0])
    assert torch.allclose(rows[:, 4:], source.expand(2, -1, -1, -1), atol=1e-6)
    assert times.tolist() == [500, 500]
    assert tokens.shape == (2, 1, 32)
    assert torch.isfinite(out).all()
    assert out.shape == z.shape
    # What is denoised, in contrast, is scaled.
    latents = torch.randn(1, 1, 4, model.latent_size, model.latent_size)
    with torch.no_grad():
        decoded = model.vae.decode(latents[0] / 0.18215).sample * 0.5 + 0.5
    ours, expected = decode_views(model, latents)[0, 0], decoded[0].clamp(0, 1).movedim(0, -1)
    covered = ours[..., 3] > 0
    assert covered.any()
    assert torch.allclose(ours[covered][:, :3], expected[covered], atol=1e-3)


@pytest.mark.usefixtures("clip")
def test_the_same_weights_in_two_layouts_are_the_same_model(tmp_path: Path) -> None:
    one = ViewDiffusion.from_pretrained(WRITERS["kxic"](tmp_path))
    other = ViewDiffusion.from_pretrained(files.write_bennyguo(tmp_path / "other", variants=("",)))
    for name in ("unet", "vae", "image_encoder", "cc_projection"):
        ours, theirs = getattr(one, name).state_dict(), getattr(other, name).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert one.schedule.final_alpha_cumprod == pytest.approx(1 - 0.00085)
    assert (one.image_size, one.latent_size) == (16, 8)


@pytest.mark.usefixtures("clip")
def test_averaged_weights_are_loaded(tmp_path: Path) -> None:
    model = ViewDiffusion.from_pretrained(WRITERS["bennyguo"](tmp_path))
    averaged = files.unet_weights(50)
    assert torch.equal(model.unet.conv_in.weight, averaged["conv_in.weight"].half().float())
    state = files.ldm_state()
    path = WRITERS["ckpt"](tmp_path)
    assert torch.equal(
        ViewDiffusion.from_pretrained(path).unet.conv_in.weight, state["model_ema.diffusion_modelinput_blocks00weight"]
    )


@pytest.mark.usefixtures("clip")
def test_openais_tower_computes_what_openai_computes(tmp_path: Path) -> None:
    model = ViewDiffusion.from_pretrained(WRITERS["ckpt"](tmp_path))
    prefix = "cond_stage_model.model.visual."
    w = {k.removeprefix(prefix): v for k, v in files.ldm_state().items() if k.startswith(prefix)}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    images = torch.rand(2, 3, 40, 40) * 2 - 1
    small = F.interpolate(images, (28, 28), mode="bicubic", align_corners=True)
    mean, std = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    pixels = ((small + 1) / 2 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    x = F.conv2d(pixels, w["conv1.weight"], stride=14).flatten(2).mT
    x = torch.cat([w["class_embedding"].expand(2, 1, -1), x], 1) + w["positional_embedding"]
    x = norm(x, "ln_pre")
    for k in range(2):
        block = f"transformer.resblocks.{k}"
        y = norm(x, f"{block}.ln_1").mT.mT.transpose(0, 1)
        y = F.multi_head_attention_forward(
            y, y, y, 64, 1, w[f"{block}.attn.in_proj_weight"], w[f"{block}.attn.in_proj_bias"], None, None, False, 0.0,
            w[f"{block}.attn.out_proj.weight"], w[f"{block}.attn.out_proj.bias"], training=False,
        )[0]  # fmt: skip
        x = x + y.transpose(0, 1)
        y = F.linear(norm(x, f"{block}.ln_2"), w[f"{block}.mlp.c_fc.weight"], w[f"{block}.mlp.c_fc.bias"])
        y = y * torch.sigmoid(1.702 * y)
        x = x + F.linear(y, w[f"{block}.mlp.c_proj.weight"], w[f"{block}.mlp.c_proj.bias"])
    expected = norm(x[:, 0], "ln_post") @ w["proj"]
    assert torch.allclose(model.image_encoder(images), expected, atol=1e-4)


@pytest.mark.usefixtures("clip")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_stay_close_to_single_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    path, settings = WRITERS["kxic"](tmp_path), SamplingSettings(steps=2, guidance=1.5)
    results = []
    for kind in (torch.float32, dtype):
        model = ViewDiffusion.from_pretrained(path, dtype=kind)
        assert {model.unet.dtype, model.vae.dtype, model.image_encoder.dtype} == {kind}
        assert model.cc_projection.dtype == torch.float32
        conditions = view_conditions(model, photo(), SOURCE, ORBITS, None)
        results.append(sample_latents(model, conditions, settings))
    assert results[1].dtype == torch.float32
    assert (results[0] - results[1]).abs().mean() < 0.1 * results[0].abs().mean()


@pytest.mark.usefixtures("clip")
def test_memory_changes_how_many_rows_go_together_and_nothing_else(tmp_path: Path) -> None:
    model = ViewDiffusion.from_pretrained(WRITERS["kxic"](tmp_path))
    orbits = ORBITS.repeat(1, 3, 1)
    conditions = view_conditions(model, photo(), SOURCE, orbits, None)
    rows: list[int] = []
    handle = model.unet.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    results, counts = [], []
    for memory in ("low", "normal", "high"):
        rows.clear()
        results.append(sample_latents(model.use_memory(memory), conditions, SamplingSettings(steps=1, guidance=1.0)))
        counts.append(list(rows))
    handle.remove()
    assert counts == [[1] * 6, [4, 2], [6]]
    assert all(torch.allclose(result, results[0], atol=1e-4) for result in results)
    assert not model.vae.use_slicing
    assert model.use_memory("low").vae.use_tiling


def test_models_whose_views_meet_run_together_whatever_the_memory(tiny_checkpoint: Path) -> None:
    model = ViewDiffusion.from_pretrained(tiny_checkpoint)
    for memory in ("low", "normal", "high"):
        assert model.use_memory(memory).rows_at_once is None


@pytest.mark.usefixtures("clip")
def test_the_fourth_entry_can_be_said(tmp_path: Path) -> None:
    path = WRITERS["kxic"](tmp_path)
    assert ViewDiffusion.from_pretrained(path).conditioning.fourth == "radius"
    assert ViewDiffusion.from_pretrained(path, pose="polar").conditioning.fourth == "polar"
    stable = WRITERS["ckpt stable"](tmp_path)
    assert ViewDiffusion.from_pretrained(stable).conditioning.fourth == "polar"
    assert ViewDiffusion.from_pretrained(stable, pose="radius").conditioning.fourth == "radius"


@pytest.mark.parametrize(
    ("path", "fourth"),
    [
        ("stable-zero123/zero123-xl.ckpt", "radius"),
        ("stable-zero123/zero-1-to-3.ckpt", "radius"),
        ("stable-zero123/105000.ckpt", "polar"),
        ("stable-zero123/stable_zero123.ckpt", "polar"),
        ("zero123/stable_zero123.ckpt", "polar"),
        ("zero123/105000.ckpt", "radius"),
        ("models--stabilityai--stable-zero123/snapshots/0123/model.ckpt", "polar"),
    ],
)
def test_the_name_of_a_folder_counts_for_files_without_a_telling_name(path: str, fourth: str) -> None:
    assert fourth_entry(LdmFile(Path("weights") / path), "auto") == fourth


# --- refused ----------------------------------------------------------------------------------------------------------


def test_without_transformers_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_encoder, "optional_module", lambda name: None)
    monkeypatch.setattr(clip_encoder, "import_failure", lambda name: None)
    for name in ("kxic", "ckpt"):
        with pytest.raises(MissingBackendError, match=r"need the package transformers.*viewloom\[checkpoints\]"):
            ViewDiffusion.from_pretrained(WRITERS[name](tmp_path))


def cut(path: Path) -> None:
    """Keep half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(path: Path, **values: object) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def edit(path: Path, alter: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the weights of a file."""
    weights = load_file(path)
    alter(weights)
    save_file(weights, path)


def spoil(weights: dict[str, torch.Tensor]) -> None:
    """One number becomes NaN."""
    weights["conv_in.bias"][0] = float("nan")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no U-Net": (lambda f: shutil.rmtree(f / "unet"), "unet: a part of the checkpoint is missing"),
    "no VAE": (lambda f: shutil.rmtree(f / "vae"), "vae: a part of the checkpoint is missing"),
    "no encoder": (lambda f: shutil.rmtree(f / "image_encoder"), "image_encoder: a part of the checkpoint is missing"),
    "no projection": (lambda f: shutil.rmtree(f / "clip_camera_projection"), "projection: a part of the checkpoint is"),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "scheduler_config.json: cannot be read"),
    "no weights": (lambda f: (f / "unet" / MAIN).unlink(), "unet: holds no weights"),
    "half a U-Net": (lambda f: cut(f / "unet" / MAIN), r"is half-downloaded: [\d,]+ bytes of [\d,]+"),
    "half an encoder": (lambda f: cut(f / "image_encoder" / "model.safetensors"), "image_encoder.*is half-downloaded"),
    "a key too few": (
        lambda f: edit(f / "unet" / MAIN, lambda w: w.pop("conv_out.bias")),
        r"unet: lacks 1 of \d+ weights: conv_out\.bias.*partial",
    ),
    "a key too many": (
        lambda f: edit(f / "vae" / MAIN, lambda w: w.update(extra=torch.zeros(1))),
        "vae: holds 1 weights that the model has no place for: extra",
    ),
    "NaN": (lambda f: edit(f / "unet" / MAIN, spoil), r"unet: holds weights that are not finite: \['conv_in\.bias'\]"),
    "other channels": (
        lambda f: change(f / "unet" / "config.json", in_channels=9),
        r"unet: has 1 weights of other shapes: conv_in\.weight is \[32, 8, 3, 3\], not \[32, 9, 3, 3\]",
    ),
    "a projection of another width": (
        lambda f: save_file(
            {"proj.weight": torch.ones(48, 52), "proj.bias": torch.zeros(48)}, f / "clip_camera_projection" / MAIN
        ),
        "embeddings of 32, tokens of 48, a U-Net that reads 32",
    ),
    "no pose in the projection": (
        lambda f: save_file({"proj.weight": torch.zeros(32, 32)}, f / "clip_camera_projection" / MAIN),
        r"pose projection is \[32, 32\]: not an embedding and four numbers",
    ),
    "config no JSON": (lambda f: (f / "unet" / "config.json").write_text("{"), "unet.config.json: cannot be read"),
    "config of another class": (
        lambda f: change(f / "unet" / "config.json", down_block_types=["Nothing", "DownBlock2D"]),
        "unet: its config cannot be used",
    ),
    "config of an encoder that cannot be": (
        lambda f: change(f / "image_encoder" / "config.json", num_attention_heads=3),
        "image_encoder: its config cannot be used",
    ),
}


@pytest.mark.parametrize(("damage", "message"), FAULTS.values(), ids=FAULTS)
@pytest.mark.usefixtures("clip")
def test_damaged_folders_say_what_is_wrong(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    folder = files.write_bennyguo(tmp_path / "model", variants=("",))
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        load_view_model(folder)


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if fault.startswith(("no ", "half ")) and "pose" not in fault]
)
def test_what_is_missing_is_told_before_anything_is_loaded(tmp_path: Path, fault: str) -> None:
    folder = files.write_bennyguo(tmp_path / "model", variants=("",))
    damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        checkpoint_info(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_train_timesteps": "many"}, "num_train_timesteps is 'many', not a number"),
        ({"num_train_timesteps": 0}, "num_train_timesteps is 0, not within 1 and"),
        ({"beta_start": -1}, "beta_start is -1, not within 0 and 1"),
        ({"beta_schedule": "sigmoid"}, "beta schedule 'sigmoid' is not supported"),
    ],
)
def test_a_noise_process_that_is_none_is_told_with_its_file(
    tiny_checkpoint: Path, tmp_path: Path, values: dict[str, object], message: str
) -> None:
    folder = files.write_kxic(tmp_path / "zero123-xl")
    nano = Path(shutil.copytree(tiny_checkpoint, tmp_path / "nano"))
    for root, read in ((folder, checkpoint_info), (nano, checkpoint_info), (nano, load_view_model)):
        path = root / "scheduler" / "scheduler_config.json"
        change(path, **values)
        with pytest.raises(CheckpointError, match=rf"scheduler_config\.json: {message}"):
            read(root)


@pytest.mark.parametrize("part", ["unet", "vae", "image_encoder", "cc_projection", "coarse"])
def test_missing_parts_of_viewlooms_own_layout_are_told_before_anything_is_loaded(
    tiny_checkpoint: Path, tmp_path: Path, part: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    assert part in checkpoint_info(folder).parameters
    shutil.rmtree(folder / part)
    with pytest.raises(CheckpointError, match=f"{part}: a part of the checkpoint is missing"):
        checkpoint_info(folder)
    change(folder / "model_index.json", viewloom={"conditioning": {}})
    if part == "coarse":  # not every U-Net is shown one
        assert part not in checkpoint_info(folder).parameters


@pytest.mark.parametrize("prefix", ["first_stage_model.", "cond_stage_model.model.visual."])
def test_missing_parts_of_a_single_file_are_told_before_anything_is_loaded(tmp_path: Path, prefix: str) -> None:
    state = {k: v.contiguous() for k, v in files.ldm_state(ema=False).items() if not k.startswith(prefix)}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=rf"lacks weights: none is called {re.escape(prefix)}\*"):
        checkpoint_info(tmp_path / "a.safetensors")


@pytest.mark.parametrize("filled", [0.1, 0.6, 0.95])
@pytest.mark.parametrize(("part", "load"), [("unet", load_unet), ("vae", load_vae)])
def test_files_that_a_downloader_reserved_and_did_not_fill_are_refused(
    tmp_path: Path, part: str, load: Callable[[Path, torch.dtype], torch.nn.Module], filled: float
) -> None:
    folder = files.write_bennyguo(tmp_path / "model", variants=("",)) / part
    load(folder, torch.float32)
    data = (folder / MAIN).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    kept = start + int(filled * (len(data) - start))
    (folder / MAIN).write_bytes(data[:kept].ljust(len(data), b"\0"))
    with pytest.raises(CheckpointError, match=f"{part}: holds nothing but zeros in .*weight: it was not filled"):
        load(folder, torch.float32)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("model.diffusion_model.out.2", r"lacks .*out\.2\.weight"),
        ("model.diffusion_model.middle_block.1.norm", r"lacks 2 of \d+ weights: mid_block\.attentions\.0\.norm\.bias"),
        ("first_stage_model.", "lacks weights, among them"),
        ("cond_stage_model.model.visual", "lacks weights, among them"),
        ("cond_stage_model.model.visual.ln_post", r"lacks 2 of \d+ weights: vision_model\.post_layernorm"),
        ("cc_projection.bias", r"lacks 1 of 2 weights: projection\.bias"),
    ],
)
@pytest.mark.usefixtures("clip")
def test_partial_files_say_what_is_missing(tmp_path: Path, gone: str, message: str) -> None:
    state = {k: v for k, v in files.ldm_state(ema=False).items() if not k.startswith(gone)}
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_view_model(tmp_path / "a.safetensors")


def test_cut_files_of_the_original_code_are_told(tmp_path: Path) -> None:
    for name in ("a.ckpt", "a.safetensors"):
        path = files.write_ldm(tmp_path / name, ema=False)
        cut(path)
        with pytest.raises(CheckpointError, match="is half-downloaded"):
            find_layout(path)
