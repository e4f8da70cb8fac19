"""Finding optional packages, devices and shipped files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scene import backends, resources
from scene.backends import BACKENDS, Backend, import_failure, optional_module, pick_device, required_module, version_of
from scene.errors import CheckpointError, InputError, MissingBackendError


def test_absent_packages_are_none_and_present_ones_modules() -> None:
    assert optional_module("no_such_package_of_ours") is None
    assert optional_module("json") is not None
    assert import_failure("no_such_package_of_ours") is None
    assert import_failure("json") is None


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("lacks_a_library", "raise OSError('libGL.so.1: cannot open')", "libGL.so.1: cannot open"),
        ("lacks_a_package", "import no_such_package_of_ours", "No module named 'no_such_package_of_ours'"),
        ("lacks_an_operator", "raise RuntimeError('operator torchvision::nms does not exist')", "operator torchvision"),
        ("lacks_words", "raise SystemError", "SystemError"),
    ],
)
def test_packages_that_cannot_load_count_as_absent_and_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str, reason: str
) -> None:
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert optional_module(name) is None
    assert (import_failure(name) or "").startswith(reason)


def test_what_a_purpose_needs_is_imported_or_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert required_module("embreex", "ray casting") is optional_module("embreex")
    (tmp_path / "broken_one.py").write_text("raise OSError('libGL.so.1: cannot open')")
    monkeypatch.syspath_prepend(str(tmp_path))
    advice = [Backend(name, name, "flying", "we walk", f"pip install {name}") for name in ("absent_one", "broken_one")]
    monkeypatch.setattr(backends, "BACKENDS", advice)
    with pytest.raises(MissingBackendError, match=r"^flight needs the package absent_one\. Run: pip install ab"):
        required_module("absent_one", "flight")
    with pytest.raises(MissingBackendError, match=r"broken_one, and the one that is installed cannot load \(libGL"):
        required_module("broken_one", "flight")


def test_backends_are_listed_once_with_everything_said() -> None:
    assert len({b.module for b in BACKENDS}) == len(BACKENDS)
    for backend in BACKENDS:
        assert all((backend.distribution, backend.purpose, backend.without, backend.install))


def test_versions() -> None:
    assert (version_of("torch") or "").partition("+")[0] == torch.__version__.partition("+")[0]
    assert version_of("no-such-distribution-of-ours") is None


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps", "xpu")


@pytest.mark.parametrize("name", ["gpu9", "cuda:77", ""])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be used here.*--device auto or cpu"):
        pick_device(name)


def test_shipped_files_are_looked_for_in_the_package_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_ROOT", tmp_path)
    assert resources.shipped("weights") == tmp_path / "weights"
    with pytest.raises(CheckpointError, match=r"embedded weights are missing.*--views\.weights"):
        resources.default_weights()
    installed = tmp_path / "viewloom" / "weights" / "nano"
    installed.mkdir(parents=True)
    (installed / "model_index.json").write_text("{}")
    assert resources.default_weights() == installed
