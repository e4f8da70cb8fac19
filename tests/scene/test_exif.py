"""What photos' files tell about cameras: focal length, orientation, maker; and nothing where they are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from scene.exif import PhotoMetadata, photo_metadata

Tag = ExifTags.Base


def photo(path: Path, lens: dict[int, object], size: tuple[int, int] = (300, 200), **plain: object) -> Path:
    exif = Image.Exif()
    for name, value in plain.items():
        exif[Tag[name]] = value
    exif.get_ifd(ExifTags.IFD.Exif).update(lens)
    Image.new("RGB", size, (90, 120, 30)).save(path, exif=exif)
    return path


def test_the_35_mm_equivalent_counts_by_the_diagonal(tmp_path: Path) -> None:
    wide = photo_metadata(photo(tmp_path / "a.jpg", {Tag.FocalLengthIn35mmFilm: 36}))
    assert wide.focal == pytest.approx(1.0, rel=1e-3)  # 36 mm before a 3:2 picture 36 mm wide
    square = photo_metadata(photo(tmp_path / "b.jpg", {Tag.FocalLengthIn35mmFilm: 43.2666}, (200, 200)))
    assert square.focal == pytest.approx(2**0.5, rel=0.01)


def test_millimetres_count_with_the_sensors_resolution(tmp_path: Path) -> None:
    lens = {
        Tag.FocalLength: IFDRational(50, 1),
        Tag.FocalPlaneXResolution: IFDRational(3000 * 254, 36 * 10),  # 3000 pixels on 36 mm, per inch
        Tag.FocalPlaneResolutionUnit: 2,
        Tag.ExifImageWidth: 3000,
        Tag.ExifImageHeight: 2000,
    }
    assert photo_metadata(photo(tmp_path / "a.jpg", lens)).focal == pytest.approx(50 / 36, rel=1e-3)
    lens[Tag.FocalPlaneXResolution], lens[Tag.FocalPlaneResolutionUnit] = IFDRational(30000, 36), 3
    assert photo_metadata(photo(tmp_path / "b.jpg", lens)).focal == pytest.approx(50 / 36, rel=1e-3)


@pytest.mark.parametrize(
    "lens",
    [
        {},
        {Tag.FocalLength: IFDRational(4, 1)},
        {Tag.FocalLengthIn35mmFilm: 0},
        {Tag.FocalLengthIn35mmFilm: 60000},
        {Tag.FocalLength: IFDRational(4, 0), Tag.FocalPlaneXResolution: IFDRational(1, 1)},
        {
            Tag.FocalLength: IFDRational(4, 1),
            Tag.FocalPlaneXResolution: IFDRational(9, 1),
            Tag.FocalPlaneResolutionUnit: 9,
        },
    ],
)
def test_what_tells_no_focal_length_tells_none(tmp_path: Path, lens: dict[int, object]) -> None:
    assert photo_metadata(photo(tmp_path / "a.jpg", lens)).focal is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_picture(tmp_path: Path, orientation: int) -> None:
    metadata = photo_metadata(photo(tmp_path / "a.jpg", {}, Orientation=orientation))
    assert metadata.size == ((200, 300) if orientation >= 5 else (300, 200))
    assert metadata.upright == (orientation == 1)


def test_the_body_is_maker_and_model(tmp_path: Path) -> None:
    metadata = photo_metadata(photo(tmp_path / "a.jpg", {}, Make="Maker\0 ", Model="One"))
    assert (metadata.body, metadata.format) == ("Maker One", "JPEG")
    assert photo_metadata(photo(tmp_path / "b.png", {})).body == ""


def test_files_that_are_no_pictures_tell_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    assert photo_metadata(tmp_path / "a.jpg") == photo_metadata(tmp_path / "none.jpg") == PhotoMetadata()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(2, 400), st.binary(min_size=1, max_size=12))
def test_damaged_data_never_raise(tmp_path: Path, where: int, junk: bytes) -> None:
    whole = tmp_path / "whole.jpg"
    if not whole.is_file():
        photo(whole, {Tag.FocalLengthIn35mmFilm: 28, Tag.FocalLength: IFDRational(4, 1)}, Make="Maker", Orientation=6)
    data = bytearray(whole.read_bytes())
    data[where : where + len(junk)] = junk
    (tmp_path / "damaged.jpg").write_bytes(data)
    focal = photo_metadata(tmp_path / "damaged.jpg").focal
    assert focal is None or 0.3 < focal < 15
