"""Presets: YAML over the settings of the jobs, read strictly."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipeline.jobs.renamed import renamed_keys
from pipeline.jobs.settings import EditSettings, FuseSettings, Image2MeshSettings, ReconstructSettings
from scene.documents import read_yaml, shown
from scene.errors import InputError, SettingsError
from scene.resources import shipped

T = TypeVar("T")
_FINITE = ConfigDict(allow_inf_nan=False)
_SECTIONS: dict[type, str] = {
    Image2MeshSettings: "photos",
    ReconstructSettings: "captures",
    EditSettings: "captures",
    FuseSettings: "fused",
}
"""The section of a preset that holds for one job only: what suits a capture's fit does not suit a photo's."""


@dataclass(frozen=True)
class Preset(Generic[T]):
    """A preset as read.

    Args:
        settings: those of the job, filled.
        notices: a sentence for each key that has a new name.
    """

    settings: T
    notices: tuple[str, ...]


def load_preset(name: str, default: T) -> Preset[T]:
    """The default settings with what a preset changes.

    Args:
        name: of a preset that comes with the project, or a YAML file. Settings under ``photos``, ``captures`` or
            ``fused`` hold for jobs of that kind only, over those outside; keys of other jobs alone are passed over.
        default: settings that it changes.

    Raises:
        InputError: there is no such preset.
        SettingsError: see :func:`settings_from_yaml`.
    """
    return settings_from_yaml(preset_path(name), default)


def preset_path(name: str) -> Path:
    """The YAML file of a preset: a file's path, or the name of one that comes with the project.

    Raises:
        InputError: there is no such file or name.
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    path = shipped("configs") / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in shipped("configs").glob("*.yaml"))
        raise InputError(
            f"there is no preset {name!r}", fix=f"Known presets: {', '.join(known)}; or give a .yaml file."
        )
    return path


def keys_of_other_jobs(settings: object) -> set[str]:
    """Top-level keys that a preset may hold for jobs that these settings are not of."""
    names: dict[type, set[str]] = {job: {field.name for field in dataclasses.fields(job)} for job in _SECTIONS}
    own = names.get(type(settings))
    return set() if own is None else set().union(*names.values()) - own


def settings_from_yaml(path: Path, default: T) -> Preset[T]:
    """The default settings with what a YAML file changes.

    Args:
        path: the file.
        default: settings that it changes.

    Raises:
        SettingsError: the file cannot be read, has a key that the settings do not have, or a value of the wrong type.
    """
    if not os.path.lexists(path):
        raise SettingsError("there is no such preset", where=path)
    content = read_yaml(path, SettingsError)
    if not isinstance(content, dict):
        return Preset(_filled(default, {} if content is None else content, path, ""), ())
    own = _SECTIONS.get(type(default))
    # A key without a value, since all below it is commented out, changes nothing.
    content = {key: value for key, value in content.items() if value is not None or key not in _SECTIONS.values()}
    sections = {name: content.pop(name) for name in _SECTIONS.values() if own is not None and name in content}
    settings, notices = _layered(default, content, path, "")
    if own in sections:
        settings, more = _layered(settings, sections[own], path, own)
        notices = (*notices, *more)
    return Preset(settings, notices)


def _layered(default: T, content: Any, path: Path, section: str) -> tuple[T, tuple[str, ...]]:
    """Settings with what one part of a preset changes, and what must be said of it."""
    notices: tuple[str, ...] = ()
    if isinstance(content, dict):
        ignored = set() if section else keys_of_other_jobs(default)
        content, notices = renamed_keys({key: value for key, value in content.items() if key not in ignored})
    return _filled(default, content, path, section), notices


def _filled(default: Any, content: Any, path: Path, prefix: str) -> Any:
    if not isinstance(content, dict):
        raise SettingsError(
            f"{prefix or 'the file'} must hold keys and values, not {type(content).__name__}", where=path
        )
    hints = typing.get_type_hints(type(default))
    names = {f.name for f in dataclasses.fields(default)}
    changes: dict[str, Any] = {}
    for key, value in content.items():
        full = f"{prefix}.{key}" if prefix else str(key)
        if key not in names:
            known = names if prefix or type(default) not in _SECTIONS else {*names, *_SECTIONS.values()}
            near = difflib.get_close_matches(str(key), known, 1)
            raise SettingsError(
                f"unknown key {full}",
                where=path,
                fix=f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(sorted(known))}.",
            )
        current = getattr(default, key)
        if dataclasses.is_dataclass(current):
            changes[key] = _filled(current, value, path, full)
            continue
        try:
            # Through JSON: strict about types, yet lists may fill tuples and strings may fill paths.
            changes[key] = TypeAdapter(hints[key], config=_FINITE).validate_json(json.dumps(value), strict=True)
        except (ValueError, TypeError) as error:  # pydantic's, or json's of values that JSON does not have
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise SettingsError(f"{full} has a wrong value {shown(value)} ({reason})", where=path) from error
    try:
        return dataclasses.replace(default, **changes)
    except SettingsError as error:  # values that do not go together
        raise SettingsError(f"{prefix}: {error.what}" if prefix else error.what, where=path, fix=error.fix) from error
