"""transforms.json as nerfstudio, instant-ngp and Blender write it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from scene.camera import Camera, Mat4
from scene.captures import world_from_original
from scene.errors import InputError
from scene.lens import Lens
from scene.viewset import ViewSet

Draw = Callable[..., list[Path]]
Same = Callable[..., None]


def content_of(cameras: list[Camera], pattern: str = "images/{:03d}.png") -> dict[str, Any]:
    """What nerfstudio writes for cameras of one calibration."""
    first = cameras[0]
    return {
        "fl_x": first.fx,
        "fl_y": first.fy,
        "cx": first.cx,
        "cy": first.cy,
        "w": first.width,
        "h": first.height,
        "frames": [{"file_path": pattern.format(k), "transform_matrix": c.c2w.tolist()} for k, c in enumerate(cameras)],
    }


def write(folder: Path, content: object, name: str = "transforms.json") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def names(cameras: list[Camera], pattern: str = "images/{:03d}.png") -> list[str]:
    return [pattern.format(k) for k in range(len(cameras))]


def test_a_nerfstudio_capture(tmp_path: Path, scene_cameras: list[Camera], draw: Draw, same: Same) -> None:
    draw(tmp_path, names(scene_cameras))
    content = content_of(scene_cameras) | {"train_filenames": ["images/nowhere.png"], "ply_file_path": "nowhere.ply"}
    write(tmp_path, content)
    views = ViewSet.load(tmp_path)
    same(views, scene_cameras)
    notes = ["the points nowhere.ply are missing: they were left out"]
    assert views.metadata == {"format": "nerfstudio", "up": "given", "notes": notes}
    assert not views.has_masks


@pytest.mark.parametrize("ending", [".png", ".jpg", ".jpeg", ".JPG"])
def test_blender_files_leave_out_endings_and_sizes(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, ending: str
) -> None:
    draw(tmp_path, names(scene_cameras, "train/r_{}" + ending))
    frames = content_of(scene_cameras, "./train/r_{}")["frames"]
    write(tmp_path, {"camera_angle_x": 0.7, "frames": frames}, "transforms_train.json")
    views = ViewSet.load(tmp_path)
    assert views.metadata["format"] == "blender"
    camera = views.views[3].camera
    assert (camera.width, camera.height, camera.cx, camera.cy) == (64, 48, 32, 24)
    assert camera.fx == camera.fy == pytest.approx(32 / math.tan(0.35))
    assert [view.name for view in views][:2] == ["r_0", "r_1"]


def test_other_splits_are_read_when_asked_for(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    for split in ("train", "val", "test"):
        pattern = split + "/r_{}"
        draw(tmp_path, names(scene_cameras, pattern + ".png"))
        content = {"camera_angle_x": 0.7, "frames": content_of(scene_cameras, pattern)["frames"]}
        write(tmp_path, content, f"transforms_{split}.json")
    assert len(ViewSet.load(tmp_path)) == 7
    both = ViewSet.load(tmp_path, splits=("train", "test"))
    assert len(both) == 14
    assert {view.name for view in both} >= {"train_r_0", "test_r_6"}
    assert len(ViewSet.load(tmp_path / "transforms_val.json")) == 7


def test_alpha_of_blender_files_is_the_mask(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path, names(scene_cameras), mode="RGBA")
    write(tmp_path, content_of(scene_cameras))
    assert ViewSet.load(tmp_path).has_masks


def test_opaque_alpha_is_no_mask(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    for path in draw(tmp_path, names(scene_cameras)):
        Image.open(path).convert("RGBA").save(path)
    write(tmp_path, content_of(scene_cameras))
    assert not ViewSet.load(tmp_path).has_masks


def test_alpha_in_some_pictures_only(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path, names(scene_cameras))
    draw(tmp_path, names(scene_cameras)[:2], mode="RGBA")
    write(tmp_path, content_of(scene_cameras))
    with pytest.raises(InputError, match=r"2 of 7 pictures have an alpha channel.*for all frames or for none"):
        ViewSet.load(tmp_path)


@pytest.mark.parametrize("listed", [False, True])
def test_a_distorted_capture_is_straightened(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, listed: bool
) -> None:
    """A dot drawn where the lens images a point lies where the view's pinhole camera sees it."""
    factors = {"k1": -0.2, "k2": 0.05, "p1": 0.002, "p2": -0.001}
    content = content_of(scene_cameras) | {"camera_model": "OPENCV"}
    if listed:
        content["distortion_params"] = [-0.2, 0.05, 0, 0, 0.002, -0.001]
    else:
        content |= factors
    draw(tmp_path, names(scene_cameras))
    camera = scene_cameras[2]
    point = camera.centre + 2 * camera.forward - 0.65 * camera.c2w[:3, 0] + 0.4 * camera.c2w[:3, 1]
    local = (point - camera.centre) @ camera.c2w[:3, :3] * [1, -1, -1]
    raw, _ = cv2.projectPoints(
        local[None], np.zeros(3), np.zeros(3), camera.intrinsics, np.array(list(factors.values()))
    )
    x, y = raw[0, 0] - 0.5
    picture = np.exp(-((np.arange(64) - x)[None] ** 2 + (np.arange(48) - y)[:, None] ** 2) / 4)
    Image.fromarray((picture * 255).astype(np.uint8)).convert("RGB").save(tmp_path / "images/002.png")
    write(tmp_path, content)
    views = ViewSet.load(tmp_path)
    seen = views.views[2].rgba()[..., 0].astype(float)
    rows, columns = np.indices(seen.shape) + 0.5
    centre = [(columns * seen).sum() / seen.sum(), (rows * seen).sum() / seen.sum()]
    expected, _ = views.views[2].camera.project(point)
    assert centre == pytest.approx(list(expected), abs=0.05)
    assert np.linalg.norm(camera.project(point)[0] - [x + 0.5, y + 0.5]) > 0.5  # there was something to undo
    assert "distortion was undone" in views.metadata["notes"][0]


def test_a_straightened_capture_saves_as_a_pinholes(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path / "a", names(scene_cameras), mode="RGBA")
    write(tmp_path / "a", content_of(scene_cameras) | {"k1": 0.1, "camera_model": "SIMPLE_RADIAL"})
    before = ViewSet.load(tmp_path / "a")
    before.save(tmp_path / "b")
    after = ViewSet.load(tmp_path / "b")
    for old, new in zip(before, after, strict=True):
        assert new.undistortion is None
        assert np.array_equal(old.camera.intrinsics, new.camera.intrinsics)
        assert np.array_equal(old.rgba(), new.rgba())


def test_depth_and_masks_are_straightened_with_the_picture(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw
) -> None:
    """Depth by the nearest value: no depth between object and background comes about."""
    draw(tmp_path, names(scene_cameras))
    draw(tmp_path, names(scene_cameras, "masks/{:03d}.png"), mode="L")
    step = np.where(np.arange(64)[None] < 56, np.uint16(1500), np.uint16(4000)).repeat(48, axis=0)
    content = content_of(scene_cameras) | {"k1": 0.15, "k2": -0.05}
    for k, frame in enumerate(content["frames"]):
        frame |= {"mask_path": f"masks/{k:03d}.png", "depth_file_path": f"d{k}.png"}
        Image.fromarray(step).save(tmp_path / f"d{k}.png")
    Image.fromarray((step > 2000).astype(np.uint8) * 255).save(tmp_path / "masks/000.png")
    write(tmp_path, content)
    view = ViewSet.load(tmp_path).views[0]
    depth, alpha = view.depth(), view.rgba()[..., 3]
    assert depth is not None
    assert np.unique(depth) == pytest.approx([1.5, 4.0])
    assert ((alpha > 127) == (depth > 2)).mean() > 0.98
    assert not np.array_equal(depth > 2, step > 2000)


@pytest.mark.parametrize("unit", [None, 0.01])
def test_depth_units(tmp_path: Path, scene_cameras: list[Camera], draw: Draw, unit: float | None) -> None:
    draw(tmp_path, names(scene_cameras))
    content = content_of(scene_cameras) | ({} if unit is None else {"depth_unit_scale_factor": unit})
    for k, frame in enumerate(content["frames"]):
        frame["depth_file_path"] = f"d{k}.png"
        Image.fromarray(np.full((48, 64), 1234, np.uint16)).save(tmp_path / f"d{k}.png")
    write(tmp_path, content)
    views = ViewSet.load(tmp_path)
    assert views.has_depths
    depth = views.views[0].depth()
    assert depth is not None
    assert depth == pytest.approx(1234 * (unit or 1e-3))


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"integer_depth_scale": 10 / 65535}, None),
        ({"integer_depth_scale": 10 / 65535, "enable_depth_loading": True}, None),
        ({"integer_depth_scale": 10 / 65535, "enable_depth_loading": False}, "enable_depth_loading is false"),
        ({}, "no integer_depth_scale says what a count is"),
        ({"integer_depth_scale": -1}, "no integer_depth_scale says what a count is"),
    ],
)
def test_depths_of_instant_ngp(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, changes: dict[str, Any], note: str | None
) -> None:
    """As phones stream them (NeRFCapture): counts of a 16-bit PNG, times one scale for all."""
    draw(tmp_path, names(scene_cameras))
    content = content_of(scene_cameras) | changes
    for k, frame in enumerate(content["frames"]):
        frame["depth_path"] = f"depth/{k}.png"
        (tmp_path / "depth").mkdir(exist_ok=True)
        Image.fromarray(np.full((24, 32), 13107, np.uint16)).save(tmp_path / "depth" / f"{k}.png")
    write(tmp_path, content)
    views = ViewSet.load(tmp_path)
    assert views.has_depths == (note is None)
    depth = views.views[0].depth()
    if note is None:
        assert depth == pytest.approx(2.0)
    else:
        assert any(note in said for said in views.metadata["notes"])


def test_a_fisheye_capture_is_straightened(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path, names(scene_cameras))
    write(tmp_path, content_of(scene_cameras) | {"camera_model": "OPENCV_FISHEYE", "k1": 0.02})
    view = ViewSet.load(tmp_path).views[0]
    assert view.undistortion is not None
    assert view.undistortion.lens.fisheye
    assert view.camera.fx != 70.0
    assert view.rgba().shape == (48, 64, 4)


@pytest.mark.parametrize("factor", [2, 4])
def test_evenly_reduced_pictures_get_reduced_intrinsics(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, factor: int
) -> None:
    draw(tmp_path, names(scene_cameras), (64 // factor, 48 // factor))
    write(tmp_path, content_of(scene_cameras))
    views = ViewSet.load(tmp_path)
    points = np.array([[0.1, 0.2, -0.1], [-0.2, 0.0, 0.1]])
    expected, _ = scene_cameras[0].project(points)
    assert views.views[0].camera.project(points)[0] == pytest.approx(expected / factor)
    assert views.metadata["notes"] == [
        f"pictures are {64 // factor}x{48 // factor}, their cameras 64x48: intrinsics were scaled"
    ]


@pytest.mark.parametrize("size", [(64, 47), (32, 25), (63, 48), (21, 17), (96, 71)])
def test_pictures_whose_sides_were_rounded_get_scaled_intrinsics(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, size: tuple[int, int]
) -> None:
    """Reduced at any factor, with each side rounded up or down: a pixel of uneven scale is no reason to refuse."""
    draw(tmp_path, names(scene_cameras), size)
    write(tmp_path, content_of(scene_cameras))
    views = ViewSet.load(tmp_path)
    points = np.array([[0.1, 0.2, -0.1], [-0.2, 0.0, 0.1]])
    expected, _ = scene_cameras[0].project(points)
    assert views.views[0].camera.project(points)[0] == pytest.approx(expected * np.array(size) / (64, 48))
    assert views.metadata["notes"] == [f"pictures are {size[0]}x{size[1]}, their cameras 64x48: intrinsics were scaled"]


@pytest.mark.parametrize("size", [(64, 45), (32, 27), (48, 64), (60, 48)])
def test_unevenly_reduced_pictures_are_refused(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, size: tuple[int, int]
) -> None:
    draw(tmp_path, names(scene_cameras), size)
    write(tmp_path, content_of(scene_cameras))
    with pytest.raises(InputError, match=rf"frame 0.*the picture is {size[0]}x{size[1]}, its camera says 64x48"):
        ViewSet.load(tmp_path)


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "infinite": ({"transform_matrix": [[-math.inf] * 4] * 3 + [[0, 0, 0, 1]]}, "frame 5: .*holds NaN or infinity"),
    "mirrored": ({"transform_matrix": np.diag([-1.0, 1, 1, 1]).tolist()}, "frame 5: a camera pose is mirrored"),
    "no picture": ({"file_path": "images/nowhere.png"}, r"1 of 7 pictures are missing .*nowhere\.png"),
    "no name": ({"file_path": None}, "frame 5: file_path is missing"),
    "no focal length": ({"fl_x": -3.0}, "frame 5: a camera needs a positive size"),
    "a lens": ({"k1": -90.0}, "frame 5: the lens distortion cannot be undone"),
    "outside": ({"file_path": "../../secret.png"}, "frame 5: the path .* leaves the capture folder"),
}


@pytest.mark.parametrize(("change", "message"), FAULTS.values(), ids=FAULTS)
def test_one_frame_of_no_use_is_left_out_and_told(
    tmp_path: Path,
    scene_cameras: list[Camera],
    draw: Draw,
    change: dict[str, Any],
    message: str,
    one_left_out: Callable[..., None],
) -> None:
    draw(tmp_path, names(scene_cameras))
    content = content_of(scene_cameras)
    content["frames"][5] |= change
    write(tmp_path, content)
    one_left_out(ViewSet.load(tmp_path), message)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("{here}/images/{k:03d}.png", False),
        ("/home/else/toy/images/{k:03d}.png", True),
        ("D:\\scans\\toy\\images\\{k:03d}.png", True),
        ("../images/{k:03d}.png", True),
        ("{k:03d}.png", True),
        ("./images\\{k:03d}.png", False),
    ],
)
def test_pictures_are_found_by_paths_of_any_machine(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, same: Same, path: str, told: bool
) -> None:
    draw(tmp_path, names(scene_cameras))
    content = content_of(scene_cameras)
    for k, frame in enumerate(content["frames"]):
        frame["file_path"] = path.format(here=tmp_path, k=k)
    write(tmp_path, content)
    views = ViewSet.load(tmp_path)
    same(views, scene_cameras)
    assert [view.name for view in views][:2] == ["000", "001"]
    assert ("7 pictures are not where the capture says" in " ".join(views.metadata.get("notes", []))) == told


def test_pictures_beside_the_capture_are_read_and_told(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, same: Same
) -> None:
    """As colmap2nerf writes them, from the folder in which it was started."""
    draw(tmp_path / "stall", names(scene_cameras))
    content = content_of(scene_cameras, "./..\\stall\\images/{:03d}.png")
    write(tmp_path / "capture", content)
    views = ViewSet.load(tmp_path / "capture")
    same(views, scene_cameras)
    assert "7 pictures lie outside of the capture's folder" in views.metadata["notes"][0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_calibrated_pictures_are_taken_as_stored(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, orientation: int
) -> None:
    """COLMAP and nerfstudio do not heed EXIF orientation: intrinsics are those of the stored pixels."""
    (path, *_) = draw(tmp_path, names(scene_cameras))
    image = Image.open(path)
    stored = np.asarray(image)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    write(tmp_path, content_of(scene_cameras))
    assert np.array_equal(ViewSet.load(tmp_path).views[0].rgba()[..., :3], stored)


def test_a_calibration_of_the_upright_picture_is_believed(tmp_path: Path, scene_cameras: list[Camera]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    Image.new("RGB", (48, 64)).save(tmp_path / "images/000.png", exif=exif)  # upright it is 64x48
    write(tmp_path, content_of(scene_cameras[:1]))
    assert ViewSet.load(tmp_path).views[0].rgba().shape == (48, 64, 4)


def straightened(folder: Path, cameras: list[Camera], draw: Draw, **said: object) -> ViewSet:
    """A capture whose file says more than usual."""
    draw(folder, names(cameras))
    write(folder, content_of(cameras) | said)
    return ViewSet.load(folder)


def test_k4_is_nerfstudios_and_metashapes(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    """The coefficient of r^8 in the same polynomial; not that of OpenCV's rational model, which has to be named."""
    views = straightened(tmp_path, scene_cameras, draw, camera_model="OPENCV", k1=-0.1, k4=0.4)
    undistortion = views.views[0].undistortion
    assert undistortion is not None
    point = np.array([0.4, 0.3])  # at radius 0.5
    assert undistortion.lens.distort(point) == pytest.approx(point * (1 - 0.1 * 0.5**2 + 0.4 * 0.5**8))
    assert "k4 was taken for the coefficient of the radius's eighth power" in views.metadata["notes"][0]
    views = straightened(tmp_path, scene_cameras, draw, camera_model="FULL_OPENCV", k1=-0.1, k4=0.4)
    undistortion = views.views[0].undistortion
    assert undistortion is not None
    assert undistortion.lens.distort(point) == pytest.approx(point * (1 - 0.1 * 0.5**2) / (1 + 0.4 * 0.5**2))


HINTS: dict[str, tuple[dict[str, object], dict[str, object], str]] = {
    "k5": ({"k5": 0.1}, {"camera_model": "FULL_OPENCV"}, "name camera_model FULL_OPENCV"),
    "model": ({"camera_model": "EQUIRECTANGULAR"}, {"camera_model": "PINHOLE"}, "Undistort the pictures to a pinhole"),
    "ftheta": ({"ftheta_p0": 0.1}, {"ftheta_p0": None}, "Undistort the pictures to a pinhole"),
    "focal length": ({"fl_x": None}, {"fl_x": 70.0}, r"Give fl_x \(pixels\)"),
    "angle": ({"fl_x": None}, {"camera_angle_x": 0.8}, r"or camera_angle_x \(radians\)"),
}


@pytest.mark.parametrize(("fault", "mended", "hint"), HINTS.values(), ids=HINTS)
def test_what_a_hint_says_can_be_read(
    tmp_path: Path,
    scene_cameras: list[Camera],
    draw: Draw,
    fault: dict[str, object],
    mended: dict[str, object],
    hint: str,
) -> None:
    with pytest.raises(InputError, match=hint):
        straightened(tmp_path, scene_cameras, draw, **fault)
    assert len(straightened(tmp_path, scene_cameras, draw, **{**fault, **mended})) == 7


@pytest.mark.parametrize("said", [True, 1])
def test_the_fisheye_of_instant_ngp(tmp_path: Path, scene_cameras: list[Camera], draw: Draw, said: object) -> None:
    views = straightened(tmp_path, scene_cameras, draw, is_fisheye=said, k1=0.02, k4=-0.001, p1=0.01)
    undistortion = views.views[0].undistortion
    assert undistortion is not None
    assert undistortion.lens == Lens(k1=0.02, k4=-0.001, fisheye=True)
    assert "p1 and p2 have no meaning for a fisheye lens" in views.metadata["notes"][0]


@pytest.mark.parametrize("focal", [None, 50.0])
def test_captures_of_neus2(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, same: Same, focal: float | None
) -> None:
    """OpenCV axes, a calibration matrix in every frame (which wins over what is said for all), the object's cube."""
    draw(tmp_path, names(scene_cameras))
    content = {"from_na": True, "scale": 0.25, "offset": [0.5, 0.5, 0.6], "aabb_scale": 1, "fl_x": focal}
    content |= {"w": 64, "h": 48, "frames": content_of(scene_cameras)["frames"]}
    calibration = np.eye(4)
    calibration[:3, :3] = scene_cameras[0].intrinsics
    for frame, camera in zip(content["frames"], scene_cameras):
        frame["transform_matrix"] = (camera.c2w @ np.diag([1.0, -1, -1, 1])).tolist()
        frame["intrinsic_matrix"] = calibration.tolist()
    write(tmp_path, content, "transforms_train.json")
    views = ViewSet.load(tmp_path)
    same(views, scene_cameras)
    assert views.metadata["format"] == "neus2"
    assert views.metadata["region"]["centre"] == pytest.approx([0, 0, -0.4])
    assert views.metadata["region"]["radius"] == 2.0


REGIONS: dict[str, tuple[dict[str, object], list[float], float]] = {
    "neuralangelo": ({"sphere_center": [1, 2, 3], "sphere_radius": 0.5, "aabb_range": [[0, 1]] * 3}, [1, 2, 3], 0.5),
    "range": ({"aabb_range": [[0, 2], [1, 3], [2, 4]]}, [1, 2, 3], math.sqrt(3)),
    "box": ({"aabb": [[0, 1, 2], [2, 3, 4]], "scale": 0.5}, [1, 2, 3], math.sqrt(3)),
    "cube": ({"scale": 0.5, "offset": [0.5, 0.5, 0]}, [0, 0, 1], 1.0),
    "one offset": ({"offset": 0.5}, [0, 0, 0], 0.5 / 0.33),
}


@pytest.mark.parametrize(("said", "centre", "radius"), REGIONS.values(), ids=REGIONS)
def test_regions_of_interest(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, said: dict[str, object], centre: list[float], radius: float
) -> None:
    views = straightened(tmp_path, scene_cameras, draw, **said)
    assert views.metadata["region"] == {"centre": pytest.approx(centre), "radius": pytest.approx(radius)}
    assert "the region of interest" in views.metadata["notes"][0]


@pytest.mark.parametrize(
    ("said", "note"),
    [
        ({"aabb_scale": 16}, "aabb_scale was not used"),
        ({"sphere_center": [1, 2], "sphere_radius": 1}, "sphere_center, sphere_radius were not used"),
        ({"sphere_center": [1, 2, 3], "sphere_radius": -1}, "sphere_center, sphere_radius were not used"),
        ({"aabb": [[1, 1, 1]] * 2}, "aabb was not used"),
        ({"scale": "x", "offset": 0.5}, "scale, offset were not used"),
        ({"render_aabb": [[0, 0, 0], [1, 1, 1]], "sk_x": 0.0}, "render_aabb was not used"),
    ],
)
def test_keys_that_are_not_used_are_named(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, said: dict[str, object], note: str
) -> None:
    views = straightened(tmp_path, scene_cameras, draw, **said)
    assert views.metadata["notes"] == [note]
    assert "region" not in views.metadata


def test_the_way_back_to_the_original_world(tmp_path: Path, file_cameras: list[Camera], draw: Draw, same: Same) -> None:
    """COLMAP's axes permuted and a scale, as nerfstudio's import leaves them."""
    applied = np.array([[1.0, 0, 0, 0.5], [0, 0, 1, 0], [0, -1, 0, 2], [0, 0, 0, 1]])
    saved = []
    for camera in file_cameras:
        c2w = applied @ camera.c2w
        c2w[:3, 3] *= 0.25
        saved.append(Camera(c2w, camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height))
    draw(tmp_path, names(saved))
    write(tmp_path, content_of(saved) | {"applied_transform": applied[:3].tolist(), "applied_scale": 0.25})
    views = ViewSet.load(tmp_path)
    centres = np.array([camera.centre for camera in file_cameras])
    world = world_from_original(views.metadata)
    found = np.array([view.camera.centre for view in views])
    assert found == pytest.approx(centres @ world[:3, :3].T + world[:3, 3])


@pytest.mark.parametrize(
    "applied", [[[1, 2], [3]], "x", [[1, 0, 0, 0]] * 3, [[math.nan] * 4] * 3, [[0] * 4] * 4, [[10**400] * 4] * 3]
)
def test_applied_transforms_that_cannot_be_undone(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, applied: object
) -> None:
    draw(tmp_path, names(scene_cameras))
    write(tmp_path, content_of(scene_cameras) | {"applied_transform": applied})
    with pytest.raises(InputError, match="applied_transform"):
        ViewSet.load(tmp_path)


@pytest.mark.parametrize("off", [1e-4, 3e-3])
def test_rotations_that_are_slightly_off_are_put_right(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, off: float
) -> None:
    draw(tmp_path, names(scene_cameras))
    content = content_of(scene_cameras)
    rng = np.random.default_rng(0)
    for frame in content["frames"]:
        matrix = np.array(frame["transform_matrix"])
        matrix[:3, :3] *= 1 + off
        matrix[:3, :3] += rng.uniform(-off, off, (3, 3)) / 4
        frame["transform_matrix"] = matrix.tolist()
    write(tmp_path, content)
    for view, camera in zip(ViewSet.load(tmp_path), scene_cameras):
        rotation = view.camera.c2w[:3, :3]
        assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-12)
        assert rotation == pytest.approx(camera.c2w[:3, :3], abs=2 * off)
        assert np.array_equal(view.camera.centre, camera.centre)


@pytest.mark.parametrize("angle", [0.0, math.pi, -1, math.nan, "wide"])
def test_camera_angles_that_are_none(tmp_path: Path, scene_cameras: list[Camera], draw: Draw, angle: object) -> None:
    draw(tmp_path, names(scene_cameras))
    write(tmp_path, {"camera_angle_x": angle, "frames": content_of(scene_cameras)["frames"]})
    with pytest.raises(InputError, match="frame 0: camera_angle_x"):
        ViewSet.load(tmp_path)


def test_a_principal_point_that_is_not_given_is_noted(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path, names(scene_cameras))
    content = {"fl_x": 70.0, "aabb_scale": 4, "frames": content_of(scene_cameras)["frames"]}
    write(tmp_path, content)
    views = ViewSet.load(tmp_path)
    assert views.metadata["format"] == "instant-ngp"
    assert "principal point" in views.metadata["notes"][0]
    assert (views.views[0].camera.cx, views.views[0].camera.fy) == (32, 70)


def test_pictures_of_several_folders_keep_apart(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    content = content_of(scene_cameras)
    for k, frame in enumerate(content["frames"]):
        frame["file_path"] = f"cam{k}/0001.png"
    draw(tmp_path, [frame["file_path"] for frame in content["frames"]])
    write(tmp_path, content)
    assert [view.name for view in ViewSet.load(tmp_path)][:2] == ["cam0_0001", "cam1_0001"]


def test_sparse_points_come_along(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path, names(scene_cameras))
    rows = "0 0 0 9\n1.5 2 3 9\nnan 0 0 9\n"
    head = "ply\nformat ascii 1.0\ncomment made by hand\nelement vertex 3\n"
    properties = "".join(f"property float {axis}\n" for axis in "xyz") + "property uchar red\nend_header\n"
    (tmp_path / "sparse.ply").write_text(head + properties + rows)
    write(tmp_path, content_of(scene_cameras) | {"ply_file_path": "sparse.ply"})
    points = ViewSet.load(tmp_path).points
    assert points is not None
    assert points.tolist() == [[0, 0, 0], [1.5, 2, 3]]


def test_reduced_pictures_are_noted_once_in_a_saved_set(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw
) -> None:
    draw(tmp_path / "a", names(scene_cameras), (32, 24))
    write(tmp_path / "a", content_of(scene_cameras))
    first = ViewSet.load(tmp_path / "a")
    first.save(tmp_path / "b")
    assert ViewSet.load(tmp_path / "b").metadata == first.metadata
    assert len(first.metadata["notes"]) == 1


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "transforms.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="is not a capture file"):
        ViewSet.load(tmp_path)


def test_a_world_that_is_not_turned_leads_back_by_nothing() -> None:
    identity: Mat4 = world_from_original({})
    assert np.array_equal(identity, np.eye(4))
