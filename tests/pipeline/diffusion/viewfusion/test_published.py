"""Files in the published layout: taken as they are, or refused in one sentence."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from torch import Tensor

from pipeline.diffusion.viewfusion.model import Streams, ViewFusionModel, linear_gammas
from pipeline.diffusion.viewfusion.published import NETWORK, our_name, their_name
from pipeline.diffusion.viewfusion.unet import FusionUNet
from scene.errors import CheckpointError

BLOCK = {
    "res_block.noise_func.noise_func.0.weight",
    "res_block.noise_func.noise_func.0.bias",
    *(f"res_block.block{k}.block.{part}.{kind}" for k in (1, 2) for part in (0, 3) for kind in ("weight", "bias")),
}
ATTENTION = {"attn.norm.weight", "attn.norm.bias", "attn.qkv.weight", "attn.out.weight", "attn.out.bias"}


def network(*, relative: bool = False, equal: bool = False) -> FusionUNet:
    """The published network but for its width."""
    torch.manual_seed(0)
    return FusionUNet(width=32, relative=relative, fusing="equal" if equal else "learned").eval()


def content(unet: FusionUNet) -> dict[str, object]:
    """What the published training code saves."""
    gammas = linear_gammas()
    model = {NETWORK + their_name(key): value for key, value in unet.state_dict().items()}
    model |= {"gammas": gammas.float(), "sqrt_recip_gammas": (1 / gammas).sqrt().float()}
    return {"model": model, "optimizer": {"state": {}}, "it": 710000, "t": 1.0, "run_id": "a", "ssim": 0.9, "psnr": 26}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[object], Path]:
    def written(held: object) -> Path:
        torch.save(held, tmp_path / "best_model_all.pt")
        return tmp_path / "best_model_all.pt"

    return written


def test_names_are_the_published_ones() -> None:
    with torch.device("meta"):
        names = {their_name(key) for key in FusionUNet().state_dict()}
    assert {our_name(name) for name in names} == FusionUNet(width=32).state_dict().keys()
    inside = {name for name in names if name.startswith("downs.1.")}
    assert inside == {f"downs.1.{part}" for part in BLOCK}
    assert {n for n in names if n.startswith("downs.9.")} == {
        f"downs.9.{part}" for part in BLOCK | ATTENTION | {"res_block.res_conv.weight", "res_block.res_conv.bias"}
    }
    assert {"noise_level_mlp.0.weight", "noise_level_mlp.2.bias", "downs.4.conv.weight", "ups.14.conv.bias"} <= names
    assert {"final_conv.block.0.weight", "final_conv.block.3.bias", "mid.0.attn.qkv.weight", "downs.0.weight"} <= names
    assert "mid.1.attn.qkv.weight" not in names


@pytest.mark.parametrize(("relative", "equal"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_file_gives_the_network_that_wrote_it(write: Callable[[object], Path], relative: bool, equal: bool) -> None:
    unet = network(relative=relative, equal=equal)
    model = ViewFusionModel.from_pretrained(write(content(unet)))
    for name in ("channels", "width", "blocks", "relative", "fusing", "embedding", "sample_size"):
        assert model.unet.config[name] == unet.config[name], name
    for name in ("multipliers", "attended"):
        assert list(model.unet.config[name]) == list(unet.config[name]), name
    noisy, pictures = torch.randn(1, 3, 64, 64), torch.rand(2, 3, 64, 64)
    asked = (Streams.of(pictures, 1), noisy, torch.tensor([0.5]), torch.tensor([1.0]))
    with torch.no_grad():
        assert torch.equal(model.predict(*asked)[0], ViewFusionModel(unet).predict(*asked)[0])


def test_a_repository_of_the_hub_holds_the_file(
    write: Callable[[object], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is fetched is the only single file, beside the card."""
    folder = write(content(network())).parent
    asked: list[object] = []
    monkeypatch.setattr(
        huggingface_hub.HfApi, "list_repo_files", lambda *_: ["README.md", "best_model_all.pt", "config.yaml", "x.py"]
    )
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **how: asked.append((name, how)) or str(folder)
    )
    model = ViewFusionModel.from_pretrained("bronemos/view-fusion")
    assert asked == [("bronemos/view-fusion", {"allow_patterns": ["README.md", "best_model_all.pt"]})]
    assert model.unet.config["width"] == 32


def test_a_folder_round_trip(tmp_path: Path) -> None:
    ViewFusionModel(network(relative=True)).save(tmp_path / "model")
    model = ViewFusionModel.from_pretrained(tmp_path / "model")
    assert model.unet.config["relative"]
    assert torch.allclose(model.unet.head["conv"].weight, network(relative=True).head["conv"].weight, atol=1e-3)


def broken(change: Callable[[dict[str, Tensor]], object]) -> dict[str, object]:
    held = content(network())
    change(held["model"])  # type: ignore[arg-type]
    return held


class Evil:
    """Would run when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path.touch, (Path("was-run"),)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.pop(NETWORK + "downs.3.res_block.block1.block.3.weight"), "lacks 1"),
        (lambda m: m.pop(NETWORK + "downs.0.weight"), "no checkpoint of ViewFusion"),
        (lambda m: m.update({NETWORK + "final_conv.block.3.weight": torch.ones(5, 32, 3, 3)}), "6 channels in, 5 out"),
        (lambda m: m[NETWORK + "mid.0.attn.qkv.weight"].fill_(torch.nan), "not finite"),
        (lambda m: m.update(gammas=linear_gammas(1000).float()), "another noise schedule"),
        (lambda m: m.update(gammas=linear_gammas(2000, 1e-4, 0.02).float()), "another noise schedule"),
        (lambda m: m.update(other=torch.ones(1)), "holds .'other'"),
        (lambda m: m.clear(), "no checkpoint of ViewFusion"),
    ],
)
def test_other_files_are_refused(write: Callable[[object], Path], change: Callable[..., object], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        ViewFusionModel.from_pretrained(write(broken(change)))


def test_code_in_a_pickle_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[object], Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    held = content(network())
    held["optimizer"] = Evil()
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    for path in (write(held), tmp_path / "old.pt"):
        with pytest.raises(CheckpointError, match="would run code"):
            ViewFusionModel.from_pretrained(path)
    assert not (tmp_path / "was-run").exists()
