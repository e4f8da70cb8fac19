"""The photos of one job: found, judged, reduced for the search, and copied upright into the capture."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from pipeline.jobs.photos import by_name, listed_photos
from pipeline.jobs.posing.mapping import Photo
from pipeline.jobs.runner import digest_of_file
from scene.documents import read_object
from scene.errors import InputError
from scene.exif import PhotoMetadata, photo_metadata
from scene.files import NAME_BYTES, shortened, write_bytes, written_aside
from scene.photo import load_rgba, read_picture
from scene.pictures.opening import opened

Progress = Callable[[int, int], None]
_SMALLEST = 160
"""Photos with a shorter side than this have too few features."""
_COPIED = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp"}
"""Formats that every reader of captures knows, and their endings; other pictures are saved anew."""


@dataclass(frozen=True)
class PhotoSet:
    """Usable photos, in order, and the others.

    Args:
        shots: reduced pictures, as the search takes them.
        sources: the photo that each was made of.
        skipped: names of unusable photos, and why.
        cut_out: whether every photo has an alpha channel that tells the object from its background.
        notes: what was guessed of a photo's file, or not believed, by the photo's name.
    """

    shots: tuple[Photo, ...]
    sources: tuple[Path, ...]
    skipped: dict[str, str]
    cut_out: bool
    notes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def sentences(self) -> list[str]:
        """The notes, each once, with the names of the photos that it is of."""
        names: dict[str, list[str]] = {}
        for name, texts in self.notes.items():
            for text in texts:
                names.setdefault(text, []).append(name)
        return [f"{_listed(those)}: {text}" for text, those in names.items()]

    def pairs(self) -> list[tuple[Photo, Path]]:
        """Shots with their photos."""
        return list(zip(self.shots, self.sources, strict=True))


@dataclass(frozen=True)
class Picture:
    """A picture of the capture: name of its file, width and height."""

    name: str
    size: tuple[int, int]


def gather(photos: Sequence[Path]) -> list[Path]:
    """Files among the given ones and in given folders, or else in the folders there, each once.

    They are in order of their names as people count, those of one folder together.

    Raises:
        InputError: something is not there, or a folder has no pictures.
    """
    found = listed_photos(photos, deep=True)
    for path in found:
        if not path.is_file():
            raise InputError("there is no such photo", where=path)
    parents = {parent: place for place, parent in enumerate(by_name({path.parent for path in found}))}
    return sorted(by_name(found), key=lambda path: parents[path.parent])


def save_photo_set(
    folder: Path, files: Sequence[Path], max_side: int, shared_camera: bool, on_step: Progress | None = None
) -> None:
    """Write reduced, upright pictures of the usable photos (and masks of cut-outs), and ``photos.json`` about them."""
    shots: list[Photo] = []
    kept: list[int] = []
    skipped: dict[str, str] = {}
    seen: dict[str, str] = {}
    lenses: dict[object, int] = {}
    notes: dict[str, list[str]] = {}
    cut_outs = 0
    for k, file in enumerate(files):
        digest, facts = digest_of_file(file), photo_metadata(file)
        try:
            if digest in seen:
                raise InputError(f"it is the same picture as {seen[digest]}")
            seen[digest] = file.name
            picture = read_picture(file, max_side)
            rgba = picture.rgba
            if min(facts.size) < _SMALLEST:
                raise InputError(f"{facts.size[0]}x{facts.size[1]} pixels are too few")
        except InputError as error:
            skipped[_unlike(file.name, skipped)] = error.what
        else:
            size = (int(rgba.shape[1]), int(rgba.shape[0]))
            lens = lenses.setdefault((facts.size, facts.body, facts.focal) if shared_camera else k, len(lenses))
            focal = None if facts.focal is None else facts.focal * max(size)
            shots.append(Photo(f"{len(shots):04d}.jpg", lens, size, focal))
            kept.append(k)
            if picture.notes:
                notes[_unlike(file.name, notes)] = list(picture.notes)
            cut_outs += _save_reduced(folder, shots[-1].file, rgba)
        if on_step is not None:
            on_step(k + 1, len(files))
    content = {
        "shots": [asdict(shot) for shot in shots],
        "kept": kept,
        "skipped": skipped,
        "cut_out": cut_outs == len(shots) > 0,
        "notes": notes,
    }
    (folder / "photos.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_photo_set(folder: Path, files: Sequence[Path]) -> PhotoSet:
    """Read what :func:`save_photo_set` wrote about the same files."""
    content = read_object(folder / "photos.json", finite=True)
    shots = tuple(Photo(row["file"], row["lens"], tuple(row["size"]), row["focal"]) for row in content["shots"])
    return PhotoSet(
        shots, tuple(files[k] for k in content["kept"]), content["skipped"], content["cut_out"], content["notes"]
    )


def write_pictures(
    folder: Path, photos: PhotoSet, shots: Sequence[Photo], on_step: Progress | None = None
) -> list[Picture]:
    """Copy the photos of some shots, byte by byte where they are upright and of a common format, else saved anew."""
    source_of = {shot.file: source for shot, source in photos.pairs()}
    pictures: list[Picture] = []
    taken: set[str] = set()
    for k, shot in enumerate(shots):
        source = source_of[shot.file]
        facts = photo_metadata(source)
        stem = _stem(source.stem, taken)
        if _is_plain(source, facts, photos.cut_out):
            picture = Picture(stem + _COPIED[facts.format], facts.size)
            write_bytes(folder / picture.name, source.read_bytes())
        else:
            rgba = load_rgba(source)
            image = Image.fromarray(rgba if photos.cut_out else rgba[..., :3])
            lossy = facts.format in ("JPEG", "MPO", "HEIF", "AVIF") and not photos.cut_out
            picture = Picture(stem + (".jpg" if lossy else ".png"), image.size)
            with written_aside(folder / picture.name) as path:
                if lossy:
                    image.save(path, quality=95, subsampling=0)
                else:
                    image.save(path)
        pictures.append(picture)
        if on_step is not None:
            on_step(k + 1, len(shots))
    return pictures


def _save_reduced(folder: Path, name: str, rgba: np.ndarray) -> bool:
    """Write the picture for the search, on grey if it is a cut-out; returns whether it is one."""
    alpha = rgba[..., 3]
    if alpha.min() >= 128:
        Image.fromarray(rgba[..., :3]).save(folder / name, quality=97, subsampling=0)
        return False
    cover = alpha[..., None].astype(np.float32) / 255
    flat = rgba[..., :3] * cover + 128 * (1 - cover)
    Image.fromarray(np.round(flat).astype(np.uint8)).save(folder / name, quality=97, subsampling=0)
    (folder / "masks").mkdir(exist_ok=True)
    # Corners between object and backdrop move over the object with the camera: no features near the outline.
    inner = Image.fromarray(np.where(alpha >= 128, 255, 0).astype(np.uint8)).filter(ImageFilter.MinFilter(7))
    inner.save(folder / "masks" / f"{name}.png")
    return True


def _is_plain(source: Path, facts: PhotoMetadata, cut_out: bool) -> bool:
    if facts.format not in _COPIED or not facts.upright:
        return False
    with opened(source) as image:
        has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    return cut_out or not has_alpha


def _stem(text: str, taken: set[str]) -> str:
    """A file name without ending that every system can hold, other than those taken."""
    base = re.sub(r'[\x00-\x1f<>:"/\\|?*\ud800-\udfff]', "_", text).strip(". ") or "photo"
    base = shortened(base, NAME_BYTES - len("-10000.webp"))
    name, k = base, 2
    while name.casefold() in taken:
        name, k = f"{base}-{k}", k + 1
    taken.add(name.casefold())
    return name


def _listed(names: Sequence[str]) -> str:
    """The first names of many."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _unlike(name: str, taken: Container[str]) -> str:
    found, k = name, 2
    while found in taken:
        found, k = f"{name} ({k})", k + 1
    return found
