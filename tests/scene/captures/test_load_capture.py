"""Finding out what kind of capture a folder is, named sides, and masks that must hold something."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scene.camera import DEFAULT_RADIUS, OBJECT_RADIUS, ZERO123_FOV, Camera, Mat4, orbit_camera
from scene.captures import FORMATS, load_capture
from scene.captures.named import read_named
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet

Draw = Callable[..., list[Path]]
LeftOut = Callable[..., None]
NAMES = [f"{k:03d}.png" for k in range(7)]


def write_transforms(folder: Path, cameras: list[Camera], *, masks: bool = False) -> None:
    frames = [
        {
            "file_path": name,
            "transform_matrix": camera.c2w.tolist(),
            **({"mask_path": f"masks/{name}"} if masks else {}),
        }
        for name, camera in zip(NAMES, cameras)
    ]
    content = {"fl_x": 70, "fl_y": 71, "cx": 33, "cy": 23.5, "w": 64, "h": 48, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))


def write_matrices(folder: Path, cameras: list[Camera]) -> None:
    for name, camera in zip(NAMES, cameras):
        w2c = np.linalg.inv(camera.c2w @ np.diag([1.0, -1, -1, 1]))
        (folder / f"{name[:-4]}_P.txt").write_text(" ".join(map(repr, (camera.intrinsics @ w2c[:3]).ravel().tolist())))


def test_the_capture_file_wins_over_what_it_was_made_from(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw
) -> None:
    draw(tmp_path, NAMES)
    write_matrices(tmp_path, scene_cameras)
    assert load_capture(tmp_path).metadata["format"] == "projections"
    write_transforms(tmp_path, scene_cameras)
    assert load_capture(tmp_path).metadata["format"] == "nerfstudio"
    assert load_capture(tmp_path / "transforms.json").metadata["format"] == "nerfstudio"
    assert load_capture(tmp_path, kind="projections").metadata["format"] == "projections"


def gaussians(cameras: list[Camera]) -> list[dict[str, object]]:
    """As 3D Gaussian Splatting writes its training cameras."""
    entries: list[dict[str, object]] = []
    for name, camera in zip(NAMES, cameras):
        c2w = camera.c2w @ np.diag([1.0, -1, -1, 1])
        place = {"position": c2w[:3, 3].tolist(), "rotation": c2w[:3, :3].tolist(), "fx": 70.0, "fy": 71.0}
        entries.append({"id": 0, "img_name": name[:-4], "width": 64, "height": 48, **place})
    return entries


def test_cameras_of_gaussian_splatting(
    tmp_path: Path, file_cameras: list[Camera], file_from_scene: Mat4, draw: Draw, same: Callable[..., None]
) -> None:
    draw(tmp_path / "images", NAMES)
    (tmp_path / "cameras.json").write_text(json.dumps(gaussians(file_cameras)))
    views = load_capture(tmp_path)
    middle = [Camera(c.c2w, 70.0, 71.0, 32.0, 24.0, 64, 48) for c in file_cameras]
    same(views, middle, upright=file_from_scene)
    assert (views.metadata["format"], views.metadata["up"]) == ("gaussians", "estimated")
    assert "principal point" in views.metadata["notes"][0]


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ('{"v2 unknown 192 brown": {"projection_type": "brown"}}', "cameras.json is of a kind that is not known here"),
        ("gaussians", r"was read, and cameras.json \(gaussians\) was not"),
        ('{"K": 1}', r"cameras.json could not be used \(is not a camera file with K and poses"),
        ("[1, 2", r"cameras.json could not be used \(cannot be read as JSON"),
    ],
)
def test_a_cameras_json_of_another_program_is_told_and_not_believed(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, content: str, note: str
) -> None:
    draw(tmp_path, NAMES)
    write_matrices(tmp_path, scene_cameras)
    text = json.dumps(gaussians(scene_cameras)) if content == "gaussians" else content
    (tmp_path / "cameras.json").write_text(text)
    views = load_capture(tmp_path)
    assert (views.metadata["format"], len(views)) == ("projections", 7)
    assert re.search(note, " ".join(views.metadata["notes"]))


def test_a_faulty_description_gives_way_to_the_next_and_is_told(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw
) -> None:
    draw(tmp_path, NAMES)
    write_matrices(tmp_path, scene_cameras)
    (tmp_path / "transforms.json").write_text('{"frames": []}')
    views = load_capture(tmp_path)
    assert views.metadata["format"] == "projections"
    assert views.metadata["notes"] == ["transforms.json could not be used (lists no frames)"]
    with pytest.raises(InputError, match="lists no frames"):
        load_capture(tmp_path, kind="nerfstudio")
    for file in tmp_path.glob("*_P.txt"):
        file.unlink()
    with pytest.raises(InputError, match="lists no frames"):
        load_capture(tmp_path)


def test_pictures_without_a_camera_are_counted(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path, [*NAMES, "000-depth.png"])
    write_transforms(tmp_path, scene_cameras[:5])
    assert load_capture(tmp_path).metadata["notes"] == [
        "2 of 7 pictures in the capture's folders were not used, the first is 005.png"
    ]


def test_our_own_folders_are_captures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (16, 16, 4), dtype=np.uint8)
    pixels[4:9, 4:9, 3] = 255
    saved = ViewSet((View("a", orbit_camera(0.0, 0.0, size=16), pixels),), True, {"origin": "test"})
    saved.save(tmp_path)
    loaded = load_capture(tmp_path)
    assert loaded.metadata == saved.metadata
    assert np.array_equal(loaded.views[0].rgba(), pixels)


def test_photos_without_poses_are_told_how_to_get_them(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path, NAMES)
    with pytest.raises(InputError, match=r"7 photos without poses") as caught:
        load_capture(tmp_path)
    assert caught.value.fix is not None
    assert f"`viewloom pose {tmp_path}`" in caught.value.fix


def test_the_error_says_what_was_looked_for_and_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "sub").mkdir()
    with pytest.raises(InputError, match=r"Found: notes\.txt, sub/") as caught:
        load_capture(tmp_path)
    assert all(form.looks_for in str(caught.value) for form in FORMATS)


def test_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Found: nothing"):
        load_capture(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        load_capture(tmp_path / "nowhere")


def test_a_file_that_is_no_capture(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt: is not a capture.*Give the capture's folder"):
        load_capture(tmp_path / "notes.txt")


def test_unknown_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown kind of capture 'blend'.*nerfstudio, .*colmap"):
        load_capture(tmp_path, kind="blend")


@pytest.mark.parametrize("kind", [form.kind for form in FORMATS])
def test_every_kind_refuses_an_empty_folder_in_words(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=str(tmp_path)):
        load_capture(tmp_path, kind=kind)


def test_empty_and_unreadable_masks_are_counted_and_left_out(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw
) -> None:
    draw(tmp_path, NAMES)
    draw(tmp_path / "masks", NAMES, mode="L")
    write_transforms(tmp_path, scene_cameras, masks=True)
    load_capture(tmp_path)
    for name in NAMES[2:4]:
        Image.new("L", (64, 48)).save(tmp_path / "masks" / name)
    views = load_capture(tmp_path)
    assert [view.name for view in views] == ["000", "001", "004", "005", "006"]
    assert "2 of 7 masks are empty: their pictures were left out" in views.metadata["notes"][0]
    (tmp_path / "masks" / NAMES[6]).write_bytes(b"nothing")
    views = load_capture(tmp_path)
    assert len(views) == 4
    assert re.search(
        r"1 of 5 frames was left out; of it, .*006\.png: cannot be read", " ".join(views.metadata["notes"])
    )
    for name in NAMES[:2]:
        Image.new("L", (64, 48)).save(tmp_path / "masks" / name)
    with pytest.raises(InputError, match=r"000\.png: 4 of 7 masks are empty"):
        load_capture(tmp_path)


def test_masks_for_some_frames_only(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, one_left_out: LeftOut
) -> None:
    draw(tmp_path, NAMES)
    draw(tmp_path / "masks", NAMES, mode="L")
    write_transforms(tmp_path, scene_cameras, masks=True)
    content = json.loads((tmp_path / "transforms.json").read_text())
    del content["frames"][4]["mask_path"]
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    one_left_out(load_capture(tmp_path), "6 of 7 frames have a mask: the others were left out")
    content["frames"] = [{**frame, "mask_path": None} for frame in content["frames"][:4]] + content["frames"][4:]
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="2 of 7 frames have a mask"):
        load_capture(tmp_path)


def test_an_unreadable_picture_is_left_out_and_named(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, one_left_out: LeftOut
) -> None:
    draw(tmp_path, NAMES)
    write_transforms(tmp_path, scene_cameras)
    (tmp_path / NAMES[5]).write_bytes(b"nothing")
    one_left_out(load_capture(tmp_path), r"005\.png: cannot be read as a picture")


# --- named sides --------------------------------------------------------------------------------------------------

CORNERS = {"front": (1, 0, 0), "back": (-1, 0, 0), "right": (0, 1, 0), "left": (0, -1, 0), "top": (0, 0, 1)}


@pytest.fixture
def sides(tmp_path: Path, draw: Draw) -> Path:
    """A folder of all six named sides."""
    draw(tmp_path, [f"{side}.png" for side in (*CORNERS, "bottom")], (40, 40), mode="RGBA")
    return tmp_path


def test_named_sides_look_at_the_origin_from_where_they_are_named(sides: Path) -> None:
    views = load_capture(sides)
    assert views.metadata == {"format": "named", "up": "given"}
    places = {view.name: view.camera.centre / DEFAULT_RADIUS for view in views}
    for side, place in CORNERS.items():
        assert places[side] == pytest.approx(place, abs=1e-9)
    assert places["bottom"] == pytest.approx([0, 0, -1], abs=1e-9)


def test_left_is_the_left_of_who_faces_the_front(sides: Path) -> None:
    """In the front view, the camera of ``left`` stands to the left of the object."""
    cameras = {view.name: view.camera for view in load_capture(sides)}
    beside = {side: cameras["front"].project(cameras[side].centre * 0.3)[0] for side in ("left", "right", "top")}
    assert beside["left"][0] < 20 < beside["right"][0]
    assert beside["top"][1] < 20


def test_the_front_is_at_the_lower_edge_of_the_top_and_the_upper_of_the_bottom(sides: Path) -> None:
    cameras = {view.name: view.camera for view in load_capture(sides)}
    nose = np.array([0.4, 0, 0])
    assert cameras["top"].project(nose)[0][1] > 21
    assert cameras["bottom"].project(nose)[0][1] < 19
    # A mark on the object's left side is on the same side of the pictures as in the front view.
    mark = np.array([0, -0.4, 0])
    assert cameras["front"].project(mark)[0][0] < 19
    assert cameras["top"].project(mark)[0][0] < 19


def test_named_sides_show_all_of_a_normalised_object(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path, ["front.png", "left.PNG"], (60, 40), mode="RGBA")
    camera = read_named(tmp_path).views[0].camera
    assert 2 * math.atan(30 / camera.fx) == pytest.approx(ZERO123_FOV)
    assert (camera.width, camera.height, camera.cx, camera.cy) == (60, 40, 30, 20)
    assert camera.project(np.array([0, OBJECT_RADIUS, 0]))[0][0] < 60


def test_named_sides_need_masks(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path, ["front.png", "back.png"])
    with pytest.raises(InputError, match=r"named views need masks.*transparent background"):
        load_capture(tmp_path)
    draw(tmp_path / "masks", ["front.png", "back.png"], mode="L")
    assert load_capture(tmp_path).has_masks


def test_sides_of_different_heights_are_noted(sides: Path) -> None:
    pixels = np.full((40, 40, 4), 255, np.uint8)
    pixels[:2, :, 3] = 0
    Image.fromarray(pixels).save(sides / "left.png")
    assert "height differs" in load_capture(sides).metadata["notes"][0]


def test_one_side_is_no_capture(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path, ["front.png"], mode="RGBA")
    with pytest.raises(InputError, match="photos without poses"):
        load_capture(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.timeout(20)
def test_a_pipe_among_the_files_is_not_waited_for(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path, NAMES)
    write_matrices(tmp_path, scene_cameras)
    (tmp_path / "003_P.txt").unlink()
    os.mkfifo(tmp_path / "003_P.txt")
    with pytest.raises(InputError, match=r"003_P\.txt: is a pipe"):
        load_capture(tmp_path)
    with pytest.raises(InputError, match=r"003_P\.txt: is a pipe"):
        load_capture(tmp_path / "003_P.txt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize("name", ["model.nvm", "cameras.xml", "keyframes/cameras/0.json", "images/0.xmp"])
def test_pipes_are_found_wherever_descriptions_lie(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="is a pipe"):
        load_capture(tmp_path)


def test_what_is_guessed_of_pictures_is_told(tmp_path: Path, scene_cameras: list[Camera], draw: Draw) -> None:
    """Of a few of them: here that a 12-bit camera's values fill less than the 16 bits of its files."""
    draw(tmp_path, NAMES)
    write_transforms(tmp_path, scene_cameras)
    assert "notes" not in load_capture(tmp_path).metadata
    rng = np.random.default_rng(0)
    for name in NAMES:
        values = rng.integers(0, 4096, (48, 64), dtype=np.uint16)
        values[0, 0] = 4095
        Image.fromarray(values).save(tmp_path / name)
    (note,) = load_capture(tmp_path).metadata["notes"]
    assert note.startswith(f"of pictures such as {NAMES[0]}: ")
    assert "12 bits" in note
