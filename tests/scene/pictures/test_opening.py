"""Named formats only; what is no photo is refused by its own name; HEIC through a package that may be there."""

from __future__ import annotations

import os
import subprocess
import types
from pathlib import Path

import pytest
from PIL import Image

from scene.errors import InputError, MissingBackendError
from scene.exif import photo_metadata
from scene.maps import picture_head
from scene.photo import load_rgba, read_picture
from scene.pictures import opening
from scene.pictures.opening import opened, picture_endings

READERS = (load_rgba, picture_head, read_picture)


@pytest.mark.parametrize("read", READERS)
def test_an_eps_called_photo_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: object) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")

    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "check_call", started)
    monkeypatch.setattr(subprocess, "Popen", started)
    with pytest.raises(InputError, match=r"photo\.jpg: is a PostScript file, which is not read as a photo"):
        read(path)  # type: ignore[operator]
    assert photo_metadata(path).size == (0, 0)


@pytest.mark.parametrize("hidden", [b"\n", b"xx"])
def test_nothing_but_named_formats_is_tried(tmp_path: Path, hidden: bytes) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(hidden + b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    with pytest.raises(InputError):
        load_rgba(path)
    assert not {"EPS", "WMF", "FITS", "GRIB", "HDF5", "MPEG"} & set(opening.FORMATS)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"%PDF-1.7\n", "is a PDF file"),
        (b"v/1\x01\x02\x00\x00\x00", "is an OpenEXR file"),
        (b"#?RADIANCE\n", "is a Radiance HDR file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG file"),
        (b"\x00\x00\x00\x18ftypqt  \x00\x00\x00\x00qt  ", "is a film, not a photo"),
        (b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x01crx ", "is a raw camera file"),
    ],
)
def test_what_is_no_photo_is_refused_by_its_name(tmp_path: Path, head: bytes, said: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(head + bytes(200))
    with pytest.raises(InputError, match=said):
        load_rgba(path)


def test_a_raw_photo_is_not_its_preview(tmp_path: Path) -> None:
    from PIL import TiffImagePlugin

    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[50706] = b"\x01\x04\x00\x00"
    Image.new("RGB", (16, 12)).save(tmp_path / "a.tif", tiffinfo=tags)
    with pytest.raises(InputError, match="is a raw camera file"):
        load_rgba(tmp_path / "a.tif")
    Image.new("RGB", (16, 12)).save(tmp_path / "a.tif")
    assert load_rgba(tmp_path / "a.tif").shape == (12, 16, 4)
    (tmp_path / "a.tif").rename(tmp_path / "a.NEF")
    with pytest.raises(InputError, match="is a raw camera file"):
        load_rgba(tmp_path / "a.NEF")


def test_a_name_that_lies_about_the_format_does_not_matter(tmp_path: Path) -> None:
    Image.new("RGB", (9, 7), (255, 0, 0)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.HEIC")
    assert load_rgba(tmp_path / "a.HEIC")[0, 0].tolist() == [255, 0, 0, 255]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_no_broken_picture(tmp_path: Path) -> None:
    Image.new("RGB", (9, 7)).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)\. Check that you may read it"):
        load_rgba(tmp_path / "a.png")


def test_a_name_that_is_too_long_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read \(File name too long\)\. Check its name"):
        load_rgba(tmp_path / ("a" * 300 + ".png"))


# --- HEIC -------------------------------------------------------------------------------------------------------------

HEIC_HEAD = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"


@pytest.fixture
def heic(tmp_path: Path) -> Path:
    """What begins as HEIC does."""
    (tmp_path / "IMG_0042.HEIC").write_bytes(HEIC_HEAD + bytes(100))
    return tmp_path / "IMG_0042.HEIC"


@pytest.fixture(autouse=True)
def _own_formats() -> object:
    opening._known_formats.cache_clear()
    yield
    opening._known_formats.cache_clear()


@pytest.mark.parametrize("read", READERS)
def test_heic_is_refused_by_name_with_the_fix(heic: Path, monkeypatch: pytest.MonkeyPatch, read: object) -> None:
    monkeypatch.setattr(opening, "optional_module", lambda name: None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    said = r"IMG_0042\.HEIC: is a HEIC picture.*pillow-heif.*pip install viewloom\[heic\]; or save the photo as JPEG"
    with pytest.raises(MissingBackendError, match=said):
        read(heic)  # type: ignore[operator]


def test_heic_is_read_by_the_package_that_is_there(heic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package, which reads everything as one flat picture."""

    def register() -> None:
        def factory(stream: object, name: object) -> Image.Image:
            image = Image.new("RGB", (12, 9), (10, 200, 30))
            image.format = "HEIF"
            return image

        monkeypatch.setitem(Image.OPEN, "HEIF", (factory, lambda head: head[4:12] == b"ftypheic"))

    package = types.SimpleNamespace(register_heif_opener=register)
    monkeypatch.setattr(opening, "optional_module", lambda name: package if name == "pillow_heif" else None)
    picture = read_picture(heic)
    assert picture.rgba.shape == (9, 12, 4)
    assert picture.rgba[0, 0].tolist() == [10, 200, 30, 255]
    assert picture_head(heic).size == (12, 9)


def test_heic_itself(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    Image.new("RGB", (64, 48), (200, 30, 60)).save(tmp_path / "a.heic", quality=95)
    picture = read_picture(tmp_path / "a.heic")
    assert picture.size == (64, 48)
    assert abs(picture.rgba[20, 20, :3].astype(int) - [200, 30, 60]).max() < 12


def test_avif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.avif"
    path.write_bytes(b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1miaf" + bytes(100))
    monkeypatch.setattr(opening.features, "check", lambda name: False)
    with pytest.raises(MissingBackendError, match=r"is an AVIF picture.*pillow>=11\.3"), opened(path):
        pass
    monkeypatch.undo()
    if opening.features.check("avif"):
        Image.new("RGB", (64, 48), (200, 30, 60)).save(path, quality=95)
        assert abs(load_rgba(path)[20, 20, :3].astype(int) - [200, 30, 60]).max() < 12


def test_endings_of_folders_are_those_of_named_formats() -> None:
    endings = picture_endings()
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif"} <= endings
    assert not {".eps", ".ps", ".pdf", ".mpg", ".h5", ".wmf"} & endings
