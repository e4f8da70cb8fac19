"""What tests of our nerfstudio methods share; nerfstudio is imported where it is used, since it may be missing."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from unittest import mock

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer, TrainerConfig

ROOT = Path(__file__).resolve().parents[1]
GROUP = "nerfstudio.method_configs"


class _WithoutNerfstudio(pytest.Module):
    """A test file that is not even imported."""

    def collect(self) -> NoReturn:
        pytest.skip("nerfstudio is not installed: pip install viewloom[nerfstudio]", allow_module_level=True)


def collected(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """For ``pytest_pycollect_makemodule`` of a folder: its files are skipped where nerfstudio is not installed."""
    if importlib.util.find_spec("nerfstudio") is None:
        return _WithoutNerfstudio.from_parent(parent, path=module_path)
    return None


@contextlib.contextmanager
def no_network() -> Iterator[None]:
    """Connections fail, as they do behind a firewall."""

    def refuse(*_: object) -> None:
        raise OSError("there is no network in this test")

    with mock.patch.object(socket.socket, "connect", refuse):
        yield


def trained(config: TrainerConfig) -> tuple[Trainer, list[float]]:
    """A trainer that has gone through its run, without a network, and the losses of its steps."""
    from nerfstudio.engine.trainer import Trainer

    config.save_config()
    trainer = Trainer(config)
    losses = []
    with no_network():
        trainer.setup()
        step = trainer.train_iteration

        def watched(number: int) -> tuple:
            out = step(number)
            losses.append(float(out[0].detach()))
            return out

        trainer.train_iteration = watched
        trainer.train()
    return trainer, losses


def declared() -> dict[str, str]:
    """The methods that pyproject.toml declares."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entries: dict[str, str] = project["entry-points"][GROUP]
    return entries


def discovered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, str]]:
    """Methods and their descriptions as nerfstudio finds them through this checkout's entry points.

    A distribution of its own has them: installed may be another checkout, or an older one.
    """
    from nerfstudio.plugins.registry import discover_methods

    info = folder / "viewloom_checkout-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: viewloom-checkout\nVersion: 0\n")
    lines = [f"{name} = {value}" for name, value in declared().items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]) + "\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv("NERFSTUDIO_METHOD_CONFIGS", raising=False)
    methods, descriptions = discover_methods()
    return methods, descriptions


def importers_of(plug_in: str) -> list[Path]:
    """Our files outside of plug-ins that import one."""
    folders = ("viewloom", "scene", "recon", "qnerf", "pipeline", "scripts")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(paths) > 50
    found = []
    for path in paths:
        if "nerfstudio" in path.parent.name:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            found += [path for name in names if name.startswith(plug_in)]
    return found
