"""Captures of large pictures: decoded at a fraction where that is enough, copied as they are where nothing changes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scene.camera import orbit_camera
from scene.captures.masks import with_sound_masks
from scene.errors import InputError
from scene.lens import Intrinsics, Lens, undistort
from scene.view import View
from scene.viewset import ViewSet

SIZE = (160, 96)


def waves(width: int = SIZE[0], height: int = SIZE[1]) -> np.ndarray:
    """A smooth picture, the same at every size."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    shades = [0.5 + 0.5 * np.sin(6 * x + 2 * y), x, y]
    return np.round(255 * np.stack(shades, axis=-1)).astype(np.uint8)


def photo(path: Path, **options: object) -> View:
    """A view of a photo on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(waves()).save(path, quality=95, **options)
    camera = replace(orbit_camera(0.3, 0.2, size=SIZE[0]), width=SIZE[0], height=SIZE[1])
    return View(path.stem, camera, image_path=path)


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """These pictures count as large."""
    for module in ("view", "transforms_json"):
        monkeypatch.setattr(f"scene.{module}.LARGE", math.prod(SIZE))


# --- reduced ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_reduced_pictures_show_the_same(ending: str, tmp_path: Path) -> None:
    view = photo(tmp_path / f"a.{ending}")
    small = view.reduced(40)
    assert max(small.shape[:2]) == 40
    assert np.abs(small[..., :3].astype(int) - waves(40, 24)).max() < 12
    assert (small[..., 3] == 255).all()
    assert np.array_equal(view.reduced(80), view.rgba())  # half as many are not worth it


@pytest.mark.usefixtures("small_is_large")
def test_reduced_pictures_of_a_lens_are_undistorted(tmp_path: Path) -> None:
    view = photo(tmp_path / "a.png")
    (undone,) = undistort([(Lens(k1=0.2), Intrinsics(150.0, 150.0, 80.0, 48.0, *SIZE))])
    assert undone is not None
    bent = replace(view, undistortion=undone)
    small, whole = bent.reduced(40), bent.rgba()
    assert small.shape == (24, 40, 4)
    wanted = np.asarray(Image.fromarray(whole[..., :3]).resize((40, 24), Image.Resampling.BOX))
    off, bend = (np.abs(wanted.astype(int) - other).max() for other in (small[..., :3], waves(40, 24)))
    assert off < 8 < bend  # the lens does something
    assert undone.reduced(40, 24) is undone.reduced(40, 24)  # with its look-up maps


def spot() -> np.ndarray:
    """A mask that is mirrored by no turn onto itself."""
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[10:50, 20:70] = 255
    return mask


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("bent", [False, True])
def test_masks_are_reduced_with_their_pictures(orientation: int, bent: bool, tmp_path: Path) -> None:
    """Whatever alpha comes from: a mask in a file or in memory, the picture itself, or what is to be ignored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    view = replace(photo(tmp_path / "a.jpg", exif=exif), as_stored=True)
    if bent:
        (undone,) = undistort([(Lens(k1=0.2), Intrinsics(150.0, 150.0, 80.0, 48.0, *SIZE))])
        view = replace(view, undistortion=undone)
    Image.fromarray(spot()).save(tmp_path / "m.png")
    Image.fromarray(np.dstack([waves(), spot()])).save(tmp_path / "own.png")
    masked = {
        "file": replace(view, mask_path=tmp_path / "m.png"),
        "memory": replace(view, mask=spot()),
        "own": replace(view, image_path=tmp_path / "own.png"),
        "ignored": replace(view, ignore_path=tmp_path / "m.png"),
    }
    for name, one in masked.items():
        small, whole = one.reduced(40), one.rgba()
        assert small.shape == (24, 40, 4)
        wanted = np.asarray(Image.fromarray(whole[..., 3]).resize((40, 24), Image.Resampling.BOX))
        off = np.abs(small[..., 3].astype(int) - wanted)
        assert off.mean() < (8 if name == "ignored" else 4 if bent else 1), name  # what is ignored in part is, in whole
        inside = wanted == 255
        colours = np.asarray(Image.fromarray(whole[..., :3]).resize((40, 24), Image.Resampling.BOX))
        assert np.abs(small[..., :3].astype(int) - colours)[inside].max() < 14, name


@pytest.mark.usefixtures("small_is_large")
def test_less_than_half_can_be_worth_it(tmp_path: Path) -> None:
    view = photo(tmp_path / "a.jpg")
    assert view.reduced(80, worth=1.0).shape == (48, 80, 4)
    assert view.reduced(160, worth=1.0).shape == (96, 160, 4)


@pytest.mark.usefixtures("small_is_large")
def test_masks_of_another_size_are_found_when_reduced(tmp_path: Path) -> None:
    Image.new("L", (80, 48), 255).save(tmp_path / "m.png")
    view = replace(photo(tmp_path / "a.jpg"), mask_path=tmp_path / "m.png")
    with pytest.raises(InputError, match="the mask is 80x48, its picture 160x96"):
        view.reduced(40)


@pytest.mark.usefixtures("small_is_large")
def test_pictures_of_another_size_are_found_in_either_way(tmp_path: Path) -> None:
    view = photo(tmp_path / "a.jpg")
    wrong = replace(view, camera=replace(view.camera, width=320, height=192))
    for read in (wrong.rgba, lambda: wrong.reduced(40)):
        with pytest.raises(InputError, match="the picture is 160x96, its camera says 320x192"):
            read()


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("stored", [True, False])
def test_turned_pictures_are_reduced_the_right_way_up(orientation: int, stored: bool, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    view = replace(photo(tmp_path / "a.jpg", exif=exif), as_stored=stored)
    if orientation != 3 and not stored:
        view = replace(view, camera=replace(view.camera, width=SIZE[1], height=SIZE[0]))
    whole, small = view.rgba()[..., :3], view.reduced(40)[..., :3]
    wanted = np.asarray(Image.fromarray(whole).resize(small.shape[1::-1], Image.Resampling.BOX))
    assert np.abs(small.astype(int) - wanted).max() < 12


def test_small_pictures_are_read_as_they_are(tmp_path: Path) -> None:
    view = photo(tmp_path / "a.jpg")
    assert np.array_equal(view.reduced(40), view.rgba())


# --- saved ------------------------------------------------------------------------------------------------------------


def saved(folder: Path, view: View, *, masks: bool = False) -> tuple[Path, View]:
    """The file that a capture of this view has, and the view read back."""
    others = [replace(photo(folder / "more" / f"{k}.jpg"), name=f"other{k}") for k in range(2)]
    if masks:
        others = [replace(other, mask=np.full(SIZE[::-1], 255, np.uint8)) for other in others]
    ViewSet((view, *others), masks).save(folder / "out")
    content = json.loads((folder / "out" / "transforms.json").read_text())
    return folder / "out" / content["frames"][0]["file_path"], ViewSet.load(folder / "out").views[0]


@pytest.mark.parametrize("ending", ["jpg", "JPEG", "png", "webp"])
def test_plain_photos_are_copied(ending: str, tmp_path: Path) -> None:
    view = photo(tmp_path / f"a.{ending}")
    file, again = saved(tmp_path, view)
    assert file.name == f"a.{ending.lower()}"
    assert file.read_bytes() == (tmp_path / f"a.{ending}").read_bytes()
    assert np.array_equal(again.rgba(), view.rgba())


def test_masks_go_beside_photos_that_are_copied(tmp_path: Path) -> None:
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[20:60, 30:90] = 255
    view = replace(photo(tmp_path / "a.jpg"), mask=mask)
    file, again = saved(tmp_path, view, masks=True)
    assert file.read_bytes() == (tmp_path / "a.jpg").read_bytes()
    assert np.array_equal(again.rgba(), view.rgba())


@pytest.mark.usefixtures("small_is_large")
def test_mask_files_of_large_photos_are_copied_where_they_are_the_mask(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(spot()).save(tmp_path / "plain.png", compress_level=1)
    Image.fromarray(spot()).save(tmp_path / "turned.png", exif=exif)
    view = photo(tmp_path / "a.jpg")
    for name, copied in (("plain", True), ("turned", False)):
        given = replace(view, mask_path=tmp_path / f"{name}.png")
        _, again = saved(tmp_path / name, given, masks=True)
        assert again.mask_path is not None
        assert (again.mask_path.read_bytes() == (tmp_path / f"{name}.png").read_bytes()) == copied
        assert np.array_equal(again.rgba(), given.rgba())


@pytest.mark.parametrize("sharpness", [1.0, 0.25])
def test_sharpness_is_kept(sharpness: float, tmp_path: Path) -> None:
    _, again = saved(tmp_path, replace(photo(tmp_path / "a.jpg"), sharpness=sharpness))
    assert again.sharpness == sharpness


@pytest.mark.parametrize("sharpness", [-1, "much"])
def test_sharpness_that_is_none_is_refused(sharpness: object, tmp_path: Path) -> None:
    saved(tmp_path, photo(tmp_path / "a.jpg"))
    file = tmp_path / "out" / "transforms.json"
    content = json.loads(file.read_text())
    content["frames"][0]["viewloom_sharpness"] = sharpness
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="viewloom_sharpness"):
        ViewSet.load(tmp_path / "out")


def test_what_is_not_the_picture_is_not_copied(tmp_path: Path) -> None:
    """Alpha that is no mask, turned files, pictures in memory, lenses: the pixels are written instead."""
    see_through = photo(tmp_path / "a.png")
    Image.fromarray(np.dstack([waves(), np.full(SIZE[::-1], 90, np.uint8)])).save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = photo(tmp_path / "b.jpg", exif=exif)
    (undone,) = undistort([(Lens(k1=0.2), Intrinsics(150.0, 150.0, 80.0, 48.0, *SIZE))])
    bent = replace(photo(tmp_path / "c.jpg"), undistortion=undone)
    held = replace(turned, name="d", pixels=np.dstack([waves(), np.full(SIZE[::-1], 255, np.uint8)]))
    for k, view in enumerate((see_through, turned, bent, held)):
        file, again = saved(tmp_path / str(k), view)
        assert file.suffix == ".png"
        assert np.array_equal(again.rgba()[..., :3], view.rgba()[..., :3])
        assert (again.rgba()[..., 3] == 255).all()


@pytest.mark.usefixtures("small_is_large")
def test_large_photos_that_must_be_written_are_jpegs(tmp_path: Path) -> None:
    (undone,) = undistort([(Lens(k1=0.2), Intrinsics(150.0, 150.0, 80.0, 48.0, *SIZE))])
    view = replace(photo(tmp_path / "a.jpg"), undistortion=undone)
    file, again = saved(tmp_path, view)
    assert file.suffix == ".jpg"
    assert np.abs(again.rgba().astype(int) - view.rgba()).max() < 8
    drawn = replace(photo(tmp_path / "b.png"), undistortion=undone)
    assert saved(tmp_path / "b", drawn)[0].suffix == ".png"  # what came without loss stays without


# --- masks looked at --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_is_large")
def test_a_thin_object_is_not_taken_for_an_empty_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scene.captures.masks._LOOKED_AT", 20)
    thin, empty = np.zeros(SIZE[::-1], np.uint8), np.zeros(SIZE[::-1], np.uint8)
    thin[40, 20:90] = 255
    views = []
    for k, mask in enumerate([thin, thin, thin, empty]):
        view = photo(tmp_path / f"{k}.jpg")
        Image.fromarray(mask).save(tmp_path / f"m{k}.png")
        views.append(replace(view, mask_path=tmp_path / f"m{k}.png"))
    assert views[0].reduced(20)[..., 3].max() < 128
    sound = with_sound_masks(ViewSet(tuple(views), has_masks=True))
    assert [view.name for view in sound] == ["0", "1", "2"]
