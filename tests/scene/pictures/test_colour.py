"""Colours of picture files come out as every colour-managed viewer shows them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from skimage.color import lab2rgb

from scene.errors import InputError
from scene.photo import read_picture

LEVELS = np.linspace(0, 255, 6).round().astype(np.uint8)
COLOURS = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS), axis=-1).reshape(12, 18, 3)
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), 563 / 256
DISPLAY_P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), 2.4
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), 2.4


def light_of(values: np.ndarray, gamma: float) -> np.ndarray:
    """Linear light of values in [0, 1]; 2.4 stands for sRGB's own curve."""
    if gamma != 2.4:
        return np.power(values, gamma)
    return np.where(values <= 0.04045, values / 12.92, np.power((values + 0.055) / 1.055, 2.4))


def values_of(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.power(light, 1 / 2.4) - 0.055)


def xyz_from(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Matrix of a colour space whose white is D65."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    return columns * np.linalg.solve(columns, white)


def in_srgb(values: np.ndarray, space: tuple[tuple[tuple[float, float], ...], float]) -> np.ndarray:
    """What 8-bit values of a colour space are in sRGB, by its definition."""
    matrix = np.linalg.solve(xyz_from(SRGB[0]), xyz_from(space[0]))
    return 255 * values_of(light_of(values / 255, space[1]) @ matrix.T)


def tag(kind: bytes, content: bytes) -> bytes:
    return kind + bytes(4) + content


def fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(65536 * number)) for number in numbers)


def profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 2, of a monitor."""
    directory, body, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        directory += name + struct.pack(">II", offset + len(body), len(content))
        body += content
    size = struct.pack(">I", 128 + len(directory) + len(body))
    head = size + bytes(4) + b"\x02\x10\x00\x00mntr" + space + b"XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += fixed(0.9642, 1, 0.8249)
    return head + bytes(128 - len(head)) + directory + body


def curve(gamma: float) -> bytes:
    if gamma != 2.4:
        return tag(b"curv", struct.pack(">IH", 1, round(256 * gamma)))
    table = np.round(65535 * light_of(np.linspace(0, 1, 1024), gamma)).astype(">u2")
    return tag(b"curv", struct.pack(">I", 1024) + table.tobytes())


BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def rgb_profile(space: tuple[tuple[tuple[float, float], ...], float]) -> bytes:
    primaries, gamma = space
    cones = np.diag((BRADFORD @ [0.9642, 1, 0.8249]) / (BRADFORD @ xyz_from(primaries).sum(axis=1)))
    columns = (np.linalg.solve(BRADFORD, cones @ BRADFORD) @ xyz_from(primaries)).T
    names = (b"rXYZ", b"gXYZ", b"bXYZ"), (b"rTRC", b"gTRC", b"bTRC")
    tags = {b"wtpt": tag(b"XYZ ", fixed(0.9642, 1, 0.8249))}
    tags |= {name: tag(b"XYZ ", fixed(*column)) for name, column in zip(names[0], columns)}
    return profile(b"RGB ", tags | dict.fromkeys(names[1], curve(gamma)))


def grey_profile(gamma: float) -> bytes:
    return profile(b"GRAY", {b"wtpt": tag(b"XYZ ", fixed(0.9642, 1, 0.8249)), b"kTRC": curve(gamma)})


@pytest.mark.parametrize("space", [ADOBE, DISPLAY_P3], ids=["Adobe RGB", "Display P3"])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_wide_gamut_pictures_become_srgb(
    tmp_path: Path, space: tuple[tuple[tuple[float, float], ...], float], name: str
) -> None:
    options = {"lossless": True} if name == "a.webp" else {}
    Image.fromarray(COLOURS).save(tmp_path / name, icc_profile=rgb_profile(space), **options)
    picture = read_picture(tmp_path / name)
    expected = in_srgb(COLOURS, space)
    assert np.abs(picture.rgba[..., :3] - expected).max() < 3
    assert np.abs(COLOURS - expected).max() > 30  # else the profile says nothing
    assert picture.notes == ()


def test_alpha_is_no_colour(tmp_path: Path) -> None:
    alpha = np.arange(COLOURS[..., 0].size, dtype=np.uint8).reshape(COLOURS.shape[:2])
    Image.fromarray(np.dstack([COLOURS, alpha])).save(tmp_path / "a.png", icc_profile=rgb_profile(ADOBE))
    rgba = read_picture(tmp_path / "a.png").rgba
    assert np.array_equal(rgba[..., 3], alpha)
    assert np.abs(rgba[..., :3] - in_srgb(COLOURS, ADOBE)).max() < 3


@pytest.mark.parametrize(
    "content", [rgb_profile(SRGB), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()]
)
def test_srgb_by_any_profile_stays_bit_for_bit(tmp_path: Path, content: bytes) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png", icc_profile=content)
    picture = read_picture(tmp_path / "a.png")
    assert np.array_equal(picture.rgba[..., :3], COLOURS)
    assert picture.notes == ()


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_with_a_gamma(tmp_path: Path, mode: str) -> None:
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(4, axis=0)
    image = Image.fromarray(ramp) if mode != "I;16" else Image.fromarray(ramp.astype(np.uint16) * 257)
    image = image.convert("LA") if mode == "LA" else image
    image.save(tmp_path / "a.png", icc_profile=grey_profile(1.0))
    grey = read_picture(tmp_path / "a.png").rgba[0, :, 1]
    assert np.abs(grey - 255 * values_of(np.arange(256) / 255)).max() < 2


def ink_profile(red: tuple[int, int, int]) -> bytes:
    """A printer's profile that knows white paper, black, and what magenta on yellow looks like, in Lab."""
    nodes = np.zeros((2, 2, 2, 2, 3), np.uint8)
    nodes[...] = (128, 128, 128)
    nodes[..., 1, :], nodes[0, 0, 0, 0] = (0, 128, 128), (255, 128, 128)
    nodes[0, 1, 1, 0] = (round(red[0] * 2.55), 128 + red[1], 128 + red[2])
    ramp = bytes(range(256))
    table = bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + 4 * ramp + nodes.tobytes() + 3 * ramp
    made = bytearray(profile(b"CMYK", {b"A2B0": tag(b"mft1", table), b"A2B1": tag(b"mft1", table)}))
    made[12:24] = b"prtrCMYKLab "
    return bytes(made)


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_inks_look_as_their_profile_says(tmp_path: Path, name: str) -> None:
    """Magenta on yellow is a dull red on paper, and not the screen's (255, 0, 0)."""
    ink = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    ink.paste((0, 0, 0, 0), (16, 0, 32, 32))
    ink.save(tmp_path / name, icc_profile=ink_profile((48, 68, 48)), **({"quality": 98} if name == "a.jpg" else {}))
    picture = read_picture(tmp_path / name)
    assert picture.notes == ()
    assert np.abs(picture.rgba[8, 4, :3].astype(int) - (255 * lab2rgb([48.0, 68, 48])).round()).max() < 14
    assert picture.rgba[8, 28, :3].min() > 252


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_with_a_profile_of_colours(tmp_path: Path, mode: str) -> None:
    """As programs write that make a colour picture grey and keep its profile."""
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(4, axis=0)).convert(mode)
    for space in (SRGB, ADOBE):
        ramp.save(tmp_path / "a.png", icc_profile=rgb_profile(space))
        picture = read_picture(tmp_path / "a.png")
        expected = in_srgb(np.arange(256)[:, None].repeat(3, axis=1), space)
        assert np.abs(picture.rgba[0, :, :3] - expected).max() < (0.1 if space is SRGB else 2)
        assert picture.notes == ()


def test_lab(tmp_path: Path) -> None:
    bands = [Image.new("L", (4, 4), value) for value in (round(2.55 * 48), 128 + 68, 128 + 48)]
    Image.merge("LAB", bands).save(tmp_path / "a.tif")
    rgba = read_picture(tmp_path / "a.tif").rgba
    assert np.abs(rgba[0, 0, :3].astype(int) - (255 * lab2rgb([48.0, 68, 48])).round()).max() < 14


def test_cmyk_without_a_profile_is_read_as_before_and_a_grey_profile_on_it_is_told(tmp_path: Path) -> None:
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    ink.save(tmp_path / "plain.tif")
    ink.save(tmp_path / "odd.tif", icc_profile=grey_profile(2.2))
    plain = read_picture(tmp_path / "plain.tif")
    assert plain.rgba[0, 0].tolist() == [255, 0, 0, 255]
    assert "no colour profile: its colours are approximate" in plain.notes[0]
    odd = read_picture(tmp_path / "odd.tif")
    assert odd.rgba[0, 0].tolist() == [255, 0, 0, 255]
    assert "is for GRAY colours, the picture has CMYK" in odd.notes[0]


@pytest.mark.parametrize("content", [b"not a profile", rgb_profile(ADOBE)[:200], grey_profile(2.2)])
def test_a_profile_of_no_use_is_ignored_and_told(tmp_path: Path, content: bytes) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png", icc_profile=content)
    picture = read_picture(tmp_path / "a.png")
    assert np.array_equal(picture.rgba[..., :3], COLOURS)
    assert len(picture.notes) == 1
    assert "colour profile is of no use" in picture.notes[0]
    assert "taken as sRGB" in picture.notes[0]


def png_with(image: Image.Image, kind: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk in its head."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    data = stream.getvalue()
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data[:33] + chunk + data[33:]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(("stored", "exponent"), [(45455, None), (100000, 1.0), (55556, 1.8)])
def test_the_gamma_of_a_png(tmp_path: Path, stored: int, exponent: float | None, deep: bool) -> None:
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(4, axis=0)
    image = Image.fromarray(ramp.astype(np.uint16) * 257) if deep else Image.fromarray(ramp)
    (tmp_path / "a.png").write_bytes(png_with(image, b"gAMA", struct.pack(">I", stored)))
    grey = read_picture(tmp_path / "a.png").rgba[0, :, 0]
    expected = ramp[0] if exponent is None else 255 * values_of(np.power(ramp[0] / 255, exponent))
    assert np.abs(grey - expected).max() < (0.1 if exponent is None else 1.5)


def test_cameras_that_say_adobe_rgb_in_their_exif_data_only(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 65535
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R03"}
    flat = Image.new("RGB", (16, 16), (60, 200, 90))
    flat.save(tmp_path / "a.jpg", exif=exif, quality=98)
    expected = in_srgb(np.array([60, 200, 90]), ADOBE)
    assert np.abs(read_picture(tmp_path / "a.jpg").rgba[4, 4, :3] - expected).max() < 4
    flat.save(tmp_path / "b.jpg", quality=98)
    assert np.abs(read_picture(tmp_path / "b.jpg").rgba[4, 4, :3] - [60.0, 200, 90]).max() < 4


# --- codes and primaries of PNG ---------------------------------------------------------------------------------------

P3_FROM_SRGB = np.linalg.inv(np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]]))
BT2020_FROM_SRGB = np.linalg.inv(
    np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
)
PRIMARIES = {9: BT2020_FROM_SRGB, 12: P3_FROM_SRGB, 1: np.eye(3)}
"""Matrices as they are published, for linear light."""


def in_space(srgb: np.ndarray, matrix: np.ndarray, gamma: float) -> Image.Image:
    """8-bit sRGB colours, written in other primaries and by a power; 2.4 stands for sRGB's own curve."""
    light = np.clip(light_of(srgb / 255, 2.4) @ matrix.T, 0, 1)
    low = 12.92 * light
    high = 1.055 * np.power(light, 1 / 2.4) - 0.055
    values = np.where(light <= 0.0031308, low, high) if gamma == 2.4 else np.power(light, 1 / gamma)
    return Image.fromarray(np.round(255 * values).astype(np.uint8))


def soft_colours() -> np.ndarray:
    return np.random.default_rng(2).integers(60, 200, (12, 12, 3), dtype=np.uint8)


@pytest.mark.parametrize(("curve", "gamma"), [(13, 2.4), (4, 2.2)])
@pytest.mark.parametrize("primaries", [1, 9, 12])
def test_the_code_of_a_png_says_its_colours(tmp_path: Path, primaries: int, curve: int, gamma: float) -> None:
    """Above all else that it says: the gamma here is a lie."""
    srgb = soft_colours()
    image = in_space(srgb, PRIMARIES[primaries], gamma)
    data = png_with(image, b"cICP", bytes([primaries, curve, 0, 1]))
    lie = b"gAMA" + struct.pack(">I", 100_000)
    data = data[:33] + struct.pack(">I", 4) + lie + struct.pack(">I", zlib.crc32(lie)) + data[33:]
    (tmp_path / "a.png").write_bytes(data)
    picture = read_picture(tmp_path / "a.png")
    assert np.abs(picture.rgba[..., :3].astype(int) - srgb).max() <= 4
    assert picture.notes == ()


@pytest.mark.parametrize(("code", "name"), [(16, "PQ"), (18, "HLG")])
def test_pictures_of_high_range_are_refused_by_name(tmp_path: Path, code: int, name: str) -> None:
    image = Image.fromarray(soft_colours())
    (tmp_path / "a.png").write_bytes(png_with(image, b"cICP", bytes([9, code, 0, 1])))
    with pytest.raises(InputError, match=rf"high dynamic range \({name}\).*Export it in standard range"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("content", [bytes([77, 13, 0, 1]), bytes([12, 13, 0, 0]), b"x", b""])
def test_codes_that_are_not_known_are_told(tmp_path: Path, content: bytes) -> None:
    srgb = soft_colours()
    (tmp_path / "a.png").write_bytes(png_with(Image.fromarray(srgb), b"cICP", content))
    picture = read_picture(tmp_path / "a.png")
    assert np.array_equal(picture.rgba[..., :3], srgb)
    assert len(picture.notes) == 1
    assert "is not known here. The colours are taken as sRGB" in picture.notes[0]


@pytest.mark.parametrize("deep", [False, True])
def test_other_primaries_take_no_curve_from_greys(tmp_path: Path, deep: bool) -> None:
    """They change nothing where there are no colours; the curve still counts."""
    values = np.arange(0, 256, 16, dtype=np.uint8).reshape(4, 4)
    image = Image.fromarray(values.astype(np.uint16) * 257 if deep else values)
    (tmp_path / "a.png").write_bytes(png_with(image, b"cICP", bytes([12, 8, 0, 1])))  # P3, linear
    read = read_picture(tmp_path / "a.png").rgba[..., 0]
    light = values / 255
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.power(light, 1 / 2.4) - 0.055)
    assert np.abs(read - expected).max() <= 1


def test_deep_colours_of_other_primaries_keep_their_shadows(tmp_path: Path) -> None:
    """Linear light of a few hundredths has 16 bits here; cut to 8 first it would have three shades."""
    light = np.append(np.linspace(0.001, 0.02, 63), 1.0).reshape(8, 8, 1) * np.ones(3)
    values = np.round(65535 * light).astype(np.uint16)
    assert cv2.imwrite(str(tmp_path / "b.png"), values)
    data = (tmp_path / "b.png").read_bytes()
    chunk = b"cICP" + bytes([12, 8, 0, 1])  # P3, linear
    coded = struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(data[:33] + coded + data[33:])
    read = read_picture(tmp_path / "a.png").rgba[..., 0]
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.power(light, 1 / 2.4) - 0.055)[..., 0]
    assert np.abs(read - expected).max() <= 1.5


@pytest.mark.parametrize("stored", [45455, 55556])
def test_primaries_count_where_a_gamma_is_with_them(tmp_path: Path, stored: int) -> None:
    srgb = soft_colours()
    image = in_space(srgb, P3_FROM_SRGB, 2.4 if stored == 45455 else 1.8)
    xy = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
    data = png_with(image, b"cHRM", struct.pack(">8I", *(round(100_000 * v) for v in xy)))
    gamma = b"gAMA" + struct.pack(">I", stored)
    with_gamma = data[:33] + struct.pack(">I", 4) + gamma + struct.pack(">I", zlib.crc32(gamma)) + data[33:]
    (tmp_path / "a.png").write_bytes(with_gamma)
    assert np.abs(read_picture(tmp_path / "a.png").rgba[..., :3].astype(int) - srgb).max() <= 4
    # Alone they say nothing of the curve.
    (tmp_path / "b.png").write_bytes(data)
    assert np.array_equal(read_picture(tmp_path / "b.png").rgba[..., :3], np.asarray(image))
