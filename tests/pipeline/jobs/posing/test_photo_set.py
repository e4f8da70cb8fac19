"""The photos of a pose job: which are taken, how they are reduced, and how they come into the capture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from pipeline.jobs.posing.photo_set import gather, load_photo_set, save_photo_set, write_pictures
from scene.errors import InputError

SIZE = (240, 180)


def picture(seed: int = 0, mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """Smooth blotches, so that JPEG keeps them."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC).convert(mode)


def turned(image: Image.Image, path: Path, orientation: int) -> None:
    """Save pixels as a camera does that writes its orientation beside them."""
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image.transpose(back).save(path, exif=exif, quality=95, subsampling=0)


def cut_out(seed: int) -> Image.Image:
    rgba = np.array(picture(seed, "RGBA"))
    rgba[..., 3] = 0
    rgba[40:140, 60:180, 3] = 255
    return Image.fromarray(rgba)


# --- which files ------------------------------------------------------------------------------------------------------


def test_folders_and_files_are_gathered_once_in_the_order_people_count(tmp_path: Path) -> None:
    names = ["IMG_10.jpg", "IMG_9.JPG", "img_2.png", "a.webp", "notes.txt", ".hidden.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.jpg").mkdir()
    found = gather([tmp_path / "IMG_9.JPG", tmp_path])
    assert [p.name for p in found] == ["a.webp", "img_2.png", "IMG_9.JPG", "IMG_10.jpg"]


def test_photos_in_folders_of_a_folder_are_found(tmp_path: Path) -> None:
    """As cameras fill their cards: one folder after the other, whatever the photos are called."""
    for name in ("DCIM/100CANON/IMG_2.JPG", "DCIM/100CANON/IMG_10.JPG", "DCIM/101CANON/IMG_1.JPG", ".trash/x.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "made" / "images").mkdir(parents=True)
    (tmp_path / "made" / "transforms.json").write_text("{}")  # a capture, such as an earlier run's
    (tmp_path / "made" / "images" / "a.jpg").write_bytes(b"x")
    found = [str(path.relative_to(tmp_path / "DCIM")) for path in gather([tmp_path])]
    assert found == ["100CANON/IMG_2.JPG", "100CANON/IMG_10.JPG", "101CANON/IMG_1.JPG"]
    (tmp_path / "own.jpg").write_bytes(b"x")
    assert [path.name for path in gather([tmp_path])] == ["own.jpg"]  # those below may be anything then


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such photo"):
        gather([tmp_path / "none.jpg"])
    with pytest.raises(InputError, match="has no pictures"):
        gather([tmp_path])
    with pytest.raises(InputError, match="no photos were given"):
        gather([])


# --- reduced for the search -------------------------------------------------------------------------------------------


def test_photos_are_reduced_upright_and_share_a_lens_if_of_one_size(tmp_path: Path) -> None:
    files = [tmp_path / f"{k}.jpg" for k in range(4)]
    picture(0).save(files[0])
    turned(picture(1), files[1], 6)
    picture(2, size=(180, 240)).save(files[2])
    picture(3, "CMYK").save(files[3])
    out = tmp_path / "out"
    out.mkdir()
    save_photo_set(out, files, 200, True)
    photos = load_photo_set(out, files)
    assert photos.skipped == {}
    assert not photos.cut_out
    assert [shot.size for shot in photos.shots] == [(200, 150), (200, 150), (150, 200), (200, 150)]
    assert [shot.lens for shot in photos.shots] == [0, 0, 1, 0]
    assert [shot.focal for shot in photos.shots] == [None] * 4
    for k, shot in enumerate(photos.shots):
        with Image.open(out / shot.file) as reduced:
            assert reduced.size == shot.size
            assert "exif" not in reduced.info
            expected = picture(k, size=(180, 240) if k == 2 else SIZE).resize(shot.size)
            off = np.abs(np.asarray(reduced, float) - np.asarray(expected, float)).mean()
        assert off < (20 if k == 3 else 4)
    own = tmp_path / "own"
    own.mkdir()
    save_photo_set(own, files, 200, False)
    assert [shot.lens for shot in load_photo_set(own, files).shots] == [0, 1, 2, 3]


def test_the_focal_length_is_in_pixels_of_the_reduced_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 43
    files = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    picture(0).save(files[0], exif=exif)
    picture(1).save(files[1])
    out = tmp_path / "out"
    out.mkdir()
    save_photo_set(out, files, 200, True)
    with_prior, without = load_photo_set(out, files).shots
    assert with_prior.focal == pytest.approx(43 / 43.27 * 250, rel=1e-3)  # the diagonal of 200x150
    assert without.focal is None
    assert with_prior.lens != without.lens  # a zoom lens is several


def test_cut_outs_get_masks_that_keep_off_the_outline(tmp_path: Path) -> None:
    files = [tmp_path / f"{k}.png" for k in range(2)]
    for k, file in enumerate(files):
        cut_out(k).save(file)
    out = tmp_path / "out"
    out.mkdir()
    save_photo_set(out, files, 1600, True)
    photos = load_photo_set(out, files)
    assert photos.cut_out
    mask = np.asarray(Image.open(out / "masks" / f"{photos.shots[0].file}.png")) > 0
    assert mask[43:137, 63:177].all()
    assert mask.sum() == 94 * 114
    reduced = np.asarray(Image.open(out / photos.shots[0].file)).astype(int)
    assert np.abs(reduced[:30] - 128).max() < 8
    picture(5).save(tmp_path / "opaque.png")
    mixed = [*files, tmp_path / "opaque.png"]
    save_photo_set(out, mixed, 1600, True)
    assert not load_photo_set(out, mixed).cut_out


def test_names_do_not_tell_the_content_apart(tmp_path: Path) -> None:
    files = [tmp_path / "a" / "x.jpg", tmp_path / "b" / "x.jpg"]
    for k, file in enumerate(files):
        file.parent.mkdir()
        picture(k).save(file)
    out = tmp_path / "out"
    out.mkdir()
    save_photo_set(out, files, 1600, True)
    photos = load_photo_set(out, files)
    pictures = write_pictures(tmp_path / "images", photos, photos.shots)
    assert [p.name for p in pictures] == ["x.jpg", "x-2.jpg"]
    assert [(tmp_path / "images" / p.name).read_bytes() for p in pictures] == [f.read_bytes() for f in files]


def test_two_skipped_photos_of_one_name_are_both_told(tmp_path: Path) -> None:
    files = [tmp_path / "a" / "x.jpg", tmp_path / "b" / "x.jpg"]
    for k, file in enumerate(files):
        file.parent.mkdir()
        file.write_bytes(b"none" * (k + 1))
    save_photo_set(tmp_path, files, 1600, True)
    assert set(json.loads((tmp_path / "photos.json").read_text())["skipped"]) == {"x.jpg", "x.jpg (2)"}


# --- into the capture -------------------------------------------------------------------------------------------------


def test_plain_photos_are_copied_and_others_saved_upright(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("jpeg.jpeg", "png.png", "webp.webp", "turned.jpg", "tiff.tif")]
    picture(0).save(files[0])
    picture(1).save(files[1])
    picture(2).save(files[2], lossless=True)
    turned(picture(3), files[3], 8)
    picture(4).save(files[4])
    out = tmp_path / "out"
    out.mkdir()
    save_photo_set(out, files, 1600, True)
    photos = load_photo_set(out, files)
    images = tmp_path / "images"
    pictures = write_pictures(images, photos, photos.shots)
    assert [p.name for p in pictures] == ["jpeg.jpg", "png.png", "webp.webp", "turned.jpg", "tiff.png"]
    assert {p.size for p in pictures} == {SIZE}
    for k in range(3):
        assert (images / pictures[k].name).read_bytes() == files[k].read_bytes()
    for k in (3, 4):
        with Image.open(images / pictures[k].name) as image:
            assert image.size == SIZE
            assert ExifTags.Base.Orientation not in image.getexif()
            assert np.abs(np.asarray(image, float) - np.asarray(picture(k), float)).mean() < 3


def test_alpha_is_kept_only_if_every_photo_has_it(tmp_path: Path) -> None:
    files = [tmp_path / f"{k}.png" for k in range(3)]
    for k in range(2):
        cut_out(k).save(files[k])
    picture(2).save(files[2])
    for count, mode in ((2, "RGBA"), (3, "RGB")):
        out = tmp_path / str(count)
        out.mkdir()
        save_photo_set(out, files[:count], 1600, True)
        photos = load_photo_set(out, files[:count])
        pictures = write_pictures(out / "images", photos, photos.shots)
        assert {Image.open(out / "images" / p.name).mode for p in pictures} == {mode}


def test_what_a_file_does_not_say_is_told_once_for_all_photos(tmp_path: Path) -> None:
    """Pictures of 12 bits in 16, and one of 8."""
    files = [tmp_path / f"{k}.png" for k in range(5)]
    for k, file in enumerate(files):
        grey = np.asarray(picture(k, "L"))
        grey = np.where(grey == grey.max(), 255, grey)
        Image.fromarray(grey if k == 4 else grey.astype(np.uint16) * 16).save(file)
    out = tmp_path / "out"
    out.mkdir()
    save_photo_set(out, files, 200, True)
    photos = load_photo_set(out, files)
    (sentence,) = photos.sentences
    assert sentence.startswith("0.png, 1.png, 2.png and 1 more: The picture's largest value is 4080")
    reduced = [float(np.asarray(Image.open(out / shot.file)).mean()) for shot in photos.shots]
    assert min(reduced) > 60


def test_long_names_of_photos_are_names_of_pictures(tmp_path: Path) -> None:
    files = [tmp_path / ("杯" * 83 + ".bmp"), tmp_path / ("杯" * 83 + ".gif")]
    for k, file in enumerate(files):
        picture(k).save(file)
    out = tmp_path / "out"
    out.mkdir()
    save_photo_set(out, files, 200, True)
    photos = load_photo_set(out, files)
    written = write_pictures(tmp_path / "images", photos, photos.shots)
    assert all((tmp_path / "images" / one.name).is_file() for one in written)
    assert len({one.name for one in written}) == 2
