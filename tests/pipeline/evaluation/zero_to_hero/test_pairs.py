"""Pairs of photos and true views: they spread around the object, and scores know equal from unequal."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pipeline.evaluation.zero_to_hero.pairs import PAIRS, VIEWS, Pairs, cases, score_pairs
from pipeline.training.procedural import superellipsoid
from scene.camera import orbit_camera
from scene.mesh import ColouredMesh
from scene.render import MeshRenderer


def block() -> ColouredMesh:
    """A block of unequal sides, one end red."""
    vertices, faces = superellipsoid(0.2, 0.2, (0.55, 0.2, 0.3), 12, 24)
    colours = np.where(vertices[:, :1] > 0, np.array([[200, 30, 30]]), np.array([[40, 90, 160]])).astype(np.uint8)
    return ColouredMesh(vertices.astype(np.float32), faces, vertex_colours=colours)


def test_differences_of_azimuth_are_stratified() -> None:
    for count, groups in PAIRS.items():
        assert sum(len(further) for _, further in groups) == count
        turns = [k for _, further in groups for k in further]
        assert set(turns) <= set(range(1, VIEWS))
        times = [turns.count(k) for k in range(1, VIEWS)]
        assert max(times) - min(times) <= 1
        for _, further in groups:
            assert len(set(further)) == len(further)


@pytest.mark.parametrize("pairs", [6, 12])
def test_truths_are_what_the_cameras_see(pairs: Pairs) -> None:
    """Whatever the source, one of the eight cameras sees one outline; the light turns with the source."""
    seen: dict[int, list[np.ndarray]] = {}
    for (source, further), case in zip(PAIRS[pairs], cases(block(), 3, 32, pairs), strict=True):
        for k, truth in zip(further, case.truths, strict=True):
            seen.setdefault((source + k) % VIEWS, []).append(truth[..., 3] >= 128)
    assert max(map(len, seen.values())) > 1
    for outlines in seen.values():
        assert all(np.mean(outlines[0] != other) < 0.01 for other in outlines)
    firsts = [outlines[0] for outlines in seen.values()]
    assert all(np.mean(a != b) > 0.01 for a, b in itertools.combinations(firsts, 2))


def test_orbits_are_relative_to_the_photo() -> None:
    for case in cases(block(), 0, 32, 56):
        azimuths, elevations, radii = case.orbits[0].T
        assert np.all((azimuths > 0) & (azimuths < 2 * math.pi))
        assert np.all(np.abs(np.degrees(elevations) - 20) <= 30)
        assert np.allclose(radii, 1.5)


def test_other_objects_have_other_cameras() -> None:
    first, second = (next(cases(block(), index, 16, 6)) for index in (0, 1))
    assert not np.allclose(first.orbits, second.orbits)


def test_scores_of_equal_and_empty_views() -> None:
    truth = MeshRenderer(block()).render(orbit_camera(0.3, 0.2, 1.5, size=32)).rgba
    bytes_ = (truth * 255 + 0.5).astype(np.uint8)[None]
    equal = score_pairs(bytes_.astype(np.float32) / 255, bytes_, 0.95)[0]
    assert equal["iou"] == equal["iou_white"] == 1
    assert equal["foreground_psnr"] > 60
    empty = score_pairs(np.zeros((1, 32, 32, 4), np.float32), bytes_, 0.95)[0]
    assert empty["iou"] == empty["iou_white"] == 0
    assert empty["foreground_psnr"] < 12
