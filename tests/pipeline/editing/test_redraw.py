"""From views to views: the shipped editor, which view is cut how, and controls that change nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pipeline.editing.model import EditDiffusion
from pipeline.editing.redraw import check_effect
from pipeline.editing.task import EditTask
from scene.errors import CheckpointError
from scene.resources import default_editor


def test_the_shipped_editor_is_of_the_shipped_latents_and_small() -> None:
    folder = default_editor()
    model = EditDiffusion.from_pretrained(folder)
    assert model.source == "clean"
    assert set(model.controlnets) == {"skeleton", "depth"}
    assert (model.image_size, len(model.decoder_layers)) == (128, 9)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 18e6


def test_a_control_without_effect_is_refused(editor: EditDiffusion, make_task: Callable[..., EditTask]) -> None:
    check_effect(editor, make_task())
    network = editor.controlnets["depth"]
    with torch.no_grad():
        for block in (network.controlnet_mid_block, *network.controlnet_down_blocks):
            block.weight.zero_()
            block.bias.zero_()
    with pytest.raises(CheckpointError, match="changes nothing"):
        check_effect(editor, make_task())
