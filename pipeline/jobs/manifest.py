"""What an item's ``manifest.json`` says: the inputs, settings and versions that a result was made of."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.jobs.stages.asset import AssetReport
from pipeline.jobs.stages.edit import EditReport
from scene.backends import version_of
from scene.files import write_text

_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_OF_CAPTURES, _OF_PHOTOS = "computationalCapture", "compositeWithTrainedAlgorithmicMedia"
"""Many photos made into one by computation; a photo completed by what a trained model drew."""

GENERATED = _SOURCE_TYPE + _OF_PHOTOS


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    names = ("viewloom", "torch", "diffusers", "numpy", "scipy", "scikit-image", "xatlas", "fast-simplification")
    return {"python": platform.python_version(), **{name: version_of(name) or "unknown" for name in names}}


@dataclass
class Manifest:
    """What an item was made of; it grows as the job goes on.

    Args:
        settings: of the job, as plain values.
        photo: name and digest, of a photo's item.
        photos: names and digests, of an item that is made of several.
        weights: digest and kind of the model that drew views.
        capture, capture_sha256: name and digest, of a capture's item.
        warnings: what the user should know.
        asset: name and digest of the GLB, and the asset's report, once there is one.
        symmetry: of a photo's item, whether the photo was mirrored, in which plane, or why not.
        edit: of an edit's item, name and digest of the edited GLB, and the edit's report, once there is one.
    """

    settings: dict[str, Any]
    photo: dict[str, str] | None = None
    weights: dict[str, Any] | None = None
    capture: str | None = None
    capture_sha256: str | None = None
    warnings: list[str] = field(default_factory=list)
    asset: dict[str, Any] | None = None
    symmetry: dict[str, Any] | None = None
    edit: dict[str, Any] | None = None
    photos: list[dict[str, str]] | None = None
    versions: dict[str, str] = field(default_factory=versions)

    @property
    def extras(self) -> dict[str, Any]:
        """The part of it that the GLB itself carries along."""
        return {
            # The IPTC's words, as asked for where generated media must be marked.
            "digitalSourceType": _SOURCE_TYPE + (_OF_CAPTURES if self.photo is None else _OF_PHOTOS),
            "manifest": {
                "licence": (self.weights or {}).get("licence"),
                "versions": self.versions,
                "seed": self.settings.get("views", {}).get("sampling", {}).get("seed"),
            },
        }

    def add_asset(self, file: str, digest: str, report: AssetReport) -> None:
        """Note the asset."""
        self.asset = {"file": file, "sha256": digest, **report.as_dict()}

    def add_edit(self, file: str, digest: str, report: EditReport, editor: dict[str, str] | None = None) -> None:
        """Note the edited asset, and the model that drew its views, if one did."""
        self.edit = {"file": file, "sha256": digest, **asdict(report)}
        if editor is not None:
            self.edit["editor"] = editor

    def as_dict(self) -> dict[str, Any]:
        """Plain values; what the item does not have is left out."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``."""
        write_text(folder / "manifest.json", json.dumps(self.as_dict(), indent=1, sort_keys=True) + "\n")
