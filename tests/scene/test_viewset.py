"""Capture folders: bit-exact round trips, and every way in which a capture can be wrong."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scene.camera import apply_transform, orbit_camera
from scene.errors import InputError
from scene.pictures.turns import upright
from scene.view import View
from scene.viewset import ViewSet

SIZE = 12


def views(count: int, seed: int = 0) -> tuple[View, ...]:
    """Views with random pixels around an object."""
    rng = np.random.default_rng(seed)
    return tuple(
        View(
            f"view_{k:02d}",
            orbit_camera(0.7 * k, 0.1 * k, 1.5 + 0.1 * k, size=SIZE),
            rng.integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8),
            weight=1 / (k + 1),
        )
        for k in range(count)
    )


def written(folder: Path, *, masks: bool = True) -> dict[str, Any]:
    """A saved capture of three views, and the content of its file."""
    ViewSet(views(3), has_masks=masks, metadata={"origin": "test"}).save(folder)
    return json.loads((folder / "transforms.json").read_text(encoding="utf-8"))


def rewrite(folder: Path, content: object) -> None:
    """Replace the capture file."""
    (folder / "transforms.json").write_text(json.dumps(content), encoding="utf-8")


# --- round trips --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [True, False])
def test_round_trip_is_bit_exact(tmp_path: Path, masks: bool) -> None:
    saved = ViewSet(views(4), has_masks=masks, metadata={"seed": 3, "parts": ["a", "b"]})
    saved.save(tmp_path)
    loaded = ViewSet.load(tmp_path)
    assert loaded.has_masks is masks
    assert loaded.metadata == saved.metadata
    assert len(loaded) == len(saved)
    for before, after in zip(saved, loaded, strict=True):
        assert (after.name, after.weight) == (before.name, before.weight)
        assert np.array_equal(after.camera.c2w, before.camera.c2w)
        for key in ("fx", "fy", "cx", "cy", "width", "height"):
            assert getattr(after.camera, key) == getattr(before.camera, key)
        pixels = after.rgba()
        assert np.array_equal(pixels[..., :3], before.rgba()[..., :3])
        assert np.array_equal(pixels[..., 3], before.rgba()[..., 3] if masks else np.full((SIZE, SIZE), 255))


def test_saving_a_loaded_set_writes_the_same_bytes(tmp_path: Path) -> None:
    written(tmp_path / "a")
    ViewSet.load(tmp_path / "a").save(tmp_path / "b")
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name


def test_a_capture_file_can_be_named_instead_of_its_folder(tmp_path: Path) -> None:
    written(tmp_path)
    assert len(ViewSet.load(tmp_path / "transforms.json")) == 3


# --- depth, normals, points ---------------------------------------------------------------------------------------


def deep(count: int = 3, *, seed: int = 1) -> ViewSet:
    """Views with depth, normals and points in memory; some of each are unknown."""
    rng = np.random.default_rng(seed)
    filled = []
    for view in views(count):
        depth = rng.uniform(0.5, 3, (SIZE, SIZE)).astype(np.float32)
        normals = rng.normal(size=(SIZE, SIZE, 3)).astype(np.float32)
        depth[:2], normals[:2] = 0, 0
        filled.append(replace(view, depth_source=depth, normal_source=normals))
    return ViewSet(tuple(filled), has_masks=False, points=rng.normal(size=(20, 3)))


def array(value: np.ndarray | None) -> np.ndarray:
    """What must be there."""
    assert value is not None
    return value


def test_views_have_neither_by_default() -> None:
    plain = ViewSet(views(2), has_masks=False)
    assert plain.views[0].depth() is None
    assert plain.views[0].normals() is None
    assert not plain.has_depths
    assert not plain.has_normals


def test_depth_normals_and_points_survive_a_round_trip(tmp_path: Path) -> None:
    saved = deep()
    saved.save(tmp_path / "a")
    loaded = ViewSet.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    for again in (loaded, ViewSet.load(tmp_path / "b")):
        assert again.has_depths
        assert again.has_normals
        assert np.array_equal(array(again.points), array(saved.points))
        for before, after in zip(saved, again, strict=True):
            assert array(after.depth()) == pytest.approx(array(before.depth()), rel=1e-6)
            assert array(after.normals()) == pytest.approx(array(before.normals()), abs=1e-6)
            assert (array(after.depth())[:2] == 0).all()
            assert (array(after.normals())[:2] == 0).all()


def test_saved_depths_are_in_the_unit_that_others_expect(tmp_path: Path) -> None:
    saved = deep(1)
    saved.save(tmp_path)
    frame = json.loads((tmp_path / "transforms.json").read_text())["frames"][0]
    stored = np.load(tmp_path / frame["depth_file_path"])
    assert stored.dtype == np.float32
    assert stored == pytest.approx(array(saved.views[0].depth()) * 1000, rel=1e-6)


@pytest.mark.parametrize("attribute", ["depth_source", "normal_source"])
def test_depth_or_normals_for_some_views_are_not_saved(tmp_path: Path, attribute: str) -> None:
    whole = deep()
    partial = replace(whole, views=(replace(whole.views[0], **{attribute: None}), *whole.views[1:]))
    with pytest.raises(InputError, match=r"2 of 3 views have (depth|normals)\. Give (depth|normals) to all"):
        partial.save(tmp_path)
    assert not (tmp_path / "transforms.json").exists()


@pytest.mark.parametrize("key", ["depth_file_path", "viewloom_normal_path"])
def test_depth_or_normals_for_some_frames_only(tmp_path: Path, key: str) -> None:
    deep().save(tmp_path)
    content = json.loads((tmp_path / "transforms.json").read_text())
    del content["frames"][1][key]
    rewrite(tmp_path, content)
    views = ViewSet.load(tmp_path)
    assert views.has_depths
    assert views.has_normals
    what = "depth" if key.startswith("depth") else "normal"
    assert views.metadata["notes"] == [f"1 of 3 {what} maps are missing"]
    assert (array(views.views[1].depth()).max() == 0) == (what == "depth")
    assert (np.abs(array(views.views[1].normals())).max() == 0) == (what == "normal")


@given(st.floats(0.01, 100), st.floats(-3, 3))
def test_a_moved_world_keeps_normals_and_scales_depth(scale: float, angle: float) -> None:
    """What unprojects to a point before unprojects to the moved point after."""
    matrix = np.eye(4)
    matrix[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    matrix[:3, :3] *= scale
    matrix[:3, 3] = (1, -2, 3)
    before = deep(1)
    after = before.transformed(matrix)
    pixels = np.array([[3.5, 4.5], [8.5, 7.5]])
    old, new = (s.views[0].camera.unproject(pixels, array(s.views[0].depth())[[4, 7], [3, 8]]) for s in (before, after))
    assert new == pytest.approx(apply_transform(matrix, old), rel=1e-5, abs=1e-5)
    assert np.array_equal(array(after.views[0].normals()), array(before.views[0].normals()))
    assert array(after.points) == pytest.approx(apply_transform(matrix, array(before.points)))


def test_depth_files_are_scaled_and_read_when_asked_for(tmp_path: Path) -> None:
    values = np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE) * 100
    path = tmp_path / "depth.png"
    view = replace(views(1)[0], depth_source=path, depth_scale=1e-3)
    with pytest.raises(InputError, match="there is no such file"):
        view.depth()
    Image.fromarray(values).save(path)
    assert array(view.depth()) == pytest.approx(values * 1e-3, rel=1e-6)


def test_a_mask_in_memory_replaces_the_alpha(tmp_path: Path) -> None:
    written(tmp_path)
    mask = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE)
    for view in (ViewSet.load(tmp_path).views[0], views(1)[0]):
        rgba = replace(view, mask=mask).rgba()
        assert np.array_equal(rgba[..., 3], mask)
        assert np.array_equal(rgba[..., :3], view.rgba()[..., :3])


# --- what other tools write ---------------------------------------------------------------------------------------


def test_intrinsics_may_stand_at_the_top_for_all_frames(tmp_path: Path) -> None:
    content = written(tmp_path)
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        content[key] = content["frames"][0][key]
        for frame in content["frames"]:
            frame.pop(key)
    content["frames"][1]["fl_x"] = 77.0  # a frame's own value wins
    rewrite(tmp_path, content)
    loaded = ViewSet.load(tmp_path)
    assert [v.camera.fx for v in loaded] == [content["fl_x"], 77.0, content["fl_x"]]


def test_three_row_matrices_and_missing_endings(tmp_path: Path) -> None:
    content = written(tmp_path)
    expected = content["frames"][0]["transform_matrix"]
    content["frames"][0]["transform_matrix"] = expected[:3]
    content["frames"][0]["file_path"] = "./images/view_00"
    rewrite(tmp_path, content)
    view = ViewSet.load(tmp_path).views[0]
    assert view.camera.c2w.tolist() == expected
    assert view.rgba().shape == (SIZE, SIZE, 4)


def test_alpha_is_the_mask_where_no_mask_files_are(tmp_path: Path) -> None:
    content = written(tmp_path)
    for frame in content["frames"]:
        del frame["mask_path"]
    rewrite(tmp_path, content)
    loaded = ViewSet.load(tmp_path)
    assert loaded.has_masks
    assert np.array_equal(loaded.views[2].rgba(), views(3)[2].rgba())


def test_a_mask_file_replaces_the_alpha(tmp_path: Path) -> None:
    written(tmp_path)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[3:5] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "view_01.png")
    assert np.array_equal(ViewSet.load(tmp_path).views[1].rgba()[..., 3], mask)


def test_lens_models_without_distortion_are_pinholes(tmp_path: Path) -> None:
    content = written(tmp_path)
    content["k1"] = content["frames"][0]["p2"] = 0
    rewrite(tmp_path, content)
    assert len(ViewSet.load(tmp_path)) == 3


# --- what can be wrong --------------------------------------------------------------------------------------------


FRAME_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "absolute path": ({"file_path": "/etc/passwd"}, "leaves the capture folder"),
    "parent path": ({"file_path": "images/../../secret.png"}, "leaves the capture folder"),
    "windows drive": ({"file_path": "C:\\pictures\\a.png"}, "leaves the capture folder"),
    "windows parent": ({"file_path": "..\\a.png"}, "leaves the capture folder"),
    "parent mask": ({"mask_path": "../mask.png"}, "leaves the capture folder"),
    "no path": ({"file_path": None}, "file_path is missing"),
    "empty path": ({"file_path": ""}, "file_path is missing"),
    "dot path": ({"file_path": "."}, "file_path"),
    "path of another type": ({"file_path": 7}, "file_path is missing"),
    "mask of another type": ({"mask_path": 7}, "mask_path"),
    "no matrix": ({"transform_matrix": None}, "transform_matrix"),
    "matrix of words": ({"transform_matrix": [["a"] * 4] * 4}, "transform_matrix is not a matrix of numbers"),
    "ragged matrix": ({"transform_matrix": [[1, 2], [3]]}, "transform_matrix is not a matrix of numbers"),
    "small matrix": ({"transform_matrix": [[1, 0], [0, 1]]}, "transform_matrix"),
    "matrix of huge integers": ({"transform_matrix": [[10**400] * 4] * 4}, "transform_matrix"),
    "matrix with NaN": ({"transform_matrix": [[math.nan] * 4] * 4}, "finite 4x4"),
    "mirrored": ({"transform_matrix": np.diag([-1.0, 1, 1, 1]).tolist()}, "mirrored"),
    "NaN focal length": ({"fl_x": math.nan}, "fl_x is not a finite number"),
    "infinite principal point": ({"cx": math.inf}, "cx is not a finite number"),
    "huge integer": ({"cy": 10**400}, "cy is not a finite number"),
    "size in words": ({"w": "12"}, "w is not a finite number"),
    "truth as size": ({"h": True}, "h is not a finite number"),
    "negative focal length": ({"fl_y": -5}, "positive size and focal length"),
    "zero size": ({"w": 0}, "positive size and focal length"),
    "bad weight": ({"viewloom_weight": "much"}, "viewloom_weight is not a finite number"),
    "bad distortion": ({"k2": "none"}, "k2 is not a finite number"),
    "infinite distortion": ({"k2": -math.inf}, "k2 is not a finite number"),
    "distortion list": ({"distortion_params": [0.1]}, "must be a list of k1, k2, k3, k4, p1, p2"),
    "distortion list of words": ({"distortion_params": ["a"] * 6}, "k1 is not a finite number"),
    "fifth term": ({"camera_model": "OPENCV", "k5": 0.1}, "k5 and k6 have no meaning.*name camera_model FULL_OPENCV"),
    "angular polynomial": ({"ftheta_p0": 0.1}, "'ftheta_p0' is not supported"),
    "skewed calibration": ({"fl_x": None, "intrinsic_matrix": [[9, 3, 5], [0, 9, 5], [0, 0, 1]]}, "has a skew of 3"),
    "calibration of words": ({"fl_x": None, "intrinsic_matrix": "K"}, "intrinsic_matrix"),
    "panorama": ({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR.*not supported"),
    "model of another type": ({"camera_model": [1]}, "not supported"),
    "singular": ({"transform_matrix": np.diag([1.0, 1, 0, 1]).tolist()}, "singular"),
    "sheared": ({"transform_matrix": [[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "not orthonormal"),
    "projective": ({"transform_matrix": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]}, "last row"),
    "half a pixel": ({"w": 12.5}, "w must be a whole number"),
    "bad depth unit": ({"depth_unit_scale_factor": -1}, "depth_unit_scale_factor must be positive"),
    "absolute depth": ({"depth_file_path": "/d.png"}, "leaves the capture folder"),
    "parent normals": ({"viewloom_normal_path": "a/../../n.npy"}, "leaves the capture folder"),
}


@pytest.mark.parametrize(("change", "message"), FRAME_FAULTS.values(), ids=FRAME_FAULTS)
def test_faults_of_a_frame_name_file_and_frame(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content = written(tmp_path)
    content["frames"][1].update(change)
    rewrite(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        ViewSet.load(tmp_path)
    assert str(tmp_path / "transforms.json") in str(caught.value)
    assert "frame 1" in str(caught.value)


def test_rotations_that_are_scaled_are_put_right_and_told(tmp_path: Path) -> None:
    content = written(tmp_path)
    expected = np.array(content["frames"][1]["transform_matrix"])
    content["frames"][1]["transform_matrix"] = (expected @ np.diag([2.0, 2, 2, 1])).tolist()
    rewrite(tmp_path, content)
    views = ViewSet.load(tmp_path)
    assert views.views[1].camera.c2w == pytest.approx(expected)
    assert views.metadata["notes"] == [
        "rotations in transform_matrix are not of length one: the scale was taken out of them"
    ]


@pytest.mark.parametrize("key", ["file_path", "transform_matrix", "fl_x"])
def test_missing_keys_are_named(tmp_path: Path, key: str) -> None:
    content = written(tmp_path)
    del content["frames"][2][key]
    rewrite(tmp_path, content)
    with pytest.raises(InputError, match=rf"frame 2: {key} is missing"):
        ViewSet.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a capture file"),
        ("{", "is not a capture file"),
        ("[]", "is not a capture file"),
        ("7", "is not a capture file"),
        ("{}", "is not a capture file"),
        ('{"frames": []}', "lists no frames"),
        ('{"frames": null}', "lists no frames"),
        ('{"frames": {"a": 1}}', "is not a capture file"),
        ('{"frames": 3}', "is not a capture file"),
        ('{"frames": ["a.png"]}', "frame 0: is not an object"),
    ],
)
def test_files_that_are_no_captures(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "transforms.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        ViewSet.load(tmp_path)


def test_a_capture_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "transforms.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(InputError, match="is not a capture file"):
        ViewSet.load(tmp_path)


def test_a_folder_without_a_capture(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"transforms\.json is missing"):
        ViewSet.load(tmp_path)


def test_facts_of_another_type(tmp_path: Path) -> None:
    content = written(tmp_path)
    content["viewloom"] = ["surprise"]
    rewrite(tmp_path, content)
    with pytest.raises(InputError, match="viewloom"):
        ViewSet.load(tmp_path)


def test_masks_for_some_frames_only(tmp_path: Path) -> None:
    content = written(tmp_path)
    del content["frames"][0]["mask_path"]
    rewrite(tmp_path, content)
    with pytest.raises(InputError, match=r"2 of 3 frames have a mask.*for all frames or for none"):
        ViewSet.load(tmp_path)


def test_two_frames_of_one_name(tmp_path: Path) -> None:
    content = written(tmp_path)
    content["frames"].append(content["frames"][1])
    rewrite(tmp_path, content)
    with pytest.raises(InputError, match="two views have the same name 'view_01'"):
        ViewSet.load(tmp_path)


def test_missing_pictures_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    written(tmp_path)
    for name in ("view_01", "view_02"):
        (tmp_path / "images" / f"{name}.png").unlink()
    with pytest.raises(InputError, match=r"2 of 3 pictures are missing, the first is .*view_01\.png: there is no"):
        ViewSet.load(tmp_path)


def test_missing_masks_are_named(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "masks" / "view_02.png").unlink()
    with pytest.raises(InputError, match=r"1 of 3 masks are missing, the first is .*view_02\.png"):
        ViewSet.load(tmp_path)


def test_a_picture_of_another_size(tmp_path: Path) -> None:
    written(tmp_path)
    Image.new("RGB", (SIZE + 1, SIZE)).save(tmp_path / "images" / "view_01.png")
    with pytest.raises(InputError, match=r"frame 1, .*view_01.png: the picture is 13x12, its camera says 12x12"):
        ViewSet.load(tmp_path)


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    written(tmp_path)
    Image.new("L", (SIZE, SIZE + 2)).save(tmp_path / "masks" / "view_02.png")
    loaded = ViewSet.load(tmp_path)
    with pytest.raises(InputError, match="the mask is 12x14, its picture 12x12"):
        loaded.views[2].rgba()


def test_a_picture_that_changes_after_loading(tmp_path: Path) -> None:
    written(tmp_path)
    loaded = ViewSet.load(tmp_path)
    Image.new("RGB", (SIZE + 1, SIZE)).save(tmp_path / "images" / "view_01.png")
    (tmp_path / "images" / "view_02.png").unlink()
    with pytest.raises(InputError, match=r"the picture is 13x12, its camera says 12x12.*transforms\.json"):
        loaded.views[1].rgba()
    with pytest.raises(InputError, match="no such file"):
        loaded.views[2].rgba()


def test_a_first_picture_that_cannot_be_read(tmp_path: Path) -> None:
    content = written(tmp_path, masks=False)
    (tmp_path / "images" / "view_00.png").write_bytes(b"nothing")
    rewrite(tmp_path, content)
    with pytest.raises(InputError, match="cannot be read"):
        ViewSet.load(tmp_path)


def test_a_view_of_nothing() -> None:
    with pytest.raises(InputError, match="a: a view has neither pixels nor a file"):
        View("a", orbit_camera(0.0, 0.0)).rgba()


def test_an_unfinished_save_has_no_capture_file(tmp_path: Path) -> None:
    """The JSON comes last: a folder with one is whole."""
    broken = ViewSet((*views(1), View("lost", orbit_camera(0.0, 0.0))), has_masks=True)
    with pytest.raises(InputError):
        broken.save(tmp_path)
    assert not (tmp_path / "transforms.json").exists()


# --- anything at all ----------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=6,
)
KEYS = (
    "file_path",
    "mask_path",
    "transform_matrix",
    "fl_x",
    "fl_y",
    "cx",
    "cy",
    "w",
    "h",
    "k1",
    "viewloom_weight",
    "camera_model",
    "distortion_params",
    "camera_angle_x",
    "depth_file_path",
    "viewloom_normal_path",
    "depth_unit_scale_factor",
    "is_fisheye",
)
TOP = ("frames", "viewloom", "applied_transform", "applied_scale", "ply_file_path", "train_filenames", "aabb_scale")
PLACES = [*((k, key) for k in (0, 1, 2, None) for key in KEYS), *((None, key) for key in TOP), (0, None)]


def loaded_or_refusal(folder: Path) -> ViewSet | InputError:
    """A view set, or the error that says why not; any other error passes through."""
    try:
        return ViewSet.load(folder)
    except InputError as error:
        return error


@pytest.mark.usefixtures("shapes_unchecked")
@settings(max_examples=300)
@given(place=st.sampled_from(PLACES), value=json_values)
def test_any_change_is_read_or_refused(
    sound: tuple[Path, dict[str, Any]], place: tuple[int | None, str | None], value: object
) -> None:
    """Whatever stands anywhere in a capture file, the answer is a view set or an InputError."""
    folder, content = sound[0], copy.deepcopy(sound[1])
    index, key = place
    if key is None:
        content["frames"][index] = value
    else:
        (content if index is None else content["frames"][index])[key] = value
    rewrite(folder, content)
    answer = loaded_or_refusal(folder)
    if isinstance(answer, InputError):
        assert str(folder) in str(answer) or "same name" in str(answer)
    else:
        assert all(np.isfinite(view.camera.c2w).all() for view in answer)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A capture folder whose file is rewritten again and again, and the sound content."""
    folder = tmp_path_factory.mktemp("capture")
    return folder, written(folder)


@pytest.mark.parametrize("as_stored", [True, False])
@pytest.mark.parametrize("mask_as_stored", [True, False])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_masks_fit_turned_pictures_as_stored_and_upright(
    tmp_path: Path, orientation: int, mask_as_stored: bool, as_stored: bool
) -> None:
    """Cameras see the pixels as stored or upright; masks may have been made for the others, which is told."""
    stored = np.zeros((16, 24), np.uint8)
    stored[2:7, 3:14] = 255
    turned = upright(stored, orientation)
    seen = stored if as_stored else turned
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = {"w": seen.shape[1], "h": seen.shape[0], "fl_x": 20.0, "fl_y": 20.0, "frames": []}
    for k in range(3):
        Image.fromarray(stored).save(tmp_path / f"{k}.jpg", exif=exif)
        Image.fromarray(stored if mask_as_stored else turned).save(tmp_path / f"m{k}.png")
        pose = orbit_camera(0.7 * k, 0.1, 1.5, size=16).c2w.tolist()
        content["frames"].append({"file_path": f"{k}.jpg", "mask_path": f"m{k}.png", "transform_matrix": pose})
    rewrite(tmp_path, content)
    found = ViewSet.load(tmp_path)
    for view in found:
        assert np.array_equal(view.rgba()[..., 3], seen)
    told = any("were turned to fit what the cameras see" in note for note in found.metadata.get("notes", []))
    assert told is (as_stored is not mask_as_stored)
