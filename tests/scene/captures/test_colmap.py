"""COLMAP models: text and binary, every lens, and files that end anywhere."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scene.camera import Camera, Mat4
from scene.captures.colmap import find_model, read_colmap
from scene.captures.colmap_files import MODELS, binary_cameras, binary_images, binary_points, text_images
from scene.errors import InputError
from scene.lens import Lens

Draw = Callable[..., list[Path]]
Same = Callable[..., None]
LeftOut = Callable[..., None]
W2c = Callable[[Camera], tuple[np.ndarray, np.ndarray]]
POINTS = np.random.default_rng(0).normal(size=(5, 3))


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """Of a rotation matrix, (w, x, y, z), by the eigenvector method."""
    r = rotation
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], r[1, 0] + r[0, 1], r[2, 0] + r[0, 2], r[2, 1] - r[1, 2]],
            [0, r[1, 1] - r[0, 0] - r[2, 2], r[2, 1] + r[1, 2], r[0, 2] - r[2, 0]],
            [0, 0, r[2, 2] - r[0, 0] - r[1, 1], r[1, 0] - r[0, 1]],
            [0, 0, 0, r[0, 0] + r[1, 1] + r[2, 2]],
        ]
    )
    _, vectors = np.linalg.eigh(k, UPLO="U")
    x, y, z, w = vectors[:, -1]
    return np.array([w, x, y, z])


def cameras_bin(number: int, size: tuple[int, int], values: list[float]) -> bytes:
    return struct.pack("<QIiQQ", 1, 7, number, *size) + struct.pack(f"<{len(values)}d", *values)


def images_bin(poses: list[tuple[np.ndarray, np.ndarray]], names: list[str]) -> bytes:
    data = struct.pack("<Q", len(poses))
    for k, ((rotation, translation), name) in enumerate(zip(poses, names)):
        data += struct.pack("<I7dI", k + 1, *quaternion(rotation), *translation, 7) + name.encode() + b"\0"
        data += struct.pack("<Q", k % 3) + struct.pack("<ddq", 1.0, 2.0, -1) * (k % 3)
    return data


def points_bin(points: np.ndarray) -> bytes:
    data = struct.pack("<Q", len(points))
    for k, point in enumerate(points):
        data += struct.pack("<Q3d3BdQ", k, *point, 1, 2, 3, 0.5, 2) + struct.pack("<4I", 1, 2, 3, 4)
    return data


def write_binary(folder: Path, number: int, size: tuple[int, int], values: list[float], poses: list, names: list[str]):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.bin").write_bytes(cameras_bin(number, size, values))
    (folder / "images.bin").write_bytes(images_bin(poses, names))
    (folder / "points3D.bin").write_bytes(points_bin(POINTS))


def write_text(folder: Path, model: str, size: tuple[int, int], values: list[float], poses: list, names: list[str]):
    folder.mkdir(parents=True, exist_ok=True)
    numbers = " ".join(map(repr, map(float, values)))
    (folder / "cameras.txt").write_text(f"# Camera list\n7 {model} {size[0]} {size[1]} {numbers}\n")
    lines = ["# Image list with two lines of data per image:"]
    for k, ((rotation, translation), name) in enumerate(zip(poses, names)):
        numbers = " ".join(map(repr, map(float, [*quaternion(rotation), *translation])))
        lines += [f"{k + 1} {numbers} 7 {name}", "1.0 2.0 -1 3.0 4.0 5" if k % 2 else ""]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    rows = [f"{k} {x!r} {y!r} {z!r} 1 2 3 0.5 1 2" for k, (x, y, z) in enumerate(POINTS.tolist())]
    (folder / "points3D.txt").write_text("# points\n" + "\n".join(rows) + "\n")


@pytest.fixture
def names() -> list[str]:
    """Of pictures; with a space and a folder, as COLMAP allows."""
    return [f"left/a photo {k}.jpg" for k in range(7)]


@pytest.mark.parametrize("place", ["sparse/0", "sparse", "colmap/sparse/0", "."])
@pytest.mark.parametrize("text", [True, False])
def test_a_model(
    tmp_path: Path,
    file_cameras: list[Camera],
    file_from_scene: Mat4,
    draw: Draw,
    same: Same,
    w2c: W2c,
    names: list[str],
    text: bool,
    place: str,
) -> None:
    draw(tmp_path / "images", names)
    poses = [w2c(camera) for camera in file_cameras]
    values = [70.0, 71.0, 33.0, 23.5]
    if text:
        write_text(tmp_path / place, "PINHOLE", (64, 48), values, poses, names)
    else:
        write_binary(tmp_path / place, 1, (64, 48), values, poses, names)
    views = read_colmap(tmp_path)
    same(views, file_cameras, upright=file_from_scene)
    assert views.metadata["format"] == "colmap"
    assert views.metadata["up"] == "estimated"
    world = np.array(views.metadata["world_from_file"])
    assert views.points == pytest.approx(POINTS @ world[:3, :3].T + world[:3, 3])


VALUES = {"f": 70.0, "fx": 70.0, "fy": 71.0, "cx": 33.0, "cy": 23.5}


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_lens_models(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, w2c: W2c, names: list[str], model, text: bool
) -> None:
    """Every coefficient lands where COLMAP's own list of parameters has it."""
    values = [VALUES.get(key, 0.001 * (k + 1)) for k, key in enumerate(model.parameters)]
    poses = [w2c(camera) for camera in file_cameras]
    draw(tmp_path / "images", names)
    if text:
        write_text(tmp_path, model.name, (64, 48), values, poses, names)
    else:
        write_binary(tmp_path, model.number, (64, 48), values, poses, names)
    view = read_colmap(tmp_path).views[0]
    if model.name in ("SIMPLE_PINHOLE", "PINHOLE"):
        assert view.undistortion is None
        assert view.camera.fy == (71 if model.name == "PINHOLE" else 70)
        return
    assert view.undistortion is not None
    assert (view.undistortion.raw.fx, view.undistortion.raw.cx) == (70, 33)
    if model.lens is not None:
        assert view.undistortion.lens == model.lens(*values[model.parameters.index("cy") + 1 :])
        return
    order = {
        "SIMPLE_FISHEYE": [],
        "FISHEYE": [],
        "SIMPLE_RADIAL": ["k1"],
        "RADIAL": ["k1", "k2"],
        "OPENCV": ["k1", "k2", "p1", "p2"],
        "FULL_OPENCV": ["k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"],
        "OPENCV_FISHEYE": ["k1", "k2", "k3", "k4"],
        "SIMPLE_RADIAL_FISHEYE": ["k1"],
        "RADIAL_FISHEYE": ["k1", "k2"],
    }[model.name]
    given = dict(zip(order, values[len(values) - len(order) :]))
    assert view.undistortion.lens == Lens(**given, fisheye="FISHEYE" in model.name)


PANORAMA = "camera model EQUIRECTANGULAR is not supported: a panorama is no picture of a pinhole camera"


def test_panoramas_are_refused_by_name_and_what_the_hint_says_can_be_read(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, w2c: W2c, names: list[str]
) -> None:
    draw(tmp_path / "images", names)
    poses = [w2c(camera) for camera in file_cameras]
    write_binary(tmp_path, 17, (64, 48), [64.0, 48.0], poses, names)
    with pytest.raises(InputError, match=rf"{PANORAMA}.*Cut the panoramas into perspective pictures"):
        read_colmap(tmp_path)
    write_text(tmp_path / "text", "EQUIRECTANGULAR", (64, 48), [64.0, 48.0], poses, names)
    with pytest.raises(InputError, match=PANORAMA):
        read_colmap(tmp_path / "text")
    write_binary(tmp_path, 1, (64, 48), [70.0, 71.0, 33.0, 23.5], poses, names)
    assert len(read_colmap(tmp_path)) == 7


def test_an_unknown_model_is_numbered_and_every_model_of_the_hint_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "cameras.bin").write_bytes(cameras_bin(99, (64, 48), [1.0] * 20))
    with pytest.raises(InputError, match="camera model number 99 is not supported") as caught:
        binary_cameras(tmp_path / "cameras.bin")
    assert caught.value.fix is not None
    named = re.findall(r"[A-Z]{3,}[A-Z_]*", caught.value.fix.replace("COLMAP", ""))
    assert named == [model.name for model in MODELS]
    assert [model.number for model in MODELS] == list(range(17))


@pytest.mark.parametrize("ending", ["{}.png", "{stem}.png"])
def test_masks_are_found_by_both_kinds_of_names(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, w2c: W2c, ending: str
) -> None:
    names = [f"{k}.jpg" for k in range(7)]
    draw(tmp_path / "images", names)
    draw(tmp_path / "masks", [ending.format(name, stem=name[:-4]) for name in names], mode="L")
    write_binary(
        tmp_path / "sparse/0", 0, (64, 48), [70.0, 33.0, 23.5], [w2c(camera) for camera in file_cameras], names
    )
    assert read_colmap(tmp_path).has_masks


def test_the_largest_of_several_models_counts(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, w2c: W2c, names: list[str]
) -> None:
    draw(tmp_path / "images", names)
    poses = [w2c(camera) for camera in file_cameras]
    for k, count in enumerate((2, 7, 3)):
        write_binary(tmp_path / f"sparse/{k}", 0, (64, 48), [70.0, 33.0, 23.5], poses[:count], names[:count])
    assert find_model(tmp_path) == tmp_path / "sparse/1"
    assert len(read_colmap(tmp_path)) == 7


def test_an_image_with_a_nan_pose_is_left_out_and_named(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, w2c: W2c, names: list[str], one_left_out: LeftOut
) -> None:
    draw(tmp_path / "images", names)
    poses = [w2c(camera) for camera in file_cameras]
    poses[3] = (poses[3][0], np.array([0, np.nan, 0]))
    write_binary(tmp_path, 0, (64, 48), [70.0, 33.0, 23.5], poses, names)
    one_left_out(
        read_colmap(tmp_path), r"1 of 7 frames was left out; of it, image left/a photo 3\.jpg: .*NaN or infinity"
    )
    write_binary(tmp_path, 0, (64, 48), [70.0, 33.0, 23.5], poses[2:5], names[2:5])
    with pytest.raises(InputError, match=r"image left/a photo 3\.jpg: .*NaN or infinity"):  # two are too few
        read_colmap(tmp_path)


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/../../b.jpg", ""])
def test_names_that_leave_the_folder(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, w2c: W2c, name: str
) -> None:
    draw(tmp_path / "images", ["a.jpg"])
    write_binary(tmp_path, 0, (64, 48), [70.0, 33.0, 23.5], [w2c(file_cameras[0])], [name])
    with pytest.raises(InputError, match=r"leaves the capture folder|names no file"):
        read_colmap(tmp_path)


FAULTS = {
    "unknown model": ("cameras.txt", "7 FOVEA 64 48 1 2 3 4 5\n", "camera model FOVEA is not supported"),
    "few parameters": ("cameras.txt", "7 PINHOLE 64 48 70 71 33\n", "has 4 parameters, here are 3"),
    "words": ("cameras.txt", "7 PINHOLE 64 48 a b c d\n", "line 1: is no camera"),
    "infinite": ("cameras.txt", "7 PINHOLE 64 48 inf 1 1 1\n", "NaN or infinite"),
    "huge": ("cameras.txt", f"7 PINHOLE {10**30} 48 70 70 33 24\n", "the picture is 64x48"),
    "no camera": ("cameras.txt", "", "its camera 7 is not in the list"),
    "no image": ("images.txt", "# nothing\n", "lists no images"),
    "short image": ("images.txt", "1 1 0 0 0 0 0 0 7\n\n", "line 1: is no image"),
    "zero rotation": ("images.txt", "1 0 0 0 0 0 0 0 7 left/a photo 0.jpg\n\n", "quaternion"),
    "short point": ("points3D.txt", "1 2 3\n", "line 1: is no point"),
}


@pytest.mark.parametrize(("file", "text", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_in_text_files(
    tmp_path: Path,
    file_cameras: list[Camera],
    draw: Draw,
    w2c: W2c,
    names: list[str],
    file: str,
    text: str,
    message: str,
) -> None:
    draw(tmp_path / "images", names)
    write_text(tmp_path, "PINHOLE", (64, 48), [70, 71, 33, 23.5], [w2c(c) for c in file_cameras], names)
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match=message):
        read_colmap(tmp_path)


def test_missing_pictures_are_counted(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, w2c: W2c, names: list[str]
) -> None:
    draw(tmp_path / "images", names[:5])
    write_binary(tmp_path, 0, (64, 48), [70.0, 33.0, 23.5], [w2c(camera) for camera in file_cameras], names)
    views = read_colmap(tmp_path)
    assert len(views) == 5
    assert re.match(
        r"2 of 7 pictures are missing and were left out; the first is .*a photo 5\.jpg", views.metadata["notes"][0]
    )
    for name in names[:3]:
        (tmp_path / "images" / name).unlink()
    with pytest.raises(InputError, match=r"5 of 7 pictures are missing, the first is .*a photo 0\.jpg"):
        read_colmap(tmp_path)


def test_images_without_lines_of_points_are_all_read(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, same: Same, w2c: W2c, names: list[str]
) -> None:
    """As several exporters write images.txt: one line an image. Between them, an image may have its points."""
    draw(tmp_path / "images", names)
    write_text(tmp_path, "PINHOLE", (64, 48), [70, 71, 33, 23.5], [w2c(c) for c in file_cameras], names)
    lines = (tmp_path / "images.txt").read_text().splitlines()
    for kept in (lines[:1] + lines[1::2], lines[:4] + lines[5::2]):
        (tmp_path / "images.txt").write_text("\n".join(kept) + "\n")
        views = read_colmap(tmp_path)
        same(views, file_cameras)
        assert re.match(r"images\.txt has no line of points for [67] of 7 images", views.metadata["notes"][0])


def test_an_image_may_be_named_by_a_number(tmp_path: Path, w2c: W2c, file_cameras: list[Camera]) -> None:
    """Ten words are no list of points, which come in threes; twelve numbers are."""
    write_text(tmp_path, "PINHOLE", (64, 48), [70, 71, 33, 23.5], [w2c(c) for c in file_cameras[:2]], ["001", "002"])
    lines = (tmp_path / "images.txt").read_text().splitlines()
    notes: list[str] = []
    (tmp_path / "images.txt").write_text("\n".join([lines[1], lines[3]]))
    assert [image.name for image in text_images(tmp_path / "images.txt", notes)] == ["001", "002"]
    assert len(notes) == 1
    notes.clear()
    (tmp_path / "images.txt").write_text("\n".join([lines[1], "1 2 3 4 5 6 7 8 9 10 11 12", lines[3], ""]))
    assert [image.name for image in text_images(tmp_path / "images.txt", notes)] == ["001", "002"]
    assert notes == []


def test_quaternions_of_another_length_are_rotations_too(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, same: Same, w2c: W2c, names: list[str]
) -> None:
    draw(tmp_path / "images", names)
    write_text(tmp_path, "PINHOLE", (64, 48), [70, 71, 33, 23.5], [w2c(c) for c in file_cameras], names)
    lines = (tmp_path / "images.txt").read_text().splitlines()
    for k in range(1, len(lines), 2):
        words = lines[k].split()
        words[1:5] = [repr(4 * float(word)) for word in words[1:5]]
        lines[k] = " ".join(words)
    (tmp_path / "images.txt").write_text("\n".join(lines) + "\n")
    views = read_colmap(tmp_path)
    same(views, file_cameras)
    assert "not of length one" in views.metadata["notes"][0]


@pytest.mark.parametrize("place", ["A Photo {}.JPG", "left/A PHOTO {}.jpg", "sub/a photo {}.jpg"])
def test_pictures_in_other_folders_and_cases_are_found_and_told(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, same: Same, w2c: W2c, names: list[str], place: str
) -> None:
    draw(tmp_path / "images", [place.format(k) for k in range(7)])
    write_binary(tmp_path, 1, (64, 48), [70.0, 71.0, 33.0, 23.5], [w2c(c) for c in file_cameras], names)
    views = read_colmap(tmp_path)
    same(views, file_cameras)
    assert [view.image_path.name[-5] for view in views if view.image_path is not None] == list("0123456")
    assert "7 pictures are not where the capture says" in views.metadata["notes"][0]


def test_a_name_that_two_images_share_is_not_guessed(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, w2c: W2c
) -> None:
    """left/1.jpg and right/1.jpg are not both images/1.jpg."""
    draw(tmp_path / "images", [f"{k}.jpg" for k in range(7)])
    names = [f"{side}/{k}.jpg" for side in ("left", "right") for k in range(3)]
    write_binary(tmp_path, 0, (64, 48), [70.0, 33.0, 23.5], [w2c(c) for c in file_cameras[:6]], names)
    with pytest.raises(InputError, match="6 of 6 pictures are missing"):
        read_colmap(tmp_path)


# --- files that end anywhere --------------------------------------------------------------------------------------

IDENTITY = [(np.eye(3), np.zeros(3))] * 4
BINARY = {
    "camera": (binary_cameras, cameras_bin(4, (64, 48), [70.0, 71, 33, 23.5, 0.1, 0.2, 0, 0])),
    "image": (binary_images, images_bin(IDENTITY, ["a.png", "b.png", "c.png", "d.png"])),
    "point": (binary_points, points_bin(POINTS)),
}


@pytest.mark.parametrize("record", BINARY)
def test_a_file_that_ends_early_names_itself_and_the_record(tmp_path: Path, record: str) -> None:
    """At every byte: no cut goes unnoticed, and none is another error."""
    read, data = BINARY[record]
    path = tmp_path / f"{record}s.bin"
    path.write_bytes(data)
    read(path)
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError, match=rf"{record}s\.bin: is truncated in .*{record}"):
            read(path)


@pytest.mark.usefixtures("shapes_unchecked")
@settings(max_examples=150)
@given(
    record=st.sampled_from(sorted(BINARY)),
    cut=st.integers(0, 400),
    place=st.integers(0, 400),
    value=st.binary(min_size=1, max_size=9),
)
def test_files_with_other_bytes_in_them_are_read_or_refused(
    shelf: Path, record: str, cut: int, place: int, value: bytes
) -> None:
    """Counts that promise millions, models that do not exist, names without an end: an answer or an InputError."""
    read, data = BINARY[record]
    place %= len(data)
    changed = data[:place] + value + data[place + len(value) :]
    path = shelf / "changed.bin"
    path.write_bytes(changed[: max(1, len(changed) - cut % len(data))])
    refusal = None
    try:
        read(path)
    except InputError as error:
        refusal = str(error)
    assert refusal is None or str(path) in refusal


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose file is written again and again."""
    return tmp_path_factory.mktemp("colmap")
