"""Fits that were stopped go on to the same bytes; states of other fits and broken files are passed over."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recon.fit import fit_surface
from recon.sdf_grid.checkpoint import FitState, fit_digest
from recon.sdf_grid.narrow_band import NarrowBandSDF
from recon.settings import FitSettings
from recon.surface import Surface
from recon.views.ray_set import RaySet
from scene.viewset import ViewSet
from scene.voxel_grid import VoxelGrid
from scene.voxels import voxel_centres

SETTINGS = FitSettings(
    levels=(8, 12), iterations=(120, 130), rays=128, image_side=32, hull_resolution=24, loss_trim_fraction=0.9
)
"""Both levels write a state, after 100 of their steps; errors that are cut off depend on the steps before."""


@pytest.fixture(scope="module")
def whole(ball_views: ViewSet) -> Surface:
    """An undisturbed fit."""
    return fit_surface(ball_views, SETTINGS)


def same(a: Surface, b: Surface) -> bool:
    return (a.sdf.tobytes(), a.colour.tobytes(), a.report) == (b.sdf.tobytes(), b.colour.tobytes(), b.report)


@pytest.mark.parametrize("step", [60, 105, 220, 250], ids=["too early", "first level", "last level", "at the end"])
def test_a_stopped_fit_goes_on_to_the_same_bytes(
    step: int, whole: Surface, ball_views: ViewSet, tmp_path: Path, stopped: Callable[..., None]
) -> None:
    path = tmp_path / "fit.npz"
    stopped(ball_views, SETTINGS, path, step)
    assert path.exists() == (step >= 100)
    reported: list[int] = []
    again = fit_surface(ball_views, SETTINGS, checkpoint=path, on_step=lambda done, total: reported.append(done))
    first = {60: 1, 105: 101}.get(step, 221)
    assert reported == list(range(first, 251))
    assert same(again, whole)


def test_a_fit_that_writes_states_is_one_that_does_not(whole: Surface, ball_views: ViewSet, tmp_path: Path) -> None:
    assert same(fit_surface(ball_views, SETTINGS, checkpoint=tmp_path / "fit.npz"), whole)
    assert [p.name for p in tmp_path.iterdir()] == ["fit.npz"]  # for the caller to remove


@pytest.fixture(scope="module")
def state_file(ball_views: ViewSet, tmp_path_factory: pytest.TempPathFactory, stopped: Callable[..., None]) -> Path:
    path = tmp_path_factory.mktemp("state") / "fit.npz"
    stopped(ball_views, SETTINGS, path, 220)
    return path


def digest_of(views: ViewSet, settings: FitSettings = SETTINGS, prior: np.ndarray | None = None) -> str:
    return fit_digest(RaySet.of(views, settings.image_side), settings, prior)


def test_states_belong_to_one_fit(state_file: Path, ball_views: ViewSet) -> None:
    state = FitState.resume(state_file, digest_of(ball_views))
    assert state is not None
    assert (state.level, state.iteration) == (1, 100)
    prior = np.zeros((4, 4, 4), np.float32)
    first, *rest = ball_views.views
    painted = first.rgba().copy()
    painted[32, 32, 0] ^= 128
    turned = replace(first.camera, fx=first.camera.fx * 1.001)
    others = {
        "rays": digest_of(ball_views, replace(SETTINGS, rays=129)),
        "seed": digest_of(ball_views, replace(SETTINGS, seed=1)),
        "size": digest_of(ball_views, replace(SETTINGS, image_side=33)),
        "fewer views": digest_of(replace(ball_views, views=tuple(rest))),
        "order": digest_of(replace(ball_views, views=(*rest, first))),
        "pixel": digest_of(replace(ball_views, views=(replace(first, pixels=painted), *rest))),
        "camera": digest_of(replace(ball_views, views=(replace(first, camera=turned), *rest))),
        "weight": digest_of(replace(ball_views, views=(replace(first, weight=0.5), *rest))),
        "prior": digest_of(ball_views, prior=prior),
        "another prior": digest_of(ball_views, prior=prior + 0.1),
    }
    assert {name: FitState.resume(state_file, digest) for name, digest in others.items()} == dict.fromkeys(others)
    assert len({*others.values(), state.digest}) == len(others) + 1
    renamed = replace(first, name="renamed")
    assert digest_of(replace(ball_views, views=(renamed, *rest))) == state.digest


def test_a_state_of_other_settings_is_not_continued(state_file: Path, ball_views: ViewSet, tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    path.write_bytes(state_file.read_bytes())
    reported: list[int] = []
    other = replace(SETTINGS, iterations=(3, 3))
    fit_surface(ball_views, other, checkpoint=path, on_step=lambda done, total: reported.append(done))
    assert reported == [1, 2, 3, 4, 5, 6]


# --- files ------------------------------------------------------------------------------------------------------------


def small_state() -> FitState:
    """A state with numbers of every kind in it."""
    grid = np.linalg.norm(voxel_centres(10, 5.0), axis=-1) - 3
    band = NarrowBandSDF(VoxelGrid(np.array([-0.3, 0.1, 0.2]) / 7, 0.1 / 3, (10, 10, 10)), grid.astype(np.float32), 2.2)
    rng = np.random.default_rng(3)
    for array in (band.colour, band.moments_sdf, band.moments_colour, band.shading, band.moments_shading):
        array[:] = rng.random(array.shape)
    band.steps, band.mean_square = 17, 1e-7 / 3
    return FitState.of(band, band.grid * 2, 1, 100, rng, (np.inf, 0.1 / 3), "name")


def test_states_come_back_as_they_were_written(tmp_path: Path) -> None:
    state = small_state()
    state.save(tmp_path / "s.npz")
    again = FitState.resume(tmp_path / "s.npz", "name")
    assert again is not None
    assert (again.plain, again.rng, again.limits) == (state.plain, state.rng, state.limits)
    assert (again.level, again.iteration, again.digest) == (1, 100, "name")
    assert again.first.tobytes() == state.first.tobytes()
    band = again.band()
    assert {name: getattr(band, name).tobytes() for name in state.arrays} == {
        name: array.tobytes() for name, array in state.arrays.items()
    }
    assert (band.box.low.tolist(), band.box.voxel, band.width) == tuple(
        state.plain[name] for name in ("low", "voxel", "width")
    )
    assert (band.steps, band.mean_square) == (17, 1e-7 / 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("bytes") / "s.npz"
    small_state().save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken") / "s.npz"


@given(share=st.floats(0, 1, exclude_max=True))
@hypothesis_settings(max_examples=40)
def test_every_truncation_is_noticed(data: bytes, broken: Path, share: float) -> None:
    broken.write_bytes(data[: int(share * len(data))])
    assert FitState.resume(broken, "name") is None


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@hypothesis_settings(max_examples=150)
def test_a_damaged_file_is_passed_over_or_still_whole(data: bytes, broken: Path, place: float, bit: int) -> None:
    """Some bits of an archive mean nothing, such as its times."""
    damaged = bytearray(data)
    damaged[int(place * len(data))] ^= 1 << bit
    broken.write_bytes(damaged)
    state = FitState.resume(broken, "name")
    if state is not None:
        true = small_state()
        assert {k: v.tobytes() for k, v in state.arrays.items()} == {k: v.tobytes() for k, v in true.arrays.items()}
        assert (state.plain, state.first.tobytes()) == (true.plain, true.first.tobytes())


def archive(path: Path, **arrays: np.ndarray) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["{}", "[]", "3", "{", '{"digest": null}', json.dumps({"digest": "another"})], ids=lambda t: t or "empty"
)
def test_foreign_archives_are_passed_over(text: str, tmp_path: Path) -> None:
    archive(tmp_path / "s.npz", text=np.array(text), first=np.zeros(3))
    assert FitState.resume(tmp_path / "s.npz", "name") is None


def test_foreign_files_are_passed_over(tmp_path: Path, ball_views: ViewSet) -> None:
    path = tmp_path / "s.npz"
    assert FitState.resume(path, "name") is None
    for content in (b"", b"a state", b"PK\x03\x04"):
        path.write_bytes(content)
        assert FitState.resume(path, "name") is None
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "no state")
    assert FitState.resume(path, "name") is None
    np.save(tmp_path / "array.npy", np.zeros(3))
    assert FitState.resume(tmp_path / "array.npy", "name") is None
    # A fit begins anew, and replaces the file when it writes its own state.
    reported: list[int] = []
    fit_surface(ball_views, SETTINGS, checkpoint=path, on_step=lambda done, total: reported.append(done))
    assert reported[0] == 1
    assert FitState.resume(path, digest_of(ball_views)) is not None
