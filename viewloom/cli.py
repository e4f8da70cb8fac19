"""The command line: ``viewloom image2mesh | views | pose | check | reconstruct | export | doctor``."""

from __future__ import annotations

import difflib
import io
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

import viewloom
from pipeline.jobs.posing.mapping import PoseSettings
from pipeline.jobs.progress import ConsoleReporter, print_banner
from pipeline.jobs.settings import Image2MeshSettings, ReconstructSettings, settings_from_yaml
from recon.profiles import PROFILES, ProfileName
from scene.errors import InputError, ViewloomError, unexpected
from scene.resources import shipped

Out = Annotated[Path, tyro.conf.arg(aliases=["-o"])]


@dataclass(frozen=True)
class Image2Mesh:
    """Turn photos into textured GLB files.

    Every photo gets a folder OUT/NAME with NAME.glb, report.html, manifest.json and what the stages made. A second run
    continues where the first stopped.
    """

    photos: tyro.conf.Positional[tuple[Path, ...]]
    """Photos of one object each, any format; a cut-out with alpha works best."""
    out: Out
    """Output folder."""
    settings: Annotated[Image2MeshSettings, tyro.conf.arg(name="")] = Image2MeshSettings()
    """Settings of the stages."""
    mask: Path | None = None
    """Mask of the photo (white is the object), if there is just one photo."""
    preset: str | None = None
    """Named preset (draft, standard, high) or a YAML file; flags override it."""
    debug: bool = False
    """Show the traceback of errors."""


@dataclass(frozen=True)
class Views(Image2Mesh):
    """Turn photos into posed views: a capture folder OUT/NAME/views that nerfstudio opens, without a mesh."""


@dataclass(frozen=True)
class Pose:
    """Find the cameras of photos of one object, taken from around it, and write a capture folder.

    Lens, sparse points and the vertical come with it. The same photos are not searched again: what the search needed is
    kept in OUT/colmap.
    """

    photos: tyro.conf.Positional[tuple[Path, ...]]
    """Photos, or folders of photos; three at least, of a thing that does not move."""
    out: Out
    """Capture folder to write."""
    settings: Annotated[PoseSettings, tyro.conf.arg(name="")] = PoseSettings()
    """Settings of the search."""
    debug: bool = False
    """Show the traceback of errors."""


@dataclass(frozen=True)
class Check:
    """Say what is wrong with a capture: blur, exposure, masks, coverage, views that contradict the others."""

    capture: tyro.conf.Positional[Path]
    """A capture of any format that can be read."""
    masks: Literal["auto", "given", "background", "none"] = "auto"
    """Where masks come from, as for reconstruct."""
    debug: bool = False
    """Show the traceback of errors."""


@dataclass(frozen=True)
class Reconstruct:
    """Turn a capture folder (transforms.json with pictures and masks) into a textured GLB."""

    capture: tyro.conf.Positional[Path]
    """Folder with transforms.json, or that file."""
    out: Out
    """Output folder."""
    settings: Annotated[ReconstructSettings, tyro.conf.arg(name="")] = ReconstructSettings()
    """Settings of the stages."""
    preset: str | None = None
    """Named preset (draft, standard, high) or a YAML file; flags override it."""
    debug: bool = False
    """Show the traceback of errors."""


@dataclass(frozen=True)
class Export:
    """Write a GLB of viewloom's in another format: .glb, .obj, .ply, .stl or .usdz.

    The texture is taken over as it is, unless a profile asks for fewer pixels or bytes.
    """

    mesh: tyro.conf.Positional[Path]
    """The GLB, as image2mesh or reconstruct wrote it."""
    out: Out
    """Output file; its ending says the format."""
    profile: ProfileName | None = None
    """Keep the texture and the file within this profile, and say which of its limits cannot be kept."""
    debug: bool = False
    """Show the traceback of errors."""


@dataclass(frozen=True)
class Doctor:
    """Say what this installation can do and how to get what is missing."""

    debug: bool = False
    """Show the traceback of errors."""


_OF_PHOTOS = ("prepare", "views", "device", "dtype", "memory")
"""What presets may hold that a capture has no use for."""
_COMMANDS: dict[str, type[Any]] = {
    "image2mesh": Image2Mesh,
    "views": Views,
    "pose": Pose,
    "check": Check,
    "reconstruct": Reconstruct,
    "export": Export,
    "doctor": Doctor,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code: 0 done, 1 our fault, 2 the input's."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names may hold anything, and not every console can show everything.
            stream.reconfigure(errors="backslashreplace")
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        print(f"viewloom {viewloom.__version__}")
        return 0
    if argv[0] not in _COMMANDS:
        near = difflib.get_close_matches(argv[0], _COMMANDS, 1)
        print(
            f"viewloom: unknown command {argv[0]!r}"
            + (f"; did you mean {near[0]}?" if near else "")
            + f"\n\n{_usage()}",
            file=sys.stderr,
        )
        return 2
    try:
        command = _parse(argv[0], argv[1:])
        return _run(command)
    except Exception as error:
        if "--debug" in argv:
            raise
        told = error if isinstance(error, ViewloomError) else unexpected(error)
        print(f"viewloom: {told}", file=sys.stderr)
        return told.exit_code
    except KeyboardInterrupt:
        print("viewloom: stopped; the same command continues where this one was", file=sys.stderr)
        return 130


def _usage() -> str:
    lines = [
        f"  viewloom {name:<12} {(kind.__doc__ or '').strip().splitlines()[0]}" for name, kind in _COMMANDS.items()
    ]
    return "\n".join(
        [f"viewloom {viewloom.__version__}", "", *lines, "", "  viewloom COMMAND --help shows every setting."]
    )


def _parse(name: str, argv: list[str]) -> Any:
    kind = _COMMANDS[name]
    preset = _preset_in(argv)
    if preset is None or kind in (Doctor, Export, Pose, Check):
        return tyro.cli(kind, args=argv, prog=f"viewloom {name}")
    # The preset becomes the default, so that flags change it and --help shows it.
    if kind is Reconstruct:
        ours = settings_from_yaml(preset_path(preset), ReconstructSettings(), ignore=_OF_PHOTOS)
        default = Reconstruct(capture=tyro.MISSING, out=tyro.MISSING, settings=ours)
    else:
        theirs = settings_from_yaml(preset_path(preset), Image2MeshSettings())
        default = kind(photos=tyro.MISSING, out=tyro.MISSING, settings=theirs)
    return tyro.cli(kind, args=argv, prog=f"viewloom {name}", default=default)


def _preset_in(argv: list[str]) -> str | None:
    found = None
    for k, word in enumerate(argv):
        if word == "--preset" and k + 1 < len(argv):
            found = argv[k + 1]
        if word.startswith("--preset="):
            found = word.partition("=")[2]
    return found  # the last one counts, as with every flag


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


def _run(command: Any) -> int:
    if isinstance(command, Doctor):
        return _doctor()
    if isinstance(command, Export):
        return _export(command)
    if isinstance(command, Pose):
        return _pose(command)
    if isinstance(command, Check):
        return _check(command)
    what = (
        "reconstruct" if isinstance(command, Reconstruct) else "views" if isinstance(command, Views) else "image2mesh"
    )
    print_banner(f"viewloom {viewloom.__version__}: {what}")
    with ConsoleReporter() as reporter:
        if isinstance(command, Reconstruct):
            from pipeline.jobs.reconstruct import reconstruct

            results = [reconstruct(command.capture, command.out, command.settings, reporter=reporter)]
        else:
            from pipeline.jobs.image2mesh import image2mesh, make_views

            job = make_views if isinstance(command, Views) else image2mesh
            results = job(command.photos, command.out, command.settings, mask=command.mask, reporter=reporter)
    return _summary(results, command.debug)


def _summary(results: list[Any], debug: bool) -> int:
    failed = [r for r in results if r.error is not None]
    if len(results) == 1 and failed:
        raise failed[0].error
    for result in results:
        if result.error is None:
            print(f"{result.asset or result.folder / 'views'}  (report: {result.folder / 'report.html'})")
        else:
            print(f"{result.name}: failed: {result.error}", file=sys.stderr)
            if debug:
                traceback.print_exception(result.error)
    if failed:
        print(f"{len(failed)} of {len(results)} failed", file=sys.stderr)
        return max(r.error.exit_code for r in failed)
    return 0


def _export(command: Export) -> int:
    print_banner(f"viewloom {viewloom.__version__}: export")
    from recon.export.export_mesh import export_glb

    profile = None if command.profile is None else PROFILES[command.profile]
    with ConsoleReporter() as reporter:
        reporter.item(f"{command.mesh} -> {command.out}")
        made = export_glb(command.mesh, command.out, profile=profile)
        reporter.note(str(made))
        for text in made.broken_limits:
            reporter.note(f"Over the profile {command.profile}: {text}.")
    print(made.path)
    return 0


def _pose(command: Pose) -> int:
    print_banner(f"viewloom {viewloom.__version__}: pose")
    from pipeline.jobs.posing.pose import pose

    with ConsoleReporter() as reporter:
        result = pose(command.photos, command.out, command.settings, reporter=reporter)
    print(f"{result.folder}  ({result.summary})")
    return 0


def _check(command: Check) -> int:
    print_banner(f"viewloom {viewloom.__version__}: check")
    from pipeline.jobs.reconstruct import with_masks
    from recon.checks.capture import check_capture
    from scene.captures import load_capture

    report = check_capture(with_masks(load_capture(command.capture), command.masks))
    print("  view              sharpness  stops   overexposed   mask    fit  off by")
    for view in report.views:
        numbers = [
            f"{'-' if value is None else format(value, form):>{width}}"
            for value, form, width in (
                (view.sharpness, ".2f", 9),
                (view.stops, "+.1f", 6),
                (view.overexposed, ".0%", 7),
                (view.mask_fraction, ".1%", 6),
                (view.silhouette_iou, ".2f", 6),
            )
        ]
        print(f"  {view.name:<16}  {' '.join(numbers)}  {view.shift or '-'}")
    if report.coverage is not None:
        low, high = report.coverage.elevation_deg
        gap = f"largest gap {report.coverage.gap_deg:.0f} degrees"
        print(f"  cameras: {gap}, elevation {low:.0f} to {high:.0f} degrees")
    if report.consistency is not None:
        print(f"  consistency of the masks: {report.consistency:.2f}")
    for text in report.warnings or ("nothing to complain about",):
        print(f"  {'--' if report.warnings else 'ok'}  {text}")
    return 0 if report.usable else 2


def _doctor() -> int:
    print_banner(f"viewloom {viewloom.__version__}: doctor")
    from pipeline.jobs.doctor import examine

    for finding in examine():
        print(f"  {'ok' if finding.found else '--':<3} {finding.name:<16} {finding.detail}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
