"""The editor: its files, and what controls do to rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from pipeline.editing.model import Controls, EditDiffusion, Source
from scene.errors import CheckpointError, InputError


def rows(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 4, 8, 8, generator=generator), torch.rand(count, 3, 16, 16, generator=generator)


@pytest.mark.parametrize("source", ["noised", "clean"])
def test_what_is_saved_is_loaded(editor: EditDiffusion, tmp_path: Path, source: Source) -> None:
    """To half precision."""
    editor.source = source
    editor.save_pretrained(tmp_path)
    loaded = EditDiffusion.from_pretrained(tmp_path).to(torch.device("cpu"))
    assert loaded.source == source
    assert sorted(loaded.controlnets) == ["depth", "skeleton"]
    assert loaded.controlnets["depth"] is loaded.controlnets["skeleton"]
    assert (loaded.licence, loaded.latent_size, loaded.image_size) == ("test", 8, 16)
    assert loaded.scheduler == editor.scheduler
    for part in ("unet", "vae"):
        own = getattr(editor, part).state_dict()
        assert all(torch.equal(v, own[k].half().float()) for k, v in getattr(loaded, part).state_dict().items())
    z, pictures = rows()
    controls = Controls("depth", pictures, torch.ones(3))
    with torch.no_grad():
        assert torch.allclose(loaded.predict(z, 500, controls), editor.predict(z, 500, controls), atol=0.02)


def test_without_a_vae_it_is_of_the_nano_checkpoints_latents(editor: EditDiffusion, tmp_path: Path) -> None:
    """This one is not."""
    editor.save_pretrained(tmp_path, vae=False)
    assert not (tmp_path / "vae").exists()
    with pytest.raises(CheckpointError, match="latents of another VAE"):
        EditDiffusion.from_pretrained(tmp_path)


def test_a_folder_of_something_else_is_refused(editor: EditDiffusion, tmp_path: Path) -> None:
    editor.save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace("EditDiffusion", "ViewDiffusion"))
    with pytest.raises(CheckpointError, match="no editor"):
        EditDiffusion.from_pretrained(tmp_path)


def test_an_editor_with_a_prompt_is_not_written(make_editor: Callable[..., EditDiffusion], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="loaded, not written"):
        make_editor(tokens=3).save_pretrained(tmp_path)


@torch.no_grad()
def test_rows_with_a_scale_of_zero_are_rows_without_control(editor: EditDiffusion) -> None:
    z, pictures = rows()
    plain = editor.predict(z, 500)
    mixed = editor.predict(z, 500, Controls("skeleton", pictures, torch.tensor([0.0, 1.0, 0.0])))
    assert torch.allclose(mixed[[0, 2]], plain[[0, 2]], atol=1e-6)
    assert not torch.allclose(mixed[1], plain[1], atol=1e-2)
    assert torch.equal(editor.predict(z, 500, Controls("skeleton", pictures, torch.zeros(3))), plain)


@torch.no_grad()
def test_every_row_has_its_own_control_and_timestep(editor: EditDiffusion) -> None:
    z, pictures = rows()
    controls, times = Controls("depth", pictures, torch.tensor([1.0, 0.5, 2.0])), torch.tensor([10, 400, 900])
    together = editor.predict(z, times, controls)
    for row in range(3):
        part = slice(row, row + 1)
        alone = editor.predict(z[part], int(times[row]), controls.rows(part))
        assert torch.allclose(together[part], alone, atol=1e-5)


def test_a_kind_without_a_controlnet_is_refused(editor: EditDiffusion) -> None:
    z, pictures = rows()
    editor.controlnets = {"skeleton": editor.controlnets["skeleton"]}
    with pytest.raises(InputError, match=r"no ControlNet for depth.*It has: skeleton"):
        editor.predict(z, 500, Controls("depth", pictures, torch.ones(3)))


def test_parts_that_cannot_be_inverted_or_do_not_fit_are_refused(
    make_editor: Callable[..., EditDiffusion], make_unet: Callable[..., UNet2DConditionModel]
) -> None:
    with pytest.raises(CheckpointError, match="cannot be inverted"):
        make_editor(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    with pytest.raises(CheckpointError, match="takes 5 and makes 4"):
        make_editor(make_unet(in_channels=5))
