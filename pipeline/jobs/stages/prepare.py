"""The first stage of a photo: cut out, centred, framed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from pipeline.diffusion.preparation.cutout import finder_files
from pipeline.diffusion.preparation.prepare import PreparedPhoto, prepare_photo
from pipeline.diffusion.settings import PrepareSettings
from pipeline.jobs.runner import digest_of_file
from pipeline.jobs.settings import settings_as_dict
from scene.documents import read_object
from scene.errors import InputError
from scene.files import require_regular
from scene.framing import Framing


@dataclass(frozen=True)
class PrepareStage:
    """A photo to its cut-out.

    Args:
        photo: the file.
        photo_digest: of its content.
        settings: of the cut-out.
        mask: of the object, if the user gave one.
        mask_digest: of its content.
    """

    name: ClassVar[str] = "prepare"
    version: ClassVar[int] = 7
    """Raised when the code changes the result, as that of every stage."""

    photo: Path
    photo_digest: str
    settings: PrepareSettings
    mask: Path | None = None
    mask_digest: str | None = None

    @property
    def key(self) -> list[Any]:
        """Photo, settings, and the mask or what finds one."""
        found_by = _finder_key(self.settings) if self.mask is None else self.mask_digest
        return [self.version, self.photo_digest, settings_as_dict(self.settings), found_by]

    def run(self, folder: Path) -> None:
        """Write the cut-out, its mask and the framed cut-out."""
        prepared = prepare_photo(self.photo, self.settings, self.mask)
        Image.fromarray(prepared.cutout).save(folder / "cutout.png")
        Image.fromarray(prepared.mask).save(folder / "mask.png")
        Image.fromarray(prepared.framed).save(folder / "framed.png")
        content = {
            "warnings": prepared.warnings,
            "confidence": round(prepared.confidence, 4),
            "came_cut_out": prepared.came_cut_out,
            "scale": prepared.framing.scale,
            "offset": prepared.framing.offset,
            "side": prepared.framing.size,
        }
        (folder / "prepare.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> PreparedPhoto:
        """The cut-out as it was written."""
        content = read_object(folder / "prepare.json", finite=True)
        TypeAdapter(_Stored).validate_python(content)
        cutout, framed, _ = (_stored(folder / f"{name}.png") for name in ("cutout", "framed", "mask"))
        if cutout.shape[-1] != 4 or framed.shape != (content["side"], content["side"], 4):
            raise InputError("its pictures are of other sizes", where=folder)
        return PreparedPhoto(
            cutout,
            framed,
            Framing(content["scale"], tuple(content["offset"]), content["side"]),
            tuple(content["warnings"]),
            content["confidence"],
            content["came_cut_out"],
        )


@dataclass(frozen=True)
class _Stored:
    """What ``prepare.json`` holds."""

    warnings: list[str]
    confidence: float
    came_cut_out: bool
    scale: float
    offset: tuple[float, float]
    side: int


def _stored(path: Path) -> np.ndarray:
    require_regular(path)
    with Image.open(path, formats=["PNG"]) as image:
        return np.array(image)


def _finder_key(settings: PrepareSettings) -> list[str | None]:
    """What cut-outs of photos without a mask depend on beside the settings."""
    rembg, files = finder_files(settings.cutout)
    return [rembg, *(digest_of_file(path) for path in files)]
