"""Surfaces: colours at their places, and files that come back as they were stored."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.surface import Surface
from recon.surface_report import SurfaceReport
from scene.errors import InputError
from scene.voxels import voxel_centres


def small_surface() -> Surface:
    """In a box with different sides, away from the origin."""
    rng = np.random.default_rng(0)
    colour = np.round(rng.random((5, 3, 4, 3)) * 255).astype(np.float32) / 255
    sdf = rng.normal(size=(6, 8, 7)).astype(np.float32)
    return Surface(sdf, colour, np.array([-0.1, 0.2, 1 / 3]), 0.7 / 9, SurfaceReport(hull_threshold=0.9))


def test_a_cube_is_a_box_about_the_origin() -> None:
    surface = Surface.cube(np.zeros((4, 4, 4), np.float32), np.zeros((2, 2, 2, 3), np.float32), 0.6)
    assert (surface.low.tolist(), surface.voxel) == ([-0.6] * 3, pytest.approx(0.3))
    assert surface.box.shape == (4, 4, 4)
    assert surface.box.high == pytest.approx([0.6] * 3)


def test_surface_colours_are_those_of_the_place() -> None:
    colour = (voxel_centres(8, 0.6) / 1.2 + 0.5).astype(np.float32)
    surface = Surface.cube(np.zeros((4, 4, 4), np.float32), colour, 0.6)
    points = np.array([[0.1, -0.4, 0.5], [-0.3, 0.2, 0.0], [9.0, 0.0, 0.0]])
    assert surface.colours_at(points[:2]) == pytest.approx(points[:2] / 1.2 + 0.5, abs=1e-5)
    assert surface.colours_at(points[2:])[0] == pytest.approx([15 / 16, 0.5, 0.5], abs=1e-5)


SHARE = st.floats(0.2, 0.8)


@given(
    shape=st.tuples(*[st.integers(8, 12)] * 3),
    fine=st.tuples(*[st.integers(4, 9)] * 3),
    low=st.tuples(*[st.floats(-2, 2)] * 3),
    places=st.lists(st.tuples(SHARE, SHARE, SHARE), min_size=1, max_size=4),
)
def test_colours_are_looked_up_in_boxes_of_any_shape(
    shape: tuple[int, int, int],
    fine: tuple[int, int, int],
    low: tuple[float, float, float],
    places: list[tuple[float, float, float]],
) -> None:
    """The grid of colours spans the box of the distances, whatever the number of its own voxels."""
    axes = [(np.arange(n) + 0.5) / n for n in fine]
    colour = np.stack(np.meshgrid(*axes, indexing="ij"), -1).astype(np.float32)
    surface = Surface(np.zeros(shape, np.float32), colour, np.array(low), 0.1)
    points = surface.low + np.array(places) * (surface.box.high - surface.low)
    assert surface.colours_at(points) == pytest.approx(np.array(places), abs=1e-4)


def test_surfaces_come_back_as_they_were_stored(tmp_path: Path) -> None:
    surface = small_surface()
    surface.save(tmp_path / "surface.npz")
    loaded = Surface.load(tmp_path / "surface.npz")
    assert (loaded.sdf == surface.sdf).all()
    assert (loaded.colour == surface.colour).all()
    assert (loaded.low.tolist(), loaded.voxel, loaded.report) == (surface.low.tolist(), surface.voxel, surface.report)
    assert loaded.box.high.tolist() == surface.box.high.tolist()
    points = np.random.default_rng(1).uniform(surface.low, surface.box.high, (9, 3))
    assert (loaded.colours_at(points) == surface.colours_at(points)).all()


def test_the_same_surface_gives_the_same_bytes(tmp_path: Path) -> None:
    surface = small_surface()
    for name, order in (("a", ("colour", "mask")), ("b", ("mask", "colour"))):
        losses = dict.fromkeys(order, 0.1)
        replace(surface, report=replace(surface.report, losses=losses)).save(tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def npy() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    return out.getvalue()


PARTS = {
    "sdf": np.zeros((2, 2, 2), np.float32),
    "colour": np.zeros((2, 2, 2, 3), np.uint8),
    "low": np.zeros(3),
    "voxel": np.float64(1),
}


@pytest.mark.parametrize(
    "data",
    [b"", b"a surface", b"PK\x03\x04", npy(), npz(sdf=PARTS["sdf"]), npz(**PARTS, report=np.array("{"))],
    ids=["empty", "text", "broken archive", "one array", "parts missing", "broken facts"],
)
def test_other_files_are_no_surfaces(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "surface.npz").write_bytes(data)
    with pytest.raises(InputError, match=r"surface\.npz: is not a stored surface"):
        Surface.load(tmp_path / "surface.npz")


def test_a_missing_file_is_no_surface(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.npz: is not a stored surface"):
        Surface.load(tmp_path / "nowhere.npz")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "surface.npz"
    small_surface().save(path)
    return path


@settings(max_examples=40)
@given(share=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_noticed(stored: Path, share: float) -> None:
    data = stored.read_bytes()
    path = stored.with_name("cut.npz")
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match="is not a stored surface"):
        Surface.load(path)
