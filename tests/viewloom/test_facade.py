"""The public names: complete, consistent, and imported only when used."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import viewloom

HEAVY = ("torch", "diffusers", "transformers", "trimesh", "skimage", "scipy", "cv2", "xatlas")


def modules_after(code: str) -> set[str]:
    """What a fresh interpreter has imported after some code."""
    code += "\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


def test_importing_viewloom_imports_nothing_heavy() -> None:
    assert modules_after("import viewloom").isdisjoint({*HEAVY, "numpy", "tyro", "pipeline"})


def test_settings_and_cameras_come_without_torch() -> None:
    code = "from viewloom import Image2MeshSettings, FitSettings, Camera; Image2MeshSettings()"
    assert modules_after(code).isdisjoint({"torch", "diffusers"})


def test_every_public_name_is_what_its_room_calls_so() -> None:
    assert len(set(viewloom.__all__)) == len(viewloom.__all__)
    assert set(viewloom.__all__) == set(viewloom._HOME_OF)
    for name in viewloom.__all__:
        assert getattr(viewloom, name) is getattr(importlib.import_module(viewloom._HOME_OF[name]), name)
        assert name in vars(viewloom)  # the second time it is there already
    assert set(viewloom.__all__) <= set(dir(viewloom))


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(viewloom.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == viewloom._HOME_OF


def test_other_names_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="module 'viewloom' has no attribute 'image3mesh'"):
        viewloom.image3mesh  # noqa: B018
    with pytest.raises(ImportError):
        exec("from viewloom import nothing")
