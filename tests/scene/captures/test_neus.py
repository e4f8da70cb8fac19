"""NeuS captures: spheres, several camera files, numbers of pictures, and damaged archives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scene.camera import Camera, Mat4, colmap_from_c2w
from scene.captures.neus import read_neus
from scene.errors import InputError

Draw = Callable[..., list[Path]]
Same = Callable[..., None]
LeftOut = Callable[..., None]
NAMES = [f"{k:03d}.png" for k in range(7)]
HALF = 0.5
"""What is added to coordinates that count from the first pixel's centre."""
SPHERE = np.diag([0.5, 0.5, 0.5, 1.0])


def write_neus(folder: Path, cameras: list[Camera], name: str = "cameras_sphere.npz", factor: float = 1.0) -> None:
    middle = np.mean([camera.centre + 2 * camera.forward for camera in cameras], axis=0)
    scale = SPHERE.copy()
    scale[:3, 3] = middle
    content = {}
    for k, camera in enumerate(cameras):
        matrix = np.eye(4)
        rotation, translation = colmap_from_c2w(camera.c2w)
        matrix[:3] = 7.0 * np.diag([factor, factor, 1]) @ camera.intrinsics @ np.c_[rotation, translation]
        content |= {f"world_mat_{k}": matrix, f"scale_mat_{k}": scale}
    np.savez(folder / name, **content)


def test_a_neus_capture(
    tmp_path: Path, file_cameras: list[Camera], file_from_scene: Mat4, draw: Draw, same: Same
) -> None:
    draw(tmp_path / "image", NAMES)
    draw(tmp_path / "mask", NAMES)
    write_neus(tmp_path, file_cameras)
    views = read_neus(tmp_path)
    same(views, file_cameras, upright=file_from_scene, shift=HALF)
    assert views.has_masks
    assert (views.metadata["format"], views.metadata["up"]) == ("neus", "estimated")
    assert views.metadata["region"] == {"centre": [0, 0, 0], "radius": 1}
    # The object's sphere of radius 0.5 is the unit sphere: cameras at 2 are at 4.
    assert [np.linalg.norm(view.camera.centre) for view in views] == pytest.approx([4.0] * 7)


def test_of_several_camera_files_the_one_that_fits_counts(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, same: Same
) -> None:
    draw(tmp_path / "image", NAMES)
    write_neus(tmp_path, file_cameras, "cameras_large.npz", 4.0)
    write_neus(tmp_path, file_cameras, "cameras_small.npz")
    views = read_neus(tmp_path)
    assert views.metadata["cameras"] == "cameras_small.npz"
    same(views, file_cameras, shift=HALF)
    large = read_neus(tmp_path / "cameras_large.npz")
    assert "scaled by 0.25" in large.metadata["notes"][0]
    same(large, file_cameras, shift=HALF / 4)


def test_pictures_of_some_cameras_go_by_their_numbers(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, same: Same
) -> None:
    draw(tmp_path / "image", NAMES[1::2])
    write_neus(tmp_path, file_cameras)
    views = read_neus(tmp_path)
    same(views, file_cameras[1::2], shift=HALF)
    assert views.metadata["notes"] == ["4 of 7 cameras have no picture and were not used"]


@pytest.mark.parametrize(
    ("stems", "said"), [("0123456", False), ("1234567", False), ("abcdefg", True), ("1245789", True)]
)
def test_pairing_in_order_of_names_is_said_where_names_do_not_number_the_cameras(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, same: Same, stems: str, said: bool
) -> None:
    draw(tmp_path / "image", [f"IMG_{stem}.png" for stem in stems])
    write_neus(tmp_path, file_cameras)
    views = read_neus(tmp_path)
    same(views, file_cameras, shift=HALF)
    assert ("in order of their names" in " ".join(views.metadata.get("notes", []))) == said


def test_pictures_without_leading_zeros_are_refused(tmp_path: Path, file_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path / "image", [f"{k + 6}.png" for k in range(7)])
    write_neus(tmp_path, file_cameras)
    with pytest.raises(InputError, match=r"numbered without leading zeros.*Rename"):
        read_neus(tmp_path)


def test_other_numbers_of_pictures_than_cameras(tmp_path: Path, file_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path / "image", [f"photo{k}.png" for k in range(5)])
    write_neus(tmp_path, file_cameras)
    with pytest.raises(InputError, match="7 cameras for 5 pictures"):
        read_neus(tmp_path)


def test_masks_for_some_pictures_only(tmp_path: Path, file_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path / "image", NAMES)
    draw(tmp_path / "mask", NAMES[:3])
    write_neus(tmp_path, file_cameras)
    with pytest.raises(InputError, match="3 of 7 frames have a mask"):
        read_neus(tmp_path)


def test_a_damaged_camera_file_at_any_byte(tmp_path: Path, file_cameras: list[Camera], draw: Draw) -> None:
    draw(tmp_path / "image", NAMES)
    write_neus(tmp_path, file_cameras)
    data = (tmp_path / "cameras_sphere.npz").read_bytes()
    for cut in range(0, len(data), len(data) // 20):
        (tmp_path / "cameras_sphere.npz").write_bytes(data[:cut])
        with pytest.raises(InputError, match=r"cameras_sphere\.npz"):
            read_neus(tmp_path)


CAMERA_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"world_mat_3": None}, "world_mat_3 is missing"),
    "not finite": ({"world_mat_2": np.full((4, 4), np.inf)}, "world_mat_2 is not a finite"),
    "singular": ({"world_mat_2": np.zeros((4, 4))}, "world_mat_2: the projection matrix is singular"),
    "of another shape": ({"world_mat_2": np.eye(3)}, "world_mat_2 is not a finite 4x4"),
    "an object": ({"world_mat_1": np.array([None])}, "cannot be read as cameras"),
}


@pytest.mark.parametrize(("change", "message"), CAMERA_FAULTS.values(), ids=CAMERA_FAULTS)
def test_a_faulty_camera_is_left_out_and_named(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, change: dict[str, Any], message: str, one_left_out: LeftOut
) -> None:
    draw(tmp_path / "image", NAMES)
    write_neus(tmp_path, file_cameras)
    content = {**np.load(tmp_path / "cameras_sphere.npz"), **change}
    np.savez(tmp_path / "cameras_sphere.npz", **{key: value for key, value in content.items() if value is not None})
    one_left_out(read_neus(tmp_path), message)


NEUS_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no scale": ({"scale_mat_0": None}, "scale_mat_0 is missing"),
    "skewed scale": ({"scale_mat_0": np.diag([1.0, 2, 1, 1])}, "scale_mat_0 is not a scale"),
}


@pytest.mark.parametrize(("change", "message"), NEUS_FAULTS.values(), ids=NEUS_FAULTS)
def test_faulty_camera_files(
    tmp_path: Path, file_cameras: list[Camera], draw: Draw, change: dict[str, Any], message: str
) -> None:
    draw(tmp_path / "image", NAMES)
    write_neus(tmp_path, file_cameras)
    content = {**np.load(tmp_path / "cameras_sphere.npz"), **change}
    np.savez(tmp_path / "cameras_sphere.npz", **{key: value for key, value in content.items() if value is not None})
    with pytest.raises(InputError, match=message):
        read_neus(tmp_path)
