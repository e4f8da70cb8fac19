"""Settings that have new names: every old one works, as a flag and as a key, and says what it is called now."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import yaml

import viewloom
from pipeline.jobs.presets import keys_of_other_jobs, settings_from_yaml
from pipeline.jobs.renamed import LAST_VERSION, RENAMED, renamed_flags, renamed_keys
from pipeline.jobs.settings import EditSettings, FuseSettings, Image2MeshSettings, ReconstructSettings
from viewloom.commands.parsing import parse


def value_of(settings: Any, key: str) -> Any:
    """A setting by its dotted key."""
    for name in key.split("."):
        settings = getattr(settings, name)
    return settings


OTHERS: dict[str, Any] = {
    "fit.sdf_lr": 0.5,
    "fit.colour_lr": 0.5,
    "fit.shading_lr": 0.5,
    "fit.eikonal_weight": 0.5,
    "fit.laplacian_weight": 0.5,
    "fit.albedo_tv_weight": 0.5,
    "fit.loss_trim_fraction": 0.5,
    "fit.hull_threshold": 0.5,
    "fit.half_extent": 0.5,
    "fit.inv_s": (1.5, 2.5),
    "fit.view_dependence": True,
    "fit.photo_view_weights": (3.0, 0.5),
}
"""A value for each new name that is not its default."""


def test_every_renamed_setting_is_tried_here() -> None:
    assert set(OTHERS) == set(RENAMED.values())
    for old, new in RENAMED.items():
        value_of(Image2MeshSettings(), new)
        with pytest.raises(AttributeError):
            value_of(Image2MeshSettings(), old)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
@pytest.mark.parametrize("job", [Image2MeshSettings, ReconstructSettings])
def test_old_keys_of_presets_work_with_a_notice(old: str, new: str, job: type[Any], tmp_path: Path) -> None:
    group, _, name = old.partition(".")
    value = OTHERS[new]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({group: {name: list(value) if isinstance(value, tuple) else value}}))
    preset = settings_from_yaml(path, job())
    assert value_of(preset.settings, new) == value != value_of(job(), new)
    assert preset.notices == (f"{old} is called {new} now; the old name works up to version {LAST_VERSION}.",)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
@pytest.mark.parametrize("command", ["image2mesh", "reconstruct"])
def test_old_flags_work_with_a_notice(
    old: str, new: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    value, flag = OTHERS[new], f"--{old}".replace("_", "-")
    words = [flag] if value is True else [flag, *(str(v) for v in (value if isinstance(value, tuple) else [value]))]
    parsed: Any = parse(command, ["a.png", "-o", "out", *words])
    assert value_of(parsed.settings, new) == value
    assert f"{flag} is called --{new.replace('_', '-')} now" in capsys.readouterr().err


def test_flags_with_underscores_equals_signs_and_negations() -> None:
    flags, notices = renamed_flags(["--fit.colour_step=0.1", "--fit.no-view-colour", "fit.step", "--fit.steps", "-o"])
    assert flags == ["--fit.colour-lr=0.1", "--fit.no-view-dependence", "fit.step", "--fit.steps", "-o"]
    assert len(notices) == 2


def test_what_has_no_new_name_is_left_alone() -> None:
    content = {"fit": {"rays": 3}, "step": 1, "views": {"step": {"smooth": 2}}}
    assert renamed_keys(content) == (content, ())


def test_old_names_are_dropped_after_their_last_version() -> None:
    assert [int(n) for n in viewloom.__version__.split(".")[:2]] <= [int(n) for n in LAST_VERSION.split(".")]


def test_presets_pass_over_what_only_other_jobs_have() -> None:
    edits = {"consolidate", "deform", "editor", "fit_bones", "method", "view_side"}
    photos = {"prepare", "views", "dtype", "memory", "align", "aligning"}
    fused = {"fusion"}
    assert keys_of_other_jobs(ReconstructSettings()) == photos | edits | fused
    assert keys_of_other_jobs(EditSettings()) == photos | fused
    assert keys_of_other_jobs(Image2MeshSettings()) == {"capture"} | edits | fused
    assert keys_of_other_jobs(FuseSettings()) == {"capture"} | edits | photos - {"prepare"}
    jobs = (Image2MeshSettings, ReconstructSettings, EditSettings, FuseSettings)
    everything = {f.name for job in jobs for f in dataclasses.fields(job)}
    assert everything >= {"capture", "views", "fit", "mesh", "glb"}
