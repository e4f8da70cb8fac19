"""Cameras of networks come back as those of the photos, in whatever way a program made its pictures of these."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scene.camera import Camera, look_at
from scene.captures import load_capture
from scene.captures.network_pictures import MANNERS, way_of
from scene.errors import InputError
from scene.viewset import ViewSet

COUNT, FOCAL = 5, 130.0
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
"""Between OpenGL's and OpenCV's camera axes."""
Placed = tuple[Image.Image, Callable[[np.ndarray], np.ndarray]]
"""A network's picture, and where a photo's points are in it."""


def cameras(width: int, height: int) -> list[Camera]:
    found = []
    for k in range(COUNT):
        angle = 2 * math.pi * k / COUNT
        centre = np.array([3 * math.cos(angle), 3 * math.sin(angle), 1.0 + 0.2 * (k % 2)])
        found.append(Camera(look_at(centre), FOCAL, FOCAL, width / 2 + 1, height / 2 - 2, width, height))
    return found


def pictures(width: int, height: int) -> list[Image.Image]:
    """Photos that differ, with structure of a few pixels everywhere."""
    draw = np.random.default_rng(3)
    found = []
    for _ in range(COUNT):
        rough = Image.fromarray(draw.integers(0, 256, (height // 6 + 2, width // 6 + 2, 3), dtype=np.uint8))
        found.append(rough.resize((width, height), Image.Resampling.BICUBIC))
    return found


# --- how the programs make their pictures, after their source ---------------------------------------------------------


def cropped(photo: Image.Image, side: int = 112) -> Placed:
    width, height = photo.size
    new = round(height * (side / width) / 14) * 14
    made, cut = photo.resize((side, new), Image.Resampling.BICUBIC), 0
    if new > side:
        cut = (new - side) // 2
        made = made.crop((0, cut, side, cut + side))
    return made, lambda p: p * [side / width, new / height] - [0, cut]


def padded(photo: Image.Image, side: int = 112) -> Placed:
    width, height = photo.size
    if width >= height:
        new = (side, round(height * (side / width) / 14) * 14)
    else:
        new = (round(width * (side / height) / 14) * 14, side)
    left, top = (side - new[0]) // 2, (side - new[1]) // 2
    made = Image.new("RGB", (side, side), "white")
    made.paste(photo.resize(new, Image.Resampling.BICUBIC), (left, top))
    return made, lambda p: p * [new[0] / width, new[1] / height] + [left, top]


def squared(photo: Image.Image, side: int = 112) -> Placed:
    width, height = photo.size
    most = max(photo.size)
    left, top = (most - width) // 2, (most - height) // 2
    made = Image.new("RGB", (most, most))
    made.paste(photo, (left, top))
    return made.resize((side, side), Image.Resampling.BILINEAR), lambda p: (p + np.array([left, top])) * side / most


def covering(photo: Image.Image, size: tuple[int, int] = (112, 70)) -> Placed:
    width, height = photo.size
    scale = max(size[0] / width, size[1] / height) + 1e-8
    new = (int(width * scale), int(height * scale))
    left, top = (new[0] - size[0]) // 2, (new[1] - size[1]) // 2
    made = photo.resize(new, Image.Resampling.LANCZOS).crop((left, top, left + size[0], top + size[1]))
    return made, lambda p: p * [new[0] / width, new[1] / height] - [left, top]


def stretched(photo: Image.Image, size: tuple[int, int] = (112, 70)) -> Placed:
    made = photo.resize(size, Image.Resampling.BOX)
    return made, lambda p: p * [size[0] / photo.size[0], size[1] / photo.size[1]]


# --- what they save ---------------------------------------------------------------------------------------------------


def predictions(
    true: list[Camera], placed: list[Placed], *, program: str = "vggt", looks: bool = True, far: float = 3.0
) -> dict[str, Any]:
    """The arrays of a program for photos in its pictures; every pixel is as far along its axis."""
    first = np.linalg.inv(true[0].c2w @ FLIP)
    poses = np.stack([first @ camera.c2w @ FLIP for camera in true])
    matrices, depths, worlds = [], [], []
    for camera, pose, (picture, place) in zip(true, poses, placed, strict=True):
        ends = place(np.array([[0.0, 0.0], [1000.0, 1000.0]]))
        (sx, sy), (px, py) = (ends[1] - ends[0]) / 1000, place(np.array([[camera.cx, camera.cy]]))[0]
        shift = 0.5 if program == "mapanything" else 0.0  # it counts from the first pixel's centre
        matrices.append([[camera.fx * sx, 0, px - shift], [0, camera.fy * sy, py - shift], [0, 0, 1]])
        width, height = picture.size
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        depth = np.full((height, width), far)
        (fx, _, cx), (_, fy, cy) = matrices[-1][:2]
        local = np.stack([(x - cx) / fx * depth, (y - cy) / fy * depth, depth], axis=-1)
        depths.append(depth)
        worlds.append(local @ pose[:3, :3].T + pose[:3, 3])
    shown = np.stack([np.asarray(picture, np.float32) / 255 for picture, _ in placed])
    out = {
        "intrinsic": np.array(matrices, np.float32),
        "depth": np.array(depths, np.float32)[..., None],
        "world_points": np.array(worlds, np.float32),
    }
    if program == "mapanything":
        out |= {"extrinsic": poses.astype(np.float32), "conf": np.ones(shown.shape[:3], np.float32)}
        return out | {"final_mask": np.ones(shown.shape[:3], bool)} | ({"images": shown} if looks else {})
    out["extrinsic"] = np.linalg.inv(poses)[:, :3].astype(np.float32)
    out |= {"depth_conf": np.ones(shown.shape[:3], np.float32), "pose_enc_list": np.array(None, object)}
    return out | ({"images": shown.transpose(0, 3, 1, 2)} if looks else {})


def saved(
    folder: Path, size: tuple[int, int], way: Callable[[Image.Image], Placed], names: str = "a b c d e", **how: Any
) -> tuple[Path, dict[str, Camera], dict[str, Any]]:
    """Write a capture as a program leaves it: the folder, its true cameras by name, and the arrays of its file."""
    (folder / "images").mkdir(parents=True)
    true, photos = cameras(*size), pictures(*size)
    for name, photo in zip(names.split(), photos, strict=True):
        photo.save(folder / "images" / f"{name}.png")
    content = predictions(true, [way(photo) for photo in photos], **how)
    np.savez(folder / "predictions.npz", **content)
    return folder, dict(zip(names.split(), true, strict=True)), content


def as_true(
    views: ViewSet, true: dict[str, Camera], *, centre: float = 0.02, size: tuple[int, int] | None = None
) -> None:
    """The set's cameras are the true ones up to one motion of the world; intrinsics are the photos'."""
    assert views.metadata["format"] == "predictions"
    assert [view.name for view in views] == sorted(true)
    one, other = views.views[0].camera.c2w, true[views.views[0].name].c2w
    motion = one @ np.linalg.inv(other)
    for view in views:
        camera = true[view.name]
        assert view.camera.c2w == pytest.approx(motion @ camera.c2w, abs=1e-5)
        assert (view.camera.width, view.camera.height) == (size or (camera.width, camera.height))
        assert (view.camera.fx, view.camera.fy) == pytest.approx((camera.fx, camera.fy), rel=1e-5)
        assert (view.camera.cx, view.camera.cy) == pytest.approx((camera.cx, camera.cy), abs=centre)
        assert view.rgba().shape[:2] == (view.camera.height, view.camera.width)


def said(views: ViewSet, text: str) -> bool:
    return any(text in note for note in views.metadata["notes"])


# --- tests ------------------------------------------------------------------------------------------------------------

LANDSCAPE, PORTRAIT = (150, 96), (96, 150)


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("size", [LANDSCAPE, PORTRAIT])
def test_vggt_crops_photos_that_are_higher_than_wide(size: tuple[int, int], looks: bool, tmp_path: Path) -> None:
    folder, true, _ = saved(tmp_path / "toy", size, cropped, looks=looks)
    views = load_capture(folder)
    as_true(views, true)
    assert said(views, "paired in order of their names, from a.png to e.png") is not looks
    assert views.points is not None
    assert len(views.points) > 1000
    # As far as the depths say: every point is 3 in front of one of the cameras.
    ahead = np.stack([(views.points - view.camera.centre) @ view.camera.forward for view in views])
    assert np.abs(ahead - 3).min(axis=0).max() < 1e-4


@pytest.mark.parametrize("size", [LANDSCAPE, PORTRAIT])
@pytest.mark.parametrize("way", [padded, squared])
def test_padding_is_told_from_cropping_by_what_the_network_saw(
    way: Callable[[Image.Image], Placed], size: tuple[int, int], tmp_path: Path
) -> None:
    folder, true, _ = saved(tmp_path / "toy", size, way)
    views = load_capture(folder)
    as_true(views, true)
    assert said(views, f"taken to be {way.__name__} photos")


def test_padding_without_pictures_is_told_by_the_shape_where_that_can_be(tmp_path: Path) -> None:
    folder, true, _ = saved(tmp_path / "toy", LANDSCAPE, padded, looks=False)
    views = load_capture(folder)
    as_true(views, true)
    assert said(views, "taken to be padded photos")


@pytest.mark.parametrize("looks", [True, False])
def test_mapanything_has_the_same_keys_and_the_opposite_poses(looks: bool, tmp_path: Path) -> None:
    folder, true, content = saved(tmp_path / "toy", LANDSCAPE, covering, looks=looks, program="mapanything")
    as_true(load_capture(folder), true)
    # Without anything to tell the direction by, the shape of the matrices does.
    del content["world_points"]
    np.savez(folder / "predictions.npz", **content)
    as_true(load_capture(folder), true)


def test_the_points_of_a_file_say_which_way_its_poses_go(tmp_path: Path) -> None:
    folder, true, content = saved(tmp_path / "toy", LANDSCAPE, covering, program="mapanything")
    content["extrinsic"] = content["extrinsic"][:, :3]
    np.savez(folder / "predictions.npz", **content)
    views = load_capture(folder)
    assert said(views, "extrinsic was taken as camera-to-world")
    as_true(views, true, centre=0.8)  # half a pixel of the network's: nothing says that they count in another way


def test_depth_anything_stretches(tmp_path: Path) -> None:
    folder, true, content = saved(tmp_path / "toy", LANDSCAPE, stretched)
    content = {
        "extrinsics": content["extrinsic"],
        "intrinsics": content["intrinsic"],
        "depth": content["depth"][..., 0],
    }
    (folder / "predictions.npz").unlink()
    np.savez_compressed(folder / "results.npz", **content)
    as_true(load_capture(folder), true)


def test_depths_may_have_their_channel_first(tmp_path: Path) -> None:
    folder, true, content = saved(tmp_path / "toy", LANDSCAPE, stretched)
    shape = content["depth_conf"].shape
    for key in ("depth", "depth_conf"):
        content[key] = content[key].reshape(shape)[:, None]
    np.savez(folder / "predictions.npz", **content)
    views = load_capture(folder)
    as_true(views, true)
    assert views.points is not None


def test_confidences_that_are_no_numbers_are_not_sure(tmp_path: Path) -> None:
    folder, true, content = saved(tmp_path / "toy", LANDSCAPE, stretched)
    content["depth_conf"][:, :, :3] = np.nan
    np.savez(folder / "predictions.npz", **content)
    views = load_capture(folder)
    as_true(views, true)
    assert views.points is not None
    assert len(views.points) > 1000


def test_one_camera_that_is_no_number_costs_itself(tmp_path: Path) -> None:
    folder, true, content = saved(tmp_path / "toy", LANDSCAPE, stretched)
    content["extrinsic"][1, 0, 3] = np.nan
    content["intrinsic"][2, 0, 0] = np.inf
    np.savez(folder / "predictions.npz", **content)
    views = load_capture(folder)
    as_true(views, {name: camera for name, camera in true.items() if name not in "bc"})
    assert said(views, "NaN")


def test_points_lie_where_the_program_counts_its_pixels(tmp_path: Path) -> None:
    """MapAnything counts from the first pixel's centre: half a pixel beside it, depths make other points."""
    folder, true, content = saved(tmp_path / "toy", LANDSCAPE, covering, program="mapanything")
    views = load_capture(folder)
    motion = views.views[0].camera.c2w @ np.linalg.inv(true[views.views[0].name].c2w)
    first = motion @ true["a"].c2w @ FLIP  # the world of the file is the first camera's
    world = content["world_points"].reshape(-1, 3) @ first[:3, :3].T + first[:3, 3]
    assert views.points is not None
    gaps = np.linalg.norm(views.points[::97, None] - world[None], axis=2).min(axis=1)
    assert gaps.max() < 1e-4


def test_names_as_python_objects_are_not_needed(tmp_path: Path) -> None:
    folder, true, content = saved(tmp_path / "toy", LANDSCAPE, stretched)
    content["image_paths"] = np.array([Path(f"{name}.png") for name in "abcde"], object)
    np.savez(folder / "predictions.npz", **content)
    as_true(load_capture(folder), true)


def test_two_cameras_of_one_name_are_told(tmp_path: Path) -> None:
    folder, _, content = saved(tmp_path / "toy", LANDSCAPE, stretched)
    content["image_paths"] = np.array(["left/a.png", "b.png", "right/a.png", "d.png", "e.png"])
    np.savez(folder / "predictions.npz", **content)
    with pytest.raises(InputError, match=r"two pictures that are called a\.png"):
        load_capture(folder)


def test_plain_pictures_are_paired_by_order_and_it_is_told(tmp_path: Path) -> None:
    folder, _, content = saved(tmp_path / "toy", LANDSCAPE, cropped)
    content["images"] = np.zeros_like(content["images"])
    np.savez(folder / "predictions.npz", **content)
    assert said(load_capture(folder), "are plain: photos were paired in order of their names")


def test_pictures_of_another_shape_are_of_other_photos(tmp_path: Path) -> None:
    """Covered by a photo on its side, they would show half of it."""
    folder, _, _ = saved(
        tmp_path / "toy", PORTRAIT, lambda photo: covering(photo, (70, 112)), looks=False, program="mapanything"
    )
    for photo in (folder / "images").iterdir():
        Image.open(photo).rotate(90, expand=True).save(photo)
    with pytest.raises(InputError, match="predictions"):
        load_capture(folder)


def test_photos_of_other_names_are_paired_by_what_they_show(tmp_path: Path) -> None:
    folder, true, _ = saved(tmp_path / "toy", LANDSCAPE, cropped, names="d a e b c")
    pictures(60, 40)[0].rotate(180).save(folder / "images" / "f.png")  # one that the network was not given
    views = load_capture(folder)
    as_true(views, true)
    assert said(views, "paired with cameras by what they show")
    assert said(views, "1 of 6 pictures in the capture's folders were not used")


def test_names_in_the_file_count(tmp_path: Path) -> None:
    folder, true, content = saved(tmp_path / "toy", LANDSCAPE, cropped, names="d a e b c", looks=False)
    content["image_names"] = np.array([f"/home/me/IN/{name}.PNG" for name in true])
    np.savez(folder / "predictions.npz", **content)
    views = load_capture(folder)
    as_true(views, true)
    assert not said(views, "in order of their names")
    content["image_names"] = np.array(["x.png", *content["image_names"][1:]])
    np.savez(folder / "predictions.npz", **content)
    with pytest.raises(InputError, match=r"it lists x\.png, which is not in images/"):
        load_capture(folder, kind="predictions")


def test_pictures_that_look_like_no_photo_are_left_out(tmp_path: Path) -> None:
    folder, true, _ = saved(tmp_path / "toy", LANDSCAPE, cropped)
    (folder / "images" / "b.png").unlink()
    views = load_capture(folder)
    as_true(views, {name: camera for name, camera in true.items() if name != "b"})
    assert said(views, "1 of 5 of the network's pictures look like no photo here")
    for name in "acd":
        (folder / "images" / f"{name}.png").unlink()
    with pytest.raises(InputError, match="of the 5 pictures that the network saw, 1 look like one of 1 photos"):
        load_capture(folder)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("program", ["vggt", "mapanything"])
def test_vggt_sees_photos_as_stored_and_mapanything_as_shown(program: str, orientation: int, tmp_path: Path) -> None:
    shown = program == "mapanything"
    way = covering if shown else cropped
    folder, true, _ = saved(tmp_path / "toy", LANDSCAPE, way, program=program, looks=False)
    tag = Image.Exif()
    tag[0x0112] = orientation
    for name, photo in zip(true, pictures(*LANDSCAPE), strict=True):
        if shown:  # so that viewers turn it to what the network saw
            photo = photo.transpose({3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation])
        photo.save(folder / "images" / f"{name}.png", exif=tag)
    views = load_capture(folder)
    as_true(views, true)
    for view, photo in zip(views, pictures(*LANDSCAPE), strict=True):
        assert np.array_equal(view.rgba()[..., :3], np.asarray(photo))


def test_a_network_that_saw_turned_photos_is_believed_by_its_pictures(tmp_path: Path) -> None:
    """As VGGT's code, with one line that turns photos first: nothing but its pictures says so."""
    folder, true, _ = saved(tmp_path / "toy", LANDSCAPE, cropped)
    tag = Image.Exif()
    tag[0x0112] = 6
    for name, photo in zip(true, pictures(*LANDSCAPE), strict=True):
        photo.transpose(Image.Transpose.ROTATE_90).save(folder / "images" / f"{name}.png", exif=tag)
    views = load_capture(folder)
    as_true(views, true)
    assert said(views, "the network saw the photos turned as their EXIF data say")


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    folder, _, content = saved(tmp_path / "toy", LANDSCAPE, cropped, looks=False)

    def refused(said: str, **changed: Any) -> None:
        kept = {key: value for key, value in {**content, **changed}.items() if value is not None}
        np.savez(folder / "predictions.npz", **kept)
        with pytest.raises(InputError, match=said):
            load_capture(folder)

    refused(
        "does not make pictures of 112x280",
        **dict.fromkeys(("world_points", "depth_conf")),
        depth=np.ones((5, 280, 112)),
    )
    refused("nothing in it says how large", **dict.fromkeys(("depth", "world_points", "depth_conf")))
    refused("its depth is of shape", depth=content["depth"][:3])
    refused("not nx3x4 and nx3x3", extrinsic=np.zeros((5, 2, 2)))
    refused("extrinsic holds NaN or infinity", extrinsic=content["extrinsic"] * np.nan)
    refused("no positive focal lengths", intrinsic=-content["intrinsic"])
    refused("does not hold a rotation", extrinsic=content["extrinsic"] * 0)
    (folder / "images" / "a.png").unlink()
    refused(r"5 cameras, and 4 photos in images/")


def test_no_manner_loses_the_photo() -> None:
    """Wherever a manner leads to a size, the middle of the photo is near the middle of the picture."""
    for manner in MANNERS["VGGT"]:
        for size in ((4032, 3024), (3024, 4032), (1000, 1000), (17, 4000)):
            for picture in ((518, 518), (518, 392), (392, 518)):
                way = way_of(manner, size, picture)
                if way is not None:
                    middle = (size[0] / 2 * way.sx + way.left, size[1] / 2 * way.sy + way.top)
                    assert middle == pytest.approx((picture[0] / 2, picture[1] / 2), abs=1.01)
