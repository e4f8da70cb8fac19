"""Digests of runs: whatever changes the outcome changes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from pipeline.editing.model import EditDiffusion
from pipeline.editing.settings import ConsolidateSettings
from pipeline.editing.task import EditTask, digest_of
from scene.camera import Camera, orbit_camera


def test_equal_runs_have_equal_digests_and_others_have_others(
    make_editor: Callable[..., EditDiffusion], make_task: Callable[..., EditTask], cameras: list[Camera]
) -> None:
    settings, task, editor = ConsolidateSettings(), make_task(), make_editor()
    one = digest_of(editor, task, settings)
    assert digest_of(make_editor(), make_task(), ConsolidateSettings()) == one
    clean = make_editor()
    clean.source = "clean"
    others = [
        digest_of(clean, task, settings),
        digest_of(make_editor(seed=1), task, settings),
        digest_of(make_editor(prediction_type="v_prediction"), task, settings),
        digest_of(editor, task, dataclasses.replace(settings, seed=1)),
        digest_of(editor, make_task(kind="skeleton"), settings),
        digest_of(editor, make_task(originals=task.originals + 1), settings),
        digest_of(editor, make_task(pictures=task.pictures / 2), settings),
        digest_of(editor, make_task(start=task.originals), settings),
        digest_of(editor, make_task(masks=torch.ones(4, 8, 8)), settings),
        digest_of(editor, make_task(source_pictures=task.pictures), settings),
        digest_of(editor, dataclasses.replace(task, cameras=[*cameras[:3], orbit_camera(4.0, 0.2, size=16)]), settings),
    ]
    assert len({one, *others}) == 12
