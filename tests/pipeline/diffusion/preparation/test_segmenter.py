"""The segmenter's network: shapes, repeatability, what goes to disk and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.preparation.segmenter import SegmenterModel

SMALL = {"image_size": 32, "channels": (8, 8, 16, 16), "blocks": (1, 1, 1, 2), "fine_channels": 4}


@pytest.mark.parametrize(("size", "batch"), [(32, 2), (64, 1)])
def test_masks_have_the_side_of_the_picture(size: int, batch: int) -> None:
    model = SegmenterModel(**{**SMALL, "image_size": size}).eval()
    fine, rough = model(torch.rand(batch, 3, size, size))
    assert fine.shape == (batch, 1, size, size)
    assert rough.shape == (batch, 1, size // 8, size // 8)


def test_the_default_has_about_a_million_parameters() -> None:
    assert sum(p.numel() for p in SegmenterModel().parameters()) == pytest.approx(1e6, rel=0.15)


def test_a_picture_gives_the_same_mask_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    model, pictures = SegmenterModel(**SMALL).eval(), torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        together, alone = model(pictures)[0], model(pictures[1:2])[0]
        assert torch.equal(model(pictures)[0], together)
    assert torch.allclose(together[1:2], alone, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-4)


def test_every_pixel_can_look_at_every_other() -> None:
    """A change in one corner reaches the mask in the opposite one."""
    torch.manual_seed(0)
    model = SegmenterModel(**{**SMALL, "image_size": 64}).eval()
    picture = torch.rand(1, 3, 64, 64, requires_grad=True)
    model(picture)[0][0, 0, 60, 60].backward()
    assert float(picture.grad[0, :, :4, :4].abs().sum()) > 0


def test_saved_models_come_back(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = SegmenterModel(**SMALL).eval()
    model.half().save_pretrained(tmp_path)
    loaded = load_part(SegmenterModel, tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").is_file()
    assert loaded.dtype == torch.float32
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.to(loaded.state_dict()[name].dtype)), name
