"""Depth and normal files: what other programs write, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scene.errors import InputError
from scene.maps import load_depth, load_normals, picture_head, save_array
from scene.photo import read_picture
from scene.pictures.turns import as_stored

SIZE = (8, 6)
DEPTH = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000


def test_depth_as_16_bit_png_and_as_npy_of_any_type(tmp_path: Path) -> None:
    Image.fromarray(DEPTH).save(tmp_path / "d.png")
    assert np.array_equal(load_depth(tmp_path / "d.png", SIZE), DEPTH.astype(np.float32))
    for kind in (np.float16, np.float32, np.float64, np.int32, np.uint16):
        save_array(tmp_path / "d.npy", (DEPTH // 1000).astype(kind))
        assert np.array_equal(load_depth(tmp_path / "d.npy", SIZE), (DEPTH // 1000).astype(np.float32))


def test_depth_as_32_bit_tiff(tmp_path: Path) -> None:
    Image.fromarray(DEPTH.astype(np.float32) / 7).save(tmp_path / "d.tiff")
    assert load_depth(tmp_path / "d.tiff", SIZE) == pytest.approx(DEPTH.astype(np.float32) / 7)


def test_what_is_no_depth_is_unknown(tmp_path: Path) -> None:
    values = np.array([[1, np.nan, np.inf, -np.inf, -2, 0]], dtype=np.float32)
    np.save(tmp_path / "d.npy", values)
    assert load_depth(tmp_path / "d.npy", (6, 1)).tolist() == [[1, 0, 0, 0, 0, 0]]


def test_depth_of_another_resolution_takes_the_nearest_value(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", DEPTH.astype(np.float32))
    large = load_depth(tmp_path / "d.npy", (32, 24))
    assert np.array_equal(large, DEPTH.astype(np.float32).repeat(4, axis=0).repeat(4, axis=1))
    with pytest.raises(InputError, match="the depth map is 8x6, its picture 40x24"):
        load_depth(tmp_path / "d.npy", (40, 24))


@pytest.mark.parametrize(
    "values", [np.zeros((6, 8, 3)), np.zeros(5), np.zeros((0, 8)), np.zeros((6, 8), dtype=complex), np.array([["a"]])]
)
def test_arrays_that_are_no_depth(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "d.npy", values)
    with pytest.raises(InputError, match=r"d\.npy: (is no depth map|cannot be read)"):
        load_depth(tmp_path / "d.npy", SIZE)


def test_coloured_pictures_are_no_depth(tmp_path: Path) -> None:
    Image.new("RGB", SIZE).save(tmp_path / "d.png")
    with pytest.raises(InputError, match="is no depth map"):
        load_depth(tmp_path / "d.png", SIZE)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        load_depth(tmp_path / "d.npy", SIZE)
    with pytest.raises(InputError, match="there is no such file"):
        picture_head(tmp_path / "d.png")


def test_pickles_are_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.array([[object()]]), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read as a map"):
        load_depth(tmp_path / "d.npy", SIZE)


@settings(max_examples=150)
@given(place=st.integers(0, 400), value=st.binary(min_size=1, max_size=12), cut=st.integers(0, 300))
def test_damaged_arrays_are_read_or_refused(shelf: Path, place: int, value: bytes, cut: int) -> None:
    """A head that promises terabytes, a type that does not exist, an end too early."""
    path = shelf / "d.npy"
    np.save(path, DEPTH.astype(np.float32))
    data = path.read_bytes()
    place %= len(data)
    path.write_bytes((data[:place] + value + data[place + len(value) :])[: len(data) - cut])
    refused = False
    try:
        depth = load_depth(path, SIZE)
    except InputError as error:
        refused = str(path) in str(error)
    assert refused or (depth.shape == (6, 8) and np.isfinite(depth).all())


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose file is written again and again."""
    return tmp_path_factory.mktemp("maps")


@pytest.mark.parametrize("bits", [8, 16])
def test_normals_in_pictures(tmp_path: Path, bits: int) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 8, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    coded = np.round((vectors + 1) / 2 * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    coded[0, 0] = 0
    if bits == 8:
        Image.fromarray(coded).save(tmp_path / "n.png")
    else:
        import cv2

        cv2.imwrite(str(tmp_path / "n.png"), coded[..., ::-1])
    normals = load_normals(tmp_path / "n.png", SIZE)
    assert (normals[0, 0] == 0).all()
    assert normals[1:] == pytest.approx(vectors[1:], abs=0.01 if bits == 8 else 1e-4)


def test_normals_become_unit_and_unknown_ones_zero(tmp_path: Path) -> None:
    np.save(tmp_path / "n.npy", np.array([[[0, 3, 4], [0, 0, 0], [np.nan, 0, 1], [0, 0, 1e-3]]], dtype=np.float32))
    normals = load_normals(tmp_path / "n.npy", (4, 1))
    assert normals[0] == pytest.approx(np.array([[0, 0.6, 0.8], [0, 0, 0], [0, 0, 0], [0, 0, 0]]))
    with pytest.raises(InputError, match="the normal map is 4x1, its picture 8x6"):
        load_normals(tmp_path / "n.npy", SIZE)
    np.save(tmp_path / "n.npy", DEPTH)
    with pytest.raises(InputError, match="is no normal map"):
        load_normals(tmp_path / "n.npy", SIZE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_pixels_and_heads(tmp_path: Path, orientation: int) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "p.png"
    Image.fromarray(stored).save(path, exif=exif)
    picture = read_picture(path)
    assert np.array_equal(as_stored(picture.rgba, picture.orientation)[..., :3], stored)
    head = picture_head(path)
    assert head.size == SIZE
    assert head.turned == (orientation > 1)
    assert head.upright == ((6, 8) if orientation > 4 else SIZE)
    assert not head.has_alpha
