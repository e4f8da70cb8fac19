"""Captures without masks: what stands in front of a wall is found, and the wall is left out, in one go or in two."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.training.procedural import Pattern, box
from recon.mesh.marching_cubes import extract_mesh
from recon.mesh.metrics import compare_surfaces
from recon.mesh.topology import remove_small_components
from recon.sdf_grid.checkpoint import FitState
from recon.settings import FitSettings
from recon.surface import Surface
from recon.unmasked.checkpoint import SceneState, scene_digest
from recon.unmasked.radiance_fit import fit_scene, fit_unmasked
from recon.unmasked.radiance_volume import OptimizerState
from recon.views.normalise import normalise_scene
from recon.views.ray_set import RaySet
from scene.camera import apply_transform, orbit_camera
from scene.mesh import ColouredMesh
from scene.render import Light, MeshRenderer
from scene.view import View
from scene.viewset import ViewSet

SMALL = FitSettings(levels=(24, 36, 48), iterations=(240, 180, 100), rays=2048, image_side=64)
TINY = FitSettings(levels=(12, 14, 16), iterations=(3, 210, 110), rays=512, image_side=24)
"""The volume's second level writes a state after 200 of its 210 steps, the surface after 100."""
VOLUME = 3 + 210
"""Steps of the volume."""

BLOTCHES = Pattern(
    "noise", (0.1, 0.2, 0.7), 1.5, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), (0.3, 0.5, 0.7), 0.8
)


@pytest.fixture(scope="module")
def room() -> tuple[ViewSet, tuple[np.ndarray, np.ndarray]]:
    """A blotched block in the middle of a large blotched room, seen from all around, without alpha."""
    block = box((0.25, 0.2, 0.3))
    walls, inward = box((6.0, 6.0, 6.0))
    vertices = np.concatenate([block[0], walls])
    faces = np.concatenate([block[1], inward[:, ::-1] + len(block[0])])
    mesh = ColouredMesh(
        vertices.astype(np.float32), faces.astype(np.int32), np.full(vertices.shape, 200, np.uint8), solid=(BLOTCHES,)
    )
    renderer = MeshRenderer(mesh, Light(ambient=1.0, diffuse=0.0))
    views = []
    for k in range(16):
        camera = orbit_camera(k * math.pi / 8, math.radians((15, 50)[k % 2]), 1.6, size=64)
        rgba = np.round(renderer.render(camera).rgba * 255).astype(np.uint8)
        views.append(View(f"{k:02d}", camera, rgba))
    return ViewSet(tuple(views), has_masks=False), block


@pytest.mark.slow
def test_a_block_in_a_room_is_found_without_masks(room: tuple[ViewSet, tuple[np.ndarray, np.ndarray]]) -> None:
    views, block = room
    reported: list[tuple[int, int]] = []
    surface = fit_scene(views, SMALL, on_step=lambda done, total: reported.append((done, total)))
    vertices, faces = remove_small_components(*extract_mesh(surface), 0.3)
    assert compare_surfaces(vertices, faces, *block, samples=3000).completeness < 0.04
    assert np.abs(vertices).max() < 0.66
    assert reported[-1][0] == reported[-1][1] == len(reported)
    assert not surface.report.masked


@pytest.mark.parametrize("seen", [True, False], ids=["stereo sees", "stereo sees nothing"])
def test_photos_without_masks_are_fitted_by_stereo_where_it_sees(
    seen: bool, room: tuple[ViewSet, tuple[np.ndarray, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Surface.cube(np.ones((8, 8, 8), np.float32), np.ones((2, 2, 2, 3), np.float32), 0.6)
    asked: list[Path | None] = []

    def stereo(*_: object, **__: object) -> Surface | None:
        return found if seen else None

    def volume(*_: object, checkpoint: Path | None = None, **__: object) -> Surface:
        asked.append(checkpoint)
        return found

    monkeypatch.setattr("recon.unmasked.radiance_fit.stereo_surface", stereo)
    monkeypatch.setattr("recon.unmasked.radiance_fit.fit_scene", volume)
    assert fit_unmasked(room[0], TINY, checkpoint=tmp_path / "state.npz") is found
    assert asked == ([] if seen else [tmp_path / "state.npz"])


def test_the_region_is_what_the_cameras_look_at(room: tuple[ViewSet, tuple[np.ndarray, np.ndarray]]) -> None:
    views, _ = room
    shift = np.eye(4) * 2.0
    shift[:3, 3], shift[3, 3] = (5.0, -3.0, 1.0), 1.0
    moved_views, matrix = normalise_scene(views.transformed(shift))
    assert apply_transform(matrix, np.array([[5.0, -3.0, 1.0]])) == pytest.approx(np.zeros((1, 3)), abs=1e-6)
    assert min(np.linalg.norm(v.camera.centre) for v in moved_views) > 0.8
    given, _ = normalise_scene(views, (np.array([0.0, 0.0, 0.1]), 1.2))
    assert given.views[0].camera.centre == pytest.approx((views.views[0].camera.centre - (0, 0, 0.1)) / 2)


# --- states -----------------------------------------------------------------------------------------------------------

Room = tuple[ViewSet, tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def whole(room: Room) -> Surface:
    """An undisturbed fit."""
    return fit_scene(room[0], TINY)


def killer(step: int, reported: list[int]) -> Callable[[int, int], None]:
    """Stops a fit after a step."""

    def kill(done: int, total: int) -> None:
        reported.append(done)
        if done == step:
            raise KeyboardInterrupt

    return kill


def stopped(views: ViewSet, path: Path, step: int, settings: FitSettings = TINY) -> list[int]:
    """Steps of a fit that is killed after one of them."""
    reported: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        fit_scene(views, settings, checkpoint=path, on_step=killer(step, reported))
    return reported


def same(a: Surface, b: Surface) -> bool:
    return (a.sdf.tobytes(), a.colour.tobytes(), a.report) == (b.sdf.tobytes(), b.colour.tobytes(), b.report)


@pytest.fixture(scope="module")
def states(room: Room, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of one fit that was stopped in its volume, went on, and was stopped again at its surface."""
    path = tmp_path_factory.mktemp("states") / "fit.npz"
    stopped(room[0], path, 3 + 205)
    of_volume = path.read_bytes()
    assert stopped(room[0], path, VOLUME + 105)[0] == 3 + 201
    return {"volume": of_volume, "surface": path.read_bytes()}


@pytest.mark.parametrize(("phase", "first"), [("volume", 3 + 201), ("surface", VOLUME + 101)])
def test_a_stopped_fit_goes_on_to_the_same_bytes(
    phase: str, first: int, states: dict[str, bytes], whole: Surface, room: Room, tmp_path: Path
) -> None:
    path = tmp_path / "fit.npz"
    path.write_bytes(states[phase])
    reported: list[tuple[int, int]] = []
    again = fit_scene(room[0], TINY, checkpoint=path, on_step=lambda done, total: reported.append((done, total)))
    assert reported == [(k, VOLUME + 110) for k in range(first, VOLUME + 111)]
    assert same(again, whole)
    assert [p.name for p in tmp_path.iterdir()] == ["fit.npz"]  # for the caller to remove


def test_a_fit_without_a_state_begins_anew(room: Room, tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    assert stopped(room[0], path, 5) == [1, 2, 3, 4, 5]
    assert not path.exists()
    path.write_bytes(b"no state")
    assert stopped(room[0], path, 2) == [1, 2]


@pytest.mark.parametrize("phase", ["volume", "surface"])
def test_states_of_other_fits_are_not_continued(
    phase: str, states: dict[str, bytes], room: Room, tmp_path: Path
) -> None:
    views, path = room[0], tmp_path / "fit.npz"
    path.write_bytes(states[phase])
    assert stopped(views, path, 1, replace(TINY, seed=1)) == [1]
    assert stopped(views, path, 1, replace(TINY, background=(0, 8))) == [1]
    assert stopped(replace(views, views=views.views[1:]), path, 1) == [1]
    rays = RaySet.of(views, TINY.image_side, masked=False)
    digest = scene_digest(rays, TINY)
    state = SceneState.resume(path, digest)
    assert state is not None
    assert (state.level, state.optimizer is None, state.band is None) == (1, phase == "surface", phase == "volume")
    # A fit with masks does not take it for its own.
    kind, _, of_masks = digest.rpartition(" ")
    assert kind.startswith("scene ")
    assert FitState.resume(path, of_masks) is None


def test_states_come_back_as_they_were_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    grids = [rng.random((*shape, 4), dtype=np.float32) for shape in ((10, 9, 8), (16, 16, 16))]
    moments = [rng.random((*grid.shape, 2), dtype=np.float32) for grid in grids]
    state = SceneState(grids[0], grids[1], 1, "name", OptimizerState((moments[0], moments[1]), rng, 17))
    state.save(tmp_path / "s.npz")
    again = SceneState.resume(tmp_path / "s.npz", "name")
    assert SceneState.resume(tmp_path / "s.npz", "another") is None
    assert again is not None
    assert again.optimizer is not None
    assert (again.level, again.digest, again.optimizer.step) == (1, "name", 17)
    assert again.inner.tobytes() == grids[0].tobytes()
    assert again.outer.tobytes() == grids[1].tobytes()
    assert [m.tobytes() for m in again.optimizer.moments] == [m.tobytes() for m in moments]
    assert again.optimizer.rng.random(5).tobytes() == rng.random(5).tobytes()
