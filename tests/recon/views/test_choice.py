"""Views of large captures: evenly around, sharp ones first, small captures as they are."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from recon.views.choice import evenly_chosen, spread
from scene.camera import orbit_camera
from scene.view import View
from scene.viewset import ViewSet


def ring(count: int, sharpness: float = 1.0) -> list[View]:
    return [View(f"{k:03d}", orbit_camera(2 * math.pi * k / count, 0.2), sharpness=sharpness) for k in range(count)]


def azimuths(views: ViewSet) -> np.ndarray:
    return np.sort([math.atan2(*view.camera.centre[[1, 0]]) % (2 * math.pi) for view in views])


def test_as_many_views_as_allowed_stay_as_they_are() -> None:
    views = ViewSet(tuple(ring(12)), has_masks=False)
    assert evenly_chosen(views, 12) is views
    assert evenly_chosen(views, None) is views


def test_the_chosen_stand_evenly_and_in_order() -> None:
    views = ViewSet(tuple(ring(96)), has_masks=False)
    chosen = evenly_chosen(views, 12)
    assert len(chosen) == 12
    assert [view.name for view in chosen] == sorted(view.name for view in chosen)
    around = azimuths(chosen)
    gaps = np.diff(around, append=around[0] + 2 * math.pi)
    assert gaps.max() <= 2 * 2 * math.pi / 12


def test_a_crowd_on_one_side_does_not_outnumber_the_rest() -> None:
    crowd = [View(f"c{k}", orbit_camera(0.001 * k, 0.2)) for k in range(200)]
    chosen = evenly_chosen(ViewSet((*crowd, *ring(8)), has_masks=False), 10)
    assert sum(view.name.startswith("c") for view in chosen) <= 3


def test_near_and_far_views_of_one_side_are_both_taken() -> None:
    near = [View(f"n{k}", orbit_camera(0.01 * k, 0.2, radius=0.8)) for k in range(5)]
    far = [View(f"f{k}", orbit_camera(0.01 * k, 0.2, radius=2.4)) for k in range(5)]
    chosen = evenly_chosen(ViewSet((*near, *far), has_masks=False), 2)
    assert {view.name[0] for view in chosen} == {"n", "f"}


def test_the_sharp_are_taken_before_their_blurred_neighbours() -> None:
    views = ring(48)
    blurred = [replace(view, sharpness=0.2) if k % 2 else view for k, view in enumerate(views)]
    chosen = evenly_chosen(ViewSet(tuple(blurred), has_masks=True), 24)
    assert all(view.sharpness == 1 for view in chosen)
    alone = [replace(view, sharpness=0.2) if k > 24 else view for k, view in enumerate(views)]
    chosen = evenly_chosen(ViewSet(tuple(alone), has_masks=True), 16)
    assert 2 <= sum(view.sharpness < 1 for view in chosen) < 8  # what only they show is not given up


def test_what_a_model_drew_is_not_left_out() -> None:
    views = ViewSet(tuple(replace(view, origin="generated") for view in ring(20)), has_masks=True)
    assert evenly_chosen(views, 5) is views


def test_equal_cameras_are_not_taken_twice() -> None:
    camera = orbit_camera(0.3, 0.2)
    assert spread([camera] * 4, np.ones(4), 4).tolist() == [0, 1, 2, 3]
