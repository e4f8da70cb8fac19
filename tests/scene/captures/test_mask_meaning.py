"""What masks mean: outlines, or what is not to be looked at; and objects before a plain background beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scene.camera import Camera
from scene.captures import load_capture
from scene.captures.masks import threshold_beside_ignored
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet

Draw = Callable[..., list[Path]]
NAMES = [f"{k:03d}.png" for k in range(7)]


def passer_by(k: int) -> np.ndarray:
    """White but for a stripe, at another place in each picture, and in some none."""
    mask = np.full((48, 64), 255, np.uint8)
    if k % 3:
        mask[:, 3 + 4 * k : 8 + 4 * k] = 0
    return mask


def outline(k: int) -> np.ndarray:
    """White within the picture's middle."""
    mask = np.zeros((48, 64), np.uint8)
    mask[6:44, 10 + k : 50 + k] = 255
    return mask


def capture(folder: Path, cameras: list[Camera], masks: Callable[[int], np.ndarray] | None, **more: object) -> Path:
    """A capture with mask files."""
    frames = []
    for k, (name, camera) in enumerate(zip(NAMES, cameras)):
        frame = {"file_path": name, "transform_matrix": camera.c2w.tolist()}
        if masks is not None:
            (folder / "masks").mkdir(exist_ok=True)
            Image.fromarray(masks(k)).save(folder / "masks" / name)
            frame["mask_path"] = f"masks/{name}"
        frames.append(frame)
    content = {"fl_x": 70, "fl_y": 71, "cx": 33, "cy": 23.5, "w": 64, "h": 48, "frames": frames, **more}
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def test_masks_that_cover_all_but_a_passer_by_say_what_to_ignore(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw
) -> None:
    draw(tmp_path, NAMES)
    views = load_capture(capture(tmp_path, scene_cameras, passer_by))
    assert (views.has_masks, views.has_ignored) == (False, True)
    assert "not for outlines of an object (--masks object" in views.metadata["notes"][0]
    assert np.array_equal(views.views[4].rgba()[..., 3], passer_by(4))
    views.save(tmp_path / "again")
    again = ViewSet.load(tmp_path / "again")
    assert (again.has_masks, again.has_ignored) == (False, True)
    assert np.array_equal(again.views[4].rgba(), views.views[4].rgba())


def test_outlines_stay_outlines(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path, NAMES)
    views = load_capture(capture(tmp_path, scene_cameras, outline))
    assert (views.has_masks, views.has_ignored, "notes" in views.metadata) == (True, False, False)


def small_hole(k: int) -> np.ndarray:
    mask = np.full((48, 64), 255, np.uint8)
    mask[16:32, 24:40] = 0
    return mask


def test_holes_in_the_middle_of_all_pictures_are_no_passers_by(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw
) -> None:
    draw(tmp_path, NAMES)
    views = load_capture(capture(tmp_path, scene_cameras, small_hole))
    assert views.has_masks
    assert "they look inverted" in views.metadata["notes"][0]


def test_our_own_masks_are_outlines_in_any_case(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path, NAMES)
    assert load_capture(capture(tmp_path, scene_cameras, passer_by, viewloom={})).has_masks


def test_dynamic_masks_of_instant_ngp(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    """White where something moves; pictures without one are to be looked at as a whole."""
    draw(tmp_path, NAMES)
    capture(tmp_path, scene_cameras, None)
    for k in (1, 2, 4):
        Image.fromarray(255 - passer_by(k)).save(tmp_path / f"dynamic_mask_{NAMES[k]}")
    views = load_capture(tmp_path)
    assert (views.has_masks, views.has_ignored) == (False, True)
    assert views.metadata["notes"] == ["3 dynamic masks tell what is not to be looked at"]
    assert np.array_equal(views.views[4].rgba()[..., 3], passer_by(4))
    assert (views.views[3].rgba()[..., 3] == 255).all()
    assert tmp_path / "dynamic_mask_004.png" in views.views[4].files


def test_beside_masks_of_the_object_dynamic_masks_make_pixels_unknown(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw
) -> None:
    """A hand before the object is neither object nor background; so is what is written and read again."""
    draw(tmp_path, NAMES, mode="RGBA")
    capture(tmp_path, scene_cameras, None)
    plain = load_capture(tmp_path)
    for k in (1, 2, 4):
        Image.fromarray(255 - passer_by(k)).save(tmp_path / f"dynamic_mask_{NAMES[k]}")
    views = load_capture(tmp_path)
    assert (views.has_masks, views.has_ignored) == (True, False)
    assert "3 dynamic masks tell where the object's masks are silent" in views.metadata["notes"][0]
    assert [view.unknown() is not None for view in views] == [k in (1, 2, 4) for k in range(len(NAMES))]
    views.save(tmp_path / "saved")
    for found in (views, ViewSet.load(tmp_path / "saved")):
        unknown, rgba = found.views[4].unknown(), found.views[4].rgba()
        assert unknown is not None
        assert np.array_equal(unknown, 255 - passer_by(4))
        assert np.array_equal(rgba[..., 3], np.where(unknown > 0, 0, plain.views[4].rgba()[..., 3]))
        assert (rgba[..., 3] > 0).any()
        assert found.views[3].unknown() is None
    assert tmp_path / f"dynamic_mask_{NAMES[4]}" in views.views[4].files


def before_a_wall(scene_cameras: list[Camera], shift: int) -> ViewSet:
    """A dark block before a white wall; in every second picture something red walks by, ``shift`` from its middle."""
    views = []
    for k, camera in enumerate([*scene_cameras, *scene_cameras]):
        rgba = np.full((48, 64, 4), 255, np.uint8)
        rgba[14:34, 24:40, :3] = 60
        if k % 2:
            rgba[:, 30 + shift : 36 + shift] = (200, 30, 30, 0)
        views.append(View(f"{k}", camera, rgba))
    return ViewSet(tuple(views), False, {"mask_means": "ignore"})


def test_an_object_is_outlined_but_for_what_is_ignored(scene_cameras: list[Camera]) -> None:
    """Where something that is ignored touches the object, the mask is silent."""
    for shift in (24, 4, -2):
        found = threshold_beside_ignored(before_a_wall(scene_cameras, shift))
        assert (found.has_masks, found.has_ignored, len(found)) == (True, False, 14)
        expected = np.zeros((48, 64), bool)
        expected[14:34, 24:40] = True
        for k, view in enumerate(found):
            unknown = view.unknown()
            assert (unknown is not None) == (k % 2 == 1 and shift != 24)
            known = np.ones((48, 64), bool) if unknown is None else unknown == 0
            assert ((view.rgba()[..., 3] > 127) ^ (expected & known)).mean() < 0.01
            assert known.mean() > 0.75
        assert ("the object in 7 of 14 views" in " ".join(found.metadata.get("notes", []))) == (shift != 24)


def test_both_halves_of_an_object_behind_something_are_kept(scene_cameras: list[Camera]) -> None:
    views = []
    for view in before_a_wall(scene_cameras, -2):
        rgba = view.rgba().copy()
        rgba[14:34, 12:54, :3] = np.where(rgba[14:34, 12:54, 3:] > 0, 60, rgba[14:34, 12:54, :3])
        rgba[40:44, 30:34, :3] = 60  # of dirt below it, a part is beside the stripe
        views.append(replace(view, pixels=rgba))
    found = threshold_beside_ignored(ViewSet(tuple(views), False, {"mask_means": "ignore"}))
    mask = found.views[1].rgba()[..., 3] > 127
    assert mask[20, 13:24].all()
    assert mask[20, 40:52].all()
    assert not mask[36:].any()


def test_pictures_in_which_the_object_is_hidden_are_left_out(scene_cameras: list[Camera]) -> None:
    views = before_a_wall(scene_cameras, 4)
    hidden = views.views[1].rgba().copy()
    hidden[10:38, 20:44, 3] = 0
    found = threshold_beside_ignored(
        replace(views, views=(views.views[0], replace(views.views[1], pixels=hidden), *views.views[2:]))
    )
    assert len(found) == 13
    assert "1 of 14 views were left out" in " ".join(found.metadata["notes"])
    pixels = [replace(view, pixels=hidden) if k < 9 else view for k, view in enumerate(views)]
    with pytest.raises(InputError, match="hides the object in 9 views"):
        threshold_beside_ignored(replace(views, views=tuple(pixels)))
