"""The whole method on a tiny random editor: what each part does, and that runs repeat and go on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from pipeline.diffusion.denoising.schedule import FINAL, Span
from pipeline.diffusion.methods.mutual_self_attention import MutualSelfAttention
from pipeline.diffusion.modules.attention import HookedAttention, Step, hooked
from pipeline.editing.consolidate import edit_latents
from pipeline.editing.model import Controls, EditDiffusion
from pipeline.editing.queries import Queries, QueryProbe, RunningStatistics, query_layers, standardised
from pipeline.editing.settings import ConsolidateSettings, Mode, TrajectoryKind
from pipeline.editing.task import EditedLatents, EditTask
from qnerf.settings import FieldTrainingSettings, QueryFieldSettings
from scene.camera import Camera
from scene.errors import InputError

SMALL = ConsolidateSettings(
    steps=4,
    tau=1,
    relative_step=0.05,
    shared_from=1,
    field=QueryFieldSettings(levels=2, coarsest=4, finest=8, log2_size=8, width=16, geometry=16, hidden=16, samples=6),
    training=FieldTrainingSettings(steps=6, rays=64),
    later_steps=4,
)
NONE = dataclasses.replace(SMALL, mode="none")
MODES: list[Mode] = ["full", "once", "hard", "none"]
MakeTask = Callable[..., EditTask]


@pytest.fixture(scope="module")
def whole(make_editor: Callable[..., EditDiffusion], make_task: MakeTask) -> EditedLatents:
    """A run from its beginning to its end."""
    return edit_latents(make_editor(), make_task(), SMALL)


class Cancelled(Exception):
    """What a user's wish looks like."""


def calls(editor: EditDiffusion) -> list[int]:
    """Grows by the rows of every pass of the U-Net from now on."""
    found: list[int] = []
    editor.unet.register_forward_pre_hook(lambda own, given: found.append(len(given[0])))
    return found


@torch.no_grad()
def by_hand(
    editor: EditDiffusion,
    task: EditTask,
    view: int,
    settings: ConsolidateSettings,
    queries: list[Queries] | None = None,
) -> torch.Tensor:
    """One view, alone, along the 'noise' trajectory, from the definitions; its queries are appended."""
    seeds = settings.seed * 1_000_003 + 7919 * view
    noise = torch.randn(task.originals.shape[1:], generator=torch.Generator().manual_seed(seeds))[None]
    clean, schedule = task.originals[view : view + 1], editor.schedule
    stride = 1000 // settings.steps
    times = [k * stride + 1 for k in reversed(range(settings.steps))]
    picture = task.pictures[view : view + 1].expand(3, -1, -1, -1)
    control = Controls("depth", picture, torch.tensor([0.0, 0.0, settings.control_scale]))
    shared = MutualSelfAttention(3, Span(0, 1000), (8, 4))
    probe = QueryProbe(query_layers(editor))
    z = schedule.alphas_cumprod[times[0]] ** 0.5 * clean + (1 - schedule.alphas_cumprod[times[0]]) ** 0.5 * noise
    with hooked(editor.unet, [shared, probe]):
        for index, (t, lower) in enumerate(zip(times, [*times[1:], FINAL], strict=True)):
            shared.active = index >= settings.first_shared
            a = schedule.alphas_cumprod[t]
            probe.record()
            rows = torch.cat([a**0.5 * clean + (1 - a) ** 0.5 * noise, z, z])
            _, without, given = editor.predict(rows, t, control).split(1)
            found = without + settings.guidance * (given - without)
            if queries is not None:
                queries.append(probe.take([2]))
            z = schedule.ddim((z - (1 - a) ** 0.5 * found) / a**0.5, found, t, lower)
    return z


class Recorded:
    """As targets: what the views' queries are, step by step, if nobody touches them."""

    def __init__(self, editor: EditDiffusion, task: EditTask, settings: ConsolidateSettings) -> None:
        found: list[list[Queries]] = [[] for _ in range(task.views)]
        for view, kept in enumerate(found):
            by_hand(editor, task, view, settings, kept)
        layers = found[0][0].keys()
        self.steps = [{layer: torch.cat([kept[k][layer] for kept in found]) for layer in layers} for k in range(4)]
        self.asked: list[Step] = []

    def at(self, step: Step, views: Sequence[int]) -> Queries:
        self.asked.append(step)
        running = RunningStatistics()
        running.add(self.steps[step.index])
        own = standardised(self.steps[step.index], running.result())
        return {layer: values[list(views)] for layer, values in own.items()}

    def shares(self, step: Step) -> None:
        return None


@dataclasses.dataclass
class Shifted:
    """Other targets, plus something where a mask is 0."""

    targets: Recorded
    mask: torch.Tensor
    by: float = 5.0

    def at(self, step: Step, views: Sequence[int]) -> Queries:
        found = {}
        for layer, values in self.targets.at(step, views).items():
            weight = torch.nn.functional.adaptive_avg_pool2d(self.mask[list(views), None], layer.side)
            found[layer] = values + self.by * (weight == 0).float().permute(0, 2, 3, 1)
        return found

    def shares(self, step: Step) -> None:
        return None


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_without_a_field_each_view_is_denoised_by_itself(
    editor: EditDiffusion, make_task: MakeTask, guidance: float
) -> None:
    task, settings = (
        make_task(),
        dataclasses.replace(NONE, guidance=guidance, control_scale=0.7, rows_at_once=6, seed=5),
    )
    found = edit_latents(editor, task, settings)
    assert found.intervals == ()
    assert found.field is None
    for view in range(task.views):
        wanted = by_hand(editor, task, view, settings)
        assert torch.allclose(found.latents[view : view + 1], wanted, atol=1e-4)


def test_runs_repeat_and_leave_the_network_as_it_was(
    editor: EditDiffusion, make_task: MakeTask, whole: EditedLatents
) -> None:
    again = edit_latents(editor, make_task(), SMALL)
    assert torch.equal(again.latents, whole.latents)
    assert torch.isfinite(again.latents).all()
    assert not any(isinstance(one, HookedAttention) for one in editor.unet.attn_processors.values())


def test_modes_and_seeds_differ(editor: EditDiffusion, make_task: MakeTask, whole: EditedLatents) -> None:
    settings = [*(dataclasses.replace(SMALL, mode=mode) for mode in MODES[1:]), dataclasses.replace(NONE, seed=1)]
    found = [whole.latents, *(edit_latents(editor, make_task(), one).latents for one in settings)]
    for k, one in enumerate(found):
        assert all(not torch.allclose(one, other, atol=1e-4) for other in found[:k])


def test_views_without_a_field_do_not_depend_on_the_others(editor: EditDiffusion, make_task: MakeTask) -> None:
    task, other = make_task(), make_task(seed=1)
    mixed = make_task(
        originals=torch.cat([other.originals[:2], task.originals[2:]]),
        pictures=torch.cat([other.pictures[:2], task.pictures[2:]]),
    )
    one, two = edit_latents(editor, task, NONE).latents, edit_latents(editor, mixed, NONE).latents
    assert torch.allclose(one[2:], two[2:], atol=1e-5)
    assert not torch.allclose(one[:2], two[:2], atol=1e-2)


@pytest.mark.parametrize(("mode", "tolerance"), [("none", 1e-5), ("full", 1e-3)])
def test_how_many_rows_run_at_once_does_not_matter(
    editor: EditDiffusion, make_task: MakeTask, mode: Mode, tolerance: float, whole: EditedLatents
) -> None:
    """The field learns half-precision queries, where roundings show."""
    settings = dataclasses.replace(SMALL, mode=mode)
    many = whole if mode == "full" else edit_latents(editor, make_task(), settings)
    few = edit_latents(editor, make_task(), dataclasses.replace(settings, rows_at_once=1))
    assert torch.allclose(few.latents, many.latents, atol=tolerance)


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        # Look-aheads, two passes for each guided step, and the rest.
        ({"tau": 1}, (2 + 1 + 1) + 2 * 3 + 1),
        ({"tau": 2}, (4 + 2) + 2 * 3 + 1),
        ({"overlap": False}, 2 + 2 * 1 + 1),
        ({"mode": "once"}, 2 + 2 * 3 + 1),
        ({"mode": "hard"}, (2 + 1 + 1) + 3 + 1),
        ({"mode": "none"}, 4),
        ({"stop": 0.0}, 4),
        ({"mode": "none", "trajectory": "ddim"}, 8),
    ],
)
def test_passes_of_the_network(
    editor: EditDiffusion, make_task: MakeTask, changes: dict[str, object], passes: int
) -> None:
    counted, told = calls(editor), list[tuple[int, int, str]]()
    settings = dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]
    found = edit_latents(editor, make_task(), settings, on_progress=lambda *step: told.append(step))
    halved = sum(step.halved + step.kept for interval in found.intervals for step in interval.guided)
    assert halved == 0
    assert len(counted) == passes
    assert told[-1][0] == told[-1][1]
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert len({count for _, count, _ in told}) == 1


def test_rows_of_a_view_are_its_original_only_while_that_is_read_and_the_edit(
    editor: EditDiffusion, make_task: MakeTask
) -> None:
    counted = calls(editor)
    edit_latents(editor, make_task(), dataclasses.replace(NONE, shared_from=2, rows_at_once=100))
    assert counted == [4, 4, 8, 8]
    counted.clear()
    edit_latents(editor, make_task(), dataclasses.replace(NONE, shared_from=0, rows_at_once=7, guidance=2.0))
    assert counted == [6, 6, 6, 6] * 2


def test_guidance_brings_queries_closer_to_the_field(whole: EditedLatents) -> None:
    assert [[step.index for step in interval.guided] for interval in whole.intervals] == [[0], [1], [2]]
    for interval in whole.intervals:
        assert interval.misfit is not None
        for step in interval.guided:
            assert step.after < 0.99 * step.before


def test_replacing_queries_by_the_views_own_changes_nothing(editor: EditDiffusion, make_task: MakeTask) -> None:
    """And by others it does."""
    task, settings = make_task(), dataclasses.replace(SMALL, mode="hard", guidance=1.0)
    free = edit_latents(editor, task, NONE).latents
    targets = Recorded(editor, task, NONE)
    found = edit_latents(editor, task, settings, targets=targets)
    assert torch.allclose(found.latents, free, atol=1e-3)
    assert all(step.before < 2e-3 and step.after == 0 for interval in found.intervals for step in interval.guided)
    assert [(step.index, step.count) for step in targets.asked] == [(k, 4) for k in (0, 1, 2)]
    moved = edit_latents(editor, task, settings, targets=Shifted(targets, torch.zeros(4, 8, 8)))
    assert not torch.allclose(moved.latents, free, atol=1e-2)


def test_views_whose_queries_agree_are_left_alone(editor: EditDiffusion, make_task: MakeTask) -> None:
    task = make_task()
    found = edit_latents(editor, task, SMALL, targets=Recorded(editor, task, NONE))
    assert torch.allclose(found.latents, edit_latents(editor, task, NONE).latents, atol=1e-5)
    assert [step.kept for interval in found.intervals for step in interval.guided] == [4, 4, 4]
    assert found.field is None


@pytest.mark.parametrize("mode", ["full", "hard"])
def test_only_what_masks_cover_counts_if_so_wished(editor: EditDiffusion, make_task: MakeTask, mode: Mode) -> None:
    """Targets are wrong outside the masks."""
    masks = torch.zeros(4, 8, 8)
    masks[:, 4:] = 1
    task = make_task(masks=masks)

    class Within(Recorded):
        def at(self, step: Step, views: Sequence[int]) -> Queries:
            running = RunningStatistics()
            running.add(self.steps[step.index], masks)
            own = standardised(self.steps[step.index], running.result())
            return {layer: values[list(views)] for layer, values in own.items()}

    targets = Shifted(Within(editor, task, NONE), masks)
    settings = dataclasses.replace(SMALL, mode=mode, background="mask")
    free = edit_latents(editor, task, NONE).latents
    assert torch.allclose(edit_latents(editor, task, settings, targets=targets).latents, free, atol=1e-3)
    whole = edit_latents(editor, task, dataclasses.replace(settings, background="query"), targets=targets).latents
    assert not torch.allclose(whole, free, atol=1e-2)


def test_channels_that_the_field_explains_count_more(
    editor: EditDiffusion, make_task: MakeTask, whole: EditedLatents
) -> None:
    found = edit_latents(editor, make_task(), dataclasses.replace(SMALL, by_share=False))
    assert not torch.allclose(found.latents, whole.latents, atol=1e-4)


def test_masks_reach_the_field(editor: EditDiffusion, make_task: MakeTask, whole: EditedLatents) -> None:
    masks = torch.zeros(4, 8, 8)
    masks[:, 2:6, 2:6] = 1
    found = edit_latents(editor, make_task(masks=masks), dataclasses.replace(SMALL, background="mask"))
    assert not torch.allclose(found.latents, whole.latents, atol=1e-4)


def test_controls_matter_as_far_as_their_scale(editor: EditDiffusion, make_task: MakeTask) -> None:
    task, other = make_task(), make_task(pictures=make_task(seed=3).pictures)
    for scale, alike in ((1.0, False), (0.0, True)):
        settings = dataclasses.replace(NONE, control_scale=scale)
        one, two = (edit_latents(editor, each, settings).latents for each in (task, other))
        assert torch.allclose(one, two, atol=1e-6) == alike


def test_the_originals_own_controls_reach_what_is_read_of_them(editor: EditDiffusion, make_task: MakeTask) -> None:
    task = make_task(source_pictures=make_task(seed=3).pictures)
    blind = edit_latents(editor, task, NONE).latents
    seeing = edit_latents(editor, task, dataclasses.replace(NONE, source_control=True)).latents
    assert not torch.allclose(blind, seeing, atol=1e-3)
    with pytest.raises(InputError, match="own controls are not given"):
        edit_latents(editor, make_task(), dataclasses.replace(NONE, source_control=True))


def test_an_edit_to_what_is_there_gives_the_photo_back(editor: EditDiffusion, make_task: MakeTask) -> None:
    """Own controls as target: what is left is the error of the round trip, which shrinks with the steps."""
    task = make_task(source_pictures=make_task().pictures)

    def error(steps: int) -> float:
        settings = dataclasses.replace(
            NONE, steps=steps, start=0.3, trajectory="ddim", source_control=True, shared_from=0, rows_at_once=100
        )
        out = edit_latents(editor, task, settings).latents - task.originals
        return float(out.square().mean().sqrt() / task.originals.square().mean().sqrt())

    few, many = error(7), error(28)
    assert many < 0.01
    assert 3 < few / many < 6


def test_drafts_begin_where_their_noise_says(editor: EditDiffusion, make_task: MakeTask) -> None:
    """The original as draft is no draft; less noise keeps more of one."""
    task = make_task()
    for trajectory in ("noise", "ddim"):
        settings = dataclasses.replace(NONE, trajectory=trajectory, start=0.4)
        same = edit_latents(editor, dataclasses.replace(task, start=task.originals), settings).latents
        assert torch.allclose(same, edit_latents(editor, task, settings).latents, atol=1e-5)
    draft = make_task(seed=9).originals
    off = []
    for start in (0.05, 0.5):
        settings = dataclasses.replace(NONE, start=start)
        found = edit_latents(editor, dataclasses.replace(task, start=draft), settings).latents
        off.append(float((found - draft).abs().mean()))
    assert off[0] < 0.5 * off[1]


@pytest.mark.parametrize(
    ("during", "trajectory"), [("looking ahead", "noise"), ("fitting", "ddim"), ("guiding", "noise")]
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    editor: EditDiffusion,
    make_task: MakeTask,
    tmp_path: Path,
    whole: EditedLatents,
    during: str,
    trajectory: TrajectoryKind,
) -> None:
    """Killed in its second interval; nothing of the first is done again."""
    settings, task = dataclasses.replace(SMALL, trajectory=trajectory), make_task()
    wanted = whole if trajectory == "noise" else edit_latents(editor, task, settings)
    guided = [0]

    def kill(done: int, count: int, what: str) -> None:
        guided[0] += what == "guiding"
        if guided[0] >= 1 + (during == "guiding") and what == during:
            raise Cancelled

    with pytest.raises(Cancelled):
        edit_latents(editor, task, settings, folder=tmp_path, on_progress=kill)
    assert not any(isinstance(one, HookedAttention) for one in editor.unet.attn_processors.values())
    told: list[tuple[int, int, str]] = []
    rest = edit_latents(editor, task, settings, folder=tmp_path, on_progress=lambda *step: told.append(step))
    assert torch.equal(rest.latents, wanted.latents)
    walked = [what for _, _, what in told if what != "fitting"]
    assert walked == [*["looking ahead", "guiding"] * 2, "denoising"]
    assert told[-1][0] == told[-1][1]
    for one, two in zip(rest.intervals, wanted.intervals, strict=True):
        assert one.guided == two.guided
    assert rest.field is not None
    assert wanted.field is not None
    assert all(torch.equal(one, two) for one, two in zip(rest.field.parameters(), wanted.field.parameters()))


def test_a_folder_of_something_else_is_begun_anew(
    editor: EditDiffusion, make_task: MakeTask, whole: EditedLatents, tmp_path: Path
) -> None:
    edit_latents(editor, make_task(seed=1), SMALL, folder=tmp_path)
    assert torch.equal(edit_latents(editor, make_task(), SMALL, folder=tmp_path).latents, whole.latents)
    (tmp_path / "edit.safetensors").write_bytes(b"damaged")
    assert torch.equal(edit_latents(editor, make_task(), SMALL, folder=tmp_path).latents, whole.latents)


def test_queries_lie_in_the_folder_and_reports_can_be_written(
    editor: EditDiffusion, make_task: MakeTask, tmp_path: Path
) -> None:
    found = edit_latents(editor, make_task(), SMALL, folder=tmp_path)
    for name in ("queries", "rendered"):
        assert (tmp_path / name / "queries.json").is_file()
    assert json.loads(json.dumps([dataclasses.asdict(one) for one in found.intervals]))[0]["guided"][0]["index"] == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"pictures": torch.zeros(3, 3, 16, 16)}, "3 controls for 4 views"),
        ({"masks": torch.zeros(2, 8, 8)}, "2 masks for 4 views"),
        ({"start": torch.zeros(4, 4, 4, 4)}, "another size"),
        ({"source_pictures": torch.zeros(4, 3, 8, 8)}, "another size"),
    ],
)
def test_tasks_whose_parts_do_not_go_together_are_refused(
    make_task: MakeTask, given: dict[str, object], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        make_task(**given)


def test_settings_that_the_task_or_the_model_cannot_meet_are_refused(
    editor: EditDiffusion, make_task: MakeTask, cameras: list[Camera]
) -> None:
    task = make_task()
    with pytest.raises(InputError, match="there are none"):
        edit_latents(editor, task, dataclasses.replace(NONE, background="mask"))
    with pytest.raises(InputError, match=r"side \[16\]"):
        edit_latents(editor, task, dataclasses.replace(NONE, shared_sides=(8, 16)))
    with pytest.raises(InputError, match="are not the model's"):
        edit_latents(editor, make_task(originals=torch.zeros(4, 4, 16, 16)), NONE)
    with pytest.raises(InputError, match="square"):
        dataclasses.replace(task, cameras=[dataclasses.replace(camera, width=20) for camera in cameras])
    assert torch.equal(make_task(bounds=np.array([[0, 0, 0], [1, 2, 3.0]])).corners[1], torch.tensor([1.0, 2, 3]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_layout_of_stable_diffusion(
    make_editor: Callable[..., EditDiffusion],
    make_unet: Callable[..., UNet2DConditionModel],
    cameras: list[Camera],
    dtype: torch.dtype,
) -> None:
    """Four levels, the coarsest without attention, a prompt of several tokens; nine layers, little memory."""
    unet = make_unet(
        sample_size=16,
        layers_per_block=2,
        block_out_channels=(8, 16, 32, 32),
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        norm_num_groups=4,
    )
    editor = make_editor(unet, tokens=7).to(torch.device("cpu"), dtype).use_memory("low")
    task = EditTask(torch.randn(2, 4, 16, 16), "skeleton", torch.rand(2, 3, 32, 32), cameras[:2])
    found = edit_latents(editor, task, dataclasses.replace(SMALL, guidance=2.0, steps=4, tau=1))
    assert found.field is not None
    sides = [(layer.side, layer.channels) for layer in found.field.layers]
    assert sides == [(4, 32)] * 3 + [(8, 16)] * 3 + [(16, 8)] * 3
    assert torch.isfinite(found.latents).all()
    for interval in found.intervals:
        for step in interval.guided:
            assert step.after < step.before
