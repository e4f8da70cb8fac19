"""From a command line to a command: presets as defaults, renamed flags, short and whole help."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import tyro

from pipeline.jobs.presets import load_preset
from pipeline.jobs.renamed import renamed_flags
from pipeline.jobs.settings import Busy
from recon.profiles import FORMATS
from recon.settings import GlbSettings
from scene.errors import InputError, SettingsError
from viewloom.commands import Command, command_class

Out = Annotated[Path, tyro.conf.arg(aliases=["-o"])]
OwnOut = Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="PATH", help_behavior_hint="")]
"""An output whose default depends on the input."""
DEFAULT_OUT = Path("viewloom-out")
Formats = Annotated[str | None, tyro.conf.arg(metavar="FORMAT,...", help_behavior_hint="")]
GivenPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
GivenName = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
GivenNumber = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
WhenBusy = Annotated[Busy, tyro.conf.arg(metavar="refuse|wait", help_behavior_hint="(default: refuse)")]
Overwrite = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
GivenDegrees = Annotated[float | None, tyro.conf.arg(metavar="DEGREES", help_behavior_hint="")]
"""Flags that change nothing unless they are given."""
_RARE = ("busy", "overwrite")
"""Arguments that the short help leaves out, where there is a whole one; messages name them when they matter."""
_HELP, _HELP_ALL = ("-h", "--help"), "--help-all"


@dataclass(frozen=True)
class _PresetOnly:
    preset: str | None = None


def with_formats(glb: GlbSettings, formats: str | None) -> GlbSettings:
    """Settings with formats from a command line, such as ``glb,usdz``.

    Raises:
        SettingsError: there is no such format.
    """
    if formats is None:
        return glb
    wanted = [name.strip().lower().lstrip(".") for name in formats.split(",") if name.strip()]
    chosen = tuple(known for name in wanted for known in FORMATS if known == name)
    if not wanted or len(chosen) < len(wanted):
        unknown = next((name for name in wanted if name not in FORMATS), formats)
        raise SettingsError(f"there is no format {unknown!r}", fix=f"Choose from {', '.join(FORMATS)}.")
    return replace(glb, formats=chosen)


def parse(name: str, argv: Sequence[str]) -> Command:
    """Read the arguments of a command.

    Args:
        name: of the command.
        argv: what follows it.

    Raises:
        SystemExit: help was asked for, and printed, or the arguments are wrong.
        InputError: the preset is.
    """
    kind = command_class(name)
    _refuse_empty_output(argv)
    words, notices = renamed_flags(_with_axes(argv))
    default = None
    if "preset" in {field.name for field in dataclasses.fields(kind)}:  # type: ignore[arg-type]
        # The preset becomes the default, so that flags change it and help shows it.
        chosen, _ = tyro.cli(_PresetOnly, args=words, return_unknown_args=True, add_help=False)
        if chosen.preset is not None:
            default, more = _with_preset(kind, chosen.preset)
            notices = (*notices, *more)
    for notice in notices:
        print(f"viewloom: {notice}", file=sys.stderr)
    whole = _HELP_ALL in words
    if whole or any(word in words for word in _HELP):
        _print_help(name, kind, default, whole=whole)
        raise SystemExit(0)
    parsed: Any = tyro.cli(kind, args=words, prog=f"viewloom {name}", default=default)
    command: Command = parsed
    return command


def _with_axes(argv: Sequence[str]) -> list[str]:
    """The words with ``--up -y`` as one, which would pass for two flags."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] in ("--up", "--capture.up") and word in ("-x", "-y", "-z"):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _refuse_empty_output(argv: Sequence[str]) -> None:
    """An output without a name, such as a variable that is not set, is not the folder that one is in."""
    for word, following in zip_longest(argv, argv[1:]):
        if word == "--out=" or (word in ("-o", "--out") and following is not None and not following.strip()):
            raise InputError("the output has no name", fix="Name a folder with -o; . is the one that you are in.")


def _print_help(name: str, kind: type[Any], default: Any, *, whole: bool) -> None:
    shown = kind if whole else _short(kind)
    if default is not None and shown is not kind:
        default = _copied(default, shown)
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        tyro.cli(shown, args=["--help"], prog=f"viewloom {name}", default=default)
    width = shutil.get_terminal_size().columns
    for line in text.getvalue().splitlines():
        # tyro breaks the lines of its boxes, but not those of the text above them.
        print("\n".join(textwrap.wrap(line, width)) if line[:1].isalpha() else line.rstrip())
    if shown is not kind:
        print(f"viewloom {name} {_HELP_ALL} shows every setting; all of them are also keys of presets.")


def _with_preset(kind: type[Any], name: str) -> tuple[Any, tuple[str, ...]]:
    """The command with a preset's settings as default, and what must be said of the preset."""
    settings = next(field.default for field in dataclasses.fields(kind) if field.name == "settings")
    preset = load_preset(name, settings)
    required = {f.name: tyro.MISSING for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
    return kind(**required, settings=preset.settings), preset.notices


def _short(kind: type[Any]) -> type[Any]:
    """The class without groups of settings: a twin whose nested settings tyro does not show.

    tyro reads the texts of fields from the sources of the classes that they come from, so twins are subclasses.
    """
    hints = get_type_hints(kind, include_extras=True)
    if "settings" not in hints:
        return kind
    settings = get_args(hints["settings"])[0]
    groups = {name: hint for name, hint in get_type_hints(settings).items() if dataclasses.is_dataclass(hint)}
    if not groups:
        return kind
    flat = _twin(settings, {name: Annotated[hint, tyro.conf.Suppress] for name, hint in groups.items()})
    rare = {name: Annotated[hint, tyro.conf.Suppress] for name, hint in hints.items() if name in _RARE}
    return _twin(kind, {"settings": Annotated[flat, tyro.conf.arg(name="")], **rare}, {"settings": flat()})


def _copied(command: Any, twin: type[Any]) -> Any:
    """A command as its twin, whose settings have a twin too."""
    values = {field.name: getattr(command, field.name) for field in dataclasses.fields(command)}
    held = values["settings"]
    flat: Any = type(next(field.default for field in dataclasses.fields(twin) if field.name == "settings"))
    return twin(**{**values, "settings": flat(**{f.name: getattr(held, f.name) for f in dataclasses.fields(held)})})


def _twin(kind: type[Any], hints: dict[str, Any], defaults: dict[str, Any] | None = None) -> type[Any]:
    """A frozen dataclass like another, with other annotations for some fields."""
    own = {field.name: field.default for field in dataclasses.fields(kind) if field.name in hints}
    body = {"__doc__": kind.__doc__, "__module__": kind.__module__, "__annotations__": hints, **own, **(defaults or {})}
    twin: type[Any] = dataclass(frozen=True)(type(kind.__name__, (kind,), body))
    return twin
