"""Public editors: loaded to the values their files hold, refused with what is wrong, and full size by their numbers."""

from __future__ import annotations

import gc
import json
import runpy
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file

from pipeline.diffusion.checkpoints import clip_encoder
from pipeline.diffusion.checkpoints.layouts import on_meta
from pipeline.diffusion.modules.attention import self_attention_layers
from pipeline.editing import load
from pipeline.editing.load import CONTROLS, load_editor
from pipeline.editing.model import Controls, EditDiffusion
from pipeline.jobs.editor import JobEditor
from pipeline.jobs.settings import EditorSettings
from scene.errors import CheckpointError, InputError, MissingBackendError
from scene.resources import default_editor

LAYOUT_FILES = Path(__file__).parents[1] / "diffusion" / "checkpoints" / "layout_files.py"
files = SimpleNamespace(**runpy.run_path(str(LAYOUT_FILES)))
MAIN = "diffusion_pytorch_model.safetensors"
TOKENS = 7
Both = tuple[Path, dict[Any, Path | str]]


@pytest.fixture
def clip() -> Any:
    """CLIP's library; skips where it is not installed."""
    return pytest.importorskip("transformers")


@pytest.fixture
def no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros in place of an embedded prompt, for what is to run where CLIP's library is not installed, too."""
    monkeypatch.setattr(load, "embed_prompt", lambda *_: torch.zeros(TOKENS, files.CONTEXT))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection fails the test."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("the network was used"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and its two ControlNets, written once."""
    root = tmp_path_factory.mktemp("written")
    files.write_sd15(root / "sd15")
    for seed, name in ((7, "openpose"), (8, "depth")):
        files.write_control(root / name, seed)
    return root


@pytest.fixture
def both(written: Path, tmp_path: Path) -> Both:
    """A copy of the checkpoint, and of its ControlNets."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return tmp_path / "sd15", {"skeleton": tmp_path / "openpose", "depth": tmp_path / "depth"}


def change(path: Path, **values: object) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# --- loaded -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("offline")
def test_a_folder_loads_to_what_its_files_hold(tmp_path: Path, both: Both, clip: Any) -> None:
    folder, controls = both
    loaded = load_editor(folder, controls)
    for part, where in (
        (loaded.unet, folder / "unet"),
        (loaded.controlnets["skeleton"], tmp_path / "openpose"),
        (loaded.controlnets["depth"], tmp_path / "depth"),
    ):
        stored, state = load_file(where / MAIN), part.state_dict()
        assert state.keys() == stored.keys()
        assert all(torch.equal(state[key], value) for key, value in stored.items())
        assert not part.training
        assert not any(value.requires_grad for value in part.parameters())
    vae = loaded.vae.state_dict()
    stored = load_file(folder / "vae" / MAIN)
    query = "mid_block.attentions.0."
    assert torch.equal(vae[f"decoder.{query}to_q.weight"], stored[f"decoder.{query}query.weight"])
    # The empty prompt of 1.x: start, and its end as padding.
    encoder = clip.CLIPTextModel.from_pretrained(str(folder / "text_encoder"))
    with torch.no_grad():
        expected = encoder(torch.tensor([[3, *[4] * (TOKENS - 1)]])).last_hidden_state[0]
    assert torch.allclose(loaded.prompt, expected, atol=1e-5)
    assert loaded.licence == "creativeml-openrail-m, openrail"
    assert (loaded.latent_size, loaded.image_size) == (8, 16)


def test_a_prompt_is_embedded_once_and_the_encoder_let_go(both: Both, clip: Any) -> None:
    folder, controls = both
    plain, said = load_editor(folder, controls), load_editor(folder, controls, prompt="A a")
    gc.collect()
    assert not [held for held in gc.get_objects() if type(held) is clip.CLIPTextModel]
    encoder = clip.CLIPTextModel.from_pretrained(str(folder / "text_encoder"))
    with torch.no_grad():
        expected = encoder(torch.tensor([[3, 2, 2, 4, 4, 4, 4]])).last_hidden_state[0]
    assert torch.allclose(said.prompt, expected, atol=1e-5)
    assert torch.equal(said.prompt[0], plain.prompt[0])  # the encoder is causal
    assert not torch.allclose(said.prompt[1], plain.prompt[1])


def test_too_long_a_prompt_is_not_cut_silently(both: Both, clip: Any) -> None:
    folder, controls = both
    assert len(load_editor(folder, controls, prompt="a " * (TOKENS - 2)).prompt) == TOKENS
    with pytest.raises(
        InputError, match=f"the prompt is {TOKENS - 1} tokens long, the text encoder reads {TOKENS - 2}"
    ):
        load_editor(folder, controls, prompt="a " * (TOKENS - 1))


@pytest.mark.usefixtures("no_text")
def test_predictions_are_those_of_the_networks_as_diffusers_loads_them(tmp_path: Path, both: Both) -> None:
    folder, given = both
    loaded = load_editor(folder, given)
    z, t = torch.randn(3, 4, 8, 8), torch.tensor([10, 500, 981])
    pictures, scales = torch.rand(3, 3, 16, 16), torch.tensor([1.0, 0.0, 0.5])
    with torch.no_grad():
        loaded.prompt = torch.randn(TOKENS, files.CONTEXT)
        out = {kind: loaded.predict(z, t, Controls(kind, pictures, scales)) for kind in ("skeleton", "depth")}
        plain = loaded.predict(z, t)
        unet = UNet2DConditionModel.from_pretrained(str(folder / "unet"))
        text = loaded.prompt.expand(3, -1, -1)
        assert torch.allclose(plain, unet(z, t, text).sample, atol=1e-5)
        for kind, name in (("skeleton", "openpose"), ("depth", "depth")):
            network = ControlNetModel.from_pretrained(str(tmp_path / name))
            for row, scale in enumerate(scales.tolist()):
                one = slice(row, row + 1)
                down, mid = network(z[one], t[one], text[one], pictures[one], scale, return_dict=False)
                expected = unet(
                    z[one], t[one], text[one], down_block_additional_residuals=down, mid_block_additional_residual=mid
                ).sample
                assert torch.allclose(out[kind][one], expected, atol=1e-4)
    assert torch.allclose(out["skeleton"][1], plain[1], atol=1e-5)
    assert not torch.allclose(out["skeleton"][0], out["depth"][0], atol=1e-3)


@pytest.mark.usefixtures("no_text")
def test_of_the_published_scheduler_the_betas_are_used(both: Both) -> None:
    folder, controls = both
    schedule = load_editor(folder, controls).schedule
    assert schedule.prediction == "epsilon"
    assert len(schedule) == 1000
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    expected = torch.cumprod(1 - betas, 0).float()
    assert torch.allclose(schedule.alphas_cumprod, expected, rtol=1e-6)
    assert schedule.final_alpha_cumprod == pytest.approx(1 - 0.00085)
    clean, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    z = schedule.add_noise(clean, noise, torch.tensor([500, 500]))
    found, same = schedule.predict_x0_eps(noise, z, 500)
    assert torch.allclose(found, clean, atol=1e-4)
    assert torch.equal(same, noise)


@pytest.mark.usefixtures("no_text")
@pytest.mark.parametrize(
    "names",
    [("diffusion_pytorch_model.bin",), ("diffusion_pytorch_model.fp16.safetensors",)],
    ids=["pickle", "half precision"],
)
def test_one_network_serves_both_kinds_in_any_file_and_precision(tmp_path: Path, names: tuple[str, ...]) -> None:
    control = files.write_control(tmp_path / "control", names=names)
    loaded = load_editor(
        files.write_sd15(tmp_path / "sd15"), {"skeleton": control, "depth": control}, dtype=torch.bfloat16
    )
    assert loaded.controlnets["skeleton"] is loaded.controlnets["depth"]
    for part in (loaded.unet, loaded.vae, *loaded.controlnets.values()):
        assert {value.dtype for value in part.parameters()} == {torch.bfloat16}
    picture = Controls("depth", torch.rand(1, 3, 16, 16), torch.ones(1))
    with torch.no_grad():
        out = loaded.predict(torch.randn(1, 4, 8, 8), 500, picture)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()


def stand_in_for_the_hub(held: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Serve folders under names of the hub; returns the names that are fetched, as they are."""
    fetched: list[str] = []

    def listed(_: object, name: str) -> list[str]:
        return [path.relative_to(held[name]).as_posix() for path in held[name].rglob("*") if path.is_file()]

    def download(name: str, *, allow_patterns: list[str]) -> str:
        fetched.append(name)
        folder = cache / f"cache{len(fetched)}"
        for file in allow_patterns:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(held[name] / file, folder / file)
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", listed)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return fetched


def test_by_default_the_published_controlnets_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    width = 768
    held = {
        "owner/sd15": files.write_sd15(tmp_path / "sd15", width=width),
        CONTROLS["skeleton"]: files.write_control(tmp_path / "openpose", 7, width=width),
        CONTROLS["depth"]: files.write_control(tmp_path / "depth", 8, width=width),
    }
    fetched = stand_in_for_the_hub(held, tmp_path, monkeypatch)
    monkeypatch.setattr(load, "embed_prompt", lambda *_: torch.zeros(TOKENS, width))
    loaded = load_editor("owner/sd15")
    assert fetched == ["owner/sd15", *CONTROLS.values()]
    for kind, name in CONTROLS.items():
        key = "controlnet_mid_block.weight"
        assert torch.equal(loaded.controlnets[kind].state_dict()[key], load_file(held[name] / MAIN)[key])


@pytest.mark.usefixtures("no_text")
def test_without_controlnets_it_still_predicts(tmp_path: Path) -> None:
    loaded = load_editor(files.write_sd15(tmp_path / "sd15"), {})
    with torch.no_grad():
        assert loaded.predict(torch.randn(1, 4, 8, 8), 500).shape == (1, 4, 8, 8)
        with pytest.raises(InputError, match=r"no ControlNet for depth.*It has: none"):
            loaded.predict(torch.randn(1, 4, 8, 8), 500, Controls("depth", torch.rand(1, 3, 16, 16), torch.ones(1)))


def own_editor(folder: Path) -> Path:
    """A folder in the layout of viewloom's own editors, with a VAE of its own."""
    unet = UNet2DConditionModel.from_config({**files.UNET_CONFIG, "in_channels": 4})
    unet.load_state_dict(files.unet_weights(in_channels=4))
    control = ControlNetModel.from_config(files.control_config())
    control.load_state_dict(files.noise(files.shapes_of(control), 7))
    vae = AutoencoderKL.from_config(files.VAE_CONFIG)
    vae.load_state_dict(files.vae_weights())
    none = torch.zeros(1, files.CONTEXT)
    EditDiffusion(unet, vae, {"skeleton": control, "depth": control}, files.SCHEDULER, none).save_pretrained(folder)
    return folder


def test_the_nano_layout_loads_and_takes_neither_controls_nor_prompt(tmp_path: Path) -> None:
    loaded = load_editor(own_editor(tmp_path), dtype=torch.bfloat16)
    assert loaded.unet.dtype == loaded.controlnets["depth"].dtype == torch.bfloat16
    assert set(loaded.controlnets) == {"skeleton", "depth"}
    for given in ({"controls": {}}, {"prompt": "a dog"}):
        with pytest.raises(InputError, match="has its own ControlNet"):
            load_editor(tmp_path, **given)  # type: ignore[arg-type]


def test_the_nano_layout_loads_from_the_hub_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own_editor(tmp_path / "own")
    (folder / "training.json").write_text("{}")
    fetched = stand_in_for_the_hub({"owner/editor": folder}, tmp_path, monkeypatch)
    loaded = load_editor("owner/editor")
    given = load_file(folder / "controlnet" / MAIN)
    assert torch.equal(loaded.controlnets["depth"].state_dict()["conv_in.weight"], given["conv_in.weight"].float())
    assert not (tmp_path / "cache1" / "training.json").exists()
    job = JobEditor(EditorSettings(weights=Path("owner/editor")), "skeleton", "cpu")
    job.check()
    assert fetched == ["owner/editor"] * 2
    assert job.is_own


def test_the_embedded_editors_folder_loads_when_it_is_named() -> None:
    job = JobEditor(EditorSettings(weights=default_editor()), "depth", "cpu")
    job.check()
    assert job.digest == JobEditor(EditorSettings(), "depth", "cpu").digest


# --- refused ----------------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    """Keep half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def inpainting(root: Path) -> None:
    """A U-Net that also reads a mask and a masked picture."""
    change(root / "unet" / "config.json", in_channels=9)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "SDXL": (
        lambda f: change(f / "model_index.json", _class_name="StableDiffusionXLPipeline", text_encoder_2=["", ""]),
        r"sd15: is a checkpoint of another kind \(two text encoders, as Stable Diffusion XL\).*1\.x in diffusers",
    ),
    "Zero123": (
        lambda f: (shutil.rmtree(f), files.write_kxic(f)),
        r"of another kind \(Zero1to3StableDiffusionPipeline\)",
    ),
    "inpainting": (inpainting, r"unet: takes 9 channels and makes 4 \(it is for inpainting\).*text-to-image"),
    "image to image": (
        lambda f: change(f / "unet" / "config.json", in_channels=8),
        "takes 8 channels and makes 4: it reads more",
    ),
    "no index": (lambda f: (f / "model_index.json").unlink(), r"is no folder with a model_index\.json"),
    "no U-Net": (lambda f: shutil.rmtree(f / "unet"), "unet: a part of the checkpoint is missing"),
    "U-Net of a video": (
        lambda f: change(f / "unet" / "config.json", _class_name="UNet3DConditionModel"),
        "holds a UNet3DConditionModel, not a UNet2DConditionModel",
    ),
    "no VAE": (lambda f: shutil.rmtree(f / "vae"), "vae: a part of the checkpoint is missing"),
    "half a U-Net": (lambda f: cut(f / "unet" / MAIN), "is half-downloaded"),
    "other weights": (
        lambda f: change(f / "unet" / "config.json", layers_per_block=2),
        "openpose: does not fit the checkpoint: layers_per_block is 1, not 2",
    ),
    "zero terminal SNR": (
        lambda f: change(
            f / "scheduler" / "scheduler_config.json", rescale_betas_zero_snr=True, prediction_type="v_prediction"
        ),
        "sd15: its schedule keeps no signal at the last timestep",
    ),
    "unknown process": (
        lambda f: change(f / "scheduler" / "scheduler_config.json", beta_schedule="squaredcos_cap_v2"),
        "scheduler_config.json: beta schedule 'squaredcos_cap_v2' is not supported",
    ),
    "prompt of another width": (
        lambda f: (shutil.rmtree(f), files.write_sd15(f, width=48)),
        "openpose: does not fit the checkpoint: cross_attention_dim is 32, not 48",
    ),
}


@pytest.mark.usefixtures("no_text")
@pytest.mark.parametrize(("damage", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_stable_diffusion_says_what_it_is(
    both: Both, damage: Callable[[Path], object], message: str
) -> None:
    folder, controls = both
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        load_editor(folder, controls)


def rewrite(**changes: Any) -> Callable[[Path], object]:
    """Another ControlNet in the same folder, whole in itself."""
    return lambda folder: files.write_control(folder, **changes)


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "other width": (rewrite(width=48), "openpose: does not fit the checkpoint: cross_attention_dim is 48, not 32"),
    "more levels": (
        rewrite(
            block_out_channels=[32, 64, 64], down_block_types=["CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"]
        ),
        r"block_out_channels is \[32, 64, 64\], not \[32, 64\]",
    ),
    "four channels": (rewrite(conditioning_channels=4), "conditioning_channels is 4, not 3"),
    "eight-channel latents": (rewrite(in_channels=8), "in_channels is 8, not 4"),
    "other pictures": (rewrite(conditioning_embedding_out_channels=[16, 32, 96]), "reduction of pictures is 4, not 2"),
    "a U-Net": (
        lambda f: (shutil.rmtree(f), files.write_part(f, files.UNET_CONFIG, files.unet_weights(), MAIN)),
        "holds a UNet2DConditionModel, not a ControlNetModel",
    ),
    "a whole checkpoint": (lambda f: (shutil.rmtree(f), files.write_sd15(f)), "is a whole checkpoint, not one part"),
    "an empty folder": (lambda f: (shutil.rmtree(f), f.mkdir()), "a part of the checkpoint is missing"),
    "no weights": (lambda f: (f / MAIN).unlink(), "holds no weights"),
    "half of it": (lambda f: cut(f / MAIN), "is half-downloaded"),
    "nothing": (lambda f: shutil.rmtree(f), "there is no such checkpoint folder or file"),
}


@pytest.mark.usefixtures("no_text")
@pytest.mark.parametrize(("damage", "message"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_control_it_says_why(
    tmp_path: Path, both: Both, damage: Callable[[Path], object], message: str
) -> None:
    folder, controls = both
    damage(tmp_path / "openpose")
    with pytest.raises(CheckpointError, match=message):
        load_editor(folder, controls)


def test_default_controlnets_are_not_fetched_where_they_cannot_fit(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="reads tokens of 32, the default ControlNets of 768"):
        load_editor(files.write_sd15(tmp_path / "sd15"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f / "tokenizer"), "tokenizer: cannot be used"),
        (lambda f: (f / "tokenizer" / "vocab.json").unlink(), "tokenizer: cannot be used"),
        (lambda f: shutil.rmtree(f / "text_encoder"), "text_encoder: a part of the checkpoint is missing"),
        (lambda f: cut(f / "text_encoder" / "model.safetensors"), "is half-downloaded"),
        (lambda f: change(f / "text_encoder" / "config.json", vocab_size=4), "its tokens go up to 4.*knows 4"),
        (lambda f: change(f / "text_encoder" / "config.json", num_hidden_layers=2), "text_encoder: lacks 16 of 36"),
        (lambda f: change(f / "text_encoder" / "config.json", hidden_size=33), "text_encoder: its config cannot"),
    ],
)
@pytest.mark.usefixtures("clip", "offline")
def test_a_damaged_text_encoder_says_what_is_wrong(both: Both, damage: Callable[[Path], object], message: str) -> None:
    folder, controls = both
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        load_editor(folder, controls)


def test_without_transformers_the_message_says_how_to_get_it(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, controls = both
    monkeypatch.setattr(clip_encoder, "optional_module", lambda name: None)
    monkeypatch.setattr(clip_encoder, "import_failure", lambda name: None)
    with pytest.raises(MissingBackendError, match=r"need the package transformers.*viewloom\[checkpoints\]"):
        load_editor(folder, controls)


# --- full size --------------------------------------------------------------------------------------------------------


def test_full_size_has_the_published_numbers(tmp_path: Path) -> None:
    sizes = {**files.FULL_UNET_CONFIG, "in_channels": 4, "sample_size": 64}
    unet = on_meta(UNet2DConditionModel, sizes, tmp_path)
    names = ("block_out_channels", "down_block_types", "layers_per_block")
    config = files.control_config(
        768, **{name: sizes[name] for name in names}, conditioning_embedding_out_channels=[16, 32, 96, 256]
    )
    control = on_meta(ControlNetModel, config, tmp_path)
    assert sum(value.numel() for value in unet.parameters()) == 859_520_964
    assert sum(value.numel() for value in control.parameters()) == 361_279_120
    load._check_unet(unet, tmp_path, with_default_controls=True)
    load._check_control(control, unet, 8, tmp_path)
    decoder = [layer for layer in self_attention_layers(unet).values() if layer.place == "decoder"]
    assert [layer.resolution for layer in decoder] == [16] * 3 + [32] * 3 + [64] * 3
