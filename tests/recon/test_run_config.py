"""Settings of nerfstudio runs: what ns-train writes is read, and nothing that a file names is run."""

from __future__ import annotations

import enum
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from recon.nerfstudio.run_config import read_run_config
from scene.errors import InputError


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module of settings as nerfstudio has them, with things beside them that are none."""
    module = types.ModuleType("nerfstudio.made_up")

    class Mode(enum.Enum):
        ON = "on"

    @dataclass
    class Part:
        _target: Any = None
        data: Path = Path()
        sides: tuple[int, ...] = ()
        mode: Any = None
        after: list[str] = field(default_factory=list)

        def __post_init__(self) -> None:
            raise AssertionError("code of a class ran")

    @dataclass
    class Run:
        pipeline: Any = None
        optimizers: Any = None

    class Plain:
        pass

    for kind in (Mode, Part, Run, Plain):
        kind.__module__, kind.__qualname__ = "nerfstudio.made_up", kind.__name__
        setattr(module, kind.__name__, kind)
    module.run_command = print  # type: ignore[attr-defined]
    module.system = __import__("os").system  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nerfstudio.made_up", module)
    return module


def test_settings_are_read_as_nerfstudio_writes_them(tmp_path: Path, settings: Any) -> None:
    part = object.__new__(settings.Part)
    part.__dict__.update(_target=settings.Part, data=Path("/a/b"), sides=(1, 2), mode=settings.Mode.ON, after=["x"])
    run = settings.Run(part, {"adam": {"target": torch.optim.Adam, "lr": 1e-3, "same": part}})
    (tmp_path / "config.yml").write_text(yaml.dump(run))
    assert "!!python" in (tmp_path / "config.yml").read_text()
    read = read_run_config(tmp_path / "config.yml")
    assert type(read) is settings.Run
    assert vars(read.pipeline) == vars(part)
    assert read.optimizers["adam"]["target"] is torch.optim.Adam
    assert read.optimizers["adam"]["same"] is read.pipeline


RUN = "!!python/object:nerfstudio.made_up.Run\n"
FAULTS = {
    "a call": "pipeline: !!python/object/apply:os.system ['touch ran']",
    "a call of ours": "pipeline: !!python/object/apply:nerfstudio.made_up.system ['touch ran']",
    "a function": "pipeline: !!python/name:nerfstudio.made_up.run_command ''",
    "a function from elsewhere": "pipeline: !!python/name:nerfstudio.made_up.system ''",
    "a new object": "pipeline: !!python/object/new:subprocess.Popen [['touch', 'ran']]",
    "a class of another package": "pipeline: !!python/object:subprocess.Popen {}",
    "a class that is no settings": "pipeline: !!python/object:nerfstudio.made_up.Plain {}",
    "settings that are called": "pipeline: !!python/object/apply:nerfstudio.made_up.Part []",
    "no enum's value": "pipeline: !!python/object/apply:nerfstudio.made_up.Mode [off]",
    "a module": "pipeline: !!python/module:os ''",
    "a module that is not there": "pipeline: !!python/object:nerfstudio.none.Part {}",
    "a special name": "__class__: 7",
    "a path of numbers": "pipeline: !!python/object/apply:pathlib.PosixPath [7]",
    "a list for settings": "pipeline: !!python/object:nerfstudio.made_up.Part [1]",
    "deep": f"pipeline: {'[' * 3000}",
    "half": "pipeline: [",
}


@pytest.mark.parametrize("text", FAULTS.values(), ids=FAULTS)
def test_whatever_else_a_file_names_is_refused(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yml").write_text(RUN + text)
    with pytest.raises(InputError, match=r"config\.yml: (names .* no setting|cannot be read as YAML)"):
        read_run_config(tmp_path / "config.yml")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text", ["", "7", "a: 1", "!!python/object:nerfstudio.made_up.Part {}", "# " + "x" * 1_000_001]
)
def test_files_without_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(InputError, match=r"holds no settings of a run|is larger than settings are"):
        read_run_config(tmp_path / "config.yml")
