"""Projection matrices, and captures that give them: one file per picture, Middlebury, Bundler, cameras.json."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scene.camera import Camera, Mat4, colmap_from_c2w, look_at
from scene.captures import load_capture
from scene.captures.bundler import read_bundler
from scene.captures.cameras_json import read_cameras_json
from scene.captures.middlebury import read_middlebury
from scene.captures.projections import decomposed, fitting_factor, read_projections
from scene.errors import InputError
from scene.viewset import ViewSet

Draw = Callable[..., list[Path]]
Same = Callable[..., None]
LeftOut = Callable[..., None]
NAMES = [f"{k:03d}.png" for k in range(7)]
HALF = 0.5
"""What is added to coordinates that count from the first pixel's centre."""


def projection(camera: Camera) -> np.ndarray:
    """K [R t] for OpenCV axes."""
    rotation, translation = colmap_from_c2w(camera.c2w)
    return camera.intrinsics @ np.c_[rotation, translation]


# --- one matrix ---------------------------------------------------------------------------------------------------

numbers = st.floats(-5, 5)


@given(
    st.tuples(numbers, numbers, numbers),
    st.tuples(numbers, numbers, numbers),
    st.floats(20, 3000),
    st.floats(0.7, 1.4),
    st.floats(-3, 3).filter(lambda f: abs(f) > 1e-3),
)
def test_a_matrix_of_any_scale_and_sign_is_its_camera_again(
    centre: tuple[float, ...], target: tuple[float, ...], focal: float, aspect: float, factor: float
) -> None:
    if math.dist(centre, target) < 0.1:
        return
    camera = Camera(look_at(np.array(centre), np.array(target)), focal, focal * aspect, 300.0, 200.0, 600, 400)
    k, c2w = decomposed(factor * projection(camera), "here")
    assert k == pytest.approx(camera.intrinsics, rel=1e-6, abs=1e-4)
    assert c2w == pytest.approx(camera.c2w, abs=1e-6)


def test_a_matrix_of_a_singular_camera() -> None:
    with pytest.raises(InputError, match="here: the projection matrix is singular"):
        decomposed(np.eye(3, 4) * [1, 1, 0, 1], "here")


def test_matrices_of_zeros_or_nan() -> None:
    with pytest.raises(InputError, match="singular"):
        decomposed(np.zeros((3, 4)), "here")
    with pytest.raises(InputError, match="NaN"):
        decomposed(np.full((3, 4), np.nan), "here")


@pytest.mark.parametrize(("skew", "fine"), [(0.5, True), (-0.9, True), (3.0, False)])
def test_a_little_skew_is_tolerated(scene_cameras: list[Camera], skew: float, fine: bool) -> None:
    bent = np.eye(3)
    bent[0, 1] = skew / 71
    matrix = scene_cameras[0].intrinsics @ bent @ np.linalg.inv(scene_cameras[0].intrinsics)
    matrix = matrix @ projection(scene_cameras[0])
    if fine:
        assert decomposed(matrix, "here")[0][0, 0] == pytest.approx(70, rel=0.01)
    else:
        with pytest.raises(InputError, match="skew"):
            decomposed(matrix, "here")


@pytest.mark.parametrize("factor", [1.0, 1 / 2, 1 / 4, 2.0])
def test_the_size_that_was_calibrated_is_found(factor: float) -> None:
    k = np.array([[500.0, 0, 330], [0, 500, 225], [0, 0, 1]])
    assert fitting_factor([k] * 3, [(round(640 * factor), round(480 * factor))] * 3, where="here") == factor


def test_cameras_of_other_pictures_are_refused() -> None:
    k = np.array([[500.0, 0, 330], [0, 500, 2250], [0, 0, 1]])
    with pytest.raises(InputError, match="Check that these pictures belong to these cameras"):
        fitting_factor([k], [(640, 480)], where="here")


# --- NAME_P.txt ---------------------------------------------------------------------------------------------------


def write_matrices(folder: Path, cameras: list[Camera], factor: float = 1.0) -> None:
    for name, camera in zip(NAMES, cameras):
        matrix = np.diag([factor, factor, 1]) @ projection(camera)
        (folder / f"{name[:-4]}_P.txt").write_text("\n".join(" ".join(map(repr, row)) for row in matrix.tolist()))


def test_projection_files(
    tmp_path: Path, file_cameras: list[Camera], file_from_scene: Mat4, draw: Draw, same: Same
) -> None:
    draw(tmp_path, [*NAMES, "other.png"])
    write_matrices(tmp_path, file_cameras)
    views = read_projections(tmp_path)
    same(views, file_cameras, upright=file_from_scene, shift=HALF)
    assert (views.metadata["format"], views.metadata["up"]) == ("projections", "estimated")


def test_projection_files_of_pictures_twice_the_size(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, same: Same
) -> None:
    draw(tmp_path, NAMES)
    write_matrices(tmp_path, file_cameras, 2.0)
    views = read_projections(tmp_path)
    same(views, file_cameras, shift=HALF / 2)
    assert "scaled by 0.5" in views.metadata["notes"][0]


@pytest.mark.parametrize(
    ("text", "message"), [("1 2 3", "12 numbers, this file 3"), ("a " * 12, "not a projection"), ("nan " * 12, "NaN")]
)
def test_faulty_projection_files_are_left_out(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, text: str, message: str, one_left_out: LeftOut
) -> None:
    draw(tmp_path, NAMES)
    write_matrices(tmp_path, file_cameras)
    (tmp_path / "003_P.txt").write_text(text)
    one_left_out(read_projections(tmp_path), rf"003_P\.txt.*{message}")
    for k in (0, 1, 2, 4):
        (tmp_path / f"{k:03d}_P.txt").unlink()
    with pytest.raises(InputError, match=rf"003_P\.txt.*{message}"):
        read_projections(tmp_path)


def test_a_projection_file_without_its_picture(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, one_left_out: LeftOut
) -> None:
    draw(tmp_path, NAMES[:-1])
    write_matrices(tmp_path, file_cameras)
    one_left_out(read_projections(tmp_path), r"006_P\.txt: its picture 006\.jpg .*is missing")


# --- Middlebury ---------------------------------------------------------------------------------------------------


def write_middlebury(folder: Path, cameras: list[Camera]) -> None:
    lines = [str(len(cameras))]
    for name, camera in zip(NAMES, cameras):
        rotation, translation = colmap_from_c2w(camera.c2w)
        values = [*camera.intrinsics.ravel(), *rotation.ravel(), *translation]
        lines.append(" ".join([name, *(repr(float(value)) for value in values)]))
    (folder / "toy_par.txt").write_text("\n".join(lines) + "\n")


def test_a_middlebury_capture(
    tmp_path: Path, file_cameras: list[Camera], file_from_scene: Mat4, draw: Draw, same: Same
) -> None:
    draw(tmp_path, NAMES)
    write_middlebury(tmp_path, file_cameras)
    views = read_middlebury(tmp_path)
    same(views, file_cameras, upright=file_from_scene, shift=HALF)
    assert (views.metadata["format"], views.metadata["up"], views.has_masks) == ("middlebury", "estimated", False)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("7\n", "8\n", "lists 7 pictures, its first line promises 8"),
        ("7\n", "seven\n", "does not begin with the number"),
        ("003.png ", "003.png 1 ", "a name and 21 numbers"),
    ],
)
def test_faulty_middlebury_files(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, old: str, new: str, message: str
) -> None:
    draw(tmp_path, NAMES)
    write_middlebury(tmp_path, file_cameras)
    text = (tmp_path / "toy_par.txt").read_text()
    assert old in text
    (tmp_path / "toy_par.txt").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_middlebury(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("003.png ", "../013.png ", "leaves the capture folder"),
        ("003.png ", "013.png ", r"picture 013\.png is missing"),
        ("003.png 70.0 0.0", "003.png 70.0 nan", "NaN"),
        ("003.png 70.0 0.0", "003.png 70.0 5.0", "skew"),
        ("003.png 70.0 0.0", "003.png 70.0 x", "something else than numbers"),
    ],
)
def test_faulty_pictures_of_a_middlebury_file_are_left_out(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, old: str, new: str, message: str, one_left_out: LeftOut
) -> None:
    draw(tmp_path, NAMES)
    write_middlebury(tmp_path, file_cameras)
    text = (tmp_path / "toy_par.txt").read_text()
    assert old in text
    (tmp_path / "toy_par.txt").write_text(text.replace(old, new, 1))
    one_left_out(read_middlebury(tmp_path), message)


# --- Bundler ------------------------------------------------------------------------------------------------------


def write_bundle(folder: Path, cameras: list[Camera], *, k1: float = 0.0, unplaced: int | None = None) -> None:
    """As Bundler does: one focal length, principal point in the middle, OpenGL axes."""
    lines = ["# Bundle file v0.3", f"{len(cameras)} 2"]
    for k, camera in enumerate(cameras):
        w2c = np.linalg.inv(camera.c2w)
        rows = [[camera.fx, k1, 0.0], *w2c[:3, :3].tolist(), w2c[:3, 3].tolist()]
        rows = np.zeros((5, 3)).tolist() if k == unplaced else rows
        lines += [" ".join(map(repr, row)) for row in rows]
    lines += ["1.0 2.0 3.0", "255 0 0", "2 0 10 1.5 2.5 1 11 1.5 2.5", "4.0 5.0 6.0", "0 0 0", "0"]
    (folder / "bundle.out").write_text("\n".join(lines) + "\n")


@pytest.fixture
def bundle_cameras(file_cameras: list[Camera]) -> list[Camera]:
    """Cameras as Bundler knows them."""
    return [Camera(camera.c2w, 70.0, 70.0, 32.0, 24.0, 64, 48) for camera in file_cameras]


@pytest.mark.parametrize("listed", [True, False])
def test_a_bundler_capture(
    tmp_path: Path, bundle_cameras: list[Camera], file_from_scene: Mat4, draw: Draw, same: Same, listed: bool
) -> None:
    names = NAMES[::-1] if listed else NAMES
    draw(tmp_path, NAMES)
    if listed:
        (tmp_path / "list.txt").write_text("\n".join(f"./{name} 0 70.0" for name in names))
    write_bundle(tmp_path, bundle_cameras)
    views = read_bundler(tmp_path)
    same(views, bundle_cameras, upright=file_from_scene)
    assert [view.name for view in views] == [name[:-4] for name in names]
    assert ("no list says" in " ".join(views.metadata.get("notes", []))) == (not listed)
    world = np.array(views.metadata["world_from_file"])
    assert views.points == pytest.approx(np.array([[1, 2, 3], [4, 5, 6.0]]) @ world[:3, :3].T + world[:3, 3])


def test_cameras_that_bundler_did_not_place_are_left_out(
    tmp_path: Path, bundle_cameras: list[Camera], draw: Draw, same: Same
) -> None:
    draw(tmp_path, NAMES)
    write_bundle(tmp_path, bundle_cameras, k1=-0.05, unplaced=2)
    views = read_bundler(tmp_path)
    assert "002" not in {view.name for view in views}
    assert "1 pictures have no pose" in " ".join(views.metadata["notes"])
    assert views.views[0].undistortion is not None
    assert views.views[0].undistortion.lens.k1 == -0.05


def test_a_bundle_that_ends_anywhere(tmp_path: Path, bundle_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path, NAMES)
    write_bundle(tmp_path, bundle_cameras)
    lines = (tmp_path / "bundle.out").read_text().splitlines()
    for count in range(len(lines)):
        (tmp_path / "bundle.out").write_text("\n".join(lines[:count]))
        with pytest.raises(InputError, match=r"bundle\.out: (is truncated in|does not begin)"):
            read_bundler(tmp_path)


def test_a_bundle_without_its_pictures(tmp_path: Path, bundle_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path, NAMES[:4])
    write_bundle(tmp_path, bundle_cameras)
    with pytest.raises(InputError, match=r"no list\.txt, and not 7 pictures"):
        read_bundler(tmp_path)
    (tmp_path / "list.txt").write_text("\n".join(NAMES))
    views = read_bundler(tmp_path)
    assert len(views) == 4
    assert "3 of 7 pictures are missing and were left out" in views.metadata["notes"][0]
    (tmp_path / "list.txt").write_text("\n".join(["../x.png", *NAMES[1:]]))
    with pytest.raises(InputError, match="leaves the capture folder"):
        read_bundler(tmp_path)


@pytest.mark.parametrize("listing", ["list.txt", "imagelist.lst", "scene.list.txt"])
@pytest.mark.parametrize("line", ["{}", "C:\\Users\\me\\toy\\images\\{}", "/home/me/toy/images/{} 0 70.5"])
def test_a_list_pairs_pictures_and_cameras(
    tmp_path: Path, bundle_cameras: list[Camera], draw: Draw, same: Same, listing: str, line: str
) -> None:
    """RealityCapture's and COLMAP's names of bundle and list; paths of the machine that wrote them."""
    names = [NAMES[k] for k in (3, 0, 6, 1, 5, 2, 4)]
    draw(tmp_path / "images", NAMES)
    (tmp_path / listing).write_text("\n".join(line.format(name) for name in names) + "\n")
    write_bundle(tmp_path, bundle_cameras)
    if listing.startswith("scene"):
        (tmp_path / "bundle.out").rename(tmp_path / "scene.bundle.out")
    views = load_capture(tmp_path)
    same(views, bundle_cameras)
    assert [view.name for view in views] == [name[:-4] for name in names]
    moved = "7 pictures are not where the capture says" in " ".join(views.metadata.get("notes", []))
    assert moved == ("me" in line)


def test_numbers_that_are_left_over_are_noticed(tmp_path: Path, bundle_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path, NAMES)
    write_bundle(tmp_path, bundle_cameras)
    text = (tmp_path / "bundle.out").read_text()
    (tmp_path / "bundle.out").write_text(text.replace("7 2\n", "7 1\n", 1))
    assert "7 numbers are left over" in " ".join(read_bundler(tmp_path).metadata["notes"])


# --- cameras.json -------------------------------------------------------------------------------------------------


def write_cameras_json(folder: Path, cameras: list[Camera], **more: object) -> None:
    poses = [np.c_[colmap_from_c2w(camera.c2w)].tolist() for camera in cameras]
    content = {"K": cameras[0].intrinsics.tolist(), "poses": poses, **more}
    (folder / "cameras.json").write_text(json.dumps(content))


@pytest.mark.parametrize("said", ["16-bit PNG: z = v/65535*1.8+0.6 (camera z)", 0.002, None])
def test_renders_with_depth(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, same: Same, said: str | float | None
) -> None:
    draw(tmp_path, NAMES, mode="RGBA")
    values = np.full((48, 64), 20000, np.uint16)
    values[0] = 65535
    for name in NAMES:
        Image.fromarray(values).save(tmp_path / f"{name[:-4]}-depth.png")
    write_cameras_json(tmp_path, scene_cameras, **({} if said is None else {"depth": said}))
    views = read_cameras_json(tmp_path)
    same(views, scene_cameras)
    depth = views.views[0].depth()
    assert depth is not None
    expected = 20000 / 65535 * 1.8 + 0.6 if isinstance(said, str) else 20000 * (said or 1e-3)
    opaque = views.views[0].rgba()[..., 3] == 255
    assert depth[opaque] == pytest.approx(expected)
    assert (depth[~opaque] == 0).all()
    assert views.metadata == {"format": "cameras_json", "up": "given"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"K": [[1, 2], [3, 4]]}, "K is not"),
        ({"K": None}, "K is not|not a camera file"),
        ({"K": [[math.nan] * 3] * 3}, "K is not"),
        ({"poses": []}, "poses is not a list"),
        ({"poses": [[[0] * 4] * 3] * 7}, "pose 0: a camera pose is singular"),
        ({"poses": [np.diag([-1.0, 1, 1, 1])[:3].tolist()] * 7}, "pose 0: a camera pose is mirrored"),
        ({"poses": [[[math.inf] * 4] * 3] * 7}, "pose 0: .*finite"),
        ({"poses": [[[1, 0, 0, 0]] * 3] * 5}, "5 cameras for 7 pictures"),
        ({"depth": "far"}, "depth is neither"),
        ({"depth": -1}, "depth is neither"),
    ],
)
def test_faulty_camera_jsons(
    tmp_path: Path, scene_cameras: list[Camera], draw: Draw, change: dict[str, Any], message: str
) -> None:
    draw(tmp_path, NAMES)
    for name in NAMES:
        Image.fromarray(np.ones((48, 64), np.uint16)).save(tmp_path / f"{name[:-4]}-depth.png")
    write_cameras_json(tmp_path, scene_cameras, **change)
    with pytest.raises(InputError, match=message):
        read_cameras_json(tmp_path)


# --- anything at all ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("shapes_unchecked")
@settings(max_examples=120)
@given(
    place=st.integers(0, 2000),
    text=st.text("0123456789.-+eEnaif \n/x", min_size=1, max_size=12),
    which=st.sampled_from(["toy_par.txt", "bundle.out", "000_P.txt", "cameras.json"]),
)
def test_any_change_of_a_text_is_read_or_refused(shelf: dict[str, Path], place: int, text: str, which: str) -> None:
    folder = shelf[which]
    original = (folder / f"{which}.sound").read_text()
    place %= len(original)
    (folder / which).write_text(original[:place] + text + original[place + len(text) :])
    read = {
        "toy_par.txt": read_middlebury,
        "bundle.out": read_bundler,
        "000_P.txt": read_projections,
        "cameras.json": read_cameras_json,
    }[which]
    answer: ViewSet | InputError
    try:
        answer = read(folder)
    except InputError as error:
        answer = error
    if isinstance(answer, ViewSet):
        assert all(np.isfinite(view.camera.c2w).all() for view in answer)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Captures whose files are written again and again; the sound file stands beside."""
    cameras = [
        Camera(look_at(np.array([2 * math.cos(k), 2 * math.sin(k), 0.7])), 70.0, 70.0, 32.0, 24.0, 64, 48)
        for k in range(3)
    ]
    folders = {}
    for which, write in (
        ("toy_par.txt", write_middlebury),
        ("bundle.out", write_bundle),
        ("000_P.txt", write_matrices),
        ("cameras.json", write_cameras_json),
    ):
        folder = tmp_path_factory.mktemp("capture")
        for name in NAMES[:3]:
            Image.new("RGB", (64, 48)).save(folder / name)
        write(folder, cameras)
        (folder / f"{which}.sound").write_bytes((folder / which).read_bytes())
        folders[which] = folder
    return folders
