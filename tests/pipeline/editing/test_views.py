"""Rows of a pass, and which timesteps and layers a run has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from pipeline.editing.inversion import inverted
from pipeline.editing.model import EditDiffusion
from pipeline.editing.settings import ConsolidateSettings
from pipeline.editing.task import EditTask
from pipeline.editing.views import Originals, ViewPasses

DDIM = ConsolidateSettings(steps=4, trajectory="ddim", rows_at_once=4)


def test_the_two_finest_sides_read_the_original_by_default(
    make_editor: Callable[..., EditDiffusion],
    make_unet: Callable[..., UNet2DConditionModel],
    make_task: Callable[..., EditTask],
) -> None:
    three = make_unet(
        block_out_channels=(16, 16, 32),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
    )
    editor, task = make_editor(three), make_task()
    assert ViewPasses(editor, task, ConsolidateSettings()).sharing.sides == (4, 8)
    assert ViewPasses(editor, task, ConsolidateSettings(shared_sides=(2,))).sharing.sides == (2,)


def test_steps_lie_below_the_start(editor: EditDiffusion, make_task: Callable[..., EditTask]) -> None:
    for start, noisiest in ((1.0, 751), (0.4, 301), (0.001, 3)):
        settings = ConsolidateSettings(steps=4, start=start)
        passes = ViewPasses(editor, make_task(), settings)
        assert passes.timesteps[0] == noisiest
        assert len(passes.timesteps) == 4


def test_the_original_is_read_from_its_step_on(editor: EditDiffusion, make_task: Callable[..., EditTask]) -> None:
    for first, shared in ((0, 4), (1, 3), (4, 0), (400, 0)):
        passes = ViewPasses(editor, make_task(), ConsolidateSettings(steps=4, shared_from=first))
        assert sum(t in passes.sharing.span for t in passes.timesteps) == shared


def test_rows_of_edits_come_last_in_their_groups(editor: EditDiffusion, make_task: Callable[..., EditTask]) -> None:
    passes = ViewPasses(editor, make_task(), ConsolidateSettings(steps=4, guidance=2.0, shared_from=2))
    early, late = passes.timesteps[0], passes.timesteps[-1]
    assert list(passes.edit_rows(2, early)) == [1, 3]
    assert list(passes.edit_rows(2, late)) == [2, 5]
    assert passes.all_edit_rows(2, early) == [0, 1, 2, 3]
    assert passes.all_edit_rows(2, late) == [1, 2, 4, 5]
    assert passes.parts == [range(k, min(k + 2, 4)) for k in (0, 2)]


@torch.no_grad()
def test_editors_trained_so_read_clean_originals_with_their_own_controls(
    editor: EditDiffusion, make_task: Callable[..., EditTask]
) -> None:
    """As their first row, at timestep 0; the edits start from noised ones all the same."""
    met: list[tuple[torch.Tensor, ...]] = []
    editor.source = "clean"
    editor.unet.register_forward_pre_hook(lambda own, given: met.append(given[:2]))
    task = make_task(source_pictures=make_task().pictures)
    passes = ViewPasses(editor, task, ConsolidateSettings(steps=4, shared_from=0))
    assert passes.own_control
    originals, t, views = Originals(passes, None), passes.timesteps[1], range(1, 3)
    z = originals.start()[1:3]
    assert not torch.allclose(z, task.originals[1:3])
    passes.predict(z, t, views, originals.at(t, views))
    (latents, times), edits = met[0], [1, 3]
    assert torch.equal(latents[[0, 2]], task.originals[1:3])
    assert torch.equal(latents[edits], z)
    assert times.tolist() == [0, t, 0, t]
    assert not ViewPasses(editor, make_task(), ConsolidateSettings(steps=4)).own_control


@torch.no_grad()
def test_inverted_trajectories_are_found_part_by_part_and_kept(
    editor: EditDiffusion, make_task: Callable[..., EditTask], tmp_path: Path
) -> None:
    task = make_task()
    passes = ViewPasses(editor, task, DDIM)
    wanted = inverted(editor.predict, task.originals, editor.schedule, passes.timesteps)
    for folder in (None, tmp_path):
        originals = Originals(passes, folder)
        assert originals.must_invert
        for views in passes.parts:
            originals.invert(views)
        for t, level in zip(passes.timesteps, wanted, strict=False):
            assert torch.allclose(originals.at(t, range(1, 3)), level[1:3], atol=1e-4)
        assert torch.allclose(originals.start(), wanted[0], atol=1e-4)
    known = Originals(passes, tmp_path, known=True)
    assert not known.must_invert
    assert torch.allclose(known.start(), wanted[0], atol=1e-4)
    other = ViewPasses(editor, task, dataclasses.replace(DDIM, steps=5))
    assert Originals(other, tmp_path, known=True).must_invert
