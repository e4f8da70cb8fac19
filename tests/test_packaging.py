"""The project's own papers agree with each other: versions, locks, extras, import contracts, licences."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import viewloom
from scene.backends import BACKENDS, Backend, optional_module, version_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
SYSTEMS = (("linux", "Linux", "x86_64"), ("darwin", "Darwin", "arm64"), ("win32", "Windows", "AMD64"))
LATER = {"edit", "web", "batch"}
"""Extras that nothing uses yet."""
# torch pins these for the builds that need them; a lock that named them would force them onto all others.
COMPANIONS = re.compile(r"nvidia-|cuda-|triton$")


def environments() -> Iterator[dict[str, str]]:
    """What markers are evaluated against, for every Python and system that the core lock is for."""
    for python in PYTHONS:
        for platform, system, machine in SYSTEMS:
            yield {
                "python_version": python,
                "python_full_version": f"{python}.5",
                "sys_platform": platform,
                "platform_system": system,
                "platform_machine": machine,
                "extra": "",
                "os_name": "nt" if platform == "win32" else "posix",
                "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
            }


def locked(name: str) -> list[Requirement]:
    """The pins of a lock."""
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line.partition("  # ")[0]) for line in lines if line and not line.startswith("#")]


def pins(requirements: list[Requirement], environment: dict[str, str]) -> dict[str, str]:
    """Name and version of what would be installed somewhere; a name must not be pinned twice."""
    out: dict[str, str] = {}
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert name not in out, f"{name} is pinned twice for {environment}"
            out[name] = str(requirement.specifier).removeprefix("==")
    return out


def test_one_version() -> None:
    assert PROJECT["project"]["version"] == viewloom.__version__ == importlib.metadata.version("viewloom")


@pytest.mark.parametrize("name", ["core.lock", "test.lock", "extras.lock"])
def test_locks_hold_versions_and_nothing_else(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    assert not re.search(r"://|--hash|^-|^/|\bfile:| @ ", text, re.MULTILINE)
    for requirement in locked(name):
        assert re.fullmatch(r"==[0-9][0-9A-Za-z.]*", str(requirement.specifier)), str(requirement)
        assert not COMPANIONS.match(requirement.name), f"{requirement.name} belongs to torch's own metadata"


@pytest.mark.parametrize(
    "environment", list(environments()), ids=lambda e: f"{e['python_version']}-{e['sys_platform']}"
)
def test_core_lock_fulfils_the_project_everywhere(environment: dict[str, str]) -> None:
    chosen = pins(locked("core.lock"), environment)
    for text in PROJECT["project"]["dependencies"]:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate(environment):
            assert wanted.specifier.contains(chosen[canonicalize_name(wanted.name)]), text
    tools = pins(locked("test.lock"), environment)
    for text in PROJECT["dependency-groups"]["test"]:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate(environment):
            assert wanted.specifier.contains(tools[canonicalize_name(wanted.name)]), text
    assert {name: tools[name] for name in tools.keys() & chosen.keys()} == {
        name: chosen[name] for name in tools.keys() & chosen.keys()
    }


def test_core_lock_names_what_the_dependencies_need_here() -> None:
    named = {canonicalize_name(requirement.name) for requirement in locked("core.lock")}
    waiting, seen = [Requirement(text) for text in PROJECT["project"]["dependencies"]], set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in seen or COMPANIONS.match(name) or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        assert name in named, f"{name} is needed and not in core.lock: run `make locks`"
        waiting += [Requirement(text) for text in importlib.metadata.requires(name) or []]


def test_extras_lock_fulfils_every_extra() -> None:
    environment = next(e for e in environments() if e["python_version"] == "3.11" and e["sys_platform"] == "linux")
    chosen = pins(locked("extras.lock"), environment)
    texts = [text for group in EXTRAS.values() for text in group]
    for text in texts + PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["test"]:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate(environment):
            assert wanted.specifier.contains(chosen[canonicalize_name(wanted.name)]), text


def test_the_advice_of_doctor_names_extras_that_bring_the_package() -> None:
    named = {}
    for backend in BACKENDS:
        for extra in re.findall(r"viewloom\[([^\]]*)\]", backend.install):
            packages = {canonicalize_name(Requirement(text).name) for text in EXTRAS[extra]}
            assert canonicalize_name(backend.distribution) in packages, f"{extra} does not bring {backend.distribution}"
            named[extra] = backend
    assert named.keys() == EXTRAS.keys() - LATER


@pytest.mark.parametrize("backend", [b for b in BACKENDS if version_of(b.distribution)], ids=lambda b: b.module)
def test_an_installed_backend_can_be_imported(backend: Backend) -> None:
    try:
        __import__(backend.module)
    except ImportError as error:
        if ".so" in str(error) and "cannot open shared object" in str(error):
            pytest.skip(f"a system library is missing ({error}): {backend.install}")
        raise
    assert optional_module(backend.module) is not None


def test_every_room_is_packed_typed_and_under_contract() -> None:
    assert ROOMS == ["pipeline", "qnerf", "recon", "scene", "viewloom"]
    tools = PROJECT["tool"]
    assert sorted(tools["hatch"]["build"]["targets"]["wheel"]["packages"]) == ROOMS
    assert sorted(tools["mypy"]["packages"]) == sorted([*ROOMS, "scripts"])
    assert sorted(tools["importlinter"]["root_packages"]) == sorted([*ROOMS, "scripts"])
    for room in ROOMS:
        assert (ROOT / room / "py.typed").is_file(), room
    forbidden: dict[str, set[str]] = {}
    layered: dict[str, set[str]] = {}
    for contract in tools["importlinter"]["contracts"]:
        for source in contract.get("source_modules", ()):
            forbidden.setdefault(source, set()).update(contract["forbidden_modules"])
        for container in contract.get("containers", ()):
            assert contract["exhaustive"], container
            layered[container] = {name for layer in contract["layers"] for name in layer.split(" | ")}
    everything = {*ROOMS, "scripts"}
    assert forbidden["scene"] == everything - {"scene"}
    assert forbidden["recon"] == everything - {"scene", "recon"}
    assert forbidden["qnerf"] == everything - {"scene", "qnerf"}
    assert forbidden["pipeline"] == {"viewloom", "scripts"}
    assert forbidden["viewloom"] == {"scripts"}
    parts = {path.name for path in (ROOT / "pipeline").iterdir() if (path / "__init__.py").is_file()}
    assert layered["pipeline"] == parts
    assert {"scene", "recon", "pipeline.diffusion", "pipeline.training"} <= layered.keys()


def test_the_source_archive_has_the_demo_photo_and_no_other_pictures_of_the_documentation() -> None:
    config = SdistBuilder(str(ROOT)).config
    for kept in ("docs/install.md", "docs/demo/photo.png", "weights/nano/model_index.json"):
        assert not config.path_is_excluded(kept), kept
    for left_out in ("docs/demo/turntable.webp", "docs/pictures/mesh.png", ".ci/run"):
        assert config.path_is_excluded(left_out), left_out


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in (ROOT / "tools").glob("*/package.json")), ids=lambda folder: folder.name
)
def test_npm_locks_name_no_addresses(folder: Path) -> None:
    text = (folder / "package-lock.json").read_text(encoding="utf-8")
    assert "://" not in text
    wanted = json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
    packages = json.loads(text)["packages"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted


def test_the_weights_do_not_tell_where_they_were_made() -> None:
    """diffusers notes the folder that a part was loaded from, and so would anything else that is a path."""

    def texts(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            yield from (text for pair in value.items() for part in pair for text in texts(part))
        elif isinstance(value, list):
            yield from (text for item in value for text in texts(item))
        elif isinstance(value, str):
            yield value

    files = sorted((ROOT / "weights").rglob("*.json"))
    assert files
    for file in files:
        held = list(texts(json.loads(file.read_text(encoding="utf-8"))))
        assert "_name_or_path" not in held, file
        assert not [text for text in held if PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()]


def test_credits_name_every_core_dependency_and_extra() -> None:
    text = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
    for line in [*PROJECT["project"]["dependencies"], *(text for group in EXTRAS.values() for text in group)]:
        assert f"| {Requirement(line).name} |" in text, line
