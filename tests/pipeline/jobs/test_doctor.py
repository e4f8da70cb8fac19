"""The doctor: finds what is there, and says how to get what is not."""

from __future__ import annotations

import platform
from collections import namedtuple
from pathlib import Path

import pytest
import torch

import recon.export.validate
import scene
from pipeline.jobs import doctor
from pipeline.jobs.doctor import Finding, examine
from scene import resources
from scene.backends import BACKENDS, Backend

Usage = namedtuple("Usage", "total used free")


def found(name: str) -> Finding:
    """The one finding of that name."""
    (finding,) = [f for f in examine() if f.name == name]
    return finding


def test_every_finding_has_a_name_and_a_detail() -> None:
    findings = examine()
    names = [f.name for f in findings]
    assert len(set(names)) == len(names)
    assert {"python", "viewloom", "torch", "accelerator", "weights", "editor", "glTF validator", "disk"} <= set(names)
    assert {b.module for b in BACKENDS} <= set(names)
    assert all(f.detail for f in findings)
    assert found("python").detail.startswith(platform.python_version())
    assert torch.__version__ in found("torch").detail


def test_backends_that_are_missing_come_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Backend("json", "nothing-like-it", "reading", "nothing", "it is there")
    gone = Backend("no_such_module", "no-such", "flying", "we walk", "pip install no-such")
    monkeypatch.setattr(doctor, "BACKENDS", (here, gone))
    assert found("json") == Finding("json", True, "found")
    assert found("no_such_module") == Finding("no_such_module", False, "flying; we walk. pip install no-such")


def test_backends_that_are_installed_and_broken_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_backend.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor, "BACKENDS", (Backend("broken_backend", "b", "flying", "we walk", "pip install b"),))
    expected = "installed, but: operator torchvision::nms does not exist; we walk. pip install b"
    assert found("broken_backend") == Finding("broken_backend", False, expected)


def test_a_package_of_the_same_name_that_hides_ours_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert {"scene", "recon", "qnerf"}.isdisjoint(finding.name for finding in examine())
    monkeypatch.setattr(scene, "__file__", str(tmp_path / "gaussians" / "scene" / "__init__.py"))
    finding = found("scene")
    assert not finding.found
    assert f"another project's, from {tmp_path / 'gaussians'}" in finding.detail


def test_installed_backends_tell_their_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "BACKENDS", (Backend("numpy", "numpy", "", "", ""),))
    assert found("numpy").detail.split(".")[0].isdigit()


def test_weights_are_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "weights" / "nano"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "a.safetensors").write_bytes(bytes(3_000_000))
    (folder / "unet" / "notes.txt").write_bytes(bytes(9_000_000))
    monkeypatch.setattr(resources, "_ROOT", tmp_path)
    assert found("weights") == Finding("weights", True, f"3 MB in {folder}")
    (folder / "model_index.json").unlink()
    missing = found("weights")
    assert not missing.found
    assert "the embedded weights are missing" in missing.detail
    assert "--views.weights" in missing.detail


def test_without_an_accelerator_the_cpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    assert found("accelerator") == Finding("accelerator", False, "none; the CPU is used")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("mps"))
    assert found("accelerator") == Finding("accelerator", True, "mps")


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_accelerators_of_every_maker_tell_their_name(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device(kind))
    monkeypatch.setattr(getattr(torch, kind), "get_device_name", lambda: f"a fast {kind}")
    assert found("accelerator") == Finding("accelerator", True, f"a fast {kind}")


def test_the_validator_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recon.export.validate, "find_khronos_validator", lambda: None)
    assert found("glTF validator") == Finding("glTF validator", False, "the built-in structural check is used")


@pytest.mark.parametrize(("free", "enough"), [(1e9, False), (50e9, True)])
def test_little_disk_is_pointed_out(monkeypatch: pytest.MonkeyPatch, free: float, enough: bool) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(free, 0, free))
    assert found("disk") == Finding("disk", enough, f"{free / 1e9:.0f} GB free here")
