"""Grids: axes, refinement that changes nothing, and stored surfaces."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.field import GridField, Surface
from scene.errors import InputError
from scene.voxels import voxel_centres

REACH = 0.8
SLOPES = np.array([0.5, -0.3, 0.2])


def linear(resolution: int) -> torch.Tensor:
    """A grid of a linear function of x, y and z."""
    return torch.from_numpy(voxel_centres(resolution, REACH) @ SLOPES + 0.1).float()


def random_field(start: int = 8, learned: int = 4) -> GridField:
    """A field that has learned something."""
    field = GridField(torch.randn(start, start, start), REACH, learned)
    with torch.no_grad():
        field.change.normal_()
        field.colour.normal_()
    return field


def centres(resolution: int) -> torch.Tensor:
    return torch.from_numpy(voxel_centres(resolution, REACH)).float()


@given(st.lists(st.tuples(*[st.floats(-0.68, 0.68)] * 3), min_size=1, max_size=5))
def test_distances_are_linear_between_voxels_along_the_right_axes(points: list[tuple[float, float, float]]) -> None:
    field = GridField(linear(8), REACH, 4)
    expected = np.array(points) @ SLOPES + 0.1
    assert field.sdf(torch.tensor(points)).detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_the_learned_change_is_added_along_the_same_axes() -> None:
    field = GridField(torch.zeros(8, 8, 8), REACH, 16)
    with torch.no_grad():
        field.change[0, 0] = linear(16)
    points = torch.tensor([[0.3, -0.5, 0.6], [-0.6, 0.1, 0.2]])
    assert field.sdf(points).detach().numpy() == pytest.approx(points.numpy() @ SLOPES + 0.1, abs=1e-5)


def test_beyond_the_cube_the_border_goes_on() -> None:
    field = random_field()
    inside, outside = torch.tensor([[0.8, 0.1, 0.2]]), torch.tensor([[3.0, 0.1, 0.2]])
    assert torch.equal(field.sdf(inside), field.sdf(outside))


def test_colours_have_their_place_and_their_channel() -> None:
    field = GridField(torch.zeros(8, 8, 8), REACH, 8)
    with torch.no_grad():
        for channel in range(3):
            field.colour[0, channel] = centres(8)[..., channel] * 4
    points = torch.tensor([[[0.3, -0.5, 0.6]], [[-0.6, 0.1, 0.2]]])
    assert field.rgb(points).shape == points.shape
    assert field.rgb(points).detach().numpy() == pytest.approx(torch.sigmoid(points * 4).numpy(), abs=1e-5)


@pytest.mark.parametrize("finer", [5, 8, 16])
def test_refining_changes_no_value_at_the_new_voxels(finer: int) -> None:
    field = random_field()
    before = field.sdf(centres(finer)).detach(), field.colour.detach()
    field.refine(finer)
    assert field.change.shape == (1, 1, finer, finer, finer)
    assert field.colour.shape == (1, 3, finer, finer, finer)
    assert torch.allclose(field.sdf(centres(finer)), before[0], atol=1e-5)
    assert {name for name, _ in field.named_parameters()} == {"change", "colour"}


@pytest.mark.parametrize("resolution", [6, 8, 12])
def test_the_dense_grid_holds_the_distances_at_its_voxels(resolution: int) -> None:
    field = random_field()
    assert torch.allclose(field.dense(resolution), field.sdf(centres(resolution)), atol=1e-5)


def test_only_the_change_and_the_colours_learn() -> None:
    field = random_field()
    points = centres(3)
    (field.sdf(points).sum() + field.rgb(points).sum()).backward()
    assert field.change.grad is not None
    assert float(field.change.grad.abs().sum()) > 0
    assert field.colour.grad is not None
    assert float(field.colour.grad.abs().sum()) > 0
    assert not field.start.requires_grad


def small_surface() -> Surface:
    rng = np.random.default_rng(0)
    colour = np.round(rng.random((3, 3, 3, 3)) * 255).astype(np.float32) / 255
    return Surface(rng.normal(size=(6, 6, 6)).astype(np.float32), colour, 0.648, {"vote": 0.9, "kept": "fit"})


def test_surface_colours_are_those_of_the_place() -> None:
    colour = (voxel_centres(8, 0.6) / 1.2 + 0.5).astype(np.float32)
    surface = Surface(np.zeros((4, 4, 4), np.float32), colour, 0.6, {})
    points = np.array([[0.1, -0.4, 0.5], [-0.3, 0.2, 0.0], [9.0, 0.0, 0.0]])
    assert surface.colours_at(points[:2]) == pytest.approx(points[:2] / 1.2 + 0.5, abs=1e-5)
    assert surface.colours_at(points[2:])[0] == pytest.approx([15 / 16, 0.5, 0.5], abs=1e-5)


def test_surfaces_come_back_as_they_were_stored(tmp_path: Path) -> None:
    surface = small_surface()
    surface.save(tmp_path / "surface.npz")
    loaded = Surface.load(tmp_path / "surface.npz")
    assert (loaded.sdf == surface.sdf).all()
    assert (loaded.colour == surface.colour).all()
    assert (loaded.half, loaded.facts) == (surface.half, surface.facts)


def test_the_same_surface_gives_the_same_bytes(tmp_path: Path) -> None:
    surface = small_surface()
    surface.save(tmp_path / "a.npz")
    turned = Surface(surface.sdf, surface.colour, surface.half, dict(reversed(surface.facts.items())))
    turned.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def npy() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    return out.getvalue()


PARTS = {"sdf": np.zeros((2, 2, 2), np.float32), "colour": np.zeros((2, 2, 2, 3), np.uint8), "half": np.float64(1)}


@pytest.mark.parametrize(
    "data",
    [b"", b"a surface", b"PK\x03\x04", npy(), npz(sdf=PARTS["sdf"]), npz(**PARTS, facts=np.array("{"))],
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
