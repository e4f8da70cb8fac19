"""Finding optional packages, devices and shipped files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scene import resources
from scene.backends import BACKENDS, optional_module, pick_device, require, version_of
from scene.errors import CheckpointError, InputError, MissingBackendError


def test_absent_packages_are_none_and_present_ones_modules() -> None:
    assert optional_module("no_such_package_of_ours") is None
    assert optional_module("json") is not None


def test_packages_that_cannot_load_count_as_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lacks_a_library.py").write_text("raise OSError('libGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert optional_module("lacks_a_library") is None


def test_required_packages_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scene.backends.optional_module", lambda name: None)
    for backend in BACKENDS:
        with pytest.raises(MissingBackendError) as caught:
            require(backend.module)
        assert backend.purpose in str(caught.value)
        assert backend.install in str(caught.value)
    with pytest.raises(MissingBackendError, match="other is not installed"):
        require("other")


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
