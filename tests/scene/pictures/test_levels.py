"""What white is: by the file's own word, or guessed from its values and told."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL
import pytest
from PIL import Image, TiffImagePlugin

from scene.errors import InputError
from scene.photo import load_mask, read_picture
from scene.pictures.turns import upright

OPENS_FLOAT_COLOURS = int(PIL.__version__.split(".")[0]) >= 13
float_colours = pytest.mark.skipif(not OPENS_FLOAT_COLOURS, reason="Pillow before 13 refuses TIFFs of float colours")
RAMP = np.linspace(0, 1, 64)[None].repeat(3, axis=0)


def with_chunk(data: bytes, kind: bytes, content: bytes) -> bytes:
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data[:33] + chunk + data[33:]


def deep_png(values: np.ndarray) -> bytes:
    done, data = cv2.imencode(
        ".png", values.astype(np.uint16)[..., ::-1] if values.ndim == 3 else values.astype(np.uint16)
    )
    assert done
    return data.tobytes()


@pytest.mark.parametrize("bits", range(8, 17))
@pytest.mark.parametrize("colours", [False, True])
def test_the_bits_of_a_16_bit_png_are_guessed_and_told(tmp_path: Path, bits: int, colours: bool) -> None:
    values = np.round(RAMP * (2**bits - 1))
    (tmp_path / "a.png").write_bytes(deep_png(np.dstack([values, values / 2, values]) if colours else values))
    picture = read_picture(tmp_path / "a.png")
    assert np.abs(picture.rgba[..., 0] - 255 * RAMP).max() < 1.01
    assert np.abs(picture.rgba[..., 1] - 255 * RAMP / (2 if colours else 1)).max() < 1.01
    said = "" if bits == 16 else f"the file does not say what white is: its values are read as of {bits} bits"
    assert said in " ".join(picture.notes)
    assert bool(picture.notes) is (bits < 16)


@pytest.mark.parametrize("colours", [False, True])
def test_significant_bits_of_a_png(tmp_path: Path, colours: bool) -> None:
    """At the upper end of 16 as the standard asks for, or at the lower end; a file that says 16 is dark if it is."""
    low = np.round(RAMP * 4095)

    def red(values: np.ndarray, said: int) -> np.ndarray:
        data = deep_png(np.dstack([values] * 3) if colours else values)
        (tmp_path / "a.png").write_bytes(with_chunk(data, b"sBIT", bytes([said] * (3 if colours else 1))))
        picture = read_picture(tmp_path / "a.png")
        assert picture.notes == ()
        return picture.rgba[..., 0]

    assert np.abs(red(low, 12) - 255 * RAMP).max() < 1.01
    assert np.abs(red(low * 16, 12) - 255 * RAMP).max() < 1.5
    assert red(low, 16).max() == (15 if colours else 16)


def test_the_largest_sample_value_of_a_tiff(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for most, stored in ((1023, 1023), (4095, 1023), (65535, 4095)):
        tags[281] = most
        Image.fromarray(np.round(RAMP * stored).astype(np.uint16)).save(tmp_path / "a.tif", tiffinfo=tags)
        picture = read_picture(tmp_path / "a.tif")
        assert np.abs(picture.rgba[..., 0] - 255 * RAMP * stored / most).max() < 1.01
        assert picture.notes == ()


def test_deep_colours_of_a_tiff(tmp_path: Path) -> None:
    values = np.dstack([RAMP * 4095, RAMP * 1000, RAMP * 0]).round().astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.tif"), values[..., ::-1])
    picture = read_picture(tmp_path / "a.tif")
    assert np.abs(picture.rgba[..., :3] - values * (255 / 4095)).max() < 1.01
    assert "12 bits" in picture.notes[0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [np.uint16, pytest.param(np.float32, marks=float_colours)])
def test_deep_colours_are_turned_once(tmp_path: Path, orientation: int, kind: type) -> None:
    """OpenCV, which reads them, would turn some of them by itself."""
    height, width = 20, 32
    stored = np.zeros((height, width, 3))
    stored[:8, :10, 0], stored[12:, 5:, 1], stored[3:9, 25:, 2] = 1, 0.5, 1
    values = (stored * 4095).astype(kind) if kind is np.uint16 else stored.astype(kind)
    cv2.imwrite(str(tmp_path / "a.tif"), values[..., ::-1])
    data = bytearray((tmp_path / "a.tif").read_bytes())
    start = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[start : start + 2], "little")
    entries = [bytes(data[k : k + 12]) for k in range(start + 2, start + 2 + 12 * count, 12)]
    turn = struct.pack("<HHIHH", 274, 3, 1, orientation, 0)
    entries = sorted(
        [*(one for one in entries if one[:2] != turn[:2]), turn], key=lambda one: struct.unpack("<H", one[:2])
    )
    place = len(data)
    data += struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    data[4:8] = struct.pack("<I", place)
    (tmp_path / "a.tif").write_bytes(data)
    picture = read_picture(tmp_path / "a.tif")
    expected = upright(stored, orientation) > 0.2
    assert picture.orientation == orientation
    assert picture.size == expected.shape[1::-1]
    assert np.array_equal(picture.rgba[..., :3] > 60, expected)


def test_colours_in_planes_that_are_not_read_right_are_refused(tmp_path: Path) -> None:
    values = np.zeros((3, 16, 12), np.uint16)
    tags = {256: 12, 257: 16, 258: (16, 16, 16), 259: 1, 262: 2, 277: 3, 278: 16, 284: 2}
    entries, extra, place = b"", b"", 8 + 2 + 12 * (len(tags) + 2) + 4
    offsets = [place + 64 + k * values[0].nbytes for k in range(3)]
    for tag, value in sorted({**tags, 273: tuple(offsets), 279: (values[0].nbytes,) * 3}.items()):
        numbers = value if isinstance(value, tuple) else (value,)
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            entries += struct.pack("<HHII", tag, 4, len(numbers), place + len(extra))
            extra += packed
        else:
            entries += struct.pack("<HHI", tag, 4, 1) + packed
    head = b"II*\x00" + struct.pack("<IH", 8, len(tags) + 2) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(head + extra.ljust(64, b"\0") + values.tobytes())
    with pytest.raises(InputError, match="separate planes are not read"):
        read_picture(tmp_path / "a.tif")


def test_alpha_of_deep_colours_has_a_range_of_its_own(tmp_path: Path) -> None:
    values = np.dstack([RAMP * 4095] * 3 + [65535 * (RAMP > 0.5)]).round().astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), values[..., (2, 1, 0, 3)])
    rgba = read_picture(tmp_path / "a.png").rgba
    assert np.abs(rgba[..., 0] - 255 * RAMP).max() < 1.01
    assert np.array_equal(rgba[..., 3], 255 * (RAMP > 0.5))


def test_grey_whose_zero_is_white(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    image = Image.fromarray(np.round(RAMP * 65535).astype(np.uint16))
    image.save(tmp_path / "a.tif")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    place = data.index(struct.pack("<HHI", 262, 3, 1))
    data[place + 8] = 0
    (tmp_path / "a.tif").write_bytes(data)
    assert np.abs(read_picture(tmp_path / "a.tif").rgba[..., 0] - 255 * (1 - RAMP)).max() < 1.01


def test_a_pgm_says_itself_what_white_is(tmp_path: Path) -> None:
    values = np.round(RAMP * 500).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 64 3 4095\n" + values.tobytes())
    picture = read_picture(tmp_path / "a.pgm")
    assert np.abs(picture.rgba[..., 0] - 255 * RAMP * 500 / 4095).max() < 1.01
    assert picture.notes == ()


# --- floating-point numbers -------------------------------------------------------------------------------------------


def srgb(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.power(light, 1 / 2.4) - 0.055)


@pytest.mark.parametrize("channels", [1, pytest.param(3, marks=float_colours), 4])
def test_floating_point_tiff_is_linear_light(tmp_path: Path, channels: int) -> None:
    light = np.dstack([RAMP, RAMP / 2, RAMP / 4, np.ones_like(RAMP)])[..., :channels].astype(np.float32)
    cv2.imwrite(str(tmp_path / "a.tif"), light[..., (2, 1, 0, 3)[:channels]] if channels > 1 else light)
    picture = read_picture(tmp_path / "a.tif", 64)
    shown = light[..., :3] if channels > 1 else light.repeat(3, axis=2)
    assert picture.rgba.shape == (3, 64, 4)
    assert np.abs(picture.rgba[..., :3] - srgb(shown)).max() < 1.01
    assert (picture.rgba[..., 3] == 255).all()
    assert "taken as linear light" in picture.notes[0]


def test_light_above_white_is_cut_off_and_told(tmp_path: Path) -> None:
    values = (RAMP * 3).astype(np.float32)
    values[0, 0], values[0, 1] = np.nan, np.inf
    Image.fromarray(values).save(tmp_path / "a.tif")
    picture = read_picture(tmp_path / "a.tif")
    assert np.abs(picture.rgba[1, :, 0] - srgb(RAMP[1] * 3)).max() < 1.01
    assert picture.rgba[0, :2, 0].tolist() == [0, 255]
    assert any("brighter than white" in note for note in picture.notes)


@pytest.mark.parametrize("white", [255, 65535])
def test_floating_point_values_as_of_8_or_16_bits(tmp_path: Path, white: int) -> None:
    Image.fromarray((RAMP * white).round().astype(np.float32)).save(tmp_path / "a.tif")
    picture = read_picture(tmp_path / "a.tif")
    assert np.abs(picture.rgba[..., 0] - 255 * RAMP).max() < 1.01
    assert f"white is taken to be {white}" in picture.notes[0]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_floating_point_colours_that_no_reader_knows_are_refused_by_name(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), np.dstack([RAMP] * 3).astype(np.float32))
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:200])
    with pytest.raises(InputError, match=r"a\.tif: .*(cannot be read)"):
        read_picture(tmp_path / "a.tif")


def test_a_mask_of_zeros_and_ones_in_floating_point(tmp_path: Path) -> None:
    mask = (RAMP > 0.5).astype(np.float32)
    Image.fromarray(mask).save(tmp_path / "m.tif")
    assert np.array_equal(load_mask(tmp_path / "m.tif", (64, 3)), 255 * mask)


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.gif", "an animation of 3 frames: the first was taken"),
        ("a.webp", "an animation of 3 frames: the first was taken"),
        ("a.png", "an animation of 3 frames: the first was taken"),
        ("a.tif", "has 3 pages: the first was taken"),
    ],
)
def test_which_of_several_pictures_was_taken_is_told(tmp_path: Path, name: str, said: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    picture = read_picture(tmp_path / name)
    assert (picture.rgba == [255, 0, 0, 255]).all()
    assert said in picture.notes[0]
    stream = io.BytesIO()
    frames[0].save(stream, "PNG")
    (tmp_path / "one.png").write_bytes(stream.getvalue())
    assert read_picture(tmp_path / "one.png").notes == ()
