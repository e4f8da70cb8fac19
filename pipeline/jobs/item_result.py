"""What became of one photo or capture."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recon.checks.verdict import Verdict
from recon.texture.evidence import EvidenceShares
from scene.errors import ViewloomError


@dataclass(frozen=True)
class ItemResult:
    """What became of one photo or capture.

    Args:
        name: of the item and its folder.
        folder: its results.
        asset: the GLB, if the job makes one and it was made.
        error: why it failed, if it did.
        files: of the asset in every format, the GLB first.
        views: the capture folder that the asset was made of.
        report: the page with its pictures.
        turntable: the asset from all around, an animated picture.
        verdict: whether a person would keep the asset, and what is wrong with it.
        evidence: where its surface comes from, as fractions of its area.
        seconds: that each stage took; 0 for those kept from an earlier run.
        warnings: what the user should know.
        original: of an edit, the GLB as it was before.
        rig: of an edit by a skeleton, the original as a GLB that can be posed, with a clip to the target.
    """

    name: str
    folder: Path
    asset: Path | None = None
    error: ViewloomError | None = None
    files: tuple[Path, ...] = ()
    views: Path | None = None
    report: Path | None = None
    turntable: Path | None = None
    verdict: Verdict | None = None
    evidence: EvidenceShares | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    original: Path | None = None
    rig: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what the item does not have is left out."""
        plain: dict[str, Any] = {
            "name": self.name,
            "folder": str(self.folder),
            "asset": None if self.asset is None else str(self.asset),
            "error": None if self.error is None else str(self.error),
            "files": [str(path) for path in self.files],
            "views": None if self.views is None else str(self.views),
            "report": None if self.report is None else str(self.report),
            "verdict": None if self.verdict is None else asdict(self.verdict),
            "evidence": None if self.evidence is None else asdict(self.evidence),
            "seconds": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
            "warnings": list(self.warnings),
            "original": None if self.original is None else str(self.original),
            "rig": None if self.rig is None else str(self.rig),
        }
        return {name: value for name, value in plain.items() if value not in (None, [], {})}

    def _repr_html_(self) -> str:
        """The turntable and the verdict, as notebooks show them."""
        if self.error is not None:
            return f"<b>{html.escape(self.name)}</b> failed: {html.escape(str(self.error))}"
        said = "" if self.verdict is None else f"<br>{html.escape(self.verdict.line)}"
        where = self.asset or self.views or self.folder
        text = f"<b>{html.escape(self.name)}</b>{said}<br><code>{html.escape(str(where))}</code>"
        if self.turntable is None or not self.turntable.is_file():
            return text
        data = base64.b64encode(self.turntable.read_bytes()).decode()
        picture = f'<img src="data:image/webp;base64,{data}" width="256" alt="{html.escape(self.name)}">'
        return f"<div>{picture}<br>{text}</div>"
