"""PLY files: what is written reads back, here and elsewhere; what other programs write; what is refused."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from scene.errors import InputError
from scene.ply import encode_ply, read_points, write_points, xyz_table


def test_meshes_with_colours_are_read_by_other_programs() -> None:
    table = np.zeros(4, [*((axis, "<f4") for axis in "xyz"), *((c, "u1") for c in ("red", "green", "blue"))])
    table["x"], table["y"], table["red"] = [0, 1, 0, 5], [0, 0, 1, 5], [10, 20, 30, 40]
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    data = encode_ply(table, faces, ["made of two triangles", "with a dash \u2013"])
    assert data.startswith(
        b"ply\nformat binary_little_endian 1.0\ncomment made of two triangles\ncomment with a dash ?\n"
    )
    mesh = trimesh.load(io.BytesIO(data), file_type="ply", process=False)
    assert mesh.vertices[:, 0].tolist() == [0, 1, 0, 5]
    assert mesh.faces.tolist() == faces.tolist()
    assert mesh.visual.vertex_colors[:, 0].tolist() == [10, 20, 30, 40]


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_tables_of_positions_in_any_order_of_memory(kind: str, tmp_path: Path) -> None:
    points = np.asfortranarray(np.arange(12.0).reshape(4, 3))
    (tmp_path / "p.ply").write_bytes(encode_ply(xyz_table(points, kind)))
    assert read_points(tmp_path / "p.ply").tolist() == points.tolist()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose file is written again and again."""
    return tmp_path_factory.mktemp("maps")


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 3), max_size=8))
def test_points_survive_a_round_trip(shelf: Path, rows: list[tuple[float, float, float]]) -> None:
    points = np.array(rows, dtype=np.float64).reshape(-1, 3)
    write_points(shelf / "p.ply", points)
    assert np.array_equal(read_points(shelf / "p.ply"), points)


@pytest.mark.parametrize("order", ["<", ">"])
def test_points_of_other_programs(tmp_path: Path, order: str) -> None:
    """Floats among colours, big or little endian, faces after them."""
    name = {"<": "binary_little_endian", ">": "binary_big_endian"}[order]
    head = f"ply\nformat {name} 1.0\ncomment x\nelement vertex 2\nproperty float x\nproperty uchar red\n"
    head += "property float y\nproperty double z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
    body = b"".join(struct.pack(order + "fBfd", k, 7, k + 1, k + 2) for k in range(2)) + b"faces"
    (tmp_path / "p.ply").write_bytes(head.encode() + body)
    assert read_points(tmp_path / "p.ply").tolist() == [[0, 1, 2], [1, 2, 3]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a PLY file"),
        (b"ply\nformat ascii 1.0\n", "is not a PLY file"),
        (b"ply\nend_header\n", "cannot be read as points"),
        (b"ply\nformat ascii 1.0\nelement face 1\nend_header\n", "first element is not vertex"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n", "cannot be read as points"),
    ],
)
def test_files_that_are_no_points(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "p.ply").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_points(tmp_path / "p.ply")


def test_truncated_points_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "p.ply"
    write_points(path, np.ones((3, 3)))
    data = path.read_bytes()
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError, match=r"p\.ply: (is truncated|is not a PLY|cannot be read)"):
            read_points(path)
