"""Reading photos: every orientation and mode, and damage of every kind."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scene.errors import InputError
from scene.photo import load_mask, load_rgba, read_masked, read_picture
from scene.pictures import levels

SCENE = np.zeros((6, 8, 3), np.uint8)
SCENE[:, :4], SCENE[:, 4:], SCENE[0, 0] = (200, 30, 60), (20, 120, 240), (255, 255, 255)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    """Write an image and give its path back."""
    image.save(path, **options)  # type: ignore[arg-type]
    return path


# --- orientation --------------------------------------------------------------------------------------------------

UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "turned.png", Image.fromarray(SCENE), exif=exif)
    assert np.array_equal(load_rgba(path)[..., :3], UPRIGHT[orientation](SCENE))


# --- modes --------------------------------------------------------------------------------------------------------


def test_rgba_is_read_bit_for_bit(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    assert np.array_equal(load_rgba(saved(tmp_path / "a.png", Image.fromarray(rgba))), rgba)


def test_rgb_gets_full_alpha(tmp_path: Path) -> None:
    rgba = load_rgba(saved(tmp_path / "a.png", Image.fromarray(SCENE)))
    assert np.array_equal(rgba[..., :3], SCENE)
    assert (rgba[..., 3] == 255).all()


def test_grey(tmp_path: Path) -> None:
    rgba = load_rgba(saved(tmp_path / "a.png", Image.fromarray(SCENE[..., 0])))
    assert np.array_equal(rgba[..., :3], np.repeat(SCENE[..., :1], 3, axis=2))


def test_grey_with_alpha(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.merge("LA", [Image.new("L", (4, 4), 90), Image.new("L", (4, 4), 33)]))
    assert (load_rgba(path) == [90, 90, 90, 33]).all()


def test_palette_with_transparent_entry(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((3, 1), 1)
    rgba = load_rgba(saved(tmp_path / "a.png", image, transparency=1))
    assert rgba[1, 3, 3] == 0
    assert (np.delete(rgba.reshape(-1, 4), 7, axis=0) == [255, 0, 0, 255]).all()


def test_palette_with_graded_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    rgba = load_rgba(saved(tmp_path / "a.png", image, transparency=bytes([128, 7])))
    assert rgba[0].tolist() == [[10, 20, 30, 128], [40, 50, 60, 7]]


def test_colour_key_of_an_rgb_png_is_transparent(tmp_path: Path) -> None:
    rgba = load_rgba(saved(tmp_path / "a.png", Image.fromarray(SCENE), transparency=(255, 255, 255)))
    assert rgba[0, 0, 3] == 0
    assert (rgba[1:, :, 3] == 255).all()


def test_a_colour_key_survives_reduction(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 64), (0, 0, 255))
    image.paste((255, 255, 255), (0, 0, 30, 64))
    rgba = load_rgba(saved(tmp_path / "a.png", image, transparency=(255, 255, 255)), 16)
    assert (rgba[:, :7, 3] == 0).all()
    assert (rgba[:, 8:] == [0, 0, 255, 255]).all()
    assert (rgba[:, 7] == [0, 0, 255, 128]).all()


def test_cmyk_jpeg(tmp_path: Path) -> None:
    rgba = load_rgba(saved(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95))
    assert np.abs(rgba.astype(int) - [255, 0, 0, 255]).max() < 12


def test_sixteen_bit_grey(tmp_path: Path) -> None:
    values = np.array([[0, 255 * 257, 100 * 257]], np.uint16)
    rgba = load_rgba(saved(tmp_path / "a.png", Image.fromarray(values)))
    assert rgba[0, :, 0].tolist() == [0, 255, 100]
    assert (rgba[..., 3] == 255).all()


def test_floating_point_tiff(tmp_path: Path) -> None:
    """Of linear light: half of it is a shade of 188."""
    picture = read_picture(saved(tmp_path / "a.tif", Image.fromarray(np.array([[0.0, 1.0, 0.5]], np.float32))))
    assert picture.rgba[0, :, 0].tolist() == [0, 255, 188]
    assert "linear light" in picture.notes[0]


DEEP = [np.uint16, np.dtype(">u2"), np.int32, np.float32]


@pytest.mark.parametrize("kind", DEEP, ids=str)
@pytest.mark.parametrize("most", [1, 255, 60_000])
def test_deep_pictures_are_one_picture_however_many_blocks_they_take(
    tmp_path: Path, kind: np.dtype, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The brightest pixel, which sets the scale, lies in the last block."""
    values = np.zeros((23, 17), kind)
    values[:] = np.linspace(0, most / 2, 17).astype(kind)
    values[-1, -1] = most
    path = saved(tmp_path / "a.tif", Image.fromarray(values))
    whole = load_rgba(path)
    monkeypatch.setattr(levels, "_BLOCK", 40)
    assert np.array_equal(load_rgba(path), whole)
    expected = values / (65535 if most > 255 else 255) * 255
    if kind is np.float32 and most == 1:
        expected = 255 * np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)
    assert whole[..., 0].astype(float) == pytest.approx(np.clip(expected, 0, 255).astype(float), abs=1)


@pytest.mark.parametrize("kind", DEEP, ids=str)
def test_deep_pictures_take_little_memory(tmp_path: Path, kind: np.dtype) -> None:
    """A byte a pixel, beside Pillow's own picture and what one block takes."""
    path = saved(tmp_path / "a.tif", Image.fromarray(np.ones((2000, 1500), kind)))
    tracemalloc.start()
    load_rgba(path, 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 2000 * 1500 + 4e6


def test_one_bit(tmp_path: Path) -> None:
    image = Image.new("1", (9, 2), 0)
    image.putpixel((8, 0), 1)
    rgba = load_rgba(saved(tmp_path / "a.png", image))
    assert rgba[0, 8].tolist() == [255] * 4
    assert rgba[0, 7].tolist() == [0, 0, 0, 255]


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (load_rgba(path) == [255, 0, 0, 255]).all()


def test_a_single_pixel(tmp_path: Path) -> None:
    assert load_rgba(saved(tmp_path / "a.png", Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3, 255]]]


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_masks_fit_turned_and_reduced_pictures(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = np.zeros((70, 131, 3), np.uint8)
    lying[:, :65] = 255
    path = saved(tmp_path / name, Image.fromarray(lying), exif=exif)
    mask_path = saved(tmp_path / "mask.png", Image.fromarray(np.rot90(lying[..., 0], -1)))
    for max_side, shape in ((None, (131, 70)), (40, (40, 21)), (30, (30, 16))):
        rgba = read_masked(path, mask_path, max_side).rgba
        assert rgba.shape == (*shape, 4)
        assert np.abs(rgba[..., 3].astype(int) - rgba[..., 0]).mean() < 4
    other = saved(tmp_path / "other.png", Image.new("L", (131, 71)))
    with pytest.raises(InputError, match="the mask is 131x71, its picture 70x131"):
        read_masked(path, other, 40)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_can_be_reduced(tmp_path: Path, mode: str) -> None:
    image = Image.new("L", (64, 32), 255).convert("I" if mode == "I;16" else mode)
    path = saved(tmp_path / "a.tif", image.convert(mode))
    assert load_rgba(path, 16).shape == (8, 16, 4)


@pytest.mark.parametrize(("size", "reduced"), [((300, 100), (60, 20)), ((100, 300), (20, 60)), ((60, 40), (60, 40))])
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_large_pictures_are_reduced_to_the_longest_side(
    tmp_path: Path, size: tuple[int, int], reduced: tuple[int, int], ending: str
) -> None:
    path = saved(tmp_path / f"a.{ending}", Image.new("RGB", size, (10, 200, 90)))
    rgba = load_rgba(path, 60)
    assert rgba.shape[1::-1] == reduced
    assert np.abs(rgba[..., :3].astype(int) - [10, 200, 90]).max() < 5


# --- damage -------------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.png: there is no such file"):
        load_rgba(tmp_path / "nothing.png")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, not a picture"):
        load_rgba(tmp_path)


@pytest.mark.parametrize("content", [b"", b"just text", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_not_a_picture(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png: cannot be read as a picture.*Save it again as PNG"):
        load_rgba(path)


def test_formats_that_no_photo_comes_in_are_not_tried(tmp_path: Path) -> None:
    path = tmp_path / "a.dds"
    path.write_bytes(b"DDS " + struct.pack("<31I", 124, 0, 4, 4, *[0] * 14, 32, 4, 0x21212121, *[0] * 10))
    with pytest.raises(InputError, match=r"a\.dds: cannot be read as a picture \(it is none of JPEG, PNG, .*\)"):
        load_rgba(path)


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("mode"),
        OverflowError("size"),
        ZeroDivisionError("rational"),
        KeyError("tag"),
        IndexError("tile"),
        TypeError("none"),
        AttributeError("palette"),
        struct.error("short"),
        zlib.error("stream"),
        SyntaxError("head"),
        EOFError("end"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_whatever_a_reader_of_a_format_raises_is_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: object) -> None:
        raise error

    path = saved(tmp_path / "a.png", Image.fromarray(SCENE))
    monkeypatch.setattr("scene.photo.ImageOps.exif_transpose", broken)
    with pytest.raises(InputError, match=r"a\.png: cannot be read as a picture"):
        load_rgba(path)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_truncated(tmp_path: Path, ending: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(InputError, match="cannot be read as a picture"):
        load_rgba(path)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", Image.new("1", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="too many pixels"):
        load_rgba(path)


def encoded(kind: str) -> bytes:
    """A small picture in some format, with metadata."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8))
    options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}
    image.save(stream, kind, **options)  # type: ignore[arg-type]
    return stream.getvalue()


FORMATS = {kind: encoded(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")}


def read_or_refusal(path: Path) -> np.ndarray | InputError:
    """A picture, or the error that says why not; any other error passes through."""
    try:
        return load_rgba(path)
    except InputError as error:
        return error


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=60)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    """Whatever happens to a file's bytes, the answer is a picture or an InputError."""
    content = bytearray(FORMATS[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind.lower()}"
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    answer = read_or_refusal(path)
    if isinstance(answer, InputError):
        assert str(path) in str(answer)
    else:
        assert answer.dtype == np.uint8
        assert answer.shape[2] == 4


# --- masks --------------------------------------------------------------------------------------------------------


def test_a_mask_is_its_alpha_if_that_varies_else_its_brightness(tmp_path: Path) -> None:
    alpha = np.zeros((4, 4, 4), np.uint8)
    alpha[1:3, 1:3, 3] = 200
    assert np.array_equal(load_mask(saved(tmp_path / "a.png", Image.fromarray(alpha)), (4, 4)), alpha[..., 3])
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    assert np.array_equal(load_mask(saved(tmp_path / "b.png", Image.fromarray(grey)), (4, 4)), grey)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the mask is 4x5, its picture 5x4"):
        load_mask(saved(tmp_path / "m.png", Image.new("L", (4, 5))), (5, 4))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("ending", ["jpg", "tif", "png"])
@pytest.mark.parametrize("square", [False, True])
def test_a_mask_fits_a_turned_picture_upright_or_as_stored(
    tmp_path: Path, orientation: int, ending: str, square: bool
) -> None:
    """Where sizes do not tell, the edges do; what was done is told."""
    height, width = (160, 160) if square else (120, 160)
    y, x = np.mgrid[:height, :width]
    solid = (np.hypot(y - 50, x - 60) < 35) | ((abs(y - 70) < 8) & (x > 60) & (x < 130))
    stored = np.where(solid[..., None], (200, 40, 30), (90, 130, 90)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(stored), exif=exif)
    upright = UPRIGHT[orientation](solid)
    for mask, said in ((solid, "was turned with it"), (upright, "was not turned")):
        mask_path = saved(tmp_path / "mask.png", Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)))
        for max_side in (None, 80):
            picture = read_masked(path, mask_path, max_side)
            assert picture.orientation == orientation
            assert picture.size == upright.shape[::-1]
            reduced = upright if max_side is None else upright[::2, ::2]
            assert ((picture.rgba[..., 3] >= 128) == reduced).mean() > 0.98
            told = orientation > 1 and (square or orientation < 5 or mask is solid)
            assert [said in note for note in picture.notes] == [True] * told
            own = load_mask(mask_path, picture.size, orientation=orientation)
            if not square and orientation >= 5:
                assert np.array_equal(own >= 128, upright)
                as_is = load_mask(mask_path, picture.size[::-1], orientation=orientation, stored=True)
                assert np.array_equal(as_is >= 128, solid)


def test_a_mask_of_a_turned_picture_without_edges_is_taken_upright_and_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    path = saved(tmp_path / "a.png", Image.new("RGB", (60, 40), (90, 90, 90)), exif=exif)
    mask = np.zeros((40, 60), np.uint8)
    mask[5:20, 5:30] = 255
    picture = read_masked(path, saved(tmp_path / "mask.png", Image.fromarray(mask)))
    assert np.array_equal(picture.rgba[..., 3], mask)
    assert "nothing says whether the mask is" in picture.notes[0]


def test_a_mask_that_turns_itself_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = np.zeros((40, 60), np.uint8)
    mask[5:20, 5:30] = 255
    path = saved(tmp_path / "a.png", Image.fromarray(mask), exif=exif)
    picture = read_masked(path, saved(tmp_path / "mask.png", Image.fromarray(mask), exif=exif))
    assert np.array_equal(picture.rgba[..., 3], np.rot90(mask, -1))
    assert picture.notes == ()
