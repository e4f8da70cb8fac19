"""What a job returns of an item: plain values for JSON, a picture for notebooks."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline.jobs.item_result import ItemResult
from recon.checks.verdict import Verdict
from recon.texture.evidence import EvidenceShares
from scene.errors import InputError

Done = Any
EVIL = '<script>a("&")</script>'


def whole(folder: Path) -> ItemResult:
    """A result with everything."""
    return ItemResult(
        "cup",
        folder,
        asset=folder / "cup.glb",
        files=(folder / "cup.glb", folder / "cup.usdz"),
        views=folder / "views",
        report=folder / "report.html",
        turntable=folder / "turntable.webp",
        verdict=Verdict(0.5, "fair", ("It is open.", "It is small.")),
        evidence=EvidenceShares(0.25, 0.25, 0.3, 0.2),
        seconds={"views": 1.23456, "surface": 0.0},
        warnings=("Look at it.",),
    )


def test_plain_values_can_be_written_as_json_and_read_back(tmp_path: Path) -> None:
    plain = whole(tmp_path).as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == {
        "name": "cup",
        "folder": str(tmp_path),
        "asset": str(tmp_path / "cup.glb"),
        "files": [str(tmp_path / "cup.glb"), str(tmp_path / "cup.usdz")],
        "views": str(tmp_path / "views"),
        "report": str(tmp_path / "report.html"),
        "verdict": {"score": 0.5, "word": "fair", "findings": ["It is open.", "It is small."]},
        "evidence": {"seen": 0.25, "mirrored": 0.25, "generated": 0.3, "invented": 0.2},
        "seconds": {"views": 1.235, "surface": 0.0},
        "warnings": ["Look at it."],
    }


def test_what_an_item_does_not_have_is_left_out(tmp_path: Path) -> None:
    assert ItemResult("cup", tmp_path).as_dict() == {"name": "cup", "folder": str(tmp_path)}
    failed = ItemResult("cup", tmp_path, error=InputError("no object", where="cup.png", fix="Give a mask."))
    assert json.loads(json.dumps(failed.as_dict())) == {
        "name": "cup",
        "folder": str(tmp_path),
        "error": "cup.png: no object. Give a mask.",
    }


def test_names_that_are_no_text_can_be_written(tmp_path: Path) -> None:
    json.dumps(ItemResult("cup\udcff", tmp_path / "cup\udcff").as_dict()).encode()


def test_a_jobs_result_can_be_written(done: Done) -> None:
    plain = json.loads(json.dumps(done.result.as_dict(), allow_nan=False))
    asset = json.loads((done.out / "toy" / "manifest.json").read_text())["asset"]
    assert plain["asset"] == plain["files"][0] == str(done.out / "toy" / "toy.glb")
    assert (plain["verdict"], plain["evidence"]) == (asset["verdict"], asset["evidence"])
    assert sum(asdict(done.result.evidence).values()) == pytest.approx(1, abs=1e-3)
    assert list(plain["seconds"]) == ["prepare", "views", "surface", "asset"]
    assert "error" not in plain


class Tags(HTMLParser):
    """Elements of a piece of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_notebooks_show_the_turntable_and_the_verdict(tmp_path: Path) -> None:
    (tmp_path / "turntable.webp").write_bytes(b"a picture")
    shown = Tags(whole(tmp_path)._repr_html_())
    (image,) = [attributes for tag, attributes in shown.tags if tag == "img"]
    kind, _, data = str(image["src"]).partition(";base64,")
    assert (kind, base64.b64decode(data)) == ("data:image/webp", b"a picture")
    assert "fair (0.50). It is open. It is small." in shown.words
    assert str(tmp_path / "cup.glb") in shown.words


def test_notebooks_show_what_is_there(tmp_path: Path) -> None:
    shown = Tags(whole(tmp_path)._repr_html_())  # its turntable is gone
    assert "img" not in [tag for tag, _ in shown.tags]
    assert "fair (0.50)" in shown.words
    views = Tags(ItemResult("cup", tmp_path, views=tmp_path / "views")._repr_html_())
    assert str(tmp_path / "views") in views.words


def test_names_and_errors_are_no_markup(tmp_path: Path) -> None:
    for result in (
        ItemResult(EVIL, tmp_path / EVIL),
        ItemResult(EVIL, tmp_path, error=InputError(EVIL)),
        ItemResult(EVIL, tmp_path, verdict=Verdict(0.1, "poor", (EVIL,))),
    ):
        shown = Tags(result._repr_html_())
        assert "script" not in [tag for tag, _ in shown.tags]
        assert EVIL in shown.words
    assert "failed: " in Tags(ItemResult("cup", tmp_path, error=InputError("no object"))._repr_html_()).words
