"""From photos of any kind to framed cut-outs, with warnings where a user should look."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.diffusion.preparation import prepare
from pipeline.diffusion.preparation.prepare import prepare_photo
from pipeline.diffusion.settings import PrepareSettings
from scene.errors import InputError
from scene.metrics import mask_iou

SETTINGS = PrepareSettings(side=128, cutout="grabcut")


def disc_mask(height: int, width: int, radius: float, centre: tuple[float, float]) -> np.ndarray:
    """Pixels within a radius of a centre (row, column)."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.hypot(y - centre[0], x - centre[1]) < radius


def cut_out(mask: np.ndarray, colour: tuple[int, int, int] = (200, 80, 40)) -> np.ndarray:
    """A coloured object on transparency."""
    rgba = np.zeros((*mask.shape, 4), np.uint8)
    rgba[mask] = (*colour, 255)
    return rgba


def saved(folder: Path, pixels: np.ndarray, name: str = "photo.png") -> Path:
    """Write pixels as an image file."""
    Image.fromarray(pixels).save(folder / name)
    return folder / name


@settings(max_examples=25)
@given(
    height=st.integers(40, 150),
    width=st.integers(40, 150),
    radius=st.floats(8, 18),
    x=st.floats(0.3, 0.7),
    y=st.floats(0.3, 0.7),
    fill=st.floats(0.4, 0.95),
)
def test_a_cut_out_is_taken_as_it_is_and_centred(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, radius: float, x: float, y: float, fill: float
) -> None:
    mask = disc_mask(height, width, radius, (y * height, x * width))
    pixels = cut_out(mask)
    photo = prepare_photo(saved(tmp_path_factory.getbasetemp(), pixels), PrepareSettings(fill=fill, side=96))
    assert np.array_equal(photo.cutout, pixels)
    assert np.array_equal(photo.mask, pixels[..., 3])
    rows, columns = (np.nonzero((photo.framed[..., 3] >= 128).any(axis=k))[0] for k in (1, 0))
    assert (rows[0] + rows[-1] + 1) / 2 == pytest.approx(48, abs=1.5)
    assert (columns[0] + columns[-1] + 1) / 2 == pytest.approx(48, abs=1.5)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(fill * 96, abs=2)
    assert not any("no alpha" in warning for warning in photo.warnings)


def test_an_opaque_photo_is_cut_out_by_colour_with_a_warning(tmp_path: Path) -> None:
    mask = disc_mask(120, 160, 35, (60, 70))
    pixels = np.where(mask[..., None], (180, 40, 30), (235, 235, 230)).astype(np.uint8)
    photo = prepare_photo(saved(tmp_path, pixels), SETTINGS)
    assert mask_iou(photo.mask >= 128, mask) > 0.95
    assert np.array_equal(photo.cutout[..., :3], pixels)
    assert len(photo.warnings) == 1
    assert "found by colour (GrabCut)" in photo.warnings[0]
    assert "--mask" in photo.warnings[0]


def test_faint_alpha_is_laid_on_white_before_the_search(tmp_path: Path) -> None:
    """An alpha that tells nothing (here 200 everywhere) must not darken what is looked at."""
    mask = disc_mask(100, 100, 28, (50, 50))
    pixels = np.where(mask[..., None], (150, 30, 30, 200), (255, 255, 255, 200)).astype(np.uint8)
    photo = prepare_photo(saved(tmp_path, pixels), SETTINGS)
    assert mask_iou(photo.mask >= 128, mask) > 0.95
    assert photo.cutout[50, 50, :3].tolist() == [173, 79, 79]


def test_a_given_mask_wins_over_alpha_and_colour(tmp_path: Path) -> None:
    wanted = disc_mask(100, 120, 20, (30, 40))
    other = disc_mask(100, 120, 30, (60, 80))
    mask_path = saved(tmp_path, np.where(wanted, 255, 0).astype(np.uint8), "mask.png")
    for pixels in (cut_out(other), np.where(other[..., None], 30, 220).repeat(3, axis=2).astype(np.uint8)):
        photo = prepare_photo(saved(tmp_path, pixels), SETTINGS, mask_path)
        assert np.array_equal(photo.mask >= 128, wanted)
        assert photo.warnings == ()


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    mask_path = saved(tmp_path, np.full((50, 60), 255, np.uint8), "mask.png")
    with pytest.raises(InputError, match=r"mask\.png: the mask is 60x50, its picture 120x100"):
        prepare_photo(saved(tmp_path, np.zeros((100, 120, 3), np.uint8)), SETTINGS, mask_path)


def test_a_mask_fits_the_photo_as_stored_however_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "MAX_SIDE", 64)
    mask = disc_mask(100, 120, 30, (50, 60))
    mask_path = saved(tmp_path, np.where(mask, 255, 0).astype(np.uint8), "mask.png")
    photo = prepare_photo(saved(tmp_path, np.zeros((100, 120, 3), np.uint8)), SETTINGS, mask_path)
    reduced = prepare_photo(saved(tmp_path, cut_out(mask)), SETTINGS)
    assert reduced.cutout.shape == (53, 64, 4)
    assert np.array_equal(photo.mask, reduced.mask)
    small = saved(tmp_path, reduced.mask, "small.png")
    with pytest.raises(InputError, match=r"small\.png: the mask is 64x53, its picture 120x100"):
        prepare_photo(tmp_path / "photo.png", SETTINGS, small)


def test_a_mask_takes_no_more_memory_than_the_reduced_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own pictures are not counted; arrays of the photo as stored would be."""
    monkeypatch.setattr(prepare, "MAX_SIDE", 64)
    mask_path = saved(tmp_path, disc_mask(1500, 1600, 500, (750, 800)).astype(np.uint8) * 255, "mask.png")
    path = saved(tmp_path, np.zeros((1500, 1600, 3), np.uint8))
    prepare_photo(path, SETTINGS, mask_path)  # what is imported at first use counts no more
    tracemalloc.start()
    prepare_photo(path, SETTINGS, mask_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


@pytest.mark.parametrize(
    ("box", "edges"),
    [
        ((0, 60, 40, 80), "top"),
        ((40, 100, 40, 80), "bottom"),
        ((30, 60, 0, 50), "left"),
        ((30, 60, 70, 120), "right"),
        ((0, 60, 0, 50), "top and left"),
    ],
)
def test_objects_cut_off_by_the_photo_are_reported(tmp_path: Path, box: tuple[int, int, int, int], edges: str) -> None:
    mask = np.zeros((100, 120), bool)
    mask[box[0] : box[1], box[2] : box[3]] = True
    photo = prepare_photo(saved(tmp_path, cut_out(mask)), SETTINGS)
    assert [w for w in photo.warnings if "cut off" in w] == [
        f"The object is cut off at the {edges} of the photo: the missing part will be guessed."
    ]


@pytest.mark.parametrize("opaque", [False, True])
def test_several_objects_are_reported(tmp_path: Path, opaque: bool) -> None:
    mask = disc_mask(200, 300, 40, (100, 80)) | disc_mask(200, 300, 35, (100, 220)) | disc_mask(200, 300, 4, (20, 20))
    pixels = np.where(mask[..., None], (180, 40, 30), (235, 235, 230)).astype(np.uint8) if opaque else cut_out(mask)
    photo = prepare_photo(saved(tmp_path, pixels), SETTINGS)
    assert [w for w in photo.warnings if "pieces" in w] == [
        "The cut-out is of 2 separate pieces, which are taken for one object. Give a mask with --mask to choose one."
    ]


def test_pieces_of_large_photos_are_counted_as_in_small_ones(tmp_path: Path) -> None:
    """One thing with a bridge of 2 % of the side, looked at every third pixel."""
    mask = disc_mask(1600, 1600, 300, (800, 400)) | disc_mask(1600, 1600, 300, (800, 1200))
    assert prepare._pieces(mask) == 2
    mask[784:816, 600:1000] = True
    assert prepare._pieces(mask) == 1


def test_small_objects_are_reported_with_their_size(tmp_path: Path) -> None:
    mask = np.zeros((100, 100), bool)
    mask[40:60, 45:60] = True
    photo = prepare_photo(saved(tmp_path, cut_out(mask)), SETTINGS)
    assert photo.warnings == ("The object is only 20 pixels large: expect a blurred result.",)


@pytest.mark.parametrize(
    ("large", "most", "expected"), [(100, 1024, 512), (600, 1024, 768), (600, 700, 700), (600, 512, 512), (600, 96, 96)]
)
def test_a_frame_has_the_photos_own_pixels_up_to_the_most(tmp_path: Path, large: int, most: int, expected: int) -> None:
    """Stripes of one pixel: at the photo's own size they stay, reduced or enlarged they fade."""
    pixels = np.zeros((800, 800, 4), np.uint8)
    pixels[97 : 97 + large, 105 : 105 + large] = (0, 0, 0, 255)
    pixels[97 : 97 + large : 2, 105 : 105 + large, :3] = 255
    photo = prepare_photo(saved(tmp_path, pixels), PrepareSettings(side=most, fill=600 / 768))
    assert photo.framed.shape == (expected, expected, 4)
    assert photo.framing.size == expected
    assert photo.resized(64).shape == (64, 64, 4)
    middle = photo.framed[expected // 2 - 20 : expected // 2 + 20, expected // 2, 0].astype(int)
    assert bool(np.abs(np.diff(middle)).min() == 255) is (expected == 768)


def test_resized_frames_come_from_the_photo_itself(tmp_path: Path) -> None:
    mask = disc_mask(200, 200, 60, (100, 90))
    photo = prepare_photo(saved(tmp_path, cut_out(mask)), SETTINGS)
    small = photo.resized(32)
    assert small.shape == (32, 32, 4)
    whole = photo.framed[..., 3].reshape(32, 4, 32, 4).mean(axis=(1, 3))
    assert np.abs(small[..., 3] - whole).max() < 60
    assert np.abs(small[..., 3] - whole).mean() < 3


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((50, 50, 4), np.uint8), r"photo\.png: the photo is fully transparent"),
        (np.full((1, 1, 3), 200, np.uint8), r"photo\.png: no object stands out"),
        (np.full((60, 60, 3), 90, np.uint8), r"photo\.png: no object stands out.*--mask"),
        (cut_out(disc_mask(90, 90, 4, (40, 40))), r"photo\.png: the object covers fewer than 64 pixels"),
    ],
    ids=["transparent", "one pixel", "plain", "tiny"],
)
def test_photos_without_an_object_are_refused(tmp_path: Path, pixels: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare_photo(saved(tmp_path, pixels), SETTINGS)


def test_an_empty_mask_is_refused(tmp_path: Path) -> None:
    mask_path = saved(tmp_path, np.zeros((40, 40), np.uint8), "mask.png")
    with pytest.raises(InputError, match="fewer than 64 pixels"):
        prepare_photo(saved(tmp_path, np.full((40, 40, 3), 90, np.uint8)), SETTINGS, mask_path)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_text("a cup, seen from the left")
    with pytest.raises(InputError, match=r"photo\.jpg: cannot be read as a picture.*PNG, JPEG or WebP"):
        prepare_photo(path)


def test_huge_pictures_are_refused_by_their_head(tmp_path: Path) -> None:
    """20,000 x 20,000 would be 1.6 GB of RGBA; nothing is decoded."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0))
    path = tmp_path / "huge.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    with pytest.raises(InputError, match=r"huge\.png: the picture has too many pixels.*170 megapixels"):
        prepare_photo(path)


def test_missing_photos_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        prepare_photo(tmp_path / "none.png")
    with pytest.raises(InputError, match="is a folder"):
        prepare_photo(tmp_path)


# --- what people bring ------------------------------------------------------------------------------------------------


def framed_share(photo: prepare.PreparedPhoto) -> float:
    """How much of the frame the object fills."""
    return float((photo.framed[..., 3] >= 128).mean())


@pytest.mark.parametrize("by_mask", [False, True])
def test_a_speck_in_a_corner_does_not_shrink_the_object(tmp_path: Path, by_mask: bool) -> None:
    mask = disc_mask(200, 200, 40, (110, 110))
    clean = prepare_photo(saved(tmp_path, cut_out(mask)), SETTINGS)
    mask[2:6, 3:7] = True
    if by_mask:
        mask_path = saved(tmp_path, np.where(mask, 255, 0).astype(np.uint8), "mask.png")
        photo = prepare_photo(saved(tmp_path, np.full((200, 200, 3), 90, np.uint8)), SETTINGS, mask_path)
    else:
        photo = prepare_photo(saved(tmp_path, cut_out(mask)), SETTINGS)
    assert framed_share(photo) == pytest.approx(framed_share(clean), rel=0.01)
    assert ["A speck" in warning for warning in photo.warnings] == [True]


def test_glass_is_solid_and_told(tmp_path: Path) -> None:
    body = disc_mask(200, 200, 60, (100, 100))
    pixels = cut_out(body)
    solid = prepare_photo(saved(tmp_path, pixels), SETTINGS)
    pixels[disc_mask(200, 200, 52, (100, 100)), 3] = 89
    glass = prepare_photo(saved(tmp_path, pixels), SETTINGS)
    assert np.array_equal(glass.framed[..., 3] >= 128, solid.framed[..., 3] >= 128)
    assert ["half transparent" in warning for warning in glass.warnings] == [True]


def test_a_faint_layer_is_a_cut_out(tmp_path: Path) -> None:
    mask = disc_mask(200, 200, 60, (100, 100))
    pixels = cut_out(mask)
    pixels[..., 3] = np.where(mask, 100, 0)
    photo = prepare_photo(saved(tmp_path, pixels), SETTINGS)
    assert np.array_equal(photo.mask, np.where(mask, 255, 0))
    assert ["its own scale" in warning for warning in photo.warnings] == [True]


def test_a_layer_that_is_faint_all_over_is_a_photo(tmp_path: Path) -> None:
    """Nothing in its alpha tells the object, which is found by its colours."""
    mask = disc_mask(120, 160, 35, (60, 70))
    pixels = np.where(mask[..., None], (180, 40, 30, 90), (235, 235, 230, 90)).astype(np.uint8)
    photo = prepare_photo(saved(tmp_path, pixels), SETTINGS)
    assert mask_iou(photo.mask >= 128, mask) > 0.95
    assert photo.cutout[60, 70, :3].tolist() == [180, 40, 30]
    assert "its own scale" in photo.warnings[0]
    assert "found by colour" in photo.warnings[1]


def test_what_the_reader_noted_is_told(tmp_path: Path) -> None:
    """Values of 12 bits in 16: the object is as bright as from all 16."""
    mask = disc_mask(120, 160, 35, (60, 70))
    grey = np.where(mask, 40, 220).astype(np.uint16)
    whole = prepare_photo(saved(tmp_path, grey * 257), SETTINGS)
    photo = prepare_photo(saved(tmp_path, grey * 16), SETTINGS)
    assert "12 bits" in photo.warnings[0]
    assert np.abs(photo.framed.astype(int) - whole.framed)[whole.framed[..., 3] == 255].mean() < 40
    assert mask_iou(photo.mask >= 128, mask) > 0.95


def test_a_mask_as_stored_of_a_turned_photo(tmp_path: Path) -> None:
    mask = disc_mask(100, 140, 30, (40, 50))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.where(mask[..., None], (200, 30, 30), 210).astype(np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    photo = prepare_photo(
        tmp_path / "a.jpg", SETTINGS, saved(tmp_path, np.where(mask, 255, 0).astype(np.uint8), "m.png")
    )
    assert np.array_equal(photo.mask >= 128, np.rot90(mask, -1))
    assert "turned by its EXIF data" in photo.warnings[0]


@pytest.mark.parametrize("size", [(4096, 1), (1, 4096), (30000, 2), (6000, 64)])
@pytest.mark.parametrize("opaque", [False, True])
def test_strips_are_no_pictures_of_an_object(tmp_path: Path, size: tuple[int, int], opaque: bool) -> None:
    pixels = np.full((size[1], size[0], 3 if opaque else 4), 255, np.uint8)
    if not opaque:
        pixels[:, : size[0] // 3] = 0
    with pytest.raises(InputError, match=rf"{size[0]}x{size[1]} pixels are no picture of an object"):
        prepare_photo(saved(tmp_path, pixels), SETTINGS)


def test_a_thread_of_an_object_is_refused(tmp_path: Path) -> None:
    pixels = np.zeros((60, 3000, 4), np.uint8)
    pixels[30, 50:2950] = 255
    with pytest.raises(InputError, match="too thin to be seen"):
        prepare_photo(saved(tmp_path, pixels), SETTINGS)
