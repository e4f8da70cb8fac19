"""The ``config.yml`` of a nerfstudio run, read without running what it says.

nerfstudio writes its settings as YAML that names Python classes, and reads them back with a loader that calls whatever
a file names. Here only classes of settings that nerfstudio or this package defines are made, filled as they are, and
only paths and plain values beside them; names may stand for classes of these packages and of torch's optimisers.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
from pathlib import Path, PurePath
from typing import Any

import yaml

from scene.errors import InputError

_SETTINGS = ("nerfstudio.", "recon.nerfstudio.")
_CLASSES = (*_SETTINGS, "torch.optim.")
_PATHS = tuple(
    f"{module}.{name}"
    for module in ("pathlib", "pathlib._local")
    for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")
)
_FUNCTIONS = ("nerfstudio.data.utils.nerfstudio_collate.nerfstudio_collate",)
"""Functions that settings of nerfstudio name."""
_MOST_BYTES = 1_000_000
_FIX = "Only files that ns-train wrote are read, since others may run code."


class _RefusedError(yaml.YAMLError):
    """The file names something that is neither settings nor a class of them."""


class _Loader(yaml.SafeLoader):
    """YAML with nerfstudio's settings in it."""


def read_run_config(path: Path) -> Any:
    """The settings of a run.

    Raises:
        InputError: the file cannot be read, or names anything but settings.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise InputError("is larger than settings are", where=path)
        content = yaml.load(data.decode("utf-8"), Loader=_Loader)
    except _RefusedError as error:
        raise InputError(f"names {error}, which is no setting", where=path, fix=_FIX) from error
    except RecursionError as error:
        raise InputError("cannot be read as YAML (it is nested too deeply)", where=path) from error
    except (OSError, yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        raise InputError(f"cannot be read as YAML ({' '.join(str(error).split())[:300]})", where=path) from error
    if not (dataclasses.is_dataclass(content) and hasattr(content, "pipeline")):
        raise InputError("holds no settings of a run", where=path, fix="Give the config.yml that ns-train wrote.")
    return content


def _found(name: str, packages: tuple[str, ...]) -> type:
    """A class of one of some packages."""
    module, _, last = name.rpartition(".")
    if not f"{module}.".startswith(packages) or not last.isidentifier():
        raise _RefusedError(name[:80])
    try:
        found = getattr(importlib.import_module(module), last, None)
    except ImportError as error:
        raise _RefusedError(name[:80]) from error
    # Modules hold functions and what they imported from elsewhere, too.
    if not isinstance(found, type) or not f"{found.__module__}.".startswith(packages):
        raise _RefusedError(name[:80])
    return found


def _settings(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    kind = _found(suffix, _SETTINGS)
    if not dataclasses.is_dataclass(kind) or not isinstance(node, yaml.MappingNode):
        raise _RefusedError(suffix[:80])
    made: Any = object.__new__(kind)
    values = loader.construct_mapping(node, deep=True)
    for name, value in values.items():
        if not isinstance(name, str) or name.startswith("__"):
            raise _RefusedError(f"{suffix[:80]}.{str(name)[:40]}")
        object.__setattr__(made, name, value)
    return made


def _applied(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    values = loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else []
    if suffix in _PATHS and all(isinstance(value, str) for value in values):
        return Path(PurePath(*values))
    kind = _found(suffix, _SETTINGS)
    if not issubclass(kind, enum.Enum) or len(values) != 1:
        raise _RefusedError(suffix[:80])
    return kind(values[0])


def _named(_: yaml.SafeLoader, suffix: str, __: yaml.Node) -> Any:
    if suffix in _FUNCTIONS:
        module, _dot, last = suffix.rpartition(".")
        return getattr(importlib.import_module(module), last)
    return _found(suffix, _CLASSES)


def _tuple(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    return tuple(loader.construct_sequence(node, deep=True)) if isinstance(node, yaml.SequenceNode) else ()


_Loader.add_multi_constructor("tag:yaml.org,2002:python/object:", _settings)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/object/apply:", _applied)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", _named)
_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)
