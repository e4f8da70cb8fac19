"""Readers of posed captures, one module per format, and the one function that finds out which it is.

Whatever the format, the set that comes back has a z-up world, OpenGL camera axes and pinhole cameras. Its ``metadata``:

* ``format``: which reader it came through.
* ``up``: ``"given"`` by the format or the caller, or ``"estimated"`` from the cameras; then ``up_from`` says by what.
* ``world_from_file``: 4x4 similarity from the file's world to the set's; absent if they are the same.
* ``applied_transform``, ``applied_scale``: nerfstudio's, from the original world to the file's.
  :func:`world_from_original` puts the three together.
* ``region``: centre and radius of a sphere around the object, where the format tells; ``shown``, of a normalised set:
  what the pictures show at the origin, in radii.
* ``mask_means``: ``"ignore"`` where alpha is 0 for what is not to be looked at; then the set has no masks.
* ``notes``: sentences on what was assumed or changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scene.captures.alicevision import find_meshroom, find_openmvg, read_meshroom, read_openmvg
from scene.captures.borders import with_borders_unknown
from scene.captures.bundler import find_bundle, is_bundle, read_bundler
from scene.captures.cameras_json import read_cameras_json
from scene.captures.colmap import find_model, read_colmap
from scene.captures.folders import first_json, picture_notes, pictures_in, read_json, unknown_json, unused_pictures
from scene.captures.gaussians import is_gaussians, read_gaussians
from scene.captures.masks import threshold_beside_ignored, threshold_masks, with_sound_masks
from scene.captures.metashape import find_metashape, read_metashape
from scene.captures.middlebury import read_middlebury
from scene.captures.named import named_pictures, read_named
from scene.captures.neus import read_neus
from scene.captures.nvm import find_nvm, read_nvm
from scene.captures.opensfm import find_opensfm, read_opensfm
from scene.captures.phone_scans import find_polycam, find_record3d, read_polycam, read_record3d
from scene.captures.predictions import find_predictions, read_predictions
from scene.captures.projections import read_projections
from scene.captures.realitycapture import find_csv, find_xmp, read_csv, read_xmp
from scene.captures.research import find_llff, find_mvsnet, find_sdfstudio, read_llff, read_mvsnet, read_sdfstudio
from scene.captures.worlds import Up, turned_up, with_notes, world_from_original
from scene.errors import InputError
from scene.pictures.opening import picture_endings
from scene.viewset import ViewSet

_DEEPEST = 2
"""Folders below that of the capture in which descriptions lie: ``sparse/0``, ``keyframes/cameras``."""

__all__ = ["FORMATS", "Format", "load_capture", "threshold_beside_ignored", "threshold_masks", "world_from_original"]


@dataclass(frozen=True)
class Format:
    """A kind of capture.

    Args:
        kind: its name for :func:`load_capture`.
        looks_for: what makes a folder one of this kind, in words.
        described: the file or folder that describes the cameras of a folder or file that may be of this kind, judged by
            what it holds; None if there is none.
        read: its reader.
    """

    kind: str
    looks_for: str
    described: Callable[[Path], Path | None]
    read: Callable[[Path], ViewSet]


def _nerfstudio(path: Path) -> Path | None:
    # A capture file may have any name when it is given itself.
    return first_json(path, "transforms*.json", lambda content: isinstance(content, dict) and "frames" in content)


def _cameras_json(path: Path) -> Path | None:
    return first_json(path, "cameras.json", lambda content: isinstance(content, dict) and {"K", "poses"} & {*content})


def _gaussians(path: Path) -> Path | None:
    return first_json(path, "cameras.json", is_gaussians)


def _bundler(path: Path) -> Path | None:
    return find_bundle(path) if path.is_dir() else path if path.name == "bundle.out" or is_bundle(path) else None


def _named(path: Path) -> Path | None:
    return next(iter(named_pictures(path).values()), None)


def _matching(pattern: str) -> Callable[[Path], Path | None]:
    """Finds the first file of a folder whose name matches, or a file that does."""

    def found(path: Path) -> Path | None:
        return next((p for p in ([path] if path.is_file() else sorted(path.glob(pattern))) if p.match(pattern)), None)

    return found


FORMATS = (
    Format("nerfstudio", "transforms.json or transforms_train.json", _nerfstudio, ViewSet.load),
    Format("cameras_json", "cameras.json with 000.png ...", _cameras_json, read_cameras_json),
    Format("neus", "cameras*.npz with image/", _matching("cameras*.npz"), read_neus),
    Format("middlebury", "*_par.txt", _matching("*_par.txt"), read_middlebury),
    Format("projections", "NAME_P.txt beside NAME.jpg", _matching("*_P.txt"), read_projections),
    Format("bundler", "bundle.out", _bundler, read_bundler),
    Format("colmap", "cameras and images (.bin or .txt) here or in sparse/0", find_model, read_colmap),
    Format("gaussians", "cameras.json of 3D Gaussian Splatting with images/", _gaussians, read_gaussians),
    Format("metashape", "cameras.xml of Metashape", find_metashape, read_metashape),
    Format("realitycapture", "a CSV of RealityCapture's parameters", find_csv, read_csv),
    Format("realitycapture_xmp", "NAME.xmp of RealityCapture beside NAME.jpg", find_xmp, read_xmp),
    Format("polycam", "keyframes/cameras of Polycam's raw export", find_polycam, read_polycam),
    Format("record3d", "metadata of Record3D", find_record3d, read_record3d),
    Format("opensfm", "reconstruction.json of OpenSfM or OpenDroneMap", find_opensfm, read_opensfm),
    Format("meshroom", "cameras.sfm of Meshroom", find_meshroom, read_meshroom),
    Format("openmvg", "sfm_data.json of OpenMVG", find_openmvg, read_openmvg),
    Format("sdfstudio", "meta_data.json of sdfstudio", find_sdfstudio, read_sdfstudio),
    Format("nvm", "*.nvm of VisualSFM", find_nvm, read_nvm),
    Format("mvsnet", "cams/*_cam.txt with images/", find_mvsnet, read_mvsnet),
    Format("llff", "poses_bounds.npy", find_llff, read_llff),
    Format("predictions", "predictions.npz of VGGT or MapAnything with images/", find_predictions, read_predictions),
    Format("named", "front.png with left.png, back.png or right.png", _named, read_named),
)
"""In the order in which they are tried: what was made for a capture before what it was made from."""


def load_capture(path: Path, *, kind: str | None = None, up: Up = "auto") -> ViewSet:
    """Read a posed capture of any known format: a folder, or the file in it that holds the cameras.

    What describes the cameras is found by what files hold. Of several descriptions the first that can be read counts;
    the notes say which were not, and how many pictures beside those that were read no camera belongs to.

    Args:
        path: folder or file.
        kind: the format, one of :data:`FORMATS`; by default the first that can be read.
        up: the axis of the file's world that points up; see :func:`scene.captures.worlds.turned_up`.

    Raises:
        InputError: there is no capture, or it is faulty; the message says what was looked for and what was found.
    """
    if not path.exists():
        raise InputError("there is no such file or folder", where=path)
    _refuse_pipes(path)
    notes: list[str] = []
    if kind is not None:
        chosen = next((candidate for candidate in FORMATS if candidate.kind == kind), None)
        if chosen is None:
            raise InputError(
                f"unknown kind of capture {kind!r}", fix=f"Use one of {', '.join(f.kind for f in FORMATS)}."
            )
        views = chosen.read(path)
    else:
        views = _first_read(path, notes)
    used = [view.image_path for view in views if view.image_path is not None]
    notes += unused_pictures(used, {source for view in views for source in view.files})
    notes += [] if _is_ours(path) else picture_notes(used)
    # Our own captures, and views with names, are as they say.
    trusted = views.metadata.get("format") == "named" or _is_ours(path)
    views = with_sound_masks(with_notes(views, notes), trusted=trusted)
    return turned_up(views if trusted else with_borders_unknown(views), up, trusted=trusted)


def _is_ours(path: Path) -> bool:
    """Whether a capture was saved by :meth:`scene.viewset.ViewSet.save`."""
    content = read_json(path / "transforms.json" if path.is_dir() else path)
    return isinstance(content, dict) and isinstance(content.get("viewloom"), dict)


def _first_read(path: Path, notes: list[str]) -> ViewSet:
    """The first description of a capture that can be read; ``notes`` say what became of the others."""
    found = [(form, file) for form in FORMATS if (file := form.described(path)) is not None]
    if not found:
        raise _nothing_found(path)
    faults: list[InputError] = []
    for k, (form, file) in enumerate(found):
        try:
            views = form.read(path)
        except InputError as error:
            faults.append(error)
            notes.append(f"{_within(file, path)} could not be used ({error.what})")
            continue
        seen = {file, *(tried for _, tried in found[:k])}
        for other, beside in found[k + 1 :]:
            if beside not in seen and other.kind != "named":  # whose pictures are those that were read
                notes.append(f"{_within(file, path)} was read, and {_within(beside, path)} ({other.kind}) was not")
        notes += unknown_json(path, {described for _, described in found})
        return views
    raise faults[0]


def _within(file: Path, path: Path) -> str:
    """A description's name within its capture."""
    inner = file.relative_to(path).as_posix() if file.is_relative_to(path) else file.name
    if inner != ".":
        return inner
    return "the model in the folder itself" if file.is_dir() else file.name


def _refuse_pipes(path: Path) -> None:
    """Raise if what would be read as a description is a pipe, which would be waited for without an end.

    Pictures that are pipes are refused, each by itself, where they are opened.
    """
    if path.is_fifo():
        raise InputError("is a pipe, not a file", where=path)
    top = path if path.is_dir() else path.parent
    for folder, folders, names in os.walk(top):
        deep = len(Path(folder).relative_to(top).parts)
        folders[:] = [name for name in folders if name[0] != "." and deep < _DEEPEST]
        for name in names:
            file = Path(folder, name)
            if file.suffix.lower() not in picture_endings() and file.is_fifo():
                raise InputError("is a pipe, not a file", where=file)


def _nothing_found(path: Path) -> InputError:
    looked_for = "; ".join(candidate.looks_for for candidate in FORMATS)
    if path.is_file():
        return InputError(f"is not a capture. Looked for: {looked_for}", where=path, fix="Give the capture's folder.")
    photos = pictures_in(path) or pictures_in(path / "images")
    if photos:
        return InputError(
            f"{len(photos)} photos without poses. Looked for: {looked_for}",
            where=path,
            fix=f"Run `viewloom pose {path}` first, which finds out where the photos were taken from",
        )
    found = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in path.iterdir())
    listing = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    return InputError(f"is not a capture. Looked for: {looked_for}. Found: {listing or 'nothing'}", where=path)
