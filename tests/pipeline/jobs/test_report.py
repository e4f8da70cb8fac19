"""The report: one file that needs nothing else, and shows names and notes as they are."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.jobs.image2mesh import make_views
from pipeline.jobs.report import write_report
from pipeline.jobs.runner import Runner, StageRun
from pipeline.jobs.settings import Image2MeshSettings
from scene.camera import orbit_camera
from scene.view import View
from scene.viewset import ViewSet

Done = Any
EVIL = '<img src=x onerror="a()">&\'$name ${x}'
VOID = {"meta", "img"}
DATA_URL = re.compile(r"data:image/webp;base64,([A-Za-z0-9+/=]+)")


@dataclass
class Page(HTMLParser):
    """A page's elements, and whether every one is closed."""

    text: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, name: str) -> list[dict[str, str | None]]:
        """Attributes of all elements of a kind."""
        return [attributes for tag, attributes in self.tags if tag == name]


def picture(url: str | None) -> Image.Image:
    """The picture inside a data URL."""
    found = DATA_URL.search(url or "")
    assert found is not None
    return Image.open(io.BytesIO(base64.b64decode(found[1], validate=True)))


def small_report(folder: Path, views: ViewSet, manifest: dict[str, Any], name: str = "toy") -> Page:
    """The report of views alone."""
    views.save(folder / "views")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    runner = Runner(folder, runs=[StageRun("views", folder / "views", "key", 0.0, True, ViewSet.load)])
    return Page(write_report(runner, name, None).read_text(encoding="utf-8"))


def blank(*names: str) -> ViewSet:
    """Tiny views of these names."""
    camera = orbit_camera(0.0, 0.0, 1.5, size=4)
    return ViewSet(tuple(View(name, camera, np.full((4, 4, 4), 255, np.uint8)) for name in names), True)


@pytest.fixture(scope="module")
def text(done: Done) -> str:
    return (done.out / "toy" / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


# --- self-contained ---------------------------------------------------------------------------------------------------


def test_nothing_is_fetched_from_anywhere(text: str, page: Page) -> None:
    rest = DATA_URL.sub("", text)
    assert "://" not in rest
    assert "//" not in re.sub(r"<!--.*?-->", "", rest)
    assert not re.search(r"@import|\bfetch\(|XMLHttpRequest|import\(", rest)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert tag != "script" or attributes == {}
        assert "src" not in attributes or str(attributes["src"]).startswith("data:image/webp;base64,")
    assert [attributes["href"] for _, attributes in page.tags if "href" in attributes] == ["toy.glb"]
    assert all(url.startswith("data:") for url in re.findall(r"url\((.*?)\)", text))


def test_every_picture_is_inside_and_can_be_read(page: Page) -> None:
    images = page.of("img")
    assert [i["alt"] for i in images] == ["photo", "cut-out", "mask", "photo", "view_00", "view_01", "view_02"]
    for image in images:
        assert picture(image["src"]).format == "WEBP"
        assert max(picture(image["src"]).size) <= 256


def test_large_pictures_are_reduced(tmp_path: Path) -> None:
    camera = orbit_camera(0.0, 0.0, 1.5, size=300)
    views = ViewSet((View("a", camera, np.zeros((300, 300, 4), np.uint8)),), True)
    (image,) = small_report(tmp_path, views, {}).of("img")
    shown = picture(image["src"]).convert("RGB")
    assert shown.size == (128, 128)
    assert shown.getpixel((64, 64)) == (255, 255, 255)  # transparent is white


def test_the_turntables_are_sheets_of_all_frames(page: Page) -> None:
    """Of the asset, and of where its surface comes from; the sheet is as square as it can be."""
    turns = {str(attributes["id"]): attributes for attributes in page.of("div") if "id" in attributes}
    assert list(turns) == ["turn-asset", "turn-evidence"]
    for name, side in (("asset", 48), ("evidence", 24)):
        turn = turns[f"turn-{name}"]
        sheet = picture(turn["style"])
        assert (turn["data-frames"], turn["data-columns"]) == ("4", "2")
        assert sheet.size == (2 * side, 2 * side)
        assert f"width:{side}px" in (turn["style"] or "")
        tiles = np.asarray(sheet.convert("RGB")).reshape(2, side, 2, side, 3).swapaxes(1, 2).astype(int)
        frames = tiles.reshape(4, side, side, 3)
        assert (frames.min(axis=(1, 2, 3)) < 200).all()  # something is in every frame
        assert np.abs(frames[0] - frames[1]).mean() > 1  # and it turns


def test_the_verdict_and_the_evidence_are_told(page: Page, done: Done) -> None:
    asset = json.loads((done.out / "toy" / "manifest.json").read_text())["asset"]
    assert [attributes["class"] for attributes in page.of("p") if "class" in attributes] == [
        f"verdict {asset['verdict']['word']}"
    ]
    assert f" ({asset['verdict']['score']:.2f})" in "".join(page.words)
    for kind, share in asset["evidence"].items():
        assert (f"{kind} {share:.0%}" in page.words) == (share > 0)


# --- facts ------------------------------------------------------------------------------------------------------------


def test_the_manifest_is_inside(page: Page, text: str, done: Done) -> None:
    shown = re.search(r"<pre>(.*?)</pre>", text, re.DOTALL)
    assert shown is not None
    assert json.loads(html.unescape(shown[1])) == json.loads((done.out / "toy" / "manifest.json").read_text())


def test_facts_and_timings_are_shown(page: Page, done: Done) -> None:
    asset = json.loads((done.out / "toy" / "manifest.json").read_text())["asset"]
    before, _, after = page.text.partition("<h2>Facts</h2>")
    timings, rows = (dict(re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td></tr>", part)) for part in (before, after))
    assert rows["triangles"] == str(asset["health"]["faces"])
    assert rows["watertight"] == "yes"
    assert rows["glTF check"] == "0 errors, 0 warnings"
    assert rows["surface"] == asset["surface"]["kept"]
    assert rows["weights&#39; licence"] == "test"
    assert list(timings) == ["prepare", "views", "surface", "asset"]
    assert all(re.fullmatch(r"\d+\.\d s", seconds) for seconds in timings.values())


def test_kept_stages_are_called_kept(tmp_path: Path) -> None:
    assert "<tr><td>views</td><td>kept</td></tr>" in small_report(tmp_path, blank("a"), {}).text


def test_views_alone_have_no_asset(photo: Path, settings: Image2MeshSettings, tmp_path: Path) -> None:
    make_views([photo], tmp_path / "out", settings)
    page = Page((tmp_path / "out" / "toy" / "report.html").read_text(encoding="utf-8"))
    assert "views only" in page.words
    assert page.of("a") == []
    assert 'id="turn-' not in page.text
    assert '<p class="verdict' not in page.text
    assert "4 views" in page.words


def test_of_many_views_some_are_shown(tmp_path: Path) -> None:
    page = small_report(tmp_path, blank(*(f"v{k}" for k in range(50))), {})
    assert len(page.of("img")) == 48
    assert "50 views" in page.words


# --- names ------------------------------------------------------------------------------------------------------------


def test_names_and_warnings_are_text_and_never_markup(tmp_path: Path) -> None:
    page = small_report(tmp_path, blank("a&b'c$d"), {"warnings": [EVIL], "photo": {"name": EVIL}}, EVIL)
    assert page.words.count(EVIL) == 2  # heading and warning
    assert f"{EVIL} - viewloom" in page.words
    (image,) = page.of("img")
    assert image["alt"] == "a&b'c$d"
    assert set(image) == {"src", "alt"}
    assert len(page.of("script")) == 1


@pytest.mark.parametrize(
    ("name", "link"),
    [("a b#1?.glb", "a%20b%231%3F.glb"), ("javascript:a().glb", "javascript%3Aa%28%29.glb"), ('"x.glb', "%22x.glb")],
)
def test_links_to_assets_of_any_name_work(done: Done, tmp_path: Path, name: str, link: str) -> None:
    source = done.out / "toy"
    (tmp_path / "manifest.json").write_bytes((source / "manifest.json").read_bytes())
    runs = [
        StageRun(stage, source / stage, "key", 1.0, False, Path.exists)
        for stage in ("prepare", "views", "surface", "asset")
    ]
    page = Page(write_report(Runner(tmp_path, runs=runs), "x", tmp_path / name).read_text(encoding="utf-8"))
    assert page.of("a") == [{"href": link}]
    assert name in page.words
